//! How people and containers end a program that would otherwise run for ever.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Returns on Ctrl-C, on SIGTERM, which is how a container is stopped, and on SIGHUP, when the
/// terminal is closed.
///
/// From the first call on these signals do nothing else any more, so whoever calls it must also
/// end.
///
/// # Errors
/// If the signals cannot be listened for.
pub async fn asked_to_end() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
