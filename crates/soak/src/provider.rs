//! Providers that do wrong: one listener for every credential, or one for a pool.
//!
//! A request asks for its own faults, attempt by attempt, in `x-soak-faults`, so what happens to it
//! follows from the seed. An outage of a credential goes before.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;

use crate::dialect;
use crate::fault::Fault;
use crate::history::{Arrival, Did, Digest, ELSEWHERE, Name, Recorder, SECOND, Time};
use crate::http::{Head, Wire};
use crate::limits;
use crate::socket::{self, Over};
use crate::world::{self, Dialect};
use simulate::random::Random;

/// How long a provider that stalls says nothing.
const STALL: Duration = Duration::from_millis(1500);

/// Headers of the clients and of the gateway that no provider may see.
const SECRET: [&str; 8] = [
    "authorization",
    "x-api-key",
    "x_api_key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "openai-organization",
    "proxy-authorization",
];

/// What lasts for a while at a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Every request gets this fault.
    Of(Fault),
    /// A limit that ends at this time.
    LimitUntil(Time),
}

/// What the tasks of all providers share.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) recorder: Recorder,
    pub(crate) outages: Arc<Mutex<BTreeMap<Name, Outage>>>,
    /// Which credential has the responses that are kept, by their ids.
    pub(crate) kept: Arc<Mutex<HashMap<String, Name>>>,
    /// Whether requests carry keys.
    pub(crate) has_keys: bool,
}

impl Scene {
    /// Whether a credential has a response; it has what has no id.
    fn has(&self, credential: Option<Name>, id: &str) -> bool {
        let kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let owner = match id.strip_prefix(ELSEWHERE).and_then(|rest| rest.split('_').next()) {
            Some(owner) => Some(owner),
            None => kept.get(id).copied(),
        };
        id.is_empty() || (credential.is_some() && owner == credential)
    }

    fn keep(&self, id: String, credential: Name) {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.insert(id, credential);
    }
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(stream: TcpStream, port: Option<Name>, scene: &Scene) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    let mut served = 0;
    while let Some(head) = wire.head().await? {
        let mut visit = Visit::begin(head, port, served > 0, scene);
        served += 1;
        if !visit.play(&mut wire).await {
            return Ok(());
        }
    }
    Ok(())
}

/// One request at a provider.
struct Visit<'a> {
    head: Head,
    scene: &'a Scene,
    place: usize,
    number: u32,
    credential: Option<Name>,
    fault: Option<Fault>,
    /// Whether it is noted what was done.
    is_noted: bool,
    /// Whether all of it was written.
    is_over: bool,
}

impl Drop for Visit<'_> {
    /// A task that was ended in the middle of it has broken its connection.
    fn drop(&mut self) {
        if !self.is_over {
            let has_begun = std::mem::take(&mut self.is_noted);
            self.done(if has_begun { Did::Cut { has_content: true } } else { Did::Broke });
        }
    }
}

impl<'a> Visit<'a> {
    fn begin(head: Head, port: Option<Name>, is_reused: bool, scene: &'a Scene) -> Self {
        let mut keys = ["authorization", "x-api-key", "x-goog-api-key"].into_iter();
        let key = keys.find_map(|name| world::owner(head.get(name)?));
        let arrival = Arrival {
            request: head.text("x-soak-id").parse().ok(),
            number: 0,
            port,
            key,
            leaks: leaks(&head, scene.has_keys),
            model: String::from_utf8_lossy(head.get("x-soak-model").unwrap_or_default()).into(),
            at: scene.recorder.now(),
            is_reused,
            body: None,
            fault: None,
            lacks_state: false,
            used: None,
            did: Did::Waits,
            done: 0,
        };
        let credential = arrival.credential();
        let (place, number) = scene.recorder.arrival(arrival);
        let outage = credential.and_then(|credential| {
            let outages = scene.outages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            outages.get(credential).copied()
        });
        let asked = head.text("x-soak-faults").split(',').nth(number.saturating_sub(1) as usize);
        let fault = match outage {
            Some(Outage::Of(fault)) => Some(fault),
            Some(Outage::LimitUntil(end)) => {
                let left = end.saturating_sub(scene.recorder.now());
                (left > 0).then(|| Fault::Limit(left.div_ceil(SECOND)))
            }
            None => asked.and_then(Fault::parse),
        };
        let is_stream = head.get("x-soak-stream").is_some();
        let needs_state = fault.is_none_or(|fault| fault.needs_state(is_stream));
        let lacks_state = needs_state && !scene.has(credential, head.text("x-soak-previous"));
        let fault = if lacks_state { Some(Fault::NotHere) } else { fault };
        scene.recorder.edit(place, |arrival| {
            arrival.fault = fault.map(Fault::word);
            arrival.lacks_state = lacks_state;
        });
        Self { head, scene, place, number, credential, fault, is_noted: false, is_over: false }
    }

    /// Plays it. Returns whether the connection goes on.
    async fn play(&mut self, wire: &mut Wire) -> bool {
        let goes_on = self.act(wire).await;
        self.is_over = true;
        goes_on
    }

    async fn act(&mut self, wire: &mut Wire) -> bool {
        let is_socket = self.head.text("upgrade") == "websocket";
        if is_socket && !socket::is_refused(self.fault) && !self.is_broken_off() {
            self.converse(wire).await;
            return false;
        }
        if let Some(Fault::Early | Fault::EarlyError) = self.fault {
            if self.answer(wire, true).await.is_err() {
                self.done(Did::Left);
            }
            // What is still on its way is read, so that the end of the connection is no reset.
            let _ = tokio::time::timeout(STALL, wire.body(&self.head)).await;
            return false;
        }
        let Ok(body) = wire.body(&self.head).await else {
            self.done(Did::Left);
            return false;
        };
        if !is_socket {
            self.scene.recorder.edit(self.place, |arrival| arrival.body = Some(body));
        }
        match self.fault {
            Some(Fault::Reset) => {
                let _ = set_socket_linger(&wire.stream, Some(Duration::ZERO));
                self.done(Did::Broke);
                return false;
            }
            Some(Fault::Close) => {
                self.done(Did::Broke);
                return false;
            }
            Some(Fault::Stall) => {
                let left = tokio::time::timeout(STALL, wire.wait()).await.is_ok();
                self.done(if left { Did::Left } else { Did::Broke });
                return false;
            }
            _ => {}
        }
        self.answer(wire, false).await.unwrap_or_else(|_| {
            self.done(Did::Left);
            false
        })
    }

    /// Whether the connection breaks in place of a response.
    fn is_broken_off(&self) -> bool {
        matches!(self.fault, Some(Fault::Reset | Fault::Close | Fault::Stall))
    }

    /// Opens the WebSocket that is asked for, and answers on it to its end.
    async fn converse(&mut self, wire: &mut Wire) {
        let headers = format!("x-soak-arrival: {}\r\n{}", self.number, self.limits());
        let (fault, id) = (self.fault, self.id());
        let over = |over| match over {
            Over::Cut { has_content } => self.done(Did::Cut { has_content }),
            Over::Left => self.done(Did::Left),
            Over::Closed { received, sent, is_error_event } => {
                self.scene.recorder.edit(self.place, |arrival| arrival.body = received);
                self.done(Did::Answered {
                    status: 101,
                    retry_after: None,
                    body: sent,
                    is_early: false,
                    is_error_event,
                });
            }
        };
        socket::serve(wire, fault, &headers, &id, over).await;
    }

    /// The headers that tell of the limits of the credential.
    fn limits(&self) -> String {
        let Some(credential) = self.credential else {
            return String::new();
        };
        let used = limits::used(credential, self.scene.recorder.now());
        let told = limits::are_told(credential).then_some(used);
        self.scene.recorder.edit(self.place, |arrival| arrival.used = told);
        limits::headers(credential, used)
    }

    fn done(&mut self, did: Did) {
        let now = self.scene.recorder.now();
        if !std::mem::replace(&mut self.is_noted, true) {
            self.scene.recorder.edit(self.place, |arrival| {
                arrival.did = did;
                arrival.done = now;
            });
        }
    }

    /// The id of the response.
    fn id(&self) -> String {
        format!("resp_soak_{}_{}", self.head.text("x-soak-id"), self.number)
    }

    /// What is to be written.
    fn response(&self) -> Response {
        let path = &self.head.path;
        let dialect = match path {
            path if path.starts_with("/v1/chat") => Dialect::Chat,
            path if path.starts_with("/v1/responses") => Dialect::Responses,
            path if path.starts_with("/v1/messages") => Dialect::Messages,
            _ => Dialect::Gemini,
        };
        let is_stream = self.head.get("x-soak-stream").is_some();
        let id = self.id();
        let model = self.head.text("x-soak-model");
        let error = |status: u16| Response {
            status,
            retry_after: None,
            opening: vec![],
            content: vec![dialect::error(dialect, status)],
            is_stream: false,
            is_error_event: false,
            is_kept: false,
        };
        match self.fault {
            Some(Fault::Limit(seconds)) => Response { retry_after: Some(seconds), ..error(429) },
            Some(Fault::LimitUntold) => error(429),
            Some(Fault::Status(status)) => error(status),
            Some(Fault::EarlyError) => error(503),
            Some(Fault::Denied) => error(401),
            Some(Fault::Refused) => error(400),
            Some(Fault::NotHere) => Response {
                content: vec![dialect::not_here(self.head.text("x-soak-previous"))],
                ..error(400)
            },
            Some(Fault::ErrorEvent) if is_stream => Response {
                is_stream,
                is_error_event: true,
                content: vec![dialect::error_event(dialect)],
                ..error(200)
            },
            _ => {
                let mut random = Random::of(&[Digest::of(id.as_bytes()).hash]);
                let length = match random.below(100) {
                    0 => random.between(64 << 10, 512 << 10),
                    1..10 => random.between(4 << 10, 64 << 10),
                    _ => random.between(20, 4 << 10),
                };
                let text = dialect::text(length);
                let (opening, content) = match is_stream {
                    true => dialect::stream(dialect, &id, model, &text),
                    false => (vec![], vec![dialect::whole(dialect, &id, model, &text)]),
                };
                let is_kept = self.head.get("x-soak-keep").is_some();
                Response { is_stream, opening, content, is_kept, ..error(200) }
            }
        }
    }

    /// Writes the response, as wrong as it should be. Returns whether the connection goes on.
    async fn answer(&mut self, wire: &mut Wire, is_early: bool) -> io::Result<bool> {
        let response = self.response();
        let mut head =
            format!("HTTP/1.1 {} Soak\r\nx-soak-arrival: {}\r\n", response.status, self.number);
        if let Some(seconds) = response.retry_after {
            head += &format!("retry-after: {seconds}\r\n");
        }
        if is_early {
            head += "connection: close\r\n";
        }
        if response.status < 400 {
            head += &self.limits();
        }
        if response.is_kept {
            head += "x-soak-kept: 1\r\n";
        }
        let (opening, mut body) = (response.opening.concat(), response.body());
        let may_compress = self.head.text("accept-encoding").contains("gzip");
        if self.fault == Some(Fault::Gzip) && may_compress && !response.is_stream {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body)?;
            body = encoder.finish()?;
            head += "content-encoding: gzip\r\n";
        }
        head += match response.is_stream {
            true => "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            false => "content-type: application/json\r\n",
        };
        if response.is_stream {
            let cut = match self.fault {
                Some(Fault::CutEarly) => Some(opening.len()),
                Some(Fault::CutLate) => Some(body.len().midpoint(opening.len()).max(1)),
                _ => None,
            };
            wire.write(head.as_bytes()).await?;
            if let Some(cut) = cut {
                write_chunk(wire, body.get(..cut).unwrap_or_default()).await?;
                self.done(Did::Cut { has_content: cut > opening.len() });
                return Ok(false);
            }
            let mut sizes = self.pieces(body.len(), opening.len());
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let (piece, more) =
                    rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
                write_chunk(wire, piece).await?;
                rest = more;
                self.pause().await;
            }
            self.answered(&response, &body, is_early);
            wire.write(b"0\r\n\r\n").await?;
            self.is_over = true;
            return Ok(self.fault != Some(Fault::CloseAfter));
        }
        let (said, sent) = match self.fault {
            Some(Fault::LieLong) => (body.len() + 1000, body.len()),
            Some(Fault::LieShort) => (body.len() / 2, body.len()),
            Some(Fault::CutEarly) => (body.len(), 0),
            Some(Fault::CutLate) => (body.len(), body.len() / 2),
            _ => (body.len(), body.len()),
        };
        head += &format!("content-length: {said}\r\n\r\n");
        wire.write(head.as_bytes()).await?;
        if sent < said {
            wire.write(body.get(..sent).unwrap_or_default()).await?;
            self.done(Did::Cut { has_content: true });
            return Ok(false);
        }
        // The answer is what was announced.
        self.answered(&response, body.get(..said).unwrap_or_default(), is_early);
        let mut sizes = self.pieces(sent, 0);
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
            wire.write(piece).await?;
            rest = more;
            // Nothing that happens in the last pause breaks it.
            self.is_over = body.len() - rest.len() >= said;
            self.pause().await;
        }
        Ok(!matches!(self.fault, Some(Fault::CloseAfter | Fault::LieShort)))
    }

    /// Before the last byte: a client that has that must find it written down.
    fn answered(&mut self, response: &Response, body: &[u8], is_early: bool) {
        if let Some(credential) = self.credential.filter(|_| response.is_kept) {
            self.scene.keep(self.id(), credential);
        }
        self.done(Did::Answered {
            status: response.status,
            retry_after: response.retry_after,
            body: Digest::of(body),
            is_early,
            is_error_event: response.is_error_event,
        });
    }

    /// The sizes of the pieces of a body.
    fn pieces(&self, length: usize, opening: usize) -> impl Iterator<Item = usize> + use<> {
        let size = if self.fault == Some(Fault::Drip) { (length / 8).max(16) } else { 32 << 10 };
        (opening > 0).then_some(opening).into_iter().chain(std::iter::repeat(size))
    }

    async fn pause(&self) {
        if self.fault == Some(Fault::Drip) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

struct Response {
    status: u16,
    retry_after: Option<u64>,
    /// What comes before the content.
    opening: Vec<String>,
    content: Vec<String>,
    is_stream: bool,
    is_error_event: bool,
    /// Whether later requests may refer to it.
    is_kept: bool,
}

impl Response {
    fn body(&self) -> Vec<u8> {
        [self.opening.concat(), self.content.concat()].concat().into_bytes()
    }
}

async fn write_chunk(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    wire.write(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    wire.write(bytes).await?;
    wire.write(b"\r\n").await
}

/// Headers that must not be there.
fn leaks(head: &Head, has_keys: bool) -> Vec<String> {
    let mut leaks = Vec::new();
    for (name, value) in &head.headers {
        // Servers of one's own are told the address of the client.
        let is_address = !has_keys && name == "x-envoy-external-address";
        let is_internal = name.starts_with("x-session-affinity-")
            || (name.starts_with("x-envoy-") && !is_address);
        let is_secret =
            has_keys && SECRET.contains(&name.as_str()) && world::owner(value).is_none();
        if is_internal || is_secret {
            leaks.push(name.clone());
        }
    }
    leaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_internal_or_the_clients_own_is_a_leak() {
        let head = Head {
            path: "/".to_owned(),
            headers: [
                ("authorization", "Bearer sk-soak-openai-a"),
                ("x-api-key", "sk-client"),
                ("x-session-affinity-cluster", "x"),
                ("x-session-affinity", "a session of a client"),
                ("x-envoy-retry-on", "5xx"),
                ("x-request-id", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .to_vec(),
        };
        let expected = ["x-session-affinity-cluster", "x-envoy-retry-on"];
        assert_eq!(leaks(&head, false), expected);
        assert_eq!(leaks(&head, true), [&["x-api-key"], &expected[..]].concat());
    }
}
