//! The bytes of a body, whole or cut on request.

use std::io;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::aws_frame;
use super::fault::Stop;

/// The content of a response.
#[derive(Debug)]
pub(super) enum Payload {
    Json(Value),
    Events(Framing, Vec<Value>),
    /// A text of this type.
    Text(&'static str, String),
}

/// How a stream of JSON events is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Framing {
    /// Server-sent events named by the `type` or the `event_type` in their data.
    NamedEvents,
    /// Server-sent events without names, closed by `[DONE]`.
    DataUntilDone,
    /// Google's server-sent events: no names, lines end with CR LF, nothing closes them.
    GoogleEvents,
    /// One JSON array that grows.
    GoogleArray,
    /// Frames of AWS.
    AwsFrames,
}

impl Framing {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::NamedEvents | Self::DataUntilDone => "text/event-stream; charset=utf-8",
            Self::GoogleEvents => "text/event-stream",
            Self::GoogleArray => "application/json; charset=UTF-8",
            Self::AwsFrames => "application/vnd.amazon.eventstream",
        }
    }

    /// The pieces of the body, one per event and one for what closes the stream.
    pub(super) fn frames(self, events: &[Value]) -> Vec<Bytes> {
        let frames = events.iter().enumerate().map(|(index, event)| match self {
            Self::AwsFrames => aws_frame::of(event).into(),
            _ => self.frame(index, event).into(),
        });
        frames.chain(self.end().map(Bytes::from)).collect()
    }

    /// How many pieces a body with these events has.
    pub(super) fn count(self, events: &[Value]) -> usize {
        events.len() + usize::from(self.end().is_some())
    }

    fn end(self) -> Option<&'static str> {
        match self {
            Self::NamedEvents | Self::GoogleEvents | Self::AwsFrames => None,
            Self::DataUntilDone => Some("data: [DONE]\n\n"),
            Self::GoogleArray => Some("]"),
        }
    }

    fn frame(self, index: usize, event: &Value) -> String {
        match self {
            Self::AwsFrames => String::new(),
            Self::NamedEvents => {
                let name = event["type"].as_str().or(event["event_type"].as_str());
                format!("event: {}\ndata: {event}\n\n", name.unwrap_or_default())
            }
            Self::DataUntilDone => format!("data: {event}\n\n"),
            Self::GoogleEvents => format!("data: {event}\r\n\r\n"),
            Self::GoogleArray if index == 0 => format!("[{event}"),
            Self::GoogleArray => format!(",\r\n{event}"),
        }
    }
}

/// A body of these frames, which stops before its end if a fault says so.
pub(super) fn body(frames: Vec<Bytes>, stop: Option<Stop>) -> Body {
    let stop = stop.filter(|stop| stop.after() < frames.len());
    let frames = frames.into_iter().take(stop.map_or(usize::MAX, Stop::after));
    let frames = stream::iter(frames.map(Ok));
    match stop {
        None | Some(Stop::End(_)) => Body::from_stream(frames),
        // An error ends the connection at once, with what has not been flushed: hyper flushes when
        // the body has to wait.
        Some(Stop::Cut(_)) => Body::from_stream(frames.chain(stream::once(async {
            tokio::task::yield_now().await;
            Err(io::Error::other("simulated cut"))
        }))),
        Some(Stop::Silence(_)) => Body::from_stream(frames.chain(stream::pending())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(framing: Framing, expected: &str) {
        let frames = framing.frames(&[json!({"type": "a"}), json!({"type": "b"})]);
        assert_eq!(frames.concat(), expected.as_bytes());
    }

    #[test]
    fn each_vendor_writes_its_stream_in_its_own_way() {
        check(
            Framing::NamedEvents,
            "event: a\ndata: {\"type\":\"a\"}\n\nevent: b\ndata: {\"type\":\"b\"}\n\n",
        );
        check(
            Framing::DataUntilDone,
            "data: {\"type\":\"a\"}\n\ndata: {\"type\":\"b\"}\n\ndata: [DONE]\n\n",
        );
        check(
            Framing::GoogleEvents,
            "data: {\"type\":\"a\"}\r\n\r\ndata: {\"type\":\"b\"}\r\n\r\n",
        );
        check(Framing::GoogleArray, "[{\"type\":\"a\"},\r\n{\"type\":\"b\"}]");
    }
}
