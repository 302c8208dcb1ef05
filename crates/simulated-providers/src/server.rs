//! The sockets: a task for each connection, closed in order or, for a fault, at once.
//!
//! hyper is used without `axum::serve`, because a simulated drop must really close its TCP
//! connection, and only the task that owns the socket can.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, GRACE, StopSignal};
use super::exchange;
use super::vendor_server::VendorServer;

/// A pause after accepting fails, as it does again and again without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

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
    // Else an event would wait for the acknowledgement of the one before. It fails only on a closed
    // socket.
    let _ = stream.set_nodelay(true);
    let abort = Arc::new(Notify::new());
    let connection = Connection::new(Arc::clone(&abort), stop.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let response =
            exchange::handle(Arc::clone(&server), connection.clone(), request.map(Body::new));
        async { Ok::<_, Infallible>(response.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        // An error means that the client has gone, or that a fault cut the response.
        _ = &mut serving => return,
        () = abort.notified() => return,
        () = stop.stopped() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = timeout(GRACE, serving) => {}
        () = abort.notified() => {}
    }
}
