//! The turns of a WebSocket: each ends with an event that tells what it has cost.

use super::{Excerpt, Reading, Unread, read};
use crate::api::Api;
use crate::frames::{Frames, Part};
use crate::json::Value;

/// Reads what the turns cost, as their messages pass in pieces of any size.
#[derive(Debug, Default)]
pub struct Turns {
    frames: Frames,
    /// The message that arrives.
    message: Excerpt,
    is_text: bool,
    /// Whether a turn is under way.
    is_open: bool,
    /// Whether a message was compressed.
    is_compressed: bool,
}

impl Turns {
    /// Reads a piece. `each` gets what a turn tells that ends in it.
    pub fn feed(&mut self, piece: &[u8], api: Api, each: &mut dyn FnMut(Reading)) {
        let Self { frames, message, is_text, is_open, is_compressed } = self;
        frames.feed(piece, &mut |part| match part {
            Part::Begin { is_text: is_readable, is_compressed: is_deflated } => {
                *message = Excerpt::default();
                *is_text = is_readable;
                *is_compressed |= is_deflated;
            }
            Part::Payload(payload) if *is_text => message.keep_all(payload),
            Part::Payload(_) => {}
            Part::End if *is_text => match kind(message) {
                Kind::Begin => *is_open = true,
                Kind::End => {
                    *is_open = false;
                    each(read(api, message, true));
                }
                Kind::Failure => *is_open = false,
                Kind::Other => {}
            },
            Part::End => {}
        });
    }

    /// Why not everything is known, now that the WebSocket is closed.
    pub fn end(&self) -> Option<Unread> {
        match self {
            Self { is_compressed: true, .. } => Some(Unread::Compressed),
            _ if self.frames.is_broken() => Some(Unread::NotRead),
            Self { is_open: true, .. } => Some(Unread::Cut),
            _ => None,
        }
    }
}

/// What a message is to a turn.
enum Kind {
    Begin,
    End,
    Failure,
    Other,
}

fn kind(message: &Excerpt) -> Kind {
    let kind = Value::document(message.head()).and_then(|document| document.get("type"));
    match kind.map(Value::text).as_deref() {
        Some(b"response.created") => Kind::Begin,
        Some(b"response.completed" | b"response.incomplete") => Kind::End,
        Some(b"response.failed" | b"error") => Kind::Failure,
        _ => Kind::Other,
    }
}
