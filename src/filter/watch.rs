//! The beginning of a response that a provider accepted, until it shows content or an error.
//!
//! A stream that is an error after its 200 is no success, and neither is a WebSocket whose first
//! message says that a limit is reached. So the first events are read: where they are held, before
//! the client sees anything; else as they pass.

use super::host;
use crate::request::Headers;
use crate::router::Plan;
use crate::signals::stream::{FirstEvent, Frames, Opening, Origin};
use crate::signals::{Context, inflate};

/// Bytes that are read of a stream that is not held.
const LIMIT: usize = 16 << 10;

/// What is read of a response.
enum Reader {
    /// The events of a stream, and all of it that has arrived.
    Events { opening: Opening, bytes: Vec<u8> },
    /// The messages of a WebSocket.
    Frames(Frames),
}

/// A response whose beginning is read.
pub(super) struct Watch {
    headers: Headers,
    reader: Reader,
}

impl Watch {
    /// Watches a response with this status, if it is of a kind that can turn into an error.
    pub(super) fn of(status: u16, headers: Headers) -> Option<Self> {
        let content_type = headers.text("content-type").to_ascii_lowercase();
        let streams = ["text/event-stream", "application/vnd.amazon.eventstream"];
        let reader = if status == 101 {
            Reader::Frames(Frames::default())
        } else if streams.iter().any(|kind| content_type.starts_with(kind)) {
            Reader::Events { opening: Opening::default(), bytes: Vec::new() }
        } else {
            return None;
        };
        Some(Self { headers, reader })
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.reader, Reader::Events { .. })
    }

    /// Reads a piece that passes.
    pub(super) fn read_piece(&mut self, size: usize, is_end: bool, plan: &Plan) -> FirstEvent {
        match &mut self.reader {
            Reader::Frames(_) => {
                let piece = host::response_body(size.min(LIMIT));
                self.feed(&piece, plan)
            }
            Reader::Events { bytes, .. } => {
                let wanted = LIMIT.saturating_sub(bytes.len()).min(size);
                let is_full = wanted < size;
                let mut all = std::mem::take(bytes);
                all.extend_from_slice(&host::response_body(wanted));
                match self.look(all, is_end, plan) {
                    FirstEvent::More if is_full => FirstEvent::Content,
                    seen => seen,
                }
            }
        }
    }

    /// Reads what is held, of which there are `size` bytes.
    pub(super) fn read_held(&mut self, size: usize, is_end: bool, plan: &Plan) -> FirstEvent {
        self.look(host::response_body(size), is_end, plan)
    }

    fn feed(&mut self, piece: &[u8], plan: &Plan) -> FirstEvent {
        let Self { headers, reader } = self;
        match reader {
            Reader::Frames(frames) => frames.feed(piece, &origin(headers, plan)),
            Reader::Events { .. } => FirstEvent::More,
        }
    }

    fn look(&mut self, all: Vec<u8>, is_end: bool, plan: &Plan) -> FirstEvent {
        let Self { headers, reader } = self;
        let Reader::Events { opening, bytes } = reader else {
            return FirstEvent::Content;
        };
        let readable = inflate::error_body(&all, headers.text("content-encoding"));
        let seen = opening.look(&readable, is_end, &origin(headers, plan));
        drop(readable);
        *bytes = all;
        seen
    }
}

fn origin<'a>(headers: &'a Headers, plan: &'a Plan) -> Origin<'a> {
    let context =
        Context { api: plan.api, provider: plan.api.as_str(), model: plan.subject().model };
    Origin { headers, context, now: host::now() }
}
