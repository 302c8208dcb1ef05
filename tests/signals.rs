//! What responses mean: every row of every table, waits, first events, frames, compression.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::ptr;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use session_affinity::api::Api;
use session_affinity::request::Headers;
use session_affinity::signals::stream::{FirstEvent, Frames, Opening, Origin, ending};
use session_affinity::signals::{
    Class, Context, Evidence, Reading, Scope, explain, families, inflate, read, rows,
};
use session_affinity::time::Timestamp;

/// Sat, 21 Nov 2026 12:00:00 GMT
const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

fn vectors() -> Vec<Value> {
    let text = include_str!("vectors/signals.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row[name].as_str().unwrap_or_else(|| panic!("{name} is missing in {row}"))
}

fn context(row: &Value) -> Context<'_> {
    let api = Api::ALL.into_iter().find(|api| api.as_str() == text(row, "api"));
    Context { api: api.unwrap(), provider: text(row, "provider"), model: text(row, "model") }
}

fn headers(row: &Value) -> Headers {
    let members = row["headers"].as_object().unwrap();
    members.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn body(row: &Value) -> Vec<u8> {
    match &row["body"] {
        Value::String(text) => text.clone().into_bytes(),
        document => serde_json::to_vec(document).unwrap(),
    }
}

fn scope_word(scope: Scope) -> String {
    match scope {
        Scope::Credential => "credential".to_owned(),
        Scope::Model => "model".to_owned(),
        Scope::Family(family) => format!("family {family}"),
    }
}

/// The reading as a vector spells it, with the optional members that the vector has.
fn spelled(reading: &Reading, expected: &Value) -> Value {
    let mut spelled = serde_json::json!({
        "class": reading.class.as_str(),
        "scope": scope_word(reading.scope),
        "wait_ms": reading.wait.map(|wait| wait.as_millis() as u64),
        "evidence": reading.evidence.as_str(),
        "code": reading.code,
    });
    for (name, value) in [("long", reading.long), ("retry_is_useless", reading.retry_is_useless)] {
        if expected.get(name).is_some() {
            spelled[name] = value.into();
        }
    }
    spelled
}

#[test]
fn every_response_is_read_as_its_provider_means_it() {
    let mut wrong = Vec::new();
    for (number, row) in vectors().iter().enumerate() {
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        let reading = read(status, &headers(row), &body(row), &context(row), NOW);
        let found = spelled(&reading, &row["expected"]);
        if found != row["expected"] {
            wrong.push(format!(
                "line {}: {}: {status} {}\n  expected {}\n  found    {found}",
                number + 1,
                text(row, "source"),
                row["body"],
                row["expected"],
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_row_of_every_table_has_a_vector() {
    let mut seen = HashSet::new();
    for row in &vectors() {
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        let (_, found) = explain(status, &headers(row), &body(row), &context(row), NOW);
        seen.extend(found.map(ptr::from_ref));
    }
    let missing: Vec<_> = rows().filter(|(_, row)| !seen.contains(&ptr::from_ref(*row))).collect();
    assert!(missing.is_empty(), "{} rows are never found:\n{missing:#?}", missing.len());
}

#[test]
fn prose_is_no_proof_and_justifies_no_long_cooldown() {
    // The words of every phrase that means a fault of the credential, as a client can have them
    // quoted: as an unknown member, a header's value, a role, a path.
    let model = "claude-sonnet-4-5";
    let context = Context { api: Api::Anthropic, provider: "claude", model };
    for words in [
        "model is not supported",
        "model claude-sonnet-4-5 is not supported",
        "unsupported model claude-sonnet-4-5",
        "model claude-sonnet-4-5 not found",
        "your credit balance is too low",
        "incorrect api key provided",
        "insufficient balance",
        "model claude-sonnet-4-5 is not available for this api key",
        "api key not valid",
        "you have reached your specified api usage limits",
        "try again in 999h",
    ] {
        for status in [400, 404, 422] {
            for message in [
                format!("{words}: Extra inputs are not permitted"),
                format!("Unexpected value(s) `{words}` for the `anthropic-beta` header."),
                format!("messages.0.role: Input should be 'user' or 'assistant', not '{words}'"),
                format!(
                    "Invalid JSON payload received. Unknown name \"{words}\": Cannot find field."
                ),
                format!("Unrecognized request argument supplied: {words}"),
                format!("Unknown parameter: '{words}'."),
                format!("messages[0].role: unknown variant `{words}`, expected one of `system`"),
                words.to_owned(),
            ] {
                for body in [
                    serde_json::json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}}),
                    serde_json::json!({"error": {"type": "invalid_request_error", "message": message, "code": null}}),
                    serde_json::json!({"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}),
                ] {
                    let reading = read(
                        status,
                        &Headers::default(),
                        body.to_string().as_bytes(),
                        &context,
                        NOW,
                    );
                    assert_eq!(reading.evidence, Evidence::Suspicion, "{body}");
                    assert!(!reading.long, "{body}");
                    assert!(reading.wait.is_none(), "{body}");
                    if message.len() > words.len() {
                        assert_eq!(reading.class, Class::RequestFault, "{body}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_reading_of_any_bytes_is_a_reading() {
    let context = Context { api: Api::OpenAi, provider: "openai", model: "m" };
    for body in [
        "{".repeat(8192),
        "[".repeat(8192),
        "\"".repeat(8192),
        "{\"error\":".repeat(900),
        format!("{{\"error\":{{\"message\":\"{}\"}}}}", "m".repeat(8000)),
        format!("{{\"error\":{{\"message\":\"{}\"}}}}", "try again in ".repeat(600)),
        "data: ".to_owned(),
        "\u{feff}".to_owned(),
    ] {
        for status in [400, 401, 403, 404, 429, 500] {
            let reading = read(status, &Headers::default(), body.as_bytes(), &context, NOW);
            assert_eq!(reading.evidence, Evidence::Suspicion);
        }
    }
}

#[test]
fn words_for_classes_are_distinct() {
    let words: HashSet<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
    assert_eq!(words.len(), Class::ALL.len());
}

#[test]
fn models_have_families() {
    for (model, family) in [
        ("claude-opus-5", Some("opus")),
        ("claude-sonnet-4-5@20250929", Some("sonnet")),
        ("anthropic.claude-haiku-4-5-v1:0", Some("haiku")),
        ("CLAUDE-FABLE-5-1", Some("fable")),
        ("gpt-5.6", None),
        ("opus-of-another-vendor", None),
        ("", None),
    ] {
        assert_eq!(families::of(model), family, "{model}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        pieces in proptest::sample::subsequence(PIECES.to_vec(), 0..PIECES.len()),
    ) {
        let pieces = pieces.concat().into_bytes();
        with_origin(|origin| {
            for bytes in [&bytes, &pieces, &[pieces.clone(), bytes.clone()].concat()] {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let headers: Headers = [("retry-after", text)].into_iter().collect();
                read(429, &headers, bytes, &origin.context, NOW);
                let read_in_half = Opening::default().look(&bytes[..bytes.len() / 2], false, origin);
                if read_in_half == FirstEvent::More {
                    opening(bytes, true);
                }
                frames(bytes);
                ending(bytes, origin);
                inflate::error_body(bytes, "deflate");
            }
        });
    }
}

/// What responses are made of.
const PIECES: [&str; 17] = [
    "event: error\n",
    "data: ",
    "\n",
    "\r\n",
    "\n\n",
    "[",
    "{\"error\":",
    "{\"type\":\"error\",",
    "\"code\":429,",
    "\"details\":[{\"violations\":[{\"quotaId\":\"PerDay\"}]}],",
    "\"resets_at\":99999999999999999999,",
    "\"message\":\"try again in 1e9 days\"",
    "\"choices\":[{\"delta\":",
    "{\"content\":\"\"}",
    "}",
    "}]",
    "\u{0}\u{0}\u{0}\u{40}\u{0}\u{0}\u{0}\u{8}",
];

/// The class of an error, or the word for any other beginning.
fn word(seen: FirstEvent) -> &'static str {
    match seen {
        FirstEvent::More => "more",
        FirstEvent::Content => "content",
        FirstEvent::Ended => "ended",
        FirstEvent::Error(reading) => reading.class.as_str(),
    }
}

fn with_origin<T>(check: impl FnOnce(&Origin<'_>) -> T) -> T {
    let headers = Headers::default();
    let context = Context { api: Api::OpenAi, provider: "openai", model: "gpt-5.6" };
    check(&Origin { headers: &headers, context, now: NOW })
}

/// What a stream's beginning says, whether it comes at once or byte by byte.
fn opening(bytes: &[u8], is_end: bool) -> FirstEvent {
    with_origin(|origin| {
        let at_once = Opening::default().look(bytes, is_end, origin);
        let mut bytewise = Opening::default();
        let mut seen = FirstEvent::More;
        for length in 1..=bytes.len() {
            let is_last = length == bytes.len();
            seen = bytewise.look(&bytes[..length], is_end && is_last, origin);
            if seen != FirstEvent::More {
                break;
            }
        }
        if !bytes.is_empty() {
            assert_eq!(word(seen), word(at_once), "{}", String::from_utf8_lossy(bytes));
        }
        at_once
    })
}

const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"error\":null}}\n\n";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n";
const BARE: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";

#[test]
fn the_first_event_of_a_stream_is_read() {
    for (stream, expected) in [
        // Anthropic
        ("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n".to_owned(), "overloaded"),
        (format!("{START}event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"rate_limit_error\",\"message\":\"\"}}}}\n\n"), "rate_limit"),
        (format!("{START}event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"\"}}}}\n\n"), "transient"),
        (format!("{START}event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"invalid_request_error\",\"message\":\"\"}}}}\n\n"), "request_fault"),
        (START.to_owned(), "more"),
        (format!("{START}event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":0}}\n\n"), "content"),
        // Codex, OpenAI's Responses
        (CREATED.to_owned(), "more"),
        (format!("{CREATED}event: response.in_progress\ndata: {{\"type\":\"response.in_progress\"}}\n\nevent: response.failed\ndata: {{\"type\":\"response.failed\",\"response\":{{\"id\":\"resp_1\",\"status\":\"failed\",\"error\":{{\"code\":\"server_is_overloaded\",\"message\":\"\"}}}}}}\n\n"), "overloaded"),
        (format!("{CREATED}data: {{\"type\":\"response.failed\",\"response\":{{\"error\":{{\"code\":\"context_length_exceeded\",\"message\":\"\"}}}}}}\n\n"), "request_fault"),
        ("event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 2s.\",\"param\":null}\n\n".to_owned(), "rate_limit"),
        (format!("{CREATED}event: codex.rate_limits\ndata: {{\"type\":\"codex.rate_limits\",\"rate_limits\":{{}}}}\n\n"), "more"),
        (format!("{CREATED}event: response.output_item.added\ndata: {{\"type\":\"response.output_item.added\"}}\n\n"), "content"),
        // Chat Completions and its imitators
        (BARE.to_owned(), "more"),
        ("data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n".to_owned(), "more"),
        (": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n".to_owned(), "more"),
        (format!(": OPENROUTER PROCESSING\n\n{BARE}data: {{\"error\":{{\"code\":502,\"message\":\"Provider down\",\"metadata\":{{\"error_type\":\"provider_overloaded\"}}}},\"choices\":[{{\"delta\":{{\"content\":\"\"}},\"finish_reason\":\"error\"}}]}}\n\n"), "overloaded"),
        ("data: {\"error\":\"something broke\"}\n\n".to_owned(), "transient"),
        ("data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\n".to_owned(), "content"),
        ("data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"h\"}}]}\n\n".to_owned(), "content"),
        ("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n".to_owned(), "content"),
        ("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".to_owned(), "content"),
        ("data: [DONE]\n\n".to_owned(), "ended"),
        // Gemini: SSE, an array, an array of one error, Interactions
        ("data: {\"candidates\":[{\"content\":{}}]}\n\n".to_owned(), "content"),
        ("data: {\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}\n\n".to_owned(), "overloaded"),
        ("data: [{\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}]\n\n".to_owned(), "overloaded"),
        ("[{\n  \"candidates\": [".to_owned(), "content"),
        ("[{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"} ] quota\", \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n]".to_owned(), "rate_limit"),
        ("[{\"error\": {\"code\": 429".to_owned(), "more"),
        ("[{\"err".to_owned(), "more"),
        ("[".to_owned(), "more"),
        ("[]".to_owned(), "content"),
        ("data: {\"event_type\":\"interaction.created\"}\n\ndata: {\"event_type\":\"error\",\"error\":{\"code\":\"UNAVAILABLE\",\"status\":\"UNAVAILABLE\"}}\n\n".to_owned(), "overloaded"),
        // JSON where a stream was asked for
        ("{\"id\":\"x\",\"choices\"".to_owned(), "content"),
        ("{\"error\":null,\"id\":\"x\"}".to_owned(), "content"),
        ("{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}".to_owned(), "overloaded"),
        // CR LF, unfinished events, other bytes
        (CREATED.replace('\n', "\r\n"), "more"),
        ("event: error\r\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\r\n\r\n".to_owned(), "overloaded"),
        ("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n".to_owned(), "more"),
        ("<html>".to_owned(), "content"),
        (String::new(), "more"),
    ] {
        assert_eq!(word(opening(stream.as_bytes(), false)), expected, "{stream}");
    }
}

#[test]
fn a_stream_that_ends_before_its_content_has_ended() {
    for (stream, expected) in [
        (CREATED, "ended"),
        (START, "ended"),
        ("", "ended"),
        (": comment\n", "ended"),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}",
            "overloaded",
        ),
        ("data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}", "content"),
        ("[{\"error\": {\"code\": 429, \"status\": \"RESOURCE_EXHAUSTED\"", "rate_limit"),
    ] {
        assert_eq!(word(opening(stream.as_bytes(), true)), expected, "{stream}");
    }
}

#[test]
fn an_error_in_a_stream_tells_its_wait() {
    let seen = opening(
        b"data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Rate limit reached for gpt-5.6. Please try again in 11.054s.\"}}}\n\n",
        false,
    );
    let FirstEvent::Error(reading) = seen else { panic!("{seen:?}") };
    assert_eq!(reading.wait, Some(Duration::from_millis(11_054)));
    assert_eq!(reading.evidence, Evidence::Proof);
}

#[test]
fn the_headers_of_the_response_count_for_an_error_in_its_stream() {
    let headers: Headers =
        [("x-codex-primary-used-percent", "100"), ("x-codex-primary-reset-after-seconds", "60")]
            .into_iter()
            .collect();
    let context = Context { api: Api::OpenAi, provider: "openai", model: "gpt-5.6" };
    let origin = Origin { headers: &headers, context, now: NOW };
    let stream = b"data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"usage_limit_reached\"}}}\n\n";
    let seen = Opening::default().look(stream, false, &origin);
    let FirstEvent::Error(reading) = seen else { panic!("{seen:?}") };
    assert_eq!((reading.scope, reading.wait), (Scope::Credential, Some(Duration::from_secs(60))));
}

/// A frame of AWS' event stream.
fn aws_frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(name.len() as u8);
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(7);
        encoded.extend_from_slice(&(value.len() as u16).to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    let mut frame = Vec::new();
    frame.extend_from_slice(&((encoded.len() + payload.len() + 16) as u32).to_be_bytes());
    frame.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame
}

#[test]
fn the_frames_of_aws_are_read() {
    let start = aws_frame(&[(":message-type", "event"), (":event-type", "messageStart")], "{}");
    let delta =
        aws_frame(&[(":message-type", "event"), (":event-type", "contentBlockDelta")], "{}");
    let exception = aws_frame(
        &[(":message-type", "exception"), (":exception-type", "throttlingException")],
        "{\"message\":\"Too many requests\"}",
    );
    let broken = [0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 1];
    for (stream, expected) in [
        (start.clone(), "more"),
        ([start.clone(), delta].concat(), "content"),
        ([start, exception.clone()].concat(), "rate_limit"),
        (exception, "rate_limit"),
        (broken.to_vec(), "content"),
    ] {
        assert_eq!(word(opening(&stream, false)), expected, "{stream:?}");
    }
}

#[test]
fn the_end_of_a_stream_is_read() {
    for (tail, expected) in [
        ("data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\ndata: [DONE]\n\n", None),
        (
            "…\"}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\ndata: {\"error\":{\"code\":\"server_is_overloaded\"}}\n\n",
            Some("overloaded"),
        ),
        (
            "data: {\"error\":{\"code\":\"server_is_overloaded\"}}\n\ndata: [DONE]\n\n",
            Some("overloaded"),
        ),
        (
            "event: error\r\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\r\n\r\n",
            Some("overloaded"),
        ),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}",
            Some("transient"),
        ),
        ("", None),
        ("garbage", None),
    ] {
        let found = with_origin(|origin| ending(tail.as_bytes(), origin));
        assert_eq!(found.map(|reading| reading.class.as_str()), expected, "{tail}");
    }
}

/// A frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(length as u8),
        length @ ..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The first error, else the last word, of a connection, at once and byte by byte.
fn frames(bytes: &[u8]) -> FirstEvent {
    with_origin(|origin| {
        let at_once = Frames::default().feed(bytes, origin);
        let mut reader = Frames::default();
        let mut bytewise = FirstEvent::More;
        for byte in bytes {
            let seen = reader.feed(&[*byte], origin);
            if !matches!(bytewise, FirstEvent::Error(_)) && seen != FirstEvent::More {
                bytewise = seen;
            }
        }
        assert_eq!(word(bytewise), word(at_once));
        at_once
    })
}

#[test]
fn an_error_in_a_frame_is_read() {
    let limit = br#"{"type":"error","status":429,"error":{"type":"usage_limit_reached","resets_in_seconds":471285}}"#;
    let created = br#"{"type":"response.created","response":{"error":null}}"#;
    let failed =
        br#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded"}}}"#;
    let delta = br#"{"type":"response.output_text.delta","delta":"h"}"#;
    let long =
        [&b"{\"type\":\"response.output_text.delta\",\"delta\":\""[..], &[b'x'; 70_000], b"\"}"]
            .concat();
    let ping = frame(0x89, b"");
    for (bytes, expected) in [
        (frame(0x81, limit), "rate_limit"),
        (frame(0x81, created), "more"),
        ([ping.clone(), frame(0x81, created), frame(0x81, failed)].concat(), "overloaded"),
        ([frame(0x81, &long), frame(0x81, limit)].concat(), "rate_limit"),
        ([frame(0x01, &limit[..20]), ping, frame(0x80, &limit[20..])].concat(), "rate_limit"),
        (frame(0x81, delta), "content"),
        (frame(0xc1, limit), "content"),
        (frame(0x82, limit), "content"),
        (frame(0x81, limit)[..50].to_vec(), "more"),
        (vec![0x81, 0x85, 1, 2, 3, 4, 5], "content"),
        (frame(0x88, &[3, 232]), "more"),
    ] {
        assert_eq!(word(frames(&bytes)), expected, "{bytes:?}");
    }
}

#[test]
fn a_frame_brings_the_headers_of_the_refusal_along() {
    let limit = br#"{"type":"error","status_code":429,"error":{"type":"usage_limit_reached","message":"The usage limit has been reached"},"headers":{"X-Codex-Primary-Used-Percent":"100","X-Codex-Primary-Reset-After-Seconds":"13873","X-Codex-Active-Limit":"premium"}}"#;
    let FirstEvent::Error(reading) = frames(&frame(0x81, limit)) else { panic!() };
    assert_eq!(reading.wait, Some(Duration::from_secs(13_873)));
    assert_eq!(reading.scope, Scope::Credential);
    assert_eq!(reading.evidence, Evidence::Proof);
}

/// The headers that the messages of a WebSocket stand for, whatever pieces they come in.
fn limits(messages: &[&str]) -> Option<Vec<(String, String)>> {
    let frames: Vec<_> = messages.iter().map(|text| frame(0x81, text.as_bytes())).collect();
    let pairs = |headers: Headers| {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect::<Vec<_>>()
    };
    with_origin(|origin| {
        let mut at_once = Frames::default();
        at_once.feed(&frames.concat(), origin);
        let told = at_once.take_limits().map(pairs);
        assert!(at_once.take_limits().is_none(), "once");
        let mut bytewise = Frames::default();
        for byte in frames.concat() {
            bytewise.feed(&[byte], origin);
        }
        assert_eq!(bytewise.take_limits().map(pairs), told);
        told
    })
}

#[test]
fn codex_tells_its_limits_in_messages_of_a_websocket() {
    const CREATED: &str = r#"{"type":"response.created","response":{"error":null}}"#;
    let event = |rest: &str| format!(r#"{{"type":"codex.rate_limits",{rest}}}"#);
    let account = event(
        r#""plan_type":"pro","rate_limits":{"allowed":true,"limit_reached":false,"primary":{"used_percent":48,"window_minutes":10080,"reset_after_seconds":523210,"reset_at":1786677299},"secondary":null},"credits":{"has_credits":false,"unlimited":false,"balance":"0"}"#,
    );
    let of_account = [
        ("x-codex-primary-used-percent", "48"),
        ("x-codex-primary-window-minutes", "10080"),
        ("x-codex-primary-reset-at", "1786677299"),
        ("x-codex-primary-reset-after-seconds", "523210"),
    ];
    let both = event(
        r#""metered_limit_name":"codex","rate_limits":{"primary":{"used_percent":30.5}},"additional_rate_limits":{"GPT-5.3-Codex-Spark":{"primary":{"used_percent":3},"secondary":{"used_percent":63,"reset_at":1787290791}}}"#,
    );
    let of_both = [
        ("x-codex-primary-used-percent", "30.5"),
        ("x-codex-bengalfox-primary-used-percent", "3"),
        ("x-codex-bengalfox-secondary-used-percent", "63"),
        ("x-codex-bengalfox-secondary-reset-at", "1787290791"),
    ];
    let models = event(
        r#""metered_limit_name":"codex_bengalfox","rate_limits":{"primary":{"used_percent":2}}"#,
    );
    let quoted = r#"{"type":"response.output_text.delta","delta":"codex.rate_limits","rate_limits":{"primary":{"used_percent":99}}}"#;
    for (messages, expected) in [
        (vec![CREATED, &account, CREATED], Some(&of_account[..])),
        (vec![&both], Some(&of_both[..])),
        (vec![&both, &account], Some(&of_account[..])),
        (vec![&models], Some(&[])),
        (vec![&event(r#""rate_limits":{"allowed":true}"#)], Some(&[])),
        (vec![&event(r#""rate_limits":[],"additional_rate_limits":[]"#)], Some(&[])),
        (vec![&event("")], Some(&[])),
        (vec![quoted, "codex.rate_limits", r#"{"type":"codex.rate_limit""#, CREATED], None),
    ] {
        let expected = expected.map(|headers| {
            headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        });
        assert_eq!(limits(&messages), expected, "{messages:?}");
    }
}

const PLAIN: &[u8] = br#"{"error": {"message": "The requested model is not supported", "type": "invalid_request_error", "param": null, "code": null}}"#;

fn hexadecimal(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn compressed_errors_are_inflated() {
    let raw = hexadecimal(DEFLATED);
    let gzip = gzipped(0, &[], &raw);
    let zlib = [&[0x78, 0x9c][..], &raw, &[0; 4]].concat();
    let named = gzipped(0x1e, b"\x03\x00abcname\0comment\0\x12\x34", &raw);
    for (body, encoding) in [
        (&gzip, "gzip"),
        (&gzip, ""),
        (&gzip, "br"),
        (&named, "gzip"),
        (&zlib, "deflate"),
        (&raw, "deflate"),
        (&raw, " DEFLATE "),
    ] {
        assert_eq!(inflate::error_body(body, encoding).as_ref(), PLAIN, "{encoding}");
    }
}

#[test]
fn what_cannot_be_inflated_stays_as_it_is() {
    let raw = hexadecimal(DEFLATED);
    let gzip = gzipped(0, &[], &raw);
    for (body, encoding) in [
        (PLAIN, ""),
        (PLAIN, "gzip"),
        (b"", "gzip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x1f\x8b\x08\xff\0\0\0\0\0\0\xff\xff", "gzip"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff", "gzip"),
        (b"\x1b\x10\x00\xf8", "br"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        assert_eq!(inflate::error_body(body, encoding).as_ref(), body, "{encoding}");
    }
    for length in 0..gzip.len() {
        let cut = inflate::error_body(&gzip[..length], "gzip");
        assert!(PLAIN.starts_with(&cut) || cut.as_ref() == &gzip[..length], "{length}");
    }
}

#[test]
fn a_bomb_comes_to_no_more_than_the_limit() {
    // A million zeros in less than a kilobyte.
    let zeros = [hexadecimal("edc101010000008220ffaf6e484001"), vec![0; 968], vec![0xaf, 0x06]];
    let bomb = gzipped(0, &[], &zeros.concat());
    assert_eq!(inflate::error_body(&bomb, "gzip").len(), inflate::MOST_OUT);
}

/// `PLAIN` as zlib deflates it, without header or checksum.
const DEFLATED: &str = "2d8c4b0a80300c44af12b2f6049ec37d293668a13f935690d2bb1bb4bb79c39be948cc9971858e9144ec419a713b0998ae4652c941cc8e027881942b482b25b3d6b800d6a77cbe4fb70dde99b931ffa90ac5b28d6aa41682e2ae4f93c67801";

fn gzipped(flags: u8, fields: &[u8], data: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3][..], fields, data, &[0; 8]].concat()
}
