//! One server for all credentials, which tells them apart by the keys that Envoy injects, and
//! responds as the steps of a case say.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::expect::Outcome;

/// The key of a credential.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    /// The environment variable in which Envoy finds it.
    pub(super) variable: String,
    pub(super) header_value: String,
}

/// A request that arrived.
#[derive(Clone)]
pub(super) struct Arrived {
    /// The credential by whose key it came; `?` without one.
    pub(super) credential: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    head: String,
}

/// The server.
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    /// What the clients of the current step got.
    pub(super) outcomes: Vec<Outcome>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    keys: Vec<Key>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    responses: Value,
    arrived: Vec<Arrived>,
    /// How many requests of each credential are under way.
    running: BTreeMap<String, u64>,
}

impl Provider {
    pub(super) async fn start(keys: Vec<Key>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { keys, state: Mutex::default() });
        let of_server = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&of_server);
                // A connection that breaks is Envoy's to notice.
                tokio::spawn(async move { shared.serve(BufReader::new(stream)).await.ok() });
            }
        });
        Ok(Self { address, outcomes: Vec::new(), shared, server })
    }

    /// What it responds with from now on. `$epoch` is the time in five seconds.
    pub(super) fn respond_with(&self, responses: &Value) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let text = responses.to_string().replace("$epoch", &(now + 5).to_string());
        self.shared.state().responses = serde_json::from_str(&text).unwrap_or_default();
    }

    /// All requests that arrived, in order.
    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.shared.state().arrived.clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: BufReader<TcpStream>) -> Result<()> {
        for number in 1.. {
            let mut request = read_request(&mut stream).await?;
            let key = self
                .keys
                .iter()
                .find(|key| request.headers.values().any(|value| *value == *key.header_value));
            request.credential = key.map_or("?", |key| key.id.as_str()).to_owned();
            let response = self.state().begin(&request, number == 1);
            if let Some(seconds) = response["delay"].as_f64() {
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            *self.state().running.entry(request.credential.clone()).or_default() -= 1;
            if response["drop"] == true {
                return Ok(());
            }
            let is_upgrade = request.headers.contains_key("upgrade");
            if is_upgrade && response["status"].as_u64().is_none_or(|status| status == 101) {
                return open_websocket(&mut stream, &request, &response).await;
            }
            stream.write_all(&written(&request.credential, &response)).await?;
            if response["close"] == true {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl State {
    /// Notes a request, and finds what it is responded with.
    fn begin(&mut self, request: &Arrived, is_first: bool) -> Value {
        let response = self.next_response(request, is_first);
        self.arrived.push(request.clone());
        let running = self.running.entry(request.credential.clone()).or_default();
        *running += 1;
        match response["max_concurrent"].as_u64() {
            Some(limit) if *running > limit => response["beyond"].clone(),
            _ => response,
        }
    }

    fn next_response(&mut self, request: &Arrived, is_first: bool) -> Value {
        let is_named = self.responses.get(&request.credential).is_some();
        let key = if is_named { request.credential.as_str() } else { "*" };
        let response = match self.responses.get_mut(key) {
            Some(Value::Array(list)) if list.is_empty() => Value::Null,
            Some(Value::Array(list)) => list.remove(0),
            planned => planned.cloned().unwrap_or_default(),
        };
        let text = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
        let is_meant = response["when"].as_str().is_none_or(|words| text.contains(words))
            && response["unless"].as_str().is_none_or(|words| !text.contains(words))
            && !(response["only_reused"] == true && is_first);
        if is_meant { response } else { Value::Null }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Result<Arrived> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(Error::other("the connection is closed"));
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name).map_err(Error::other)?;
        headers.append(name, HeaderValue::try_from(value.trim()).map_err(Error::other)?);
    }
    let length = headers.get("content-length").and_then(|it| it.to_str().ok()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    if headers.contains_key("transfer-encoding") {
        body = read_chunks(stream).await?;
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Arrived { credential: String::new(), path, headers, body, head })
}

async fn read_chunks(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(Error::other)?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).await?;
        if length == 0 {
            return Ok(body);
        }
        chunk.truncate(length);
        body.append(&mut chunk);
    }
}

/// A response as bytes.
fn written(credential: &str, response: &Value) -> Vec<u8> {
    let events = response["sse"].as_array();
    let body = match (events, &response["body"]) {
        (Some(events), _) => events.iter().filter_map(Value::as_str).collect(),
        (None, Value::Null) => json!({"ok": true, "served_by": credential}).to_string(),
        (None, Value::String(text)) => text.clone(),
        (None, document) => document.to_string(),
    };
    let kind = if events.is_some() { "text/event-stream" } else { "application/json" };
    let mut headers = BTreeMap::from([("content-type", kind), ("x-account", credential)]);
    let own = response["headers"].as_object().into_iter().flatten();
    headers.extend(own.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))));
    let encoding = response["encoding"].as_str();
    let (body, encoding) = match encoding.or(response["gzip"].as_bool().map(|_| "gzip")) {
        Some("deflate") => (zlib(body.as_bytes()), Some("deflate")),
        Some("gzip") => (gzip(body.as_bytes()), Some("gzip")),
        Some("gzip-unsaid") => (gzip(body.as_bytes()), None),
        _ => (body.into_bytes(), None),
    };
    headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
    let status = response["status"].as_u64().unwrap_or(200);
    let mut bytes = format!("HTTP/1.1 {status} X\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if events.is_none() {
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
        return bytes;
    }
    bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
    if !body.is_empty() {
        bytes.extend(format!("{:x}\r\n", body.len()).bytes());
        bytes.extend(body);
        bytes.extend(b"\r\n");
    }
    if response["close"] != true {
        bytes.extend(b"0\r\n\r\n");
    }
    bytes
}

async fn open_websocket(
    stream: &mut BufReader<TcpStream>,
    request: &Arrived,
    response: &Value,
) -> Result<()> {
    const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe8];
    let key = request.headers.get("sec-websocket-key").map_or(&b""[..], HeaderValue::as_bytes);
    let head = format!(
        "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        derive_accept_key(key)
    );
    stream.write_all(head.as_bytes()).await?;
    // What the client says does not matter, but it speaks first.
    stream.fill_buf().await?;
    let usual = json!([r#"{"type":"response.completed"}"#]);
    let frames = if response["frames"].is_null() { &usual } else { &response["frames"] };
    for text in frames.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let length = u16::try_from(text.len()).map_err(Error::other)?.to_be_bytes();
        let head = [&[0x81, 126][..], &length].concat();
        stream.write_all(&[&head, text.as_bytes()].concat()).await?;
    }
    stream.write_all(&CLOSE).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// In the format of gzip, though not smaller: a stored block.
fn gzip(body: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    [&HEAD[..], &stored(body), &crc32(body).to_le_bytes(), &length(body).to_le_bytes()].concat()
}

/// In the format of `deflate`, which is zlib's.
fn zlib(body: &[u8]) -> Vec<u8> {
    let (low, high) = body.iter().fold((1_u32, 0_u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65521;
        (low, (high + low) % 65521)
    });
    [&[0x78, 1][..], &stored(body), &(high << 16 | low).to_be_bytes()].concat()
}

fn stored(body: &[u8]) -> Vec<u8> {
    let length = length(body) as u16;
    [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), body].concat()
}

/// Bodies of cases that are compressed are errors, which are short.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or_default()
}

fn crc32(body: &[u8]) -> u32 {
    !body.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}
