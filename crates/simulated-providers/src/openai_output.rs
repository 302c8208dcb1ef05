//! The output of the Responses API: its items, whole and as events, and the count of tokens.

use serde_json::{Value, json};

use super::turn::Turn;

/// What an output has beside its message.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// The ciphertext of the reasoning, if there was any.
    pub(super) reasoning: Option<String>,
    /// The container in which code ran.
    pub(super) container: Option<String>,
}

/// The items in their order; the message is the last.
pub(super) fn items(turn: &Turn, extras: &Extras) -> Vec<Value> {
    let reasoning = extras.reasoning.as_ref().map(|text| {
        json!({
            "id": format!("rs_{}", turn.id), "type": "reasoning", "summary": [],
            "encrypted_content": text,
        })
    });
    let code = extras.container.as_ref().map(|container| {
        json!({
            "id": format!("ci_{}", turn.id), "type": "code_interpreter_call",
            "status": "completed", "code": "1 + 1", "container_id": container, "outputs": null,
        })
    });
    reasoning.into_iter().chain(code).chain([message(turn, "completed")]).collect()
}

/// The events between those of the response itself.
pub(super) fn events(turn: &Turn, extras: &Extras) -> Vec<Value> {
    let mut events = Vec::new();
    for (index, item) in items(turn, extras).into_iter().enumerate() {
        let is_message = item["type"] == "message";
        let started = if is_message { message(turn, "in_progress") } else { begun(&item) };
        events.push(item_event("response.output_item.added", index, started));
        if is_message {
            events.extend(text_events(turn, index));
        }
        events.push(item_event("response.output_item.done", index, item));
    }
    events
}

/// Adds to `turn.usage` what is written: what is there now, in whole steps.
pub(super) fn account_for_writes(turn: &mut Turn) {
    let cacheable = turn.usage.prompt_tokens / 128 * 128;
    let cacheable = if cacheable < 1024 { 0 } else { cacheable };
    turn.usage.written_30m_tokens = cacheable.saturating_sub(turn.usage.cached_tokens);
}

/// The count of tokens.
pub(super) fn usage(turn: &Turn) -> Value {
    let usage = turn.usage;
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.written_30m_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    })
}

/// Ciphertext is complete only in the item that is done.
fn begun(item: &Value) -> Value {
    let mut begun = item.clone();
    match item["type"].as_str() {
        Some("reasoning") => begun["encrypted_content"] = json!(""),
        _ => begun["status"] = json!("in_progress"),
    }
    begun
}

fn text_events(turn: &Turn, index: usize) -> Vec<Value> {
    let id = message_id(turn);
    let event = |kind: &str, name: &str, value: Value| {
        let mut event =
            json!({"type": kind, "item_id": id, "output_index": index, "content_index": 0});
        if name != "part" {
            event["logprobs"] = json!([]);
        }
        event[name] = value;
        event
    };
    let mut events = vec![event("response.content_part.added", "part", output_text(""))];
    for piece in turn.pieces() {
        events.push(event("response.output_text.delta", "delta", json!(piece)));
    }
    events.push(event("response.output_text.done", "text", json!(turn.text)));
    events.push(event("response.content_part.done", "part", output_text(&turn.text)));
    events
}

fn item_event(kind: &str, index: usize, item: Value) -> Value {
    json!({"type": kind, "output_index": index, "item": item})
}

fn message(turn: &Turn, status: &str) -> Value {
    let content = match status {
        "completed" => json!([output_text(&turn.text)]),
        _ => json!([]),
    };
    json!({"id": message_id(turn), "type": "message", "status": status, "role": "assistant", "content": content})
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn message_id(turn: &Turn) -> String {
    format!("msg_{}", turn.id)
}
