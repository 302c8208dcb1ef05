//! The recorded vectors of the reference, every case: `tests/vectors/README.md` says how they are read.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use session_affinity::body::Body;
use session_affinity::request::{Headers, Request};
use session_affinity::session::{Session, message_hash};

#[test]
fn every_session_identity_is_the_references() {
    let mut failures = Vec::new();
    for case in lines("vectors_public.jsonl") {
        let (primary, fallback) = identify(&headers_of(&case), &body_of(&case));
        if primary != text(&case, "primary") || fallback != text(&case, "fallback") {
            failures.push(format!(
                "{} {}{}: expected {:?} {:?}, got {primary:?} {fallback:?}",
                text(&case, "id"),
                text(&case, "group"),
                if case["lenient"] == true { " (lenient)" } else { "" },
                text(&case, "primary"),
                text(&case, "fallback"),
            ));
        }
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_message_hash_is_the_references() {
    for case in lines("fnv_vectors.jsonl") {
        let field = |name: &str| match &case[format!("{name}_b64")] {
            Value::String(encoded) => base64(encoded),
            _ => text(&case, name).into_bytes(),
        };
        let hash = message_hash(&field("sys"), &field("usr"), &field("ast"));
        assert_eq!(format!("msg:{hash}"), text(&case, "hash"), "{case}");
    }
}

#[test]
fn requests_of_real_clients_give_the_references_keys() {
    for case in lines("client_requests.jsonl") {
        let headers: Headers = headers_of(&case);
        let body = if case["body"].is_object() { case["body"].to_string() } else { String::new() };
        let (primary, fallback) = identify(&headers, body.as_bytes());
        let keys: Vec<_> = [primary, fallback].into_iter().filter(|key| !key.is_empty()).collect();
        assert_eq!(serde_json::json!(keys), case["reference_keys"], "{}", text(&case, "client"));
    }
}

fn identify(headers: &Headers, body: &[u8]) -> (String, String) {
    let readable = |id: Vec<u8>| String::from_utf8_lossy(&id).into_owned();
    match Session::identify(&Request { headers, body: Body::read(body) }) {
        Some(session) => (readable(session.primary()), session.fallback().map(readable).unwrap_or_default()),
        None => (String::new(), String::new()),
    }
}

fn lines(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(case: &Value, name: &str) -> String {
    case[name].as_str().unwrap_or_default().to_owned()
}

fn headers_of(case: &Value) -> Headers {
    let mut headers = Vec::new();
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        match value {
            Value::Array(values) => headers.extend(values.iter().map(|value| (name, value.as_str().unwrap()))),
            value => headers.push((name, value.as_str().unwrap())),
        }
    }
    // Blanks around a header value are no part of it: every HTTP codec strips them.
    headers.into_iter().map(|(name, value)| (name.as_str(), value.trim())).collect()
}

fn body_of(case: &Value) -> Vec<u8> {
    if let Some(encoded) = case["body_b64"].as_str() {
        return base64(encoded);
    }
    if let Some(parts) = case["body_parts"].as_array() {
        let repeat = |part: &Value| part[0].as_str().unwrap().repeat(part[1].as_u64().unwrap() as usize);
        let body: String = parts.iter().map(repeat).collect();
        assert_eq!(body.len() as u64, case["body_len"]);
        return body.into_bytes();
    }
    text(case, "body").into_bytes()
}

fn base64(encoded: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for symbol in encoded.bytes().filter(|&symbol| symbol != b'=') {
        let six = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
