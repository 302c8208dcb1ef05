//! What providers write, in the dialect of the client.

use serde_json::{Value, json};

use crate::world::Dialect;

/// The text of bodies: no word of it means anything to anyone.
const WORDS: &str = "lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod. ";

/// The code of a provider that does not have what a request refers to.
pub(crate) const NOT_HERE: &str = "previous_response_not_found";

/// So many bytes of text.
pub(crate) fn text(length: usize) -> String {
    let mut text = WORDS.repeat(length / WORDS.len() + 1);
    text.truncate(length);
    text
}

/// A whole response as JSON.
pub(crate) fn whole(dialect: Dialect, id: &str, model: &str, content: &str) -> String {
    let value = match dialect {
        Dialect::Chat => json!({
            "id": id, "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        }),
        Dialect::Responses => json!({
            "id": id, "object": "response", "status": "completed", "model": model,
            "output": [{"type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": content}]}],
            "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
        }),
        Dialect::Messages => json!({
            "id": id, "type": "message", "role": "assistant", "model": model,
            "content": [{"type": "text", "text": content}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 9, "output_tokens": 4},
        }),
        Dialect::Gemini => json!({
            "candidates": [{"content": {"role": "model", "parts": [{"text": content}]},
                "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4},
            "modelVersion": model, "responseId": id,
        }),
    };
    value.to_string()
}

/// A stream: the events before its content, and those with content to its end.
pub(crate) fn stream(
    dialect: Dialect,
    id: &str,
    model: &str,
    content: &str,
) -> (Vec<String>, Vec<String>) {
    match dialect {
        Dialect::Chat => {
            let chunk = |delta: Value, finish: Value| {
                data(&json!({"id": id, "object": "chat.completion.chunk", "created": 1,
                    "model": model, "choices": [{"index": 0, "delta": delta,
                        "finish_reason": finish}]}))
            };
            let opening = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
            let mut rest: Vec<_> = pieces(content)
                .map(|piece| chunk(json!({"content": piece}), Value::Null))
                .collect();
            rest.push(chunk(json!({}), json!("stop")));
            rest.push("data: [DONE]\n\n".to_owned());
            (opening, rest)
        }
        Dialect::Responses => {
            let response = |status: &str| json!({"id": id, "object": "response", "status": status, "model": model, "output": []});
            let opening = vec![named(
                &json!({"type": "response.created", "response": response("in_progress")}),
            )];
            let mut rest: Vec<_> = pieces(content)
                .map(|piece| {
                    named(&json!({"type": "response.output_text.delta", "output_index": 0,
                        "content_index": 0, "item_id": "msg_1", "delta": piece}))
                })
                .collect();
            rest.push(named(
                &json!({"type": "response.completed", "response": response("completed")}),
            ));
            (opening, rest)
        }
        Dialect::Messages => {
            let opening = vec![named(&json!({"type": "message_start", "message": {
                "id": id, "type": "message", "role": "assistant", "model": model, "content": [],
                "usage": {"input_tokens": 9, "output_tokens": 1}}}))];
            let mut rest = vec![named(&json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}))];
            rest.extend(pieces(content).map(|piece| {
                named(&json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": piece}}))
            }));
            rest.push(named(&json!({"type": "content_block_stop", "index": 0})));
            rest.push(named(&json!({"type": "message_stop"})));
            (opening, rest)
        }
        Dialect::Gemini => {
            let rest = pieces(content).map(|piece| {
                data(&json!({"candidates": [{"index": 0,
                    "content": {"role": "model", "parts": [{"text": piece}]}}],
                    "modelVersion": model, "responseId": id}))
            });
            (Vec::new(), rest.collect())
        }
    }
}

/// The message of a client on a WebSocket.
pub(crate) fn create(model: &str, text: &str) -> String {
    json!({"type": "response.create", "model": model, "store": false,
        "input": [{"role": "user", "content": text}]})
    .to_string()
}

/// The answer to it, as messages.
pub(crate) fn messages(id: &str) -> Vec<String> {
    let response = |status: &str| json!({"id": id, "object": "response", "status": status});
    let mut messages =
        vec![json!({"type": "response.created", "response": response("in_progress")})];
    messages.extend((0..4).map(|piece| {
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0,
            "item_id": "msg_1", "delta": text(20 + 200 * piece)})
    }));
    messages.push(json!({"type": "response.completed", "response": response("completed")}));
    messages.iter().map(Value::to_string).collect()
}

/// An answer that says that the provider is overloaded, as a message.
pub(crate) fn error_message() -> String {
    json!({"type": "error", "status": 503, "error": {"type": "server_error",
        "code": "server_is_overloaded", "message": "overloaded"}})
    .to_string()
}

/// The body of an error.
pub(crate) fn error(dialect: Dialect, status: u16) -> String {
    error_value(dialect, status).to_string()
}

/// The error of a provider that does not have the response that a request refers to.
pub(crate) fn not_here(id: &str) -> String {
    json!({"error": {"message": format!("Previous response with id '{id}' not found."),
        "type": "invalid_request_error", "param": "previous_response_id",
        "code": NOT_HERE}})
    .to_string()
}

/// A stream that consists of an error.
pub(crate) fn error_event(dialect: Dialect) -> String {
    let error = error_value(dialect, 529);
    match dialect {
        Dialect::Messages => named(&error),
        Dialect::Responses => named(&json!({"type": "error", "code": "server_is_overloaded",
            "message": "overloaded"})),
        Dialect::Chat | Dialect::Gemini => data(&error),
    }
}

fn error_value(dialect: Dialect, status: u16) -> Value {
    let (openai, anthropic, gemini) = match status {
        400 => ("invalid_value", "invalid_request_error", "INVALID_ARGUMENT"),
        401 => ("invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
        429 => ("rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        529 => ("server_is_overloaded", "overloaded_error", "UNAVAILABLE"),
        503 => ("", "api_error", "UNAVAILABLE"),
        _ => ("", "api_error", "INTERNAL"),
    };
    let message = "the simulated provider does not feel well";
    match dialect {
        Dialect::Chat | Dialect::Responses => {
            let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
            let code = if openai.is_empty() { Value::Null } else { json!(openai) };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Dialect::Messages => {
            json!({"type": "error", "error": {"type": anthropic, "message": message}})
        }
        Dialect::Gemini => {
            json!({"error": {"code": status, "message": message, "status": gemini}})
        }
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(value: &Value) -> String {
    let name = value.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n")
}

/// The text in pieces of a few hundred bytes. It is ASCII.
fn pieces(content: &str) -> impl Iterator<Item = String> + '_ {
    content.as_bytes().chunks(700).map(|piece| String::from_utf8_lossy(piece).into_owned())
}
