//! The requests: Claude Messages with `metadata.user_id` last, as Claude Code writes it, so that who
//! looks for it reads the whole body. The text is source code: full of escaped quotes and newlines.
//!
//! A request is what comes before the number of its session and what comes after it, so that a
//! load generator only has to put a number between.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::contender::Identity;

/// Where the number of the session goes; the digits that replace it are as many.
const NUMBER: &str = "############";
/// The digits of the number of a session.
pub(crate) const DIGITS: usize = NUMBER.len();

/// A request as bytes of HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Request {
    pub before: Vec<u8>,
    pub after: Vec<u8>,
}

/// A request with a body of exactly this size.
///
/// # Errors
/// If the size is too small for any request.
pub(crate) fn request(identity: Identity, size: usize) -> Result<Request> {
    let session = |number: &str| format!("00000000-0000-4000-8000-{number}");
    let fixed = session(&"0".repeat(DIGITS));
    let changing = session(NUMBER);
    let (header, field) = match identity {
        Identity::Header => (format!("x-claude-code-session-id: {changing}\r\n"), fixed),
        Identity::Body => (String::new(), changing),
    };
    let body = body(&field, size)?;
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         anthropic-version: 2023-06-01\r\n{header}content-length: {size}\r\n\r\n{body}"
    );
    let (before, after) = request.split_once(NUMBER).context("the request has no session")?;
    Ok(Request { before: before.into(), after: after.into() })
}

fn body(session: &str, size: usize) -> Result<String> {
    const TURN: usize = 4096;
    let mut messages: Vec<Value> = Vec::new();
    let mut length = document(&messages, session).len();
    ensure!(size >= length + 64, "no request has so small a body: {size} bytes");
    loop {
        let text = code(TURN.min(size / 4));
        let next = message(messages.len(), &text);
        let grown = length + next.to_string().len() + 1;
        if grown + 64 > size {
            break;
        }
        messages.push(next);
        length = grown;
    }
    messages.push(message(messages.len(), ""));
    let missing = size - document(&messages, session).len();
    if let Some(last) = messages.last_mut() {
        last["content"] = json!("x".repeat(missing));
    }
    Ok(document(&messages, session).to_string())
}

fn document(messages: &[Value], session: &str) -> String {
    json!({
        "model": "claude-sonnet-5",
        "max_tokens": 1024,
        "system": "You are a careful programmer.",
        "messages": messages,
        "metadata": {"user_id": format!("user_{}_account__session_{session}", "0a".repeat(32))},
    })
    .to_string()
}

fn message(index: usize, text: &str) -> Value {
    let role = if index.is_multiple_of(2) { "user" } else { "assistant" };
    json!({"role": role, "content": text})
}

/// About as much source code.
fn code(size: usize) -> String {
    let function = "fn greet(name: &str) -> String {\n\tformat!(\"Hello, \\\"{name}\\\"!\")\n}\n\n";
    function.repeat(size / function.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(identity: Identity, size: usize) -> String {
        let request = request(identity, size).unwrap();
        let bytes = [&request.before[..], b"000000000042", &request.after].concat();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_body_has_exactly_its_size_and_the_session_last() {
        for size in [2048, 102_400, 1_048_576] {
            let request = sent(Identity::Body, size);
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\ncontent-length: {size}")));
            assert!(!head.contains("session"));
            assert_eq!(body.len(), size);
            assert!(body.ends_with("_session_00000000-0000-4000-8000-000000000042\"}}"));
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body["messages"].as_array().unwrap().len() >= 2);
        }
    }

    #[test]
    fn on_the_header_path_only_the_header_changes() {
        let request = sent(Identity::Header, 2048);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-claude-code-session-id: 00000000-0000-4000-8000-000000000042"));
        assert!(body.ends_with("_session_00000000-0000-4000-8000-000000000000\"}}"));
        assert_eq!(body.len(), 2048);
    }

    #[test]
    fn a_body_without_room_for_a_message_is_an_error() {
        assert!(request(Identity::Body, 100).is_err());
    }
}
