//! A client that can send what real clients send: HTTP/1.1 and HTTP/2, header values that are not
//! UTF-8, bodies in chunks, trailers, server-sent events, WebSockets.
//!
//! A connection belongs to one Envoy worker for its whole life. So a [`Connection`] is explicit
//! here, where a pool would hide which requests can meet on one worker, and [`send`] opens a new
//! one each time.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use bytes::{Bytes, BytesMut};
use flate2::write::{GzDecoder, ZlibDecoder};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::patience::patiently;

pub use super::websocket::WebSocket;

/// The body of a request: [`empty`], [`whole`], [`chunks`], [`chunks_and_trailers`], or any other
/// that is boxed.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How to talk to Envoy: its listeners recognize both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time on a connection.
    Http1,
    /// Without TLS and without an upgrade from HTTP/1.1: "prior knowledge".
    Http2,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];
}

/// What a client accepts that does not say so: the same as Claude Code. `br` and `zstd` are never
/// used by the simulated providers, and not decoded here.
const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Sends one request on a connection of its own and reads the whole response.
pub async fn send(
    address: SocketAddr,
    protocol: Protocol,
    request: Request<Body>,
) -> Result<Response> {
    Connection::open(address, protocol).await?.send(request).await
}

/// One connection, for any number of requests, one after the other.
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Connects to an address.
    pub async fn open(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let sender =
            patiently(&format!("connecting to {address}"), handshake(address, protocol)).await?;
        Ok(Self { address, sender })
    }

    /// Sends a request and reads the whole response. Paths may be relative; `host` is added when it
    /// is missing.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response> {
        let what = format!("{} {}", request.method(), request.uri());
        patiently(&what, async { Response::read(self.begin(request).await?).await }).await
    }

    /// Sends a request and returns as soon as the headers of the response are there.
    pub async fn stream(&mut self, request: Request<Body>) -> Result<Streaming> {
        let what = format!("{} {}", request.method(), request.uri());
        let response = patiently(&what, self.begin(request)).await?;
        let (parts, body) = response.into_parts();
        Ok(Streaming {
            status: parts.status,
            decoder: Decoder::of(&parts.headers),
            headers: parts.headers,
            body,
            unread: BytesMut::new(),
        })
    }

    async fn begin(&mut self, mut request: Request<Body>) -> Result<hyper::Response<Incoming>> {
        request.headers_mut().entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static(ACCEPTED));
        match &mut self.sender {
            Sender::Http1(sender) => {
                name_host(&mut request, self.address)?;
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                name_authority(&mut request, self.address)?;
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

async fn handshake(address: SocketAddr, protocol: Protocol) -> Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    // Else a body would wait for the acknowledgement of its headers.
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    // The task ends when the sender is dropped and the last response is read; what goes wrong on
    // the connection is an error of the request that it affects.
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        }
    })
}

fn name_host(request: &mut Request<Body>, address: SocketAddr) -> Result<()> {
    if !request.headers().contains_key(HOST) {
        request.headers_mut().insert(HOST, HeaderValue::try_from(address.to_string())?);
    }
    Ok(())
}

/// HTTP/2 has a pseudo-header in place of `host`; hyper makes it from the URI.
fn name_authority(request: &mut Request<Body>, address: SocketAddr) -> Result<()> {
    let authority = match request.headers_mut().remove(HOST) {
        Some(host) => Authority::try_from(host.as_bytes())?,
        None => Authority::try_from(address.to_string())?,
    };
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status of the response.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub body: Bytes,
    /// Its trailers, if it has any.
    pub trailers: Option<HeaderMap>,
}

impl Response {
    async fn read(response: hyper::Response<Incoming>) -> Result<Self> {
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .with_context(|| format!("{}, but its body ended early", parts.status))?;
        let trailers = body.trailers().cloned();
        let body = Decoder::of(&parts.headers).decode(&body.to_bytes())?;
        Ok(Self { status: parts.status, headers: parts.headers, body, trailers })
    }

    /// The value of a header, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text, with replacement characters for what is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| anyhow!("{error} in {:?}", self.text()))
    }
}

/// A response whose body is still coming.
pub struct Streaming {
    /// The status of the response.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    decoder: Decoder,
    unread: BytesMut,
}

impl Streaming {
    /// The next server-sent event, without the empty line that ends it; `None` at the end of the
    /// stream.
    pub async fn next_event(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(event) = take_event(&mut self.unread) {
                return Ok(Some(event));
            }
            if !self.read_more().await? {
                let rest = self.unread.split();
                return Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()));
            }
        }
    }

    /// All that was not yet read as events.
    pub async fn rest(mut self) -> Result<Bytes> {
        while self.read_more().await? {}
        Ok(self.unread.freeze())
    }

    async fn read_more(&mut self) -> Result<bool> {
        let frame =
            patiently("reading the response", async { Ok(self.body.frame().await.transpose()?) })
                .await?;
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            let decoded = self.decoder.decode(data)?;
            self.unread.extend_from_slice(&decoded);
        }
        Ok(frame.is_some())
    }
}

/// Decompresses a body piece by piece.
enum Decoder {
    Gzip(GzDecoder<Vec<u8>>),
    Deflate(ZlibDecoder<Vec<u8>>),
    Identity,
}

impl Decoder {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            Some(b"gzip") => Self::Gzip(GzDecoder::new(Vec::new())),
            Some(b"deflate") => Self::Deflate(ZlibDecoder::new(Vec::new())),
            _ => Self::Identity,
        }
    }

    fn decode(&mut self, piece: &[u8]) -> Result<Bytes> {
        let decoded = match self {
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                decoder.get_mut()
            }
            Self::Deflate(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                decoder.get_mut()
            }
            Self::Identity => return Ok(Bytes::copy_from_slice(piece)),
        };
        Ok(std::mem::take(decoded).into())
    }
}

fn take_event(unread: &mut BytesMut) -> Option<String> {
    let (length, end) = [&b"\n\n"[..], b"\r\n\r\n"]
        .iter()
        .filter_map(|end| {
            Some((unread.windows(end.len()).position(|window| window == *end)?, end.len()))
        })
        .min()?;
    let event = unread.split_to(length + end);
    Some(String::from_utf8_lossy(&event[..length]).into_owned())
}

/// No body.
pub fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body of known length.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body without a length in its headers.
pub fn chunks<Chunk: Into<Bytes>>(chunks: impl IntoIterator<Item = Chunk>) -> Body {
    frames(chunks.into_iter().map(|chunk| Frame::data(chunk.into())).collect())
}

/// A body that is followed by trailers. Over HTTP/1.1 the request must name them in its header
/// `trailer`, else they are not sent, and Envoy drops them unless `enable_trailers` is set.
pub fn chunks_and_trailers<Chunk: Into<Bytes>>(
    chunks: impl IntoIterator<Item = Chunk>,
    trailers: HeaderMap,
) -> Body {
    let data = chunks.into_iter().map(|chunk| Frame::data(chunk.into()));
    frames(data.chain([Frame::trailers(trailers)]).collect())
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_at_an_empty_line_of_either_kind() {
        let mut unread = BytesMut::from("event: a\ndata: 1\n\ndata: 2\r\n\r\ndata: 3");
        assert_eq!(take_event(&mut unread).as_deref(), Some("event: a\ndata: 1"));
        assert_eq!(take_event(&mut unread).as_deref(), Some("data: 2"));
        assert_eq!(take_event(&mut unread), None);
        assert_eq!(unread, "data: 3");
    }

    #[test]
    fn http2_takes_the_host_of_the_request_for_its_authority() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for (request, uri) in [
            (Request::get("/v1?beta=true"), "http://127.0.0.1:80/v1?beta=true"),
            (Request::get("/v1").header("host", "llm.example"), "http://llm.example/v1"),
        ] {
            let mut request = request.body(empty()).unwrap();
            name_authority(&mut request, address).unwrap();
            assert!(!request.headers().contains_key(HOST));
            assert_eq!(request.uri(), uri);
        }
    }
}
