//! Gemini: `POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent` and
//! `:countTokens`, also under `/v1`.
//!
//! Caching is implicit. Its minimum is published; a lifetime of five minutes, a grain of 128 tokens
//! and the order system instruction, tools, contents are assumed.

use std::time::Duration;

use serde_json::{Value, json};

use super::cache::Prefix;
use super::error::ApiError;
use super::missing;
use super::objects::Kind;
use super::place::Place;
use super::prompt::Prompt;
use super::request::{integer, list, missing_or};
use super::turn::{Call, Turn};
use super::vendor::Vendor;

/// As published for Gemini 2.5; it is 4,096 for Gemini 3.
const MINIMUM_TOKENS: u64 = 2048;
const STEP_TOKENS: usize = 128;
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Reads a request; the path says whether it is a stream.
pub(super) fn parse(model: &str, stream: bool, body: &Value) -> Result<Call, ApiError> {
    let prompt = parse_prompt(body)?;
    let config = either(body, "generationConfig", "generation_config");
    let max_output_tokens =
        integer(config, "maxOutputTokens")?.or(integer(config, "max_output_tokens")?);
    let prefixes = prefixes(&prompt, model);
    Ok(Call { model: model.to_owned(), prompt, prefixes, stream, max_output_tokens })
}

/// What is cached of a prompt without being asked for.
pub(super) fn prefixes(prompt: &Prompt, model: &str) -> Vec<Prefix> {
    prompt.steps(model, MINIMUM_TOKENS, STEP_TOKENS, LIFETIME)
}

/// Completes a request with the cached content that it names, and returns how many tokens that is.
pub(super) fn complete(body: &mut Value, place: &Place<'_>) -> Result<u64, ApiError> {
    let name = either(body, "cachedContent", "cached_content");
    let Some(name) = name.as_str().map(str::to_owned) else { return Ok(0) };
    let cached = place.find(Kind::CachedContent, &name);
    let cached = cached.and_then(|object| object.items.into_iter().next());
    let cached =
        cached.ok_or_else(|| missing::error(Vendor::Gemini, Kind::CachedContent, &name))?;
    for (camel, snake) in [("systemInstruction", "system_instruction"), ("tools", "tools")] {
        let part = either(&cached, camel, snake);
        if !part.is_null() {
            body[camel] = part.clone();
        }
    }
    let mut contents = cached["contents"].as_array().cloned().unwrap_or_default();
    contents.extend(body["contents"].as_array().cloned().unwrap_or_default());
    body["contents"] = json!(contents);
    Ok(cached_prompt(&cached)?.tokens())
}

/// The prompt of a cached content, which needs no contents.
pub(super) fn cached_prompt(body: &Value) -> Result<Prompt, ApiError> {
    let mut prompt = Prompt::default();
    read_prompt(&mut prompt, body, list(body, "contents")?.unwrap_or_default())?;
    Ok(prompt)
}

/// The response to `countTokens`, of which the request may wrap the one that it is about.
pub(super) fn count_tokens(body: &Value) -> Result<Value, ApiError> {
    let wrapped = &body["generateContentRequest"];
    let prompt = parse_prompt(if wrapped.is_null() { body } else { wrapped })?;
    Ok(json!({"totalTokens": prompt.tokens()}))
}

/// The reply in one piece.
pub(super) fn response(turn: &Turn) -> Value {
    chunk(turn, &turn.text, Some(turn.usage.output_tokens))
}

/// The reply as a list of partial responses. Only the last has the reason of its end and its
/// length.
pub(super) fn chunks(turn: &Turn) -> Vec<Value> {
    let pieces = turn.pieces();
    let last = pieces.len() - 1;
    let chunks = pieces.iter().enumerate().map(|(index, piece)| {
        chunk(turn, piece, (index == last).then_some(turn.usage.output_tokens))
    });
    chunks.collect()
}

fn chunk(turn: &Turn, text: &str, output_tokens: Option<u64>) -> Value {
    let mut candidate =
        json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
    if output_tokens.is_some() {
        candidate["finishReason"] = json!(if turn.truncated { "MAX_TOKENS" } else { "STOP" });
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": usage(turn, output_tokens),
        "modelVersion": turn.model,
        "responseId": turn.id,
    })
}

/// As with all of Google's JSON, a number that is zero is left out.
fn usage(turn: &Turn, output_tokens: Option<u64>) -> Value {
    let prompt_tokens = turn.usage.prompt_tokens;
    let mut usage = json!({"promptTokenCount": prompt_tokens});
    if turn.usage.cached_tokens > 0 {
        usage["cachedContentTokenCount"] = json!(turn.usage.cached_tokens);
    }
    if let Some(tokens) = output_tokens.filter(|tokens| *tokens > 0) {
        usage["candidatesTokenCount"] = json!(tokens);
    }
    usage["totalTokenCount"] = json!(prompt_tokens + output_tokens.unwrap_or(0));
    usage
}

fn parse_prompt(body: &Value) -> Result<Prompt, ApiError> {
    let contents = list(body, "contents")?.filter(|contents| !contents.is_empty());
    let contents =
        contents.ok_or_else(|| missing_or(body, "contents", "contents is not specified"))?;
    let mut prompt = Prompt::default();
    read_prompt(&mut prompt, body, contents)?;
    Ok(prompt)
}

fn read_prompt(prompt: &mut Prompt, body: &Value, contents: &[Value]) -> Result<(), ApiError> {
    let system = either(body, "systemInstruction", "system_instruction");
    if !system.is_null() {
        prompt.message("system", &system["parts"]);
    }
    if let Some(tools) = list(body, "tools")? {
        prompt.message("tools", &json!(tools));
    }
    for content in contents {
        let parts = list(content, "parts")?.ok_or_else(|| ApiError::missing("parts"))?;
        prompt.message(content["role"].as_str().unwrap_or("user"), &json!(parts));
    }
    Ok(())
}

/// Google's JSON may be written in both spellings.
fn either<'a>(owner: &'a Value, camel: &str, snake: &str) -> &'a Value {
    if owner[camel].is_null() { &owner[snake] } else { &owner[camel] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_chunk_ends_the_reply() {
        let call = parse("m", true, &json!({"contents": [{"parts": [{"text": "x"}]}]})).unwrap();
        let turn = Turn::new(&call, 0);
        let chunks = chunks(&turn);
        let ends: Vec<bool> =
            chunks.iter().map(|chunk| !chunk["candidates"][0]["finishReason"].is_null()).collect();
        assert!(
            ends.len() > 1 && ends.iter().filter(|end| **end).count() == 1 && ends[ends.len() - 1]
        );
        assert!(chunks[0]["usageMetadata"].get("cachedContentTokenCount").is_none());
    }

    #[test]
    fn both_spellings_of_the_system_instruction_are_read() {
        let [camel, snake] = ["systemInstruction", "system_instruction"].map(|name| {
            let contents = json!([{"parts": [{"text": "x"}]}]);
            let body = json!({name: {"parts": [{"text": "s"}]}, "contents": contents});
            parse("m", false, &body).unwrap()
        });
        assert_eq!(camel.prompt.text(), snake.prompt.text());
    }

    #[test]
    fn requests_that_the_api_refuses() {
        for body in [json!({}), json!({"contents": [{"role": "user"}]})] {
            assert_eq!(parse("m", false, &body).unwrap_err().status, 400, "{body}");
        }
    }
}
