//! What a response tells of its token counts, in the part of it that is sent.
//!
//! This is the ledger that a test compares with what a gateway has measured. It is kept where the
//! events are made, not read out of bytes.

use serde_json::Value;

use super::fault::Stop;
use super::reply::Reply;
use super::stream::{Framing, Payload};
use super::turn::Usage;

/// What a response tells of its token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The counts; `None` if nothing of them is sent.
    pub usage: Option<Usage>,
    /// Whether the response ends too early, with a broken connection.
    pub is_cut: bool,
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// Whether its headers tell everything, whatever becomes of its body.
    pub in_headers: bool,
}

/// Where counts are in a document or an event.
const PLACES: [&str; 10] = [
    "/usage",
    "/message/usage",
    "/response/usage",
    "/interaction/usage",
    "/usageMetadata",
    "/response/usageMetadata",
    "/payload/usage",
    "/model/message/usage",
    "/model/usage",
    "/model/amazon-bedrock-invocationMetrics",
];

impl Told {
    pub(super) fn of(reply: &Reply, stop: Option<Stop>) -> Self {
        if reply.headers.iter().any(|(name, _)| name.starts_with("x-amzn-bedrock-")) {
            return Self { usage: reply.usage, in_headers: true, ..Self::default() };
        }
        let is_stopped = |length: usize| stop.filter(|stop| stop.after() < length);
        match (&reply.payload, reply.usage) {
            (Payload::Json(value), Some(usage)) => {
                // One that stops is half a document.
                let usage = Some(usage).filter(|_| stop.is_none() && tells(value));
                Self { usage, is_cut: stop.is_some(), ..Self::default() }
            }
            (Payload::Events(framing, events), Some(usage)) => {
                let stop = is_stopped(framing.count(events));
                let sent = stop.map_or(events.len(), Stop::after).min(events.len());
                let sent = events.get(..sent).unwrap_or_default();
                let newest = match framing {
                    // Of Bedrock's streams only the last frame counts.
                    Framing::AwsFrames => sent.last().filter(|event| tells(event)),
                    _ => sent.iter().rfind(|event| tells(event)),
                };
                let usage = newest.map(|event| Usage {
                    output_tokens: output(event, usage.output_tokens),
                    ..usage
                });
                let is_cut = matches!(stop, Some(Stop::Cut(_) | Stop::Silence(_)));
                Self { usage, is_cut, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

fn tells(event: &Value) -> bool {
    PLACES.iter().any(|place| event.pointer(place).is_some_and(|counts| !counts.is_null()))
}

/// The output that an event tells: the first one of Anthropic's counts a token, and Gemini leaves
/// out what is zero.
fn output(event: &Value, all: u64) -> u64 {
    let usage = event.pointer("/usageMetadata").or(event.pointer("/response/usageMetadata"));
    let is_first = event["type"] == "message_start" || event["model"]["type"] == "message_start";
    match usage {
        _ if is_first => 1,
        Some(usage) => usage["candidatesTokenCount"].as_u64().unwrap_or(0),
        None => all,
    }
}
