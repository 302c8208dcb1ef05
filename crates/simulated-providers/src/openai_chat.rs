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

/// Reads a request for a completion. The flag says whether a stream is to end with a chunk of
/// usage.
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
    // The older name is still what many clients send.
    let max_output_tokens =
        integer(body, "max_completion_tokens")?.or(integer(body, "max_tokens")?);
    let include_usage = boolean(&body["stream_options"], "include_usage")?;
    Ok((Call { model, prompt, prefixes, stream, max_output_tokens }, include_usage))
}

/// What stands before the messages: the schema of the answer, then the tools. Shared with the
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

/// What OpenAI caches of a prompt, whichever API it came by.
pub(super) fn prefixes(prompt: &Prompt, model: &str) -> Vec<Prefix> {
    prompt.steps(model, MINIMUM_TOKENS, STEP_TOKENS, IDLE)
}

/// The answer in one piece.
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

/// The answer as chunks, without the closing `[DONE]`.
pub(super) fn chunks(turn: &Turn, include_usage: bool) -> Vec<Value> {
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{}", turn.id),
            "object": "chat.completion.chunk",
            "created": turn.created,
            "model": turn.model,
            "service_tier": "default",
            "system_fingerprint": null,
            "choices": choices,
        });
        if include_usage {
            chunk["usage"] = usage;
        }
        chunk
    };
    let choice = |delta: Value, finish_reason: Option<&str>| {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        chunk(json!([choice]), Value::Null)
    };
    let mut chunks =
        vec![choice(json!({"role": "assistant", "content": "", "refusal": null}), None)];
    chunks.extend(turn.pieces().into_iter().map(|piece| choice(json!({"content": piece}), None)));
    chunks.push(choice(json!({}), Some(finish_reason(turn))));
    if include_usage {
        chunks.push(chunk(json!([]), usage(turn)));
    }
    chunks
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

/// Tool calls, names and the like. Clients echo the answer's `refusal` and `annotations`, which the
/// model never read.
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
    fn an_answer_sent_back_continues_the_prompt() {
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
        let calls = |name: &str| json!([{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": name}}]}]);
        assert_ne!(parsed(calls("a")).prompt.text(), parsed(calls("b")).prompt.text());
    }

    #[test]
    fn usage_comes_in_a_chunk_of_its_own_when_asked_for() {
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
