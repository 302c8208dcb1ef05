//! How people and containers end a program that would otherwise run for ever.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end: SIGINT, which is Ctrl-C; SIGTERM, with which a container
/// is stopped; and SIGHUP, when the terminal is closed.
///
/// From [`Shutdown::listen`] on they do nothing else any more, and are remembered while the program
/// does not wait for them. So a program that listens must also end.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Shutdown {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the signals cannot be listened for.
    pub fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            hang_up: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }

    /// Returns when one of the signals has come.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
