//! A client that sends as it likes, leaves when it likes, and counts the bytes of what it gets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::history::{Answer, Digester, End};
use crate::socket;

/// A gateway that says nothing for so long hangs. Nothing that a provider does here takes a tenth of
/// it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of an error that are kept for its story.
const QUOTED: usize = 300;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It sends and reads.
    Plain,
    /// Its body comes in pieces, with pauses.
    SlowUpload,
    /// It reads with pauses.
    SlowReader,
    /// It leaves.
    Abort(Stage),
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In its headers.
    Headers,
    /// In its body.
    Upload,
    /// So many milliseconds after its request.
    Waiting(u64),
    /// Behind the first bytes of the response.
    Response,
}

impl Manner {
    /// A word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::SlowUpload => "slow upload",
            Self::SlowReader => "slow reader",
            Self::Abort(stage) => stage.word(),
        }
    }
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Headers => "aborted in its headers",
            Self::Upload => "aborted in its upload",
            Self::Waiting(_) => "aborted while waiting",
            Self::Response => "aborted in the response",
        }
    }
}

/// What is sent.
pub(crate) struct Message<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
    /// What is sent on a WebSocket; none asks for one if there is nothing.
    pub(crate) messages: &'a [String],
    pub(crate) manner: Manner,
}

/// A connection to Envoy.
pub(crate) struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    async fn open(address: SocketAddr, is_http2: bool) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        Ok(if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Self { sender: Sender::Http2(sender), driver }
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Self { sender: Sender::Http1(sender), driver }
        })
    }

    /// Whether a request can be sent now. What Envoy has closed is not used again.
    async fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn begin(&mut self, request: Request<Body>) -> hyper::Result<hyper::Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// Sends a message, on the connection of last time if there is one that can be used, and leaves in
/// its place the one that can be used next time.
pub(crate) async fn send(
    address: SocketAddr,
    is_http2: bool,
    kept: &mut Option<Connection>,
    message: &Message<'_>,
) -> End {
    let exchange = async {
        if message.manner == Manner::Abort(Stage::Headers) {
            return begin_a_head(address, message).await;
        }
        if !message.messages.is_empty() {
            return socket::converse(address, message).await;
        }
        let mut usable = None;
        if let Some(mut connection) = kept.take()
            && connection.is_usable().await
        {
            usable = Some(connection);
        }
        let mut connection = match usable {
            Some(connection) => connection,
            None => match Connection::open(address, is_http2).await {
                Ok(connection) => connection,
                Err(error) => return End::Broken(format!("connecting: {error:#}")),
            },
        };
        let (end, is_reusable) = exchange(&mut connection, address, is_http2, message).await;
        if is_reusable {
            *kept = Some(connection);
        }
        end
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(End::Hung)
}

async fn exchange(
    connection: &mut Connection,
    address: SocketAddr,
    is_http2: bool,
    message: &Message<'_>,
) -> (End, bool) {
    let request = match request(address, is_http2, message) {
        Ok(request) => request,
        Err(error) => return (End::Broken(format!("not a request: {error:#}")), false),
    };
    let begun = connection.begin(request);
    let response = match message.manner {
        Manner::Abort(Stage::Waiting(milliseconds)) => {
            match tokio::time::timeout(Duration::from_millis(milliseconds), begun).await {
                Ok(response) => response,
                Err(_) => return (End::Aborted(Stage::Waiting(0).word()), false),
            }
        }
        // Its body never ends, so this is when it leaves, unless there is a response by then.
        Manner::Abort(Stage::Upload) => {
            match tokio::time::timeout(Duration::from_millis(40), begun).await {
                Ok(response) => response,
                Err(_) => return (End::Aborted(Stage::Upload.word()), false),
            }
        }
        _ => begun.await,
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return (End::Broken(describe(&error)), false),
    };
    let answer = read(response, message.manner).await;
    let is_reusable = answer.is_whole && !matches!(message.manner, Manner::Abort(_));
    (End::Answered(answer), is_reusable)
}

async fn read(response: hyper::Response<Incoming>, manner: Manner) -> Answer {
    let (parts, mut body) = response.into_parts();
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut answer = Answer {
        status: parts.status.as_u16(),
        arrival: text("x-soak-arrival").and_then(|text| text.parse().ok()),
        decision: text("x-session-affinity-decision").unwrap_or_default().to_owned(),
        is_kept: text("x-soak-kept").is_some(),
        ..Answer::default()
    };
    let mut digester = Digester::default();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    digester.add(data);
                    if answer.status >= 400 && answer.text.len() < QUOTED {
                        answer.text.extend(String::from_utf8_lossy(data).chars().take(QUOTED));
                    }
                }
            }
            Some(Err(error)) => {
                answer.text = format!("{}{}", answer.text, describe(&error));
                break;
            }
            None => {
                answer.is_whole = true;
                break;
            }
        }
        match manner {
            Manner::Abort(_) => {
                answer.is_left = true;
                break;
            }
            Manner::SlowReader => tokio::time::sleep(Duration::from_millis(15)).await,
            _ => {}
        }
    }
    answer.body = digester.digest();
    answer
}

fn request(address: SocketAddr, is_http2: bool, message: &Message<'_>) -> Result<Request<Body>> {
    let uri = match is_http2 {
        true => format!("http://{address}{}", message.path),
        false => message.path.to_owned(),
    };
    let body = body(message);
    let mut request = Request::post(uri).body(body)?;
    *request.headers_mut() = message.headers.clone();
    if !is_http2 {
        request.headers_mut().insert("host", HeaderValue::try_from(address.to_string())?);
    }
    Ok(request)
}

fn body(message: &Message<'_>) -> Body {
    let whole = message.body.clone();
    match message.manner {
        Manner::SlowUpload => {
            let size = whole.len() / 5 + 1;
            let pieces = stream::unfold(whole, move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
                let piece = rest.split_to(size.min(rest.len()));
                Some((Ok(Frame::data(piece)), rest))
            });
            StreamBody::new(pieces).boxed_unsync()
        }
        Manner::Abort(Stage::Upload) => {
            let half = stream::unfold(Some(whole.slice(..whole.len() / 2)), |half| async move {
                match half {
                    Some(half) => Some((Ok(Frame::data(half)), None)),
                    None => std::future::pending().await,
                }
            });
            StreamBody::new(half).boxed_unsync()
        }
        _ => Full::new(whole).boxed_unsync(),
    }
}

/// Sends the beginning of a head, and leaves.
async fn begin_a_head(address: SocketAddr, message: &Message<'_>) -> End {
    let word = Stage::Headers.word();
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return End::Broken("connecting".to_owned());
    };
    let head = format!("POST {} HTTP/1.1\r\nhost: {address}\r\nx-session-id: ha", message.path);
    let _ = stream.write_all(head.as_bytes()).await;
    End::Aborted(word)
}

/// An error with its causes.
fn describe(error: &hyper::Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.join(": ")
}

/// Headers from names and bytes.
///
/// # Errors
/// If one is none.
pub(crate) fn headers(all: &[(&'static str, Vec<u8>)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value)?);
    }
    Ok(headers)
}
