//! Amazon Bedrock, where it serves Anthropic's models to the same accounts: `POST
//! /model/{model}/converse`, `/converse-stream`, `/invoke` and `/invoke-with-response-stream`.
//!
//! Converse is a format of its own, with cache points between the blocks of a prompt; invoke takes
//! and gives what the Messages API does. Both stream in frames of AWS.

use serde_json::{Value, json};

use super::cache_control::{FIVE_MINUTES, ONE_HOUR};
use super::error::ApiError;
use super::prompt::Prompt;
use super::request::{integer, list, missing_or, required_string};
use super::turn::{Call, Turn, Usage};

const MINIMUM_TOKENS: u64 = 1024;
const LOOK_BACK_BLOCKS: usize = 20;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Method {
    pub(super) model: String,
    pub(super) is_converse: bool,
    pub(super) is_stream: bool,
}

impl Method {
    /// The method of a path; `None` for any other path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (model, method) = path.strip_prefix("/model/")?.rsplit_once('/')?;
        let (is_converse, is_stream) = match method {
            "converse" => (true, false),
            "converse-stream" => (true, true),
            "invoke" => (false, false),
            "invoke-with-response-stream" => (false, true),
            _ => return None,
        };
        let model = Some(model).filter(|model| !model.is_empty())?.to_owned();
        Some(Self { model, is_converse, is_stream })
    }
}

/// Reads a request of Converse.
pub(super) fn parse(method: &Method, body: &Value) -> Result<Call, ApiError> {
    let messages = list(body, "messages")?.filter(|messages| !messages.is_empty());
    let messages =
        messages.ok_or_else(|| missing_or(body, "messages", "at least one message is required"))?;
    let mut prompt = Prompt::default();
    if let Some(blocks) = list(body, "system")? {
        section(&mut prompt, "system", blocks);
    }
    for message in messages {
        let blocks = list(message, "content")?.ok_or_else(|| ApiError::missing("content"))?;
        section(&mut prompt, &required_string(message, "role")?, blocks);
    }
    let prefixes = prompt.marked(&method.model, MINIMUM_TOKENS, LOOK_BACK_BLOCKS);
    let max_output_tokens = integer(&body["inferenceConfig"], "maxTokens")?;
    let (model, stream) = (method.model.clone(), method.is_stream);
    Ok(Call { model, prompt, prefixes, stream, max_output_tokens })
}

fn section(prompt: &mut Prompt, role: &str, blocks: &[Value]) {
    prompt.open(role);
    for block in blocks {
        match &block["cachePoint"] {
            Value::Null => prompt.part(block),
            point if point["ttl"] == "1h" => prompt.keep_newest(ONE_HOUR),
            _ => prompt.keep_newest(FIVE_MINUTES),
        }
    }
}

/// The reply of Converse in one piece.
pub(super) fn response(turn: &Turn) -> Value {
    let message = json!({"role": "assistant", "content": [{"text": turn.text}]});
    json!({
        "metrics": {"latencyMs": 9},
        "output": {"message": message},
        "stopReason": stop_reason(turn),
        "usage": usage(turn),
    })
}

/// The reply of Converse as a stream of events.
pub(super) fn events(turn: &Turn) -> Vec<Value> {
    let event = |name: &str, payload: Value| json!({"event": name, "payload": payload});
    let mut events = vec![event("messageStart", json!({"role": "assistant"}))];
    events.extend(turn.pieces().into_iter().map(|piece| {
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": piece}}))
    }));
    events.push(event("contentBlockStop", json!({"contentBlockIndex": 0})));
    events.push(event("messageStop", json!({"stopReason": stop_reason(turn)})));
    let end = json!({"metrics": {"latencyMs": 9}, "usage": usage(turn)});
    events.push(event("metadata", end));
    events
}

/// The events of the Messages API as invoke streams them: the last one with what it has cost.
pub(super) fn chunks(turn: &Turn, events: Vec<Value>) -> Vec<Value> {
    let count = events.len();
    let chunks = events.into_iter().enumerate().map(|(index, mut event)| {
        if index + 1 == count {
            let [input, output, read, written] = counts(&turn.usage);
            event["amazon-bedrock-invocationMetrics"] = json!({
                "inputTokenCount": input,
                "outputTokenCount": output,
                "invocationLatency": 9,
                "firstByteLatency": 5,
                "cacheReadInputTokenCount": read,
                "cacheWriteInputTokenCount": written,
            });
        }
        json!({"event": "chunk", "model": event})
    });
    chunks.collect()
}

/// The headers of an invocation that is not streamed.
pub(super) fn headers(usage: &Usage) -> Vec<(&'static str, String)> {
    let names = [
        "x-amzn-bedrock-input-token-count",
        "x-amzn-bedrock-output-token-count",
        "x-amzn-bedrock-cache-read-input-token-count",
        "x-amzn-bedrock-cache-write-input-token-count",
    ];
    names.into_iter().zip(counts(usage).map(|count| count.to_string())).collect()
}

/// Input, output, read, written: the first without the other two of the prompt.
fn counts(usage: &Usage) -> [u64; 4] {
    let written = usage.written_5m_tokens + usage.written_1h_tokens;
    let input = usage.prompt_tokens - usage.cached_tokens - written;
    [input, usage.output_tokens, usage.cached_tokens, written]
}

fn usage(turn: &Turn) -> Value {
    let [input, output, read, written] = counts(&turn.usage);
    json!({
        "inputTokens": input,
        "outputTokens": output,
        "totalTokens": turn.usage.prompt_tokens + output,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    })
}

fn stop_reason(turn: &Turn) -> &'static str {
    if turn.truncated { "max_tokens" } else { "end_turn" }
}
