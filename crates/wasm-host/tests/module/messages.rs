//! Requests and responses in the shape of real ones.

use wasm_host::{Event, Request, Response};

/// The size of the pieces in which Envoy reads a body from a connection.
const PIECE: usize = 16 << 10;

/// Text as agents send it, inside a string of JSON: code, with quotes and line ends escaped.
const CODE: &str = concat!(
    r#"fn greet(name: &str) -> String {\n    let text = format!(\"{{\\\"name\\\": \\\"{name}\\\"}}\");\n"#,
    r#"    // Callers expect \"application/json\", and a line end.\n    text + \"\\n\"\n}\n\n"#,
    r#"The tests of the checkout fail: assertion `left == right` failed\n  left: \"7\"\n right: \"8\"\n"#,
);

/// As many bytes of [`CODE`] as fill a body up to a size; at least one.
fn text(size: usize, rest: &str) -> String {
    let wanted = size.saturating_sub(rest.len()).max(CODE.len());
    CODE.repeat(wanted / CODE.len())
}

/// A body of the Messages API as Claude Code sends it: what names the session comes last.
pub(crate) fn claude_body(session: &str, size: usize) -> String {
    let device = "8f3b2c1d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccddeeff0";
    let head = concat!(
        r#"{"model":"claude-sonnet-4-5-20250929","messages":[{"role":"user","content":"#,
        r#"[{"type":"text","text":"the checkout test is flaky, find out why"}]},"#,
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01","name":"Read","#,
        r#""input":{"file_path":"/home/dev/shop-api/src/greet.rs"}}]},{"role":"user","content":"#,
        r#"[{"type":"tool_result","tool_use_id":"toolu_01","content":""#,
    );
    let tail = format!(
        concat!(
            r#""}}]}}],"system":[{{"type":"text","text":"You are Claude Code."}}],"#,
            r#""max_tokens":32000,"stream":false,"metadata":{{"user_id":"{{\"device_id\":\"{}\","#,
            r#"\"account_uuid\":\"5d1f8c72-0a4e-4a1b-9f0e-7c2b6d3e9a11\","#,
            r#"\"session_id\":\"{}\"}}"}}}}"#
        ),
        device, session
    );
    let text = text(size, &format!("{head}{tail}"));
    format!("{head}{text}{tail}")
}

/// A body of the Responses API.
pub(crate) fn responses_body(session: &str, size: usize) -> String {
    let head = concat!(
        r#"{"model":"gpt-5.4","instructions":"You are a coding agent.","input":"#,
        r#"[{"type":"message","role":"user","content":[{"type":"input_text","text":""#,
    );
    let tail =
        format!(r#""}}]}}],"tool_choice":"auto","store":false,"prompt_cache_key":"{session}"}}"#);
    let text = text(size, &format!("{head}{tail}"));
    format!("{head}{text}{tail}")
}

/// The headers that Envoy has of a client's request with a body.
fn post<'h>(path: &'h str, length: &'h str) -> Vec<(&'h str, &'h str)> {
    vec![
        (":authority", "gateway.example"),
        (":path", path),
        (":method", "POST"),
        (":scheme", "http"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "claude-cli/2.1.120 (external, cli)"),
        ("authorization", "Bearer sk-client"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14,context-management-2025-06-27"),
        ("x-stainless-lang", "js"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-timeout", "600"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("content-length", length),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-internal", "true"),
        ("x-request-id", "0b4e5d1c-6a0f-4a57-8f0c-3d6d0c3a9b11"),
    ]
}

/// A request whose body names the session.
pub(crate) fn claude(session: &str, size: usize) -> Request {
    let body = claude_body(session, size);
    let length = body.len().to_string();
    Request::new(post("/v1/messages?beta=true", &length), body.as_bytes()).in_pieces_of(PIECE)
}

/// A request with a session in a header as well, which settles it.
pub(crate) fn claude_by_header(session: &str, size: usize) -> Request {
    let mut request = claude(session, size);
    request.headers.add("x-session-id", session.as_bytes());
    request
}

/// A request to the Responses API.
pub(crate) fn responses(session: &str, size: usize) -> Request {
    let body = responses_body(session, size);
    let length = body.len().to_string();
    Request::new(post("/v1/responses", &length), body.as_bytes()).in_pieces_of(PIECE)
}

/// A request for a stored response.
pub(crate) fn stored_response(id: &str) -> Request {
    let path = format!("/v1/responses/{id}");
    let mut request = Request::new(post(&path, ""), b"");
    request.headers.set(":method", b"GET");
    for name in ["content-type", "content-length"] {
        request.headers.remove(name);
    }
    request
}

/// The headers of a provider's response.
const OF_ANSWER: [(&str, &str); 10] = [
    ("date", "Fri, 15 Jan 2027 08:00:00 GMT"),
    ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ("anthropic-organization-id", "f3c1a3c0-1d4c-4f6b-b4a2-6d9c2f0e4a11"),
    ("anthropic-ratelimit-requests-limit", "4000"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:01Z"),
    ("anthropic-ratelimit-tokens-remaining", "399000"),
    ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:01Z"),
    ("server", "cloudflare"),
    ("x-envoy-upstream-service-time", "812"),
];

fn answer(status: u16, content_type: &str, body: &[u8]) -> Response {
    let headers = OF_ANSWER.into_iter().chain([("content-type", content_type)]);
    Response::new(status, headers, body)
}

/// A message of an assistant, whole.
pub(crate) fn message() -> Response {
    let body = concat!(
        r#"{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","#,
        r#""content":[{"type":"text","text":"A line end is missing."}],"stop_reason":"end_turn","#,
        r#""usage":{"input_tokens":12,"cache_creation_input_tokens":0,"#,
        r#""cache_read_input_tokens":2048,"output_tokens":9,"service_tier":"standard"}}"#,
    );
    answer(200, "application/json", body.as_bytes())
}

/// A message as a stream of so many events after the first; the last two end it.
pub(crate) fn stream(events: usize) -> Response {
    let start = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","#,
        r#""content":[],"model":"claude-sonnet-4-5-20250929","#,
        r#""usage":{"input_tokens":12,"cache_creation_input_tokens":0,"#,
        r#""cache_read_input_tokens":2048,"output_tokens":1,"service_tier":"standard"}}}"#,
        "\n\n",
    );
    let word = concat!(
        "event: content_block_delta\n",
        r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}"#,
        "\n\n",
    );
    let mut response = answer(200, "text/event-stream; charset=utf-8", b"");
    response.events.push(Event::Piece(start.into()));
    let delta = concat!(
        "event: message_delta\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"#,
        r#""usage":{"input_tokens":12,"cache_creation_input_tokens":0,"#,
        r#""cache_read_input_tokens":2048,"output_tokens":9}}"#,
        "\n\n",
    );
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    response.events.extend((2..events).map(|_| Event::Piece(word.into())));
    response.events.extend([delta, stop].map(|event| Event::Piece(event.into())));
    response
}

/// A response that the provider stores.
pub(crate) fn stored(id: &str) -> Response {
    let body = format!(
        concat!(
            r#"{{"id":"{}","object":"response","status":"completed","model":"gpt-5.4","#,
            r#""output":[{{"type":"message","role":"assistant","content":[]}}],"store":true}}"#
        ),
        id
    );
    answer(200, "application/json", body.as_bytes())
}

/// The limit of a credential, for this many seconds.
pub(crate) fn limited(seconds: &str) -> Response {
    let body =
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"too many requests"}}"#;
    let mut response = answer(429, "application/json", body.as_bytes());
    response.headers.add("retry-after", seconds.as_bytes());
    response
}
