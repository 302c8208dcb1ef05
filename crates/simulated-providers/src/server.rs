//! The sockets: accepting, one task per connection, closing in an orderly way or, for a fault,
//! rudely.
//!
//! hyper is used without `axum::serve`, because a simulated drop must really close its TCP
//! connection: the task that owns the socket has to hear of it.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::exchange::{self, VendorServer};

/// How long answers under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// A pause when accepting fails, which it does at once and again when there are no file descriptors
/// left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The sending end of the wish to stop. Every task holds a receiving end as long as it lives.
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

    /// Returns when all tasks have ended. They bound themselves by the grace; a client that reads
    /// nothing is left.
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

/// What a request may do to the connection it came on.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    abort: Arc<Notify>,
    stop: StopSignal,
}

impl Connection {
    /// Closes the connection now, and so never returns: the caller is part of what is dropped.
    pub(super) async fn abort(&self) -> Infallible {
        self.abort.notify_one();
        pending().await
    }

    pub(super) fn stop_signal(&self) -> StopSignal {
        self.stop.clone()
    }
}

/// Accepts until stopped.
pub(super) async fn accept(listener: TcpListener, server: Arc<VendorServer>, mut stop: StopSignal) {
    let signal = stop.clone();
    let mut stopped = pin!(stop.stopped());
    loop {
        tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&server), signal.clone()))),
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
        }
    }
}

async fn serve(stream: TcpStream, server: Arc<VendorServer>, mut stop: StopSignal) {
    // Without it an event would wait for the acknowledgement of the one before. A socket that
    // refuses is closed already.
    let _ = stream.set_nodelay(true);
    let abort = Arc::new(Notify::new());
    let connection = Connection { abort: Arc::clone(&abort), stop: stop.clone() };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer =
            exchange::handle(Arc::clone(&server), connection.clone(), request.map(Body::new));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        // An error is the client's going away, or a cut on request: nobody is left to be told.
        _ = &mut serving => return,
        () = abort.notified() => return,
        () = stop.stopped() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = timeout(GRACE, serving) => {}
        () = abort.notified() => {}
    }
}
