//! How a server and its connections end.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long responses may still take when the server stops.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The sending end of the signal to stop. Every task holds a receiving end as long as it runs.
#[derive(Debug)]
pub(super) struct Stop(watch::Sender<bool>);

/// The receiving end.
#[derive(Clone, Debug)]
pub(super) struct StopSignal(watch::Receiver<bool>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn signal(&self) -> StopSignal {
        StopSignal(self.0.subscribe())
    }

    /// Returns when all tasks have ended. Each limits itself to the grace period; a client that
    /// reads nothing is abandoned.
    pub(super) async fn stop(self) {
        self.0.send_replace(true);
        let _ = timeout(2 * GRACE, self.0.closed()).await;
    }
}

impl StopSignal {
    /// Returns when the server stops, also because it was dropped.
    pub(super) async fn stopped(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// What a request can do to its connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    abort: Arc<Notify>,
    stop: StopSignal,
    /// Whether a request came on it.
    is_used: Arc<AtomicBool>,
}

impl Connection {
    pub(super) fn new(abort: Arc<Notify>, stop: StopSignal) -> Self {
        Self { abort, stop, is_used: Arc::default() }
    }

    /// Notes a request, and returns whether there was one before.
    pub(super) fn take(&self) -> bool {
        self.is_used.swap(true, Ordering::Relaxed)
    }

    /// Closes the connection now, and so never returns: the caller is part of what is dropped.
    pub(super) async fn abort(&self) -> Infallible {
        self.abort.notify_one();
        pending().await
    }

    pub(super) fn stop_signal(&self) -> StopSignal {
        self.stop.clone()
    }
}
