//! The beginning of a response that a provider accepted, until it shows content or an error.
//!
//! A stream that is an error after its 200 is no success, and neither is a document that is one, or
//! a WebSocket whose first message says that a limit is reached. So the beginning is read: where it
//! is held, before the client sees anything; else as it passes.

use std::borrow::Cow;

use super::host::{self, Piece};
use crate::pins;
use crate::request::Headers;
use crate::router::Plan;
use crate::signals::stream::{FirstEvent, Frames, Opening, Origin};
use crate::signals::{Context, inflate};

/// Bytes that are read of a response that is not held.
const LIMIT: usize = 16 << 10;

/// Bytes of a document that are looked at first: an error begins with its name.
const GLANCE: usize = 64;

/// Bytes of a response that creates state in which the id is looked for.
const ID_WITHIN: usize = 4 << 10;

/// What kind of response is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Server-sent events, or the binary events of AWS.
    Stream,
    /// JSON: a document, or an array or lines of documents that are streamed.
    Document,
    /// The messages of a WebSocket.
    WebSocket,
    /// A page, as something in front of a provider sends it in place of a model's response.
    Page,
}

impl Kind {
    /// The kind of a response; `None` for one that cannot turn into an error.
    pub(super) fn of(status: u16, content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match status {
            101 => Some(Self::WebSocket),
            200 if media_type.eq_ignore_ascii_case("text/event-stream")
                || media_type.eq_ignore_ascii_case("application/vnd.amazon.eventstream") =>
            {
                Some(Self::Stream)
            }
            200 | 201
                if media_type.eq_ignore_ascii_case("application/json")
                    || media_type.eq_ignore_ascii_case("application/x-ndjson") =>
            {
                Some(Self::Document)
            }
            200 if media_type.eq_ignore_ascii_case("text/html") => Some(Self::Page),
            _ => None,
        }
    }
}

/// A response whose beginning is read.
pub(super) struct Watch {
    kind: Kind,
    headers: Headers,
    opening: Opening,
    frames: Frames,
    /// All that has arrived, of a stream or document.
    bytes: Vec<u8>,
    /// Whether a WebSocket has shown content: an error may still follow in a later turn.
    has_content: bool,
}

impl Watch {
    pub(super) fn new(kind: Kind, headers: Headers) -> Self {
        let (opening, frames) = (Opening::default(), Frames::default());
        Self { kind, headers, opening, frames, bytes: Vec::new(), has_content: false }
    }

    /// The headers of the response.
    pub(super) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The beginning of the response, if it may name what was created.
    pub(super) fn beginning(&self, plan: &Plan) -> Cow<'_, [u8]> {
        match plan.state.creates {
            Some(_) => self.readable(),
            None => Cow::Borrowed(b""),
        }
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.kind == Kind::WebSocket
    }

    /// Whether nothing was seen yet of a WebSocket.
    pub(super) fn is_silent_websocket(&self) -> bool {
        self.is_websocket() && !self.has_content
    }

    /// Reads a piece that passes.
    pub(super) fn read_piece(&mut self, piece: &Piece, is_end: bool, plan: &Plan) -> FirstEvent {
        if self.is_websocket() {
            let piece = piece.part(0, piece.size);
            let wanted = ID_WITHIN.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(piece.get(..wanted).unwrap_or(&piece));
            let seen = self.frames.feed(&piece, &origin(&self.headers, plan));
            if seen == FirstEvent::Content && self.has_content {
                return FirstEvent::More;
            }
            self.has_content |= seen == FirstEvent::Content;
            return seen;
        }
        let wanted = LIMIT.saturating_sub(self.bytes.len()).min(piece.size);
        self.bytes.extend_from_slice(&piece.part(0, wanted));
        match self.look(is_end, plan) {
            FirstEvent::More if wanted < piece.size => FirstEvent::Content,
            seen => seen,
        }
    }

    /// What messages of a WebSocket have told of limits since this was last asked, as headers.
    pub(super) fn take_limits(&mut self) -> Option<Headers> {
        self.frames.take_limits()
    }

    /// Reads what is held, of which there are `size` bytes.
    pub(super) fn read_held(&mut self, size: usize, is_end: bool, plan: &Plan) -> FirstEvent {
        let is_glanced_at = plan.state.creates.is_none() && !self.is_compressed();
        if self.kind == Kind::Document && size > GLANCE && is_glanced_at {
            self.bytes = host::response_body(0, GLANCE);
            let mut glance = Opening::default();
            let seen = glance.look(&self.bytes, false, &origin(&self.headers, plan));
            if seen == FirstEvent::Content {
                return seen;
            }
        }
        self.bytes = host::response_body(0, size);
        self.look(is_end, plan)
    }

    fn is_compressed(&self) -> bool {
        !self.headers.text("content-encoding").is_empty()
    }

    fn readable(&self) -> Cow<'_, [u8]> {
        inflate::error_body(&self.bytes, self.headers.text("content-encoding"))
    }

    fn look(&mut self, is_end: bool, plan: &Plan) -> FirstEvent {
        let readable = inflate::error_body(&self.bytes, self.headers.text("content-encoding"));
        if self.kind == Kind::Page {
            // Some servers call a transcript a page.
            return match readable.trim_ascii_start().first() {
                None if !is_end => FirstEvent::More,
                None | Some(b'<') if plan.operation.runs_a_model() => FirstEvent::Ended,
                _ => FirstEvent::Content,
            };
        }
        let seen = self.opening.look(&readable, is_end, &origin(&self.headers, plan));
        let may_name_more = self.kind == Kind::Document
            && plan.state.creates.is_some_and(|kind| pins::created(kind, &readable).is_empty());
        match seen {
            FirstEvent::Content if may_name_more && !is_end && readable.len() < ID_WITHIN => {
                FirstEvent::More
            }
            seen => seen,
        }
    }
}

fn origin<'a>(headers: &'a Headers, plan: &'a Plan) -> Origin<'a> {
    let context =
        Context { api: plan.api, provider: plan.api.as_str(), model: plan.subject().model };
    Origin { headers, context, now: host::now() }
}
