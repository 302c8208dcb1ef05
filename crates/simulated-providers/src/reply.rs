//! A reply before it becomes an HTTP response or messages on a WebSocket.

use serde_json::Value;

use super::cache::Prefix;
use super::place::Trace;
use super::stream::Payload;
use super::turn::{Turn, Usage};

/// A reply that is ready to be sent, and what the group remembers once it has begun.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) payload: Payload,
    pub(super) usage: Option<Usage>,
    /// Beside those of every response.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The ids of what the request has created so far.
    pub(super) created: Vec<String>,
    pub(super) written: Vec<Prefix>,
    pub(super) traces: Vec<Trace>,
}

impl Reply {
    pub(super) fn plain(body: Value) -> Self {
        Self::with(Payload::Json(body))
    }

    pub(super) fn with(payload: Payload) -> Self {
        Self {
            payload,
            usage: None,
            headers: vec![],
            created: vec![],
            written: vec![],
            traces: vec![],
        }
    }

    pub(super) fn of(turn: &Turn, written: Vec<Prefix>, payload: Payload) -> Self {
        Self { usage: Some(turn.usage), written, ..Self::with(payload) }
    }
}
