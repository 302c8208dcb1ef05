//! The answer of Anthropic Messages: a message, whole and as events.
//!
//! It begins with signed thinking if the request has `thinking`. It calls a tool if the request
//! forces that and does not bring the result of one: the only way to a call here.

use serde_json::{Map, Value, json};

use super::ciphertext;
use super::created;
use super::objects::{Kind, Object};
use super::place::{Place, Trace};
use super::prompt::Prompt;
use super::turn::Turn;

const THOUGHT: &str = "The question is clear. I answer in two sentences.";

/// What an answer has beside its text.
#[derive(Debug, Default)]
pub(super) struct Extras {
    signature: Option<String>,
    tool: Option<(String, Value)>,
    container: Value,
    /// The container that this request opens.
    opened: Option<(String, Object)>,
    /// What is told of removed blocks.
    transformations: Option<Vec<Value>>,
}

impl Extras {
    /// What the answer to a request has. `removed` is what was removed from it.
    pub(super) fn of(
        body: &Value,
        prompt: &Prompt,
        removed: Vec<Value>,
        place: &Place<'_>,
    ) -> Self {
        let thinks = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
        let seal = || ciphertext::seal(place.group.organization(), prompt.text());
        let opened = opened_container(body, place);
        let id = body["container"].as_str().or(body["container"]["id"].as_str());
        let known = id.and_then(|id| place.find(Kind::Container, id));
        let container = opened.as_ref().map(|(_, object)| object.shown.clone());
        Self {
            signature: thinks.then(seal),
            tool: forced_tool(body),
            container: container.or(known.map(|object| object.shown)).unwrap_or_default(),
            opened,
            transformations: place
                .has_beta("thinking-binding-controls-2026-08-01")
                .then_some(removed),
        }
    }

    /// What the answer leaves behind.
    pub(super) fn traces(self) -> impl Iterator<Item = Trace> {
        self.opened.into_iter().map(|(id, object)| Trace::Object { id, object })
    }
}

/// The identifier of the answer.
pub(super) fn message_id(turn: &Turn) -> String {
    format!("msg_{}", turn.id)
}

/// The blocks of the answer.
pub(super) fn content(turn: &Turn, extras: &Extras) -> Value {
    let thinking = extras
        .signature
        .as_ref()
        .map(|signature| json!({"type": "thinking", "thinking": THOUGHT, "signature": signature}));
    let text = json!({"type": "text", "text": turn.text});
    let last = extras.tool.as_ref().map_or(text, |(name, input)| {
        let id = format!("toolu_{}", turn.id);
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    });
    thinking.into_iter().chain([last]).collect()
}

/// The reply in one piece.
pub(super) fn message(turn: &Turn, extras: &Extras) -> Value {
    let reason = json!(stop_reason(turn, extras));
    let mut message =
        envelope(turn, extras, content(turn, extras), reason, turn.usage.output_tokens);
    if !extras.container.is_null() {
        message["container"] = extras.container.clone();
    }
    message
}

/// The reply as a stream of events.
pub(super) fn events(turn: &Turn, extras: &Extras) -> Vec<Value> {
    // The first event comes before there is a reply: one token, no reason to stop.
    let start = envelope(turn, extras, json!([]), Value::Null, 1);
    let mut events = vec![json!({"type": "message_start", "message": start})];
    let content = content(turn, extras);
    for (index, block) in content.as_array().into_iter().flatten().enumerate() {
        let (begun, deltas) = pieces(turn, block);
        events.push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
        if index == 0 {
            events.push(json!({"type": "ping"}));
        }
        events.extend(
            deltas.into_iter().map(
                |delta| json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ),
        );
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let mut delta = json!({"stop_reason": stop_reason(turn, extras), "stop_sequence": null});
    if !extras.container.is_null() {
        delta["container"] = extras.container.clone();
    }
    let usage = counts(turn, turn.usage.output_tokens);
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    events
}

/// A block as it begins, and what it grows by.
fn pieces(turn: &Turn, block: &Value) -> (Value, Vec<Value>) {
    let mut begun = block.clone();
    let deltas = match block["type"].as_str() {
        Some("thinking") => {
            (begun["thinking"], begun["signature"]) = (json!(""), json!(""));
            vec![
                json!({"type": "thinking_delta", "thinking": block["thinking"]}),
                json!({"type": "signature_delta", "signature": block["signature"]}),
            ]
        }
        Some("tool_use") => {
            begun["input"] = json!({});
            let text = block["input"].to_string();
            vec![json!({"type": "input_json_delta", "partial_json": text})]
        }
        _ => {
            begun["text"] = json!("");
            let pieces = turn.pieces().into_iter();
            pieces.map(|piece| json!({"type": "text_delta", "text": piece})).collect()
        }
    };
    (begun, deltas)
}

fn envelope(
    turn: &Turn,
    extras: &Extras,
    content: Value,
    stop_reason: Value,
    output_tokens: u64,
) -> Value {
    let mut envelope = json!({
        "id": message_id(turn),
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": usage(turn, output_tokens),
    });
    if let Some(told) = &extras.transformations {
        envelope["input_transformations"] = json!(told);
    }
    envelope
}

fn usage(turn: &Turn, output_tokens: u64) -> Value {
    let mut usage = counts(turn, output_tokens);
    usage["cache_creation"] = json!({
        "ephemeral_5m_input_tokens": turn.usage.written_5m_tokens,
        "ephemeral_1h_input_tokens": turn.usage.written_1h_tokens,
    });
    usage["service_tier"] = json!("standard");
    usage
}

/// `input_tokens` is only what came after the last breakpoint; the three counts of input add up to
/// the prompt.
fn counts(turn: &Turn, output_tokens: u64) -> Value {
    let usage = turn.usage;
    let written = usage.written_5m_tokens + usage.written_1h_tokens;
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": output_tokens,
    })
}

fn stop_reason(turn: &Turn, extras: &Extras) -> &'static str {
    match (&extras.tool, turn.truncated) {
        (_, true) => "max_tokens",
        (Some(_), false) => "tool_use",
        (None, false) => "end_turn",
    }
}

/// A container opens when the request names none and needs one.
fn opened_container(body: &Value, place: &Place<'_>) -> Option<(String, Object)> {
    let container = &body["container"];
    let is_named = container.is_string() || container["id"].is_string();
    let mut tools = body["tools"].as_array().into_iter().flatten();
    let runs_code = tools
        .any(|tool| tool["type"].as_str().is_some_and(|kind| kind.starts_with("code_execution")));
    (!is_named && (container.is_object() || runs_code))
        .then(|| created::anthropic_container(&container["skills"], place))
}

/// The tool that the request forces, and an input that its schema takes.
fn forced_tool(body: &Value) -> Option<(String, Value)> {
    let choice = &body["tool_choice"];
    let tools = body["tools"].as_array()?;
    let tool = match choice["type"].as_str()? {
        "tool" => tools.iter().find(|tool| tool["name"] == choice["name"])?,
        "any" => tools.first()?,
        _ => return None,
    };
    let newest = &body["messages"].as_array()?.last()?["content"];
    let mut blocks = newest.as_array().into_iter().flatten();
    if blocks.any(|block| block["type"] == "tool_result") {
        return None;
    }
    let schema = &tool["input_schema"];
    let required = schema["required"].as_array().into_iter().flatten();
    let input = required.filter_map(|name| {
        let name = name.as_str()?;
        let value = match schema["properties"][name]["type"].as_str() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            _ => json!("simulated"),
        };
        Some((name.to_owned(), value))
    });
    Some((tool["name"].as_str()?.to_owned(), Value::Object(input.collect::<Map<_, _>>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_tool_is_called_until_its_result_is_there() {
        let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}});
        let schema = json!({"properties": properties, "required": ["city", "days"]});
        let mut body = json!({
            "tools": [{"name": "weather", "input_schema": schema}],
            "tool_choice": {"type": "any"},
            "messages": [{"role": "user", "content": "x"}],
        });
        let expected = json!({"city": "simulated", "days": 1});
        assert_eq!(forced_tool(&body), Some(("weather".to_owned(), expected)));
        body["messages"][0]["content"] = json!([{"type": "tool_result", "tool_use_id": "t"}]);
        assert_eq!(forced_tool(&body), None);
        body["tool_choice"] = json!({"type": "auto"});
        assert_eq!(forced_tool(&body), None);
    }
}
