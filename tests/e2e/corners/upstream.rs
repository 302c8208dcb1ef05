//! An upstream that answers with the bytes that a test gives it, by HTTP/1.1 or HTTP/2.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use envoy_harness::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What becomes of a stream of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    Ok,
    /// `RST_STREAM`: it was not carried out.
    Refused,
    InternalError,
    /// `GOAWAY` of a server that has not seen the stream.
    GoAway,
    /// Bytes that are no frames.
    NoHttp2,
}

#[derive(Default)]
struct Script {
    answer: &'static str,
    frames: VecDeque<Frames>,
    /// The head of the last request.
    seen: Option<String>,
}

pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let script: Arc<Mutex<Script>> = Arc::default();
        let shared = script.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // What goes wrong on a connection is what the test sees of it.
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Ok(Self { address, script, task })
    }

    /// Answers the next requests of HTTP/1.1 so.
    pub(super) fn answer(&self, answer: &'static str) {
        *self.script.lock().unwrap() = Script { answer, ..Script::default() };
    }

    /// Answers the next requests of HTTP/2 so.
    pub(super) fn frames(&self, frames: impl IntoIterator<Item = Frames>) {
        self.script.lock().unwrap().frames = frames.into_iter().collect();
    }

    /// The head of the request that has come since.
    pub(super) fn take(&self) -> Option<String> {
        self.script.lock().unwrap().seen.take()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if PREFACE.starts_with(&head) {
        stream.read_exact(&mut [0; 6]).await?;
        return serve_http2(stream, script).await;
    }
    let answer = {
        let mut script = script.lock().unwrap();
        script.seen = Some(String::from_utf8_lossy(&head).into_owned());
        script.answer
    };
    // Without an answer it waits until Envoy has gone.
    if !answer.is_empty() {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

async fn serve_http2(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> Result<()> {
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let (kind, flags, id, _) = read_frame(&mut stream).await?;
        match kind {
            SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            HEADERS => {
                let next = script.lock().unwrap().frames.pop_front();
                let bytes = match next.unwrap_or(Frames::Ok) {
                    // `:status: 200` is one byte.
                    Frames::Ok => frame(HEADERS, END_STREAM | END_HEADERS, id, &[0x88]),
                    Frames::Refused => frame(RST_STREAM, 0, id, &7_u32.to_be_bytes()),
                    Frames::InternalError => frame(RST_STREAM, 0, id, &2_u32.to_be_bytes()),
                    Frames::GoAway => frame(GOAWAY, 0, 0, &[0; 8]),
                    Frames::NoHttp2 => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
                };
                stream.write_all(&bytes).await?;
                if matches!(next, Some(Frames::GoAway)) {
                    stream.shutdown().await?;
                }
            }
            _ => {}
        }
    }
}

/// Asks for a tunnel within HTTP/2, which Envoy has not offered; returns the kinds of frames that
/// come back for it, and 200 for one that says so.
pub(super) async fn extended_connect(address: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let headers = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/v1/responses"),
        (":authority", "gateway"),
    ];
    stream.write_all(&begin(&headers, END_HEADERS)?).await?;
    let mut kinds = Vec::new();
    let read = async {
        while let Ok((kind, _, id, payload)) = read_frame(&mut stream).await {
            kinds.push(kind);
            if kind == HEADERS && payload.first() == Some(&0x88) {
                kinds.push(200);
            }
            if id == 1 || kind == GOAWAY {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await?;
    Ok(kinds)
}

/// The first bytes of a connection with a request.
fn begin(headers: &[(&str, &str)], flags: u8) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len())?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let frames = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), frame(HEADERS, flags, 1, &block)];
    Ok(frames.concat())
}

/// A whole request over HTTP/2, and the frame that resets it, with this code of an error.
pub(super) fn reset(path: &str, code: u32) -> Result<[Vec<u8>; 2]> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "gateway"),
        ("x-session-id", "1"),
    ];
    let request = begin(&headers, END_HEADERS | END_STREAM)?;
    Ok([request, frame(RST_STREAM, 0, 1, &code.to_be_bytes())])
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

async fn read_frame(stream: &mut TcpStream) -> Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(id), payload))
}
