//! OpenAI Chat Completions: `POST /v1/chat/completions`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cache::Prefix;
use super::error::ApiError;
use super::prompt::Prompt;
use super::request::{boolean, integer, list, missing_or, required_string};
use super::turn::{Call, Turn};

const MINIMUM_TOKENS: u64 = 1024;
const STEP_TOKENS: usize = 128;
/// The real one is five to ten minutes without use, and an hour at most.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Reads a request for a completion, and whether a stream is to end with a chunk of usage.
pub(super) fn parse(body: &Value) -> Result<(Call, bool), ApiError> {
    let model = required_string(body, "model")?;
    let messages = list(body, "messages")?.filter(|messages| !messages.is_empty());
    let messages =
        messages.ok_or_else(|| missing_or(body, "messages", "at least one message is required"))?;
    let mut prompt = Prompt::default();
    preamble(&mut prompt, &body["response_format"], list(body, "tools")?);
    for message in messages {
        prompt.message(&required_string(message, "role")?, &message["content"]);
        other_fields(&mut prompt, message);
    }
    let prefixes = prefixes(&prompt, &model);
    let stream = boolean(body, "stream")?;
    // Many clients still send the older name.
    let max_output_tokens =
        integer(body, "max_completion_tokens")?.or(integer(body, "max_tokens")?);
    let include_usage = boolean(&body["stream_options"], "include_usage")?;
    Ok((Call { model, prompt, prefixes, stream, max_output_tokens }, include_usage))
}

/// What comes before the messages: the schema of the reply, then the tools. Shared with the
/// Responses API.
pub(super) fn preamble(prompt: &mut Prompt, format: &Value, tools: Option<&[Value]>) {
    if !format.is_null() {
        prompt.open("format");
        prompt.part(format);
    }
    if let Some(tools) = tools.filter(|tools| !tools.is_empty()) {
        prompt.open("tools");
        tools.iter().for_each(|tool| prompt.part(tool));
    }
}

/// What OpenAI caches of a prompt, in either API.
pub(super) fn prefixes(prompt: &Prompt, model: &str) -> Vec<Prefix> {
    prompt.steps(model, MINIMUM_TOKENS, STEP_TOKENS, IDLE)
}

/// The reply in one piece.
pub(super) fn completion(turn: &Turn) -> Value {
    let message =
        json!({"role": "assistant", "content": turn.text, "refusal": null, "annotations": []});
    let reason = finish_reason(turn);
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
    json!({
        "id": format!("chatcmpl-{}", turn.id),
        "object": "chat.completion",
        "created": turn.created,
        "model": turn.model,
        "choices": [choice],
        "usage": usage(turn),
        "service_tier": "default",
        "system_fingerprint": null,
    })
}

/// The reply as chunks, without the closing `[DONE]`.
pub(super) fn chunks(turn: &Turn, include_usage: bool) -> Vec<Value> {
    let start = json!({"role": "assistant", "content": "", "refusal": null});
    let mut choices = vec![choice(start, None)];
    let pieces = turn.pieces().into_iter();
    choices.extend(pieces.map(|piece| choice(json!({"content": piece}), None)));
    choices.push(choice(json!({}), Some(finish_reason(turn))));
    let mut chunks: Vec<Value> =
        choices.into_iter().map(|choice| chunk(turn, json!([choice]))).collect();
    if include_usage {
        chunks.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
        let mut last = chunk(turn, json!([]));
        last["usage"] = usage(turn);
        chunks.push(last);
    }
    chunks
}

fn choice(delta: Value, finish_reason: Option<&str>) -> Value {
    json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason})
}

fn chunk(turn: &Turn, choices: Value) -> Value {
    json!({
        "id": format!("chatcmpl-{}", turn.id),
        "object": "chat.completion.chunk",
        "created": turn.created,
        "model": turn.model,
        "service_tier": "default",
        "system_fingerprint": null,
        "choices": choices,
    })
}

fn usage(turn: &Turn) -> Value {
    let usage = turn.usage;
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn finish_reason(turn: &Turn) -> &'static str {
    if turn.truncated { "length" } else { "stop" }
}

/// Tool calls, names and the like. Clients send `refusal` and `annotations` of a reply back, which
/// the model never reads.
fn other_fields(prompt: &mut Prompt, message: &Value) {
    let others: Map<String, Value> = message
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| {
            !matches!(name.as_str(), "role" | "content" | "refusal" | "annotations" | "audio")
                && !value.is_null()
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !others.is_empty() {
        prompt.part(&Value::Object(others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(messages: Value) -> Call {
        parse(&json!({"model": "m", "messages": messages})).unwrap().0
    }

    #[test]
    fn a_reply_sent_back_continues_the_prompt() {
        let first = parsed(json!([{"role": "user", "content": "x".repeat(8000)}]));
        let turn = Turn::new(&first, 0);
        let echoed = completion(&turn)["choices"][0]["message"].clone();
        let second = parsed(json!([{"role": "user", "content": "x".repeat(8000)}, echoed]));
        assert_eq!(
            second.prompt.text(),
            format!("{}\u{1e}assistant\u{1f}{}", first.prompt.text(), turn.text)
        );
        assert_eq!(second.prefixes[..first.prefixes.len()], first.prefixes);
    }

    #[test]
    fn tool_calls_are_part_of_the_prompt() {
        let [a, b] = ["a", "b"].map(|name| {
            let calls = json!([{"function": {"name": name}}]);
            parsed(json!([{"role": "assistant", "content": null, "tool_calls": calls}]))
        });
        assert_ne!(a.prompt.text(), b.prompt.text());
    }

    #[test]
    fn usage_comes_in_a_chunk_of_its_own_on_request() {
        let turn = Turn::new(&parsed(json!([{"role": "user", "content": "x"}])), 0);
        assert!(chunks(&turn, false).iter().all(|chunk| chunk.get("usage").is_none()));
        let chunks = chunks(&turn, true);
        let last = chunks.last().unwrap();
        assert_eq!(
            (&last["choices"], &last["usage"]["prompt_tokens_details"]["cached_tokens"]),
            (&json!([]), &json!(0))
        );
        assert!(chunks[0]["usage"].is_null());
    }

    #[test]
    fn requests_that_the_api_refuses() {
        for body in [
            json!({"messages": [{"role": "user", "content": "x"}]}),
            json!({"model": "m"}),
            json!({"model": "m", "messages": []}),
            json!({"model": "m", "messages": [{"content": "x"}]}),
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}),
        ] {
            assert_eq!(parse(&body).unwrap_err().status, 400, "{body}");
        }
    }
}
