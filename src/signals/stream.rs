//! Errors after the status: the first event of a stream, the frames of a WebSocket, the last event.
//!
//! A provider that has sent `200` and the headers can say no only in an event. Until the first
//! event with content nothing is lost, and the request can still go to another credential. The
//! events before it (`response.created`, `message_start`, pings, chunks without a delta) say
//! nothing yet and are passed over.
//!
//! All readers here are incremental: every byte is looked at once for the ends of events, and every
//! event is read once.

use std::borrow::Cow;

use super::report::{Report, member};
use super::{Context, Reading, judge};
use crate::frames::{self, Part};
use crate::json::{Kind, Value};
use crate::request::Headers;
use crate::steps;
use crate::time::Timestamp;

/// What the beginning of a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstEvent {
    /// Nothing yet: only events that say nothing, or an unfinished one.
    More,
    /// Content has begun.
    Content,
    /// An error in place of content.
    Error(Reading),
    /// The stream ended before any content.
    Ended,
}

/// Where a response comes from, and what its headers said.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The response's headers. They count for an error in the stream as far as they tell waits.
    pub headers: &'a Headers,
    /// Where the response comes from.
    pub context: Context<'a>,
    /// The time now.
    pub now: Timestamp,
}

/// The reader of a stream's beginning: SSE, a JSON array as Gemini streams it, or the binary event
/// stream of AWS.
#[derive(Debug, Default)]
pub struct Opening {
    /// Where the first event begins that has not been read.
    event: usize,
    /// White space before all else.
    blank: usize,
    /// Where the line begins that is not finished.
    line: usize,
    /// Up to where ends were looked for.
    scanned: usize,
    /// The JSON value that is not finished.
    nesting: Nesting,
}

impl Opening {
    /// What the stream says so far. `held` is all that has arrived, from its first byte; it may
    /// only grow between calls. Once this is not [`FirstEvent::More`], the reader has done its
    /// work.
    pub fn look(&mut self, held: &[u8], is_end: bool, origin: &Origin<'_>) -> FirstEvent {
        let fresh = held.get(self.blank..).unwrap_or_default();
        let blank = fresh.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        steps::count(blank);
        self.blank += blank;
        let first = match self.event {
            0 => held.get(self.blank).copied(),
            _ => held.first().copied(),
        };
        let seen = match first {
            None => FirstEvent::More,
            Some(b'{' | b'[') => self.look_at_json(held, is_end, origin),
            Some(0) => self.look_at_frames(held, is_end, origin),
            // A page, or what a server compressed unasked: not for this reader.
            Some(b'<' | 0x1f) => FirstEvent::Content,
            Some(_) => self.look_at_lines(held, is_end, origin),
        };
        if is_end && seen == FirstEvent::More { FirstEvent::Ended } else { seen }
    }

    /// Server-sent events: an empty line ends an event.
    fn look_at_lines(&mut self, held: &[u8], is_end: bool, origin: &Origin<'_>) -> FirstEvent {
        while let Some(at) = held.get(self.scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.scanned + at;
            steps::count(at + 1);
            let line = held.get(self.line..end).unwrap_or_default();
            let event = held.get(self.event..self.line).unwrap_or_default();
            self.scanned = end + 1;
            self.line = end + 1;
            if matches!(line, b"" | b"\r") {
                self.event = end + 1;
                match read_lines(event, origin) {
                    FirstEvent::More => {}
                    seen => return seen,
                }
            }
        }
        steps::count(held.len() - self.scanned);
        self.scanned = held.len();
        match is_end {
            true => read_lines(held.get(self.event..).unwrap_or_default(), origin),
            false => FirstEvent::More,
        }
    }

    /// A JSON document, or an array of them. Its first member tells whether it is an error; only
    /// then the rest is waited for.
    fn look_at_json(&mut self, held: &[u8], is_end: bool, origin: &Origin<'_>) -> FirstEvent {
        match begins_with_an_error(held.get(self.blank..).unwrap_or_default()) {
            None => return FirstEvent::More,
            Some(false) => return FirstEvent::Content,
            Some(true) => {}
        }
        let before = self.scanned;
        let fresh = held.get(before..).unwrap_or_default();
        self.scanned = held.len();
        let end = match self.nesting.closes(fresh) {
            Some(end) => before + end,
            None if is_end => held.len(),
            None => return FirstEvent::More,
        };
        // No more than the object, however much has arrived: what follows must not matter.
        match held.get(..end).and_then(Value::document).and_then(object) {
            Some(root) => FirstEvent::Error(read_error(root, origin)),
            None => FirstEvent::Content,
        }
    }

    /// AWS' frames: total length, length of the headers, a checksum; headers; payload; a checksum.
    fn look_at_frames(&mut self, held: &[u8], is_end: bool, origin: &Origin<'_>) -> FirstEvent {
        loop {
            let rest = held.get(self.event..).unwrap_or_default();
            let Some(((total, of_headers), rest)) = lengths(rest) else { return FirstEvent::More };
            if total < of_headers.saturating_add(16) || of_headers > FRAME_HEADERS {
                return FirstEvent::Content;
            }
            let Some((headers, rest)) = rest.split_at_checked(of_headers) else {
                return FirstEvent::More;
            };
            let headers = frame_headers(headers);
            let is_error = headers.text(":message-type") != "event";
            match headers.text(":event-type") {
                "messageStart" | "initial-response" => {}
                _ if is_error => {}
                _ => return FirstEvent::Content,
            }
            let of_payload = total - of_headers - 16;
            let payload = match rest.get(..of_payload) {
                Some(payload) => payload,
                None if is_end => rest,
                None => return FirstEvent::More,
            };
            if is_error {
                return FirstEvent::Error(read_exception(&headers, payload, origin));
            }
            self.event += total;
        }
    }
}

/// Bytes in which the first member of a document begins, if it is an error.
const BEGINNING: usize = 256;

/// Whether the first member of a document, or of the first one in an array, is an error. `None`
/// until it is there.
fn begins_with_an_error(document: &[u8]) -> Option<bool> {
    let beginning = document.get(..BEGINNING).unwrap_or(document);
    steps::count(beginning.len());
    match first_member_is_an_error(beginning) {
        None if beginning.len() == BEGINNING => Some(false),
        answer => answer,
    }
}

fn first_member_is_an_error(document: &[u8]) -> Option<bool> {
    let rest = document.strip_prefix(b"[").unwrap_or(document).trim_ascii_start();
    let (b'{', rest) = rest.split_first()? else { return Some(false) };
    let (b'"', rest) = rest.trim_ascii_start().split_first()? else { return Some(false) };
    let (key, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
    let value = rest.get(1..)?.trim_ascii_start();
    let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii_start();
    match key {
        b"error" => Some(*value.first()? != b'n'),
        b"type" | b"event_type" => Some(value.first_chunk()? == b"\"error\""),
        _ => Some(false),
    }
}

/// As much as the headers of a frame of AWS may have; they have a hundred bytes.
const FRAME_HEADERS: usize = 1024;

/// The object that a document is, or the first one of a list.
fn object(document: Value<'_>) -> Option<Value<'_>> {
    let root = match document.kind() {
        Kind::Array => document.elements().next()?,
        _ => document,
    };
    (root.kind() == Kind::Object).then_some(root)
}

/// What is open in a JSON value that arrives in pieces.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Where the first object in the text ends in this piece of it; `None` if it does not yet.
    fn closes(&mut self, piece: &[u8]) -> Option<usize> {
        steps::count(piece.len());
        for (at, &byte) in piece.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                _ if self.is_in_string => {}
                b'{' => self.depth += 1,
                b'}' if self.depth == 1 => return Some(at + 1),
                b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }
}

/// The error with which a stream ended, given its last bytes (16 KB are plenty); `None` if its last
/// event is none. Such a response is no success, however much of it was content.
pub fn ending(tail: &[u8], origin: &Origin<'_>) -> Option<Reading> {
    let mut last = FirstEvent::More;
    let mut event = 0;
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', tail).chain([tail.len()]) {
        let is_empty = matches!(tail.get(line..end), Some(b"" | b"\r"));
        if is_empty || end == tail.len() {
            let event = tail.get(event..end).unwrap_or_default();
            // The end mark of OpenAI's streams follows errors, too.
            let is_mark = event.trim_ascii().ends_with(b"[DONE]");
            match read_lines(event, origin) {
                FirstEvent::More => {}
                _ if is_mark => {}
                seen => last = seen,
            }
        }
        line = end + 1;
        if is_empty {
            event = line;
        }
    }
    match last {
        FirstEvent::Error(reading) => Some(reading),
        _ => None,
    }
}

/// The reader of the messages that a server sends over a WebSocket, in pieces of any size.
#[derive(Default)]
pub struct Frames {
    frames: frames::Frames,
    /// The message that arrives, as far as it is kept.
    message: Vec<u8>,
    /// Whether the message is text that can be read.
    is_text: bool,
    /// What messages have told of limits, as headers.
    limits: Option<Headers>,
}

/// As much of a message as is kept. Errors are small, and stand at the beginning.
const MESSAGE_BYTES: usize = 8 * 1024;

impl Frames {
    /// What the messages say that end in this piece: the first error among them, or content, or
    /// nothing. `origin` has the headers of the response that opened the WebSocket.
    pub fn feed(&mut self, piece: &[u8], origin: &Origin<'_>) -> FirstEvent {
        let mut seen = FirstEvent::More;
        let Self { frames, message, is_text, limits } = self;
        frames.feed(piece, &mut |part| match part {
            Part::Begin { is_text: is_readable, .. } => {
                *is_text = is_readable;
                message.clear();
            }
            Part::Payload(payload) => {
                let free = MESSAGE_BYTES.saturating_sub(message.len());
                message.extend_from_slice(payload.get(..free).unwrap_or(payload));
            }
            Part::End => {
                let message = std::mem::take(message);
                if *is_text && let Some(told) = super::limits::told_by(&message) {
                    *limits = Some(told);
                }
                let said = match *is_text {
                    true => read_event(b"", &message, origin),
                    false => FirstEvent::Content,
                };
                seen = match (seen, said) {
                    (FirstEvent::Error(_), _) | (_, FirstEvent::More) => seen,
                    _ => said,
                };
            }
        });
        if self.frames.is_broken() { FirstEvent::Content } else { seen }
    }

    /// What messages have told of the credential's limits since this was last asked, as headers.
    pub fn take_limits(&mut self) -> Option<Headers> {
        self.limits.take()
    }
}

/// The lines of one server-sent event.
#[inline(never)]
fn read_lines(event: &[u8], origin: &Origin<'_>) -> FirstEvent {
    steps::count(event.len());
    let mut name: &[u8] = b"";
    let mut data: Cow<'_, [u8]> = Cow::Borrowed(b"");
    for line in event.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii_end();
        if let Some(value) = line.strip_prefix(b"event:") {
            name = value.trim_ascii();
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if data.is_empty() {
                data = Cow::Borrowed(value.trim_ascii());
            } else {
                data.to_mut().extend_from_slice(value);
            }
        }
    }
    read_event(name, &data, origin)
}

#[inline(never)]
fn read_event(name: &[u8], data: &[u8], origin: &Origin<'_>) -> FirstEvent {
    if data.is_empty() {
        return FirstEvent::More;
    }
    if data == b"[DONE]" {
        return FirstEvent::Ended;
    }
    if !matches!(data.first(), Some(b'{' | b'[')) {
        return FirstEvent::Content;
    }
    let Some(root) = Value::document(data).and_then(object) else { return FirstEvent::Content };
    let kind =
        ["type", "event_type"].into_iter().find_map(|name| member(root, name)).map(Value::text);
    let kind = kind.as_deref().unwrap_or(name);
    let is_error = name == b"error"
        || matches!(kind, b"error" | b"response.failed")
        || member(root, "error").is_some_and(|error| match error.kind() {
            Kind::Object => true,
            Kind::String => !error.text().is_empty(),
            _ => false,
        });
    if is_error {
        FirstEvent::Error(read_error(root, origin))
    } else if says_nothing(kind, root) {
        FirstEvent::More
    } else {
        FirstEvent::Content
    }
}

/// Whether an event comes before all content: the handshake of a protocol, a sign of life, a chunk
/// without a delta.
fn says_nothing(kind: &[u8], root: Value<'_>) -> bool {
    match kind {
        b"response.created" | b"response.in_progress" | b"response.queued" => true,
        b"response.metadata" | b"keepalive" | b"ping" | b"message_start" => true,
        b"interaction.created" | b"interaction.start" | b"interaction.status_update" => true,
        _ if kind.starts_with(b"codex.") => true,
        _ => member(root, "choices").is_some_and(|choices| {
            choices.kind() == Kind::Array && choices.elements().all(is_bare)
        }),
    }
}

/// Whether a choice of a chunk has no content: the role alone, or empty texts.
fn is_bare(choice: Value<'_>) -> bool {
    choice.members().all(|(name, value)| match name.as_ref() {
        b"index" => true,
        b"delta" => {
            value.members().all(|(name, value)| name.as_ref() == b"role" || is_empty(value))
        }
        _ => is_empty(value),
    })
}

fn is_empty(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Object | Kind::Array => value.elements().next().is_none(),
        _ => value.text().is_empty(),
    }
}

/// Headers in a frame that count: they are compared with each other.
const MOST_HEADERS: usize = 64;

#[inline(never)]
fn read_error(root: Value<'_>, origin: &Origin<'_>) -> Reading {
    let report = Report::of_json(root);
    // Codex puts the headers of a refusal into its frame.
    let own: Option<Headers> = member(root, "headers").map(|headers| {
        let members = headers.members().take(MOST_HEADERS);
        members.map(|(name, value)| (lossy(&name), value.text().into_owned())).collect()
    });
    let headers = own.as_ref().unwrap_or(origin.headers);
    let status = report.status.or_else(|| report.types.iter().find_map(|kind| status_of(kind)));
    judge(status.unwrap_or(0), headers, &report, &origin.context, origin.now).0
}

/// The status that a provider would have sent with an error of this kind.
fn status_of(kind: &[u8]) -> Option<u16> {
    Some(match kind {
        b"invalid_request_error" => 400,
        b"authentication_error" => 401,
        b"billing_error" => 402,
        b"permission_error" => 403,
        b"not_found_error" => 404,
        b"rate_limit_error" | b"too_many_requests" => 429,
        b"api_error" | b"server_error" => 500,
        b"timeout_error" => 504,
        _ => return None,
    })
}

/// Total length and length of the headers, and what follows them and their checksum.
fn lengths(frame: &[u8]) -> Option<((usize, usize), &[u8])> {
    let (total, rest) = frame.split_first_chunk::<4>()?;
    let (headers, rest) = rest.split_first_chunk::<4>()?;
    let total = u32::from_be_bytes(*total) as usize;
    let headers = u32::from_be_bytes(*headers) as usize;
    Some(((total, headers), rest.get(4..)?))
}

/// The headers of AWS' frame that are strings.
fn frame_headers(mut rest: &[u8]) -> Headers {
    let mut headers = Vec::new();
    steps::count(rest.len());
    while let Some((name, value, tail)) = frame_header(rest) {
        headers.push((lossy(name), value.to_vec()));
        rest = tail;
    }
    headers.into_iter().collect()
}

/// Name, value, and what follows: each with its length before it, and a type that is a string's.
fn frame_header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let rest = rest.strip_prefix(&[7])?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((name, value, rest))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// An exception in place of an event: its type is in the frame, its message in the payload.
fn read_exception(headers: &Headers, payload: &[u8], origin: &Origin<'_>) -> Reading {
    let mut report = Report::of(origin.headers, payload);
    for name in [":exception-type", ":error-code"] {
        if let Some(code) = headers.first(name) {
            report.codes.insert(0, Cow::Owned(code.to_vec()));
        }
    }
    judge(0, origin.headers, &report, &origin.context, origin.now).0
}
