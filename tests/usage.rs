//! What responses tell of their tokens: bytes in, counts out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use session_affinity::Headers;
use session_affinity::api::Api;
use session_affinity::outcome::TokenType;
use session_affinity::usage::{
    Excerpt, HEAD, Reading, TAIL, Turns, Unread, Usage, read, read_headers, rows,
};

/// A response in pieces of this size.
fn excerpt(body: &[u8], size: usize) -> Excerpt {
    let mut excerpt = Excerpt::default();
    for piece in body.chunks(size) {
        excerpt.take(piece.len(), |range| piece[range].to_vec());
    }
    excerpt
}

/// What a whole response tells; it is the same in pieces of any size.
#[track_caller]
fn told(api: Api, body: &[u8]) -> Reading {
    let reading = read(api, &excerpt(body, body.len().max(1)), true);
    for size in [1, 17, 1000, HEAD + 1] {
        assert_eq!(read(api, &excerpt(body, size), true), reading, "in pieces of {size}");
    }
    reading
}

fn counts(input: u64, read: u64, written: impl Into<Option<u64>>, output: u64) -> Usage {
    Usage {
        input: Some(input),
        cache_read: Some(read),
        cache_write: written.into(),
        output: Some(output),
    }
}

fn events(list: &[Value]) -> Vec<u8> {
    list.iter().map(|event| format!("event: x\ndata: {event}\n\n")).collect::<String>().into()
}

fn frame(event: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(name.len() as u8);
        headers.extend(name.bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.bytes());
    }
    let total = (headers.len() + payload.len() + 16) as u32;
    // A checksum that looks like JSON.
    let lengths = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes(), *b"\"{}\""];
    [&lengths.concat(), &headers[..], payload.as_bytes(), b"}\"{}"].concat()
}

/// A document of this API in which these are the last members.
fn document(last: &Value) -> Vec<u8> {
    let Value::Object(last) = last else { panic!() };
    let last: Vec<_> = last.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{\"id\": \"x\", \"content\": [{{\"text\": \"hi\"}}],\n  {}}}\n", last.join(",\n"))
        .into()
}

const CHAT: &str = r#"{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,
    "prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0,"cache_write_tokens":50},
    "completion_tokens_details":{"reasoning_tokens":100}}"#;
const RESPONSES: &str = r#"{"input_tokens":328,"input_tokens_details":{"cached_tokens":256,
    "cache_write_tokens":10},"output_tokens":52,"output_tokens_details":{"reasoning_tokens":5},
    "total_tokens":380}"#;
const ANTHROPIC: &str = r#"{"input_tokens":21,"cache_creation_input_tokens":188,
    "cache_read_input_tokens":18000,"cache_creation":{"ephemeral_5m_input_tokens":188},
    "output_tokens":393,"service_tier":"standard"}"#;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A sample for every row, as a document.
fn samples() -> Vec<(&'static str, Api, Value, Usage)> {
    let openai = Api::OpenAi;
    vec![
        ("chat", openai, json!({"usage": value(CHAT)}), counts(2006, 1920, 50, 300)),
        (
            "deepseek",
            openai,
            json!({"usage": {"prompt_tokens": 100, "completion_tokens": 7,
                "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}}),
            counts(100, 64, None, 7),
        ),
        (
            "groq",
            openai,
            json!({"usage": {"prompt_tokens": 100, "completion_tokens": 7},
                "x_groq": {"id": "req_1", "usage": {"dram_cached_tokens": 20,
                    "sram_cached_tokens": 30}}}),
            counts(100, 50, None, 7),
        ),
        ("responses", Api::Azure, json!({"usage": value(RESPONSES)}), counts(328, 256, 10, 52)),
        (
            "anthropic",
            Api::Anthropic,
            json!({"usage": value(ANTHROPIC)}),
            counts(18_209, 18_000, 188, 393),
        ),
        (
            "gemini",
            Api::Gemini,
            json!({"usageMetadata": {"promptTokenCount": 1000, "cachedContentTokenCount": 900,
                "toolUsePromptTokenCount": 20, "candidatesTokenCount": 30,
                "thoughtsTokenCount": 5, "totalTokenCount": 1055}}),
            counts(1020, 900, None, 35),
        ),
        (
            "interactions",
            Api::Gemini,
            json!({"usage": {"total_input_tokens": 70, "total_cached_tokens": 40,
                "total_output_tokens": 5, "total_tool_use_tokens": 1, "total_thought_tokens": 2}}),
            counts(71, 40, None, 7),
        ),
        (
            "converse",
            Api::Bedrock,
            json!({"metrics": {"latencyMs": 9}, "usage": {"inputTokens": 10, "outputTokens": 4,
                "totalTokens": 14, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 5}}),
            counts(95, 80, 5, 4),
        ),
        (
            "invocation metrics",
            Api::Bedrock,
            json!({"type": "message_stop", "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": 10, "outputTokenCount": 4, "cacheReadInputTokenCount": 80,
                "cacheWriteInputTokenCount": 5, "invocationLatency": 17}}),
            counts(95, 80, 5, 4),
        ),
    ]
}

#[test]
fn every_row_reads_what_its_provider_tells_in_a_document() {
    for (name, api, last, expected) in samples() {
        assert_eq!(
            told(api, &document(&last)),
            Reading { usage: expected, unread: None },
            "{name}"
        );
    }
    let names: BTreeSet<_> = samples().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(rows().map(|row| row.name).collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_long_document_tells_the_same() {
    for (name, api, last, expected) in samples() {
        let Value::Object(members) = &last else { panic!() };
        for length in [HEAD, TAIL, HEAD + TAIL, 300_000] {
            let text = r#"\"usage\":{\"input_tokens\":1}} \\"#.repeat(length / 32);
            let mut body = format!(r#"{{"content":[{{"text":"{text}"}}]"#);
            members.iter().for_each(|(name, value)| body += &format!(",{name:?}:{value}"));
            body += r#","metadata":{"user":"}]}\"usage\":{"}}"#;
            assert_eq!(told(api, body.as_bytes()).usage, expected, "{name} {length}");
        }
    }
}

#[test]
fn a_stream_of_chat_tells_in_the_last_chunk() {
    let delta = json!({"choices": [{"delta": {"content": "word ".repeat(200)}}], "usage": null});
    let end = json!({"choices": [], "usage": value(CHAT), "obfuscation": "x"});
    for count in [1, 100] {
        let mut chunks = vec![delta.clone(); count];
        let without = [&events(&chunks)[..], b"data: [DONE]\n\n"].concat();
        assert_eq!(told(Api::OpenAi, &without), Reading::nothing(Unread::Absent));
        chunks.push(end.clone());
        let with = [b": PROCESSING\r\n\r\n", &events(&chunks)[..], b"data: [DONE]\n\n"].concat();
        assert_eq!(told(Api::OpenAi, &with).usage, counts(2006, 1920, 50, 300));
    }
}

#[test]
fn of_counts_that_grow_the_last_ones_count() {
    let chunk = |tokens: u64| {
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": tokens,
            "prompt_tokens_details": {"cached_tokens": 3}}})
    };
    let chunks: Vec<_> = (0..500).map(chunk).collect();
    assert_eq!(told(Api::OpenAi, &events(&chunks)).usage, counts(9, 3, None, 499));
}

#[test]
fn the_event_that_ends_responses_may_be_longer_than_what_is_kept() {
    for (length, kind) in [(10, "response.completed"), (200_000, "response.incomplete")] {
        let begun = json!({"type": "response.created", "response": {"usage": null}});
        let tools = json!([{"parameters": {"properties": {"usage": {"input_tokens": 1}}}}]);
        let response = format!(
            r#"{{"type":{kind:?},"response":{{"output":[{{"text":"{}"}}],"tools":{tools},
                "usage":{RESPONSES},"user":null,"metadata":{{"a":"{}"}}}},"sequence_number":9}}"#,
            "x".repeat(length),
            "y".repeat(9_000)
        );
        let end = format!("event: {kind}\ndata: {}\n\n", response.replace('\n', ""));
        let stream = [events(&[begun]), end.into_bytes()].concat();
        assert_eq!(told(Api::OpenAi, &stream).usage, counts(328, 256, 10, 52), "{length}");
    }
}

/// A stream of Anthropic's: the counts of its first event, content, and those of its last.
fn messages(first: &Value, deltas: usize, last: Option<&Value>) -> Vec<u8> {
    let message = json!({"type": "message", "content": [], "usage": first});
    let delta = json!({"type": "content_block_delta", "delta": {"type": "text_delta",
        "text": "\"usage\":{\"output_tokens\":7}"}});
    let mut list = vec![json!({"type": "message_start", "message": message})];
    list.extend(vec![delta; deltas]);
    if let Some(last) = last {
        list.push(json!({"type": "message_delta", "delta": {}, "usage": last}));
        list.push(json!({"type": "message_stop"}));
    }
    events(&list)
}

#[test]
fn a_stream_of_messages_tells_at_its_beginning_and_at_its_end() {
    let first = json!({"input_tokens": 3, "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 40, "output_tokens": 1});
    for deltas in [1, 1000] {
        let last = json!({"output_tokens": 77});
        let stream = messages(&first, deltas, Some(&last));
        assert_eq!(told(Api::Anthropic, &stream).usage, counts(543, 500, 40, 77));
        // Tools of the server have added to the prompt; what is null is as before.
        let last = json!({"output_tokens": 78, "input_tokens": 13,
            "cache_read_input_tokens": 600, "cache_creation_input_tokens": null});
        let stream = messages(&first, deltas, Some(&last));
        assert_eq!(told(Api::Anthropic, &stream).usage, counts(653, 600, 40, 78));
    }
}

#[test]
fn a_stream_that_is_cut_tells_what_it_has_told() {
    let first = json!({"input_tokens": 3, "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 40, "output_tokens": 1});
    for deltas in [1, 1000] {
        let stream = messages(&first, deltas, None);
        let reading = read(Api::Anthropic, &excerpt(&stream, 999), false);
        let usage = counts(543, 500, 40, 1);
        assert_eq!(reading, Reading { usage, unread: Some(Unread::Cut) });
    }
    let stream = events(&[json!({"choices": [{}], "usage": null})]);
    let reading = read(Api::OpenAi, &excerpt(&stream, 99), false);
    assert_eq!(reading, Reading::nothing(Unread::Cut));
    // A line or a document without its end is not read.
    for body in [r#"data: {"usage":{"prompt_tokens":1}"#, r#"{"usage":{"prompt_tokens":1}}"#] {
        let reading = read(Api::OpenAi, &excerpt(body.as_bytes(), 99), false);
        assert_eq!(reading, Reading::nothing(Unread::Cut), "{body}");
    }
    assert_eq!(read(Api::OpenAi, &Excerpt::default(), false), Reading::nothing(Unread::Cut));
}

#[test]
fn gemini_tells_in_every_chunk_and_leaves_out_zeros() {
    let chunk = |usage: Value| {
        let arguments = json!({"usageMetadata": {"promptTokenCount": 1}});
        json!({"candidates": [{"content": {"parts": [{"functionCall": {"args": arguments}}]}}],
            "usageMetadata": usage, "modelVersion": "m"})
    };
    let begun = chunk(json!({"promptTokenCount": 50}));
    let end = chunk(json!({"promptTokenCount": 50, "candidatesTokenCount": 9}));
    for count in [1, 300] {
        let mut chunks = vec![begun.clone(); count];
        chunks.push(end.clone());
        let wrapped: Vec<_> = chunks.iter().map(|chunk| json!({"response": chunk})).collect();
        let expected = Reading { usage: counts(50, 0, None, 9), unread: None };
        for list in [&chunks, &wrapped] {
            let array = format!(
                "[{}\n]",
                list.iter().map(Value::to_string).collect::<Vec<_>>().join(",\r\n")
            );
            assert_eq!(told(Api::Gemini, array.as_bytes()), expected);
            assert_eq!(told(Api::Gemini, &events(list)), expected);
            let cut = array.trim_end_matches("\n]").as_bytes();
            let reading = read(Api::Gemini, &excerpt(cut, 500), false);
            assert_eq!(reading, Reading { unread: Some(Unread::Cut), ..expected });
        }
        let pretty = serde_json::to_vec_pretty(&chunks).unwrap();
        assert_eq!(told(Api::Gemini, &pretty), expected);
    }
    let whole = told(Api::Gemini, end.to_string().as_bytes());
    assert_eq!(whole, Reading { usage: counts(50, 0, None, 9), unread: None });
}

#[test]
fn interactions_tell_in_their_last_event() {
    let usage = json!({"total_input_tokens": 70, "total_cached_tokens": 40,
        "total_output_tokens": 5});
    let stream = events(&[
        json!({"event_type": "interaction.created", "interaction": {"id": "v1_1"}}),
        json!({"event_type": "interaction.completed", "interaction": {"usage": usage}}),
    ]);
    assert_eq!(told(Api::Gemini, &stream).usage, counts(70, 40, None, 5));
}

#[test]
fn the_events_of_aws_tell_in_their_last_frame() {
    let delta = frame("contentBlockDelta", r#"{"delta":{"text":"\"usage\":{"},"p":"abc"}"#);
    let end = frame(
        "metadata",
        r#"{"metrics":{"latencyMs":9},"usage":{"inputTokens":10,"outputTokens":4,
            "cacheReadInputTokens":80,"cacheWriteInputTokens":5},"p":"}"}"#,
    );
    // The same metrics in base64.
    let metrics = r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":10,"outputTokenCount":4,"cacheReadInputTokenCount":80,"cacheWriteInputTokenCount":5}}"#;
    let chunk = frame("chunk", &format!(r#"{{"bytes":"{}","p":"ab"}}"#, base64(metrics)));
    for end in [end, chunk] {
        for count in [0, 1, 1000] {
            let stream = [delta.repeat(count), end.clone()].concat();
            assert_eq!(told(Api::Bedrock, &stream).usage, counts(95, 80, 5, 4), "{count}");
        }
    }
    let reading = read(Api::Bedrock, &excerpt(&delta.repeat(3), 100), false);
    assert_eq!(reading, Reading::nothing(Unread::Cut));
}

/// The frames of a message, in parts of this size.
fn frames_of(message: &str, size: usize) -> Vec<u8> {
    let parts: Vec<_> = message.as_bytes().chunks(size).collect();
    let mut frames = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let is_last = u8::from(at + 1 == parts.len());
        frames.push(is_last << 7 | u8::from(at == 0));
        match part.len() {
            length @ 0..=125 => frames.push(length as u8),
            length => frames.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
        }
        frames.extend_from_slice(part);
    }
    frames
}

/// What the turns of a WebSocket tell, and why not everything is known at its end.
fn turns(messages: &[String], part: usize, size: usize) -> (Vec<Reading>, Option<Unread>) {
    let (mut turns, mut told) = (Turns::default(), Vec::new());
    let frames: Vec<u8> = messages.iter().flat_map(|message| frames_of(message, part)).collect();
    for piece in frames.chunks(size) {
        turns.feed(piece, Api::OpenAi, &mut |reading| told.push(reading));
    }
    (told, turns.end())
}

#[test]
fn every_turn_of_a_websocket_tells_at_its_end() {
    let event = |kind: &str, rest: &str| format!(r#"{{"type":"response.{kind}",{rest}}}"#);
    let created = event("created", r#""response":{"usage":null}"#);
    let delta = event("output_text.delta", r#""delta":"\"usage\":{}""#);
    let end = |kind: &str, text: usize| {
        let output = "x".repeat(text);
        event(kind, &format!(r#""response":{{"output":["{output}"],"usage":{RESPONSES}}}"#))
    };
    let failed = event("failed", r#""response":{"usage":null}"#);
    let expected = Reading { usage: counts(328, 256, 10, 52), unread: None };
    for (part, size) in [(60_000, 1 << 20), (100, 1), (60_000, 7), (1_000, 4_000)] {
        let completed = end("completed", 50_000);
        let mut messages = vec![created.clone(), delta.clone(), completed, created.clone()];
        assert_eq!(turns(&messages, part, size), (vec![expected], Some(Unread::Cut)));
        messages.push(end("incomplete", 10));
        assert_eq!(turns(&messages, part, size), (vec![expected; 2], None));
        messages.extend([created.clone(), failed.clone()]);
        assert_eq!(turns(&messages, part, size), (vec![expected; 2], None));
    }
    let mut compressed = Turns::default();
    compressed.feed(&[0xc1, 1, 0], Api::OpenAi, &mut |_| panic!("nothing is read"));
    assert_eq!(compressed.end(), Some(Unread::Compressed));
    let mut other = Turns::default();
    other.feed(&[0x81, 0x85, 1, 2, 3], Api::OpenAi, &mut |_| panic!("nothing is read"));
    assert_eq!(other.end(), Some(Unread::NotRead));
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            encoded.push(if place > group.len() { '=' } else { letter.into() });
        }
    }
    encoded
}

#[test]
fn bedrock_tells_in_headers() {
    let name = |kind: &str| format!("x-amzn-bedrock-{kind}-token-count");
    let headers: Headers = [("input", "10"), ("output", "4"), ("cache-read-input", "80")]
        .map(|(kind, count)| (name(kind), count))
        .into_iter()
        .collect();
    let reading = read_headers(Api::Bedrock, &headers).unwrap();
    assert_eq!(reading, Reading { usage: counts(90, 80, None, 4), unread: None });
    assert_eq!(read_headers(Api::Anthropic, &headers), None);
    assert_eq!(read_headers(Api::Bedrock, &Headers::default()), None);
}

#[test]
fn what_a_model_writes_into_the_arguments_of_a_tool_does_not_count() {
    let fake = json!({"usage": {"input_tokens": 1, "cache_read_input_tokens": 900,
        "output_tokens": 1, "prompt_tokens": 1}});
    let call = json!([{"type": "tool_use", "input": fake, "arguments": {"x": fake}}]);
    let body = json!({"usage": value(ANTHROPIC), "content": call});
    // Whichever comes last.
    let (usage, content) = (body["usage"].to_string(), body["content"].to_string());
    for text in [
        format!(r#"{{"usage":{usage},"content":{content}}}"#),
        format!(r#"{{"content":{content},"usage":{usage}}}"#),
    ] {
        assert_eq!(told(Api::Anthropic, text.as_bytes()).usage, counts(18_209, 18_000, 188, 393));
    }
    let alone = json!({ "content": call });
    let reading = told(Api::Anthropic, alone.to_string().as_bytes());
    assert_eq!(reading, Reading::nothing(Unread::Absent));
}

#[test]
fn what_is_absent_is_not_known() {
    for usage in [
        r#"{"prompt_tokens":10,"completion_tokens":2}"#,
        r#"{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":null}"#,
        r#"{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{}}"#,
    ] {
        let reading = told(Api::OpenAi, &document(&json!({"usage": value(usage)})));
        let usage = Usage { input: Some(10), output: Some(2), ..Usage::default() };
        assert_eq!(reading, Reading { usage, unread: Some(Unread::NoCacheCount) });
        // Else it would look as if nothing had been cached.
        assert_eq!(usage.tokens().collect::<Vec<_>>(), [(TokenType::Output, 2)]);
    }
    for usage in ["null", "{}", "7", r#"{"prompt_tokens":"10"}"#, r#"{"prompt_tokens":-1}"#] {
        let reading = told(Api::OpenAi, &document(&json!({"usage": value(usage)})));
        assert_eq!(reading, Reading::nothing(Unread::Absent), "{usage}");
    }
}

#[test]
fn kinds_of_tokens_have_none_in_common() {
    let tokens = |usage: Usage| usage.tokens().collect::<Vec<_>>();
    let [input, read, written, output] = TokenType::ALL;
    assert_eq!(
        tokens(counts(100, 60, 30, 5)),
        [(input, 10), (read, 60), (written, 30), (output, 5)]
    );
    assert_eq!(tokens(counts(100, 0, None, 0)), [(input, 100)]);
    // A server that claims to have read more than there is.
    let body = document(&json!({"usage": {"prompt_tokens": 10, "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 999, "cache_write_tokens": 7}}}));
    assert_eq!(tokens(told(Api::OpenAi, &body).usage), [(read, 10), (output, 1)]);
}

#[test]
fn why_nothing_was_read_is_said() {
    let long = format!(r#"{{"content":"{}"}}"#, "x".repeat(30_000));
    let line = format!("data: {{\"text\":\"{}\"}}\n\n", "x".repeat(30_000));
    for (body, expected) in [
        (&b""[..], Unread::Absent),
        (b" \n", Unread::Absent),
        (b"{}", Unread::Absent),
        (b"data: {}\n\n", Unread::Absent),
        (b"\x1f\x8b\x08\0", Unread::Compressed),
        (b"\x28\xb5\x2f\xfd", Unread::Compressed),
        (b"<html>", Unread::NotRead),
        (b"ID3\x04", Unread::NotRead),
        (long.as_bytes(), Unread::TooLarge),
        (line.as_bytes(), Unread::TooLarge),
    ] {
        assert_eq!(told(Api::OpenAi, body), Reading::nothing(expected));
    }
    let compressed = Excerpt::of_compressed();
    assert_eq!(read(Api::OpenAi, &compressed, true), Reading::nothing(Unread::Compressed));
}

/// Parts of which responses are made up here: what is looked for, and what is near to it.
const PARTS: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    "\\",
    "\"",
    "\n",
    "data: ",
    "\"usage\":",
    "\"usageMetadata\":{\"promptTokenCount\":5",
    "\"prompt_tokens\":7",
    "{\"input_tokens\":3,\"output_tokens\":4}",
    "\"bytes\":\"eyJ1c2FnZSI6e319",
    "\0",
    "some text ",
];

proptest! {
    #[test]
    fn what_a_response_tells_does_not_depend_on_its_pieces(
        parts in prop::collection::vec((0..PARTS.len(), 1..400_usize), 0..40),
        size in 1..5_000_usize,
        is_complete: bool,
    ) {
        let body: String = parts.iter().map(|&(part, count)| PARTS[part].repeat(count)).collect();
        for api in Api::ALL {
            let whole = read(api, &excerpt(body.as_bytes(), body.len().max(1)), is_complete);
            let pieces = read(api, &excerpt(body.as_bytes(), size), is_complete);
            prop_assert_eq!(whole, pieces);
            let sum: u64 = whole.usage.tokens().map(|(_, count)| count).sum();
            let told = whole.usage.input.unwrap_or(0) + whole.usage.output.unwrap_or(0);
            prop_assert!(sum <= told, "no token is counted twice");
        }
    }
}

#[test]
fn a_provider_that_claims_absurd_counts_is_not_believed() {
    let claims = |tokens: u64| {
        let details = json!({"cached_tokens": tokens});
        let usage = json!({
            "prompt_tokens": tokens, "completion_tokens": tokens, "prompt_tokens_details": details,
        });
        told(Api::OpenAi, json!({"choices": [], "usage": usage}).to_string().as_bytes())
    };
    assert_eq!(claims(100_000_000).usage.input, Some(100_000_000));
    for tokens in [100_000_001, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(claims(tokens), Reading::nothing(Unread::Absent), "{tokens}");
    }
}
