//! Anthropic Messages: `POST /v1/messages` and `/v1/messages/count_tokens`.
//!
//! The prompt is read in the order tools, system, messages. It is cached up to the blocks that
//! carry `cache_control`, and for each of them looked up at this and the nineteen blocks before it.

use serde_json::{Value, json};

use super::cache::Prefix;
use super::cache_control::{self, ONE_HOUR};
use super::error::ApiError;
use super::prompt::Prompt;
use super::request::{boolean, integer, list, missing_or, required_string};
use super::turn::{Call, Turn};

/// The real minimum is 512 to 4,096, by model.
const MINIMUM_TOKENS: u64 = 1024;
const LOOK_BACK_BLOCKS: usize = 20;

/// Reads a request for a message.
pub(super) fn parse(body: &Value) -> Result<Call, ApiError> {
    let max_tokens = integer(body, "max_tokens")?.ok_or_else(|| ApiError::missing("max_tokens"))?;
    let (model, prompt) = parse_prompt(body)?;
    let prefixes = prompt.marked(&model, MINIMUM_TOKENS, LOOK_BACK_BLOCKS);
    let stream = boolean(body, "stream")?;
    Ok(Call { model, prompt, prefixes, stream, max_output_tokens: Some(max_tokens) })
}

/// The response to `count_tokens`.
pub(super) fn count_tokens(body: &Value) -> Result<Value, ApiError> {
    let (_, prompt) = parse_prompt(body)?;
    Ok(json!({"input_tokens": prompt.tokens()}))
}

/// Adds to `turn.usage` what this request writes to the cache, beyond what it read.
pub(super) fn account_for_writes(turn: &mut Turn, prefixes: &[Prefix]) {
    let mut reached = turn.usage.cached_tokens;
    for prefix in prefixes {
        let Some(keep) = prefix.keep.filter(|_| prefix.tokens > reached) else {
            continue;
        };
        let written = if keep == ONE_HOUR {
            &mut turn.usage.written_1h_tokens
        } else {
            &mut turn.usage.written_5m_tokens
        };
        *written += prefix.tokens - reached;
        reached = prefix.tokens;
    }
}

fn parse_prompt(body: &Value) -> Result<(String, Prompt), ApiError> {
    let model = required_string(body, "model")?;
    let messages = list(body, "messages")?.filter(|messages| !messages.is_empty());
    let messages =
        messages.ok_or_else(|| missing_or(body, "messages", "at least one message is required"))?;
    let mut prompt = Prompt::default();
    if let Some(tools) = list(body, "tools")? {
        section(&mut prompt, "tools", tools)?;
    }
    match &body["system"] {
        Value::Null => {}
        Value::Array(blocks) => section(&mut prompt, "system", blocks)?,
        text => prompt.message("system", text),
    }
    for message in messages {
        let role = required_string(message, "role")?;
        match &message["content"] {
            Value::Array(blocks) => section(&mut prompt, &role, blocks)?,
            Value::String(text) => prompt.message(&role, &json!(text)),
            _ => {
                return Err(missing_or(message, "content", "content must be a string or a list"));
            }
        }
    }
    // On the request itself: cache up to the end of the prompt.
    if let Some(keep) = cache_control::of(body)? {
        prompt.keep_newest(keep);
    }
    cache_control::check(&prompt)?;
    Ok((model, prompt))
}

fn section(prompt: &mut Prompt, role: &str, blocks: &[Value]) -> Result<(), ApiError> {
    prompt.open(role);
    for block in blocks {
        let (stripped, keep) = cache_control::take(block)?;
        prompt.part(&stripped);
        if let Some(keep) = keep {
            prompt.keep_newest(keep);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::anthropic_output::{Extras, message};
    use super::*;

    fn text(tokens: usize, control: Value) -> Value {
        let mut block = json!({"type": "text", "text": "x".repeat(4 * tokens)});
        if !control.is_null() {
            block["cache_control"] = control;
        }
        block
    }

    fn tool_result(control: Value) -> Value {
        json!({"type": "tool_result", "content": [text(10, control)]})
    }

    fn request(system: Vec<Value>, user: Vec<Value>) -> Value {
        json!({"model": "m", "max_tokens": 100, "system": system, "messages": [{"role": "user", "content": user}]})
    }

    fn refused(body: &Value, word: &str) {
        let error = parse(body).unwrap_err();
        assert!(error.status == 400 && error.message.contains(word), "{error:?}");
    }

    #[test]
    fn what_is_read_written_and_neither_adds_up_to_the_prompt() {
        let hour = json!({"type": "ephemeral", "ttl": "1h"});
        let five = json!({"type": "ephemeral"});
        let body = request(vec![text(2000, hour)], vec![text(500, five), text(300, Value::Null)]);
        let call = parse(&body).unwrap();
        let first: Vec<u64> = call.prefixes.iter().map(|prefix| prefix.tokens).collect();
        assert_eq!(first.len(), 2);

        let mut turn = Turn::new(&call, 0);
        account_for_writes(&mut turn, &call.prefixes);
        assert_eq!(
            (turn.usage.written_1h_tokens, turn.usage.written_5m_tokens),
            (first[0], first[1] - first[0])
        );
        assert_eq!(
            message(&turn, &Extras::default())["usage"]["input_tokens"],
            call.prompt.tokens() - first[1]
        );

        let mut turn = Turn::new(&call, first[1]);
        account_for_writes(&mut turn, &call.prefixes);
        assert_eq!((turn.usage.written_1h_tokens, turn.usage.written_5m_tokens), (0, 0));
    }

    #[test]
    fn cache_control_is_no_part_of_the_prefix() {
        let five = json!({"type": "ephemeral"});
        let marked =
            parse(&request(vec![text(2000, five.clone())], vec![tool_result(five.clone())]))
                .unwrap();
        let moved = parse(&request(
            vec![text(2000, Value::Null)],
            vec![tool_result(Value::Null), text(1, five)],
        ))
        .unwrap();
        assert_eq!(marked.prefixes[0].hash, moved.prefixes[0].hash);
        assert_eq!(marked.prefixes[1].hash, moved.prefixes[1].hash);
        assert!(marked.prefixes[1].keep.is_some() && moved.prefixes[1].keep.is_none());
    }

    #[test]
    fn without_a_breakpoint_nothing_is_cached() {
        let body = request(vec![text(5000, Value::Null)], vec![text(5000, Value::Null)]);
        assert_eq!(parse(&body).unwrap().prefixes, []);
        let mut automatic = body.clone();
        automatic["cache_control"] = json!({"type": "ephemeral"});
        assert_eq!(parse(&automatic).unwrap().prefixes.len(), 2);
    }

    #[test]
    fn requests_that_the_api_refuses() {
        let five = json!({"type": "ephemeral"});
        let hour = json!({"type": "ephemeral", "ttl": "1h"});
        refused(&request(vec![], vec![text(1, five.clone()); 5]), "maximum of 4");
        refused(&request(vec![text(1, five)], vec![text(1, hour)]), "1h");
        refused(&request(vec![text(1, json!({"type": "ephemeral", "ttl": "2h"}))], vec![]), "ttl");
        refused(
            &json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}),
            "max_tokens",
        );
        refused(&json!({"model": "m", "max_tokens": 1}), "messages");
        refused(&json!({"max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}), "model");
    }
}
