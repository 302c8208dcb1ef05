//! The upstream: reads a request to its end and responds as a provider that has little to say.
//!
//! It runs on a thread of this process, and so on the core of the load generator. A web server that
//! responds before it has read the request would not do: Envoy then closes the connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

const RESPONSE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"Done."}],"stop_reason":"end_turn","usage":{"input_tokens":512,"output_tokens":3}}"#;

/// A running upstream; it ends with this value.
pub struct Upstream {
    /// Several of the same port, for whoever balances over endpoints.
    pub addresses: Vec<SocketAddr>,
    _running: oneshot::Sender<()>,
}

impl Upstream {
    /// Listens on three loopback addresses.
    ///
    /// # Errors
    /// If a port cannot be had.
    pub fn start() -> Result<Self> {
        let first = listen(1, 0)?;
        let port = first.local_addr().context("a listener without address")?.port();
        let listeners = vec![first, listen(2, port)?, listen(3, port)?];
        let addresses: std::io::Result<Vec<_>> =
            listeners.iter().map(TcpListener::local_addr).collect();
        let (running, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot start the runtime of the upstream")?;
        thread::spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(accept(listener));
                }
                // An error means that the other end has gone, which is the end of this one.
                let _ = ended.await;
            });
        });
        Ok(Self { addresses: addresses.context("a listener without address")?, _running: running })
    }
}

fn listen(last: u8, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true).context("cannot set up a listener")?;
    Ok(listener)
}

async fn accept(listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond));
        // A connection that breaks shows as an error of the load generator.
        tokio::spawn(async { connection.await.unwrap_or_default() });
    }
}

async fn respond(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let mut response = Response::new(Full::from(RESPONSE));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}
