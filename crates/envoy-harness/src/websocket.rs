//! The WebSocket of a client: its handshake is the one kind of request that has no end before its
//! response.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use hyper::header::HeaderMap;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, handshake::client::Response};

use super::patience::patiently;

/// An open WebSocket.
pub struct WebSocket {
    /// The headers of the response that switched protocols.
    pub headers: HeaderMap,
    stream: WebSocketStream<TcpStream>,
}

impl WebSocket {
    /// Requests an upgrade with these headers beside those of the handshake. A response without an
    /// upgrade is an error that names its status.
    pub async fn open(address: SocketAddr, path: &str, headers: HeaderMap) -> Result<Self> {
        let what = format!("WebSocket {path}");
        let (stream, response) = patiently(&what, handshake(address, path, headers)).await?;
        Ok(Self { headers: response.into_parts().0.headers, stream })
    }

    /// Sends a text message.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        patiently("sending on the WebSocket", async {
            Ok(self.stream.send(Message::text(text)).await?)
        })
        .await
    }

    /// The next message that is text, or `None` when the other side has closed.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            let next = async { Ok(self.stream.next().await.transpose()?) };
            match patiently("reading from the WebSocket", next).await? {
                Some(Message::Text(text)) => return Ok(Some(text.to_string())),
                Some(Message::Close(_)) | None => return Ok(None),
                // The library responds to pings.
                Some(_) => {}
            }
        }
    }

    /// Closes the WebSocket in an orderly way.
    pub async fn close(mut self) -> Result<()> {
        patiently("closing the WebSocket", async { Ok(self.stream.close(None).await?) }).await
    }
}

async fn handshake(
    address: SocketAddr,
    path: &str,
    headers: HeaderMap,
) -> Result<(WebSocketStream<TcpStream>, Response)> {
    let mut request =
        format!("ws://{address}{path}").into_client_request().context("not a path")?;
    request.headers_mut().extend(headers);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(tokio_tungstenite::client_async(request, stream).await?)
}
