//! OpenAI Responses: `POST /v1/responses` and `/v1/responses/compact`. [`super::websocket`] speaks
//! the same over a socket.
//!
//! A response that may be stored is remembered by the account that made it: its input and its
//! output, as in production not its instructions or tools. So `previous_response_id` continues it
//! there and is unknown elsewhere.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::ApiError;
use super::openai_chat::{preamble, prefixes};
use super::prompt::Prompt;
use super::request::{boolean, boolean_or, integer, list, missing_or, required_string, string};
use super::turn::{Call, Turn};

/// A parsed request for a response.
#[derive(Debug)]
pub(super) struct ResponseCall {
    pub(super) call: Call,
    pub(super) store: bool,
    /// False for a request that only warms the cache.
    pub(super) generate: bool,
    previous_response_id: Option<String>,
    /// Where in the text of the prompt the history begins.
    history_start: usize,
}

/// Reads a request that this account serves. `stored` finds the history of an earlier response.
pub(super) fn parse(
    body: &Value,
    account: &str,
    stored: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<ResponseCall, ApiError> {
    let model = required_string(body, "model")?;
    let previous_response_id = string(body, "previous_response_id")?.map(str::to_owned);
    let mut prompt = Prompt::default();
    preamble(&mut prompt, &body["text"]["format"], list(body, "tools")?);
    if let Some(instructions) = string(body, "instructions")? {
        prompt.message("developer", &json!(instructions));
    }
    let history_start = prompt.text().len();
    if let Some(id) = &previous_response_id {
        prompt.append_rendered(&stored(id).ok_or_else(|| unknown_response(id))?);
    }
    read_input(&mut prompt, body, account)?;
    let call = Call {
        prefixes: prefixes(&prompt, &model),
        stream: boolean(body, "stream")?,
        max_output_tokens: integer(body, "max_output_tokens")?,
        model,
        prompt,
    };
    let (store, generate) = (boolean_or(body, "store", true)?, boolean_or(body, "generate", true)?);
    // A limit of zero tokens gives no output.
    let max_output_tokens = if generate { call.max_output_tokens } else { Some(0) };
    Ok(ResponseCall {
        call: Call { max_output_tokens, ..call },
        store,
        generate,
        previous_response_id,
        history_start,
    })
}

impl ResponseCall {
    /// The input and the reply, which a later request continues.
    pub(super) fn history(&self, turn: &Turn) -> Arc<str> {
        let mut history = Prompt::default();
        history
            .append_rendered(self.call.prompt.text().get(self.history_start..).unwrap_or_default());
        if self.generate {
            history.message("assistant", &json!(turn.text));
        }
        history.text().into()
    }

    /// The response in one piece.
    pub(super) fn response(&self, turn: &Turn) -> Value {
        let status = if self.truncated(turn) { "incomplete" } else { "completed" };
        let output = if self.generate { vec![output_item(turn, "completed")] } else { vec![] };
        self.envelope(turn, status, output, usage(turn))
    }

    /// The response as a stream of events.
    pub(super) fn events(&self, turn: &Turn) -> Vec<Value> {
        let begun = self.envelope(turn, "in_progress", vec![], Value::Null);
        let mut events = vec![
            json!({"type": "response.created", "response": begun}),
            json!({"type": "response.in_progress", "response": begun}),
        ];
        if self.generate {
            events.extend(output_events(turn));
        }
        let end = if self.truncated(turn) { "response.incomplete" } else { "response.completed" };
        events.push(json!({"type": end, "response": self.response(turn)}));
        for (number, event) in events.iter_mut().enumerate() {
            event["sequence_number"] = json!(number);
        }
        events
    }

    fn truncated(&self, turn: &Turn) -> bool {
        self.generate && turn.truncated
    }

    fn envelope(&self, turn: &Turn, status: &str, output: Vec<Value>, usage: Value) -> Value {
        let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": response_id(turn),
            "object": "response",
            "created_at": turn.created,
            "status": status,
            "error": null,
            "incomplete_details": incomplete,
            "model": turn.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": self.previous_response_id,
            "store": self.store,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
            "metadata": {},
        })
    }
}

/// The identifier under which a response is known to its account.
pub(super) fn response_id(turn: &Turn) -> String {
    format!("resp_{}", turn.id)
}

/// The response to a request to compact: the messages of the user stay, the rest becomes one opaque
/// item.
pub(super) fn compaction(call: &ResponseCall, turn: &Turn, body: &Value, account: &str) -> Value {
    let items = body["input"].as_array().into_iter().flatten();
    let mut output: Vec<Value> = items.filter_map(user_message).collect();
    output.push(json!({
        "id": format!("cmp_{}", turn.id),
        "type": "compaction",
        "encrypted_content": format!("{ENCRYPTED_BY}{account}:{:x}", call.call.prompt.tokens()),
    }));
    json!({
        "id": response_id(turn),
        "object": "response.compaction",
        "created_at": turn.created,
        "output": output,
        "usage": usage(turn),
    })
}

/// The beginning of what is called encrypted here; the name of the account follows.
const ENCRYPTED_BY: &str = "simulated-encryption:";

/// A message of the user as an output item, in which the content is always a list.
fn user_message(item: &Value) -> Option<Value> {
    let content = match &item["content"] {
        Value::String(text) => json!([{"type": "input_text", "text": text}]),
        list => list.clone(),
    };
    let message =
        json!({"type": "message", "role": "user", "status": "completed", "content": content});
    (item["role"] == "user").then_some(message)
}

fn read_input(prompt: &mut Prompt, body: &Value, account: &str) -> Result<(), ApiError> {
    match &body["input"] {
        Value::String(text) => prompt.message("user", &json!(text)),
        Value::Array(items) => {
            for item in items {
                check_encryption(item, account)?;
                match item["role"].as_str() {
                    Some(role) => prompt.message(role, &item["content"]),
                    None => {
                        prompt.open("item");
                        prompt.part(item);
                    }
                }
            }
        }
        _ => return Err(missing_or(body, "input", "a string or a list is expected")),
    }
    Ok(())
}

/// Only the organization that made encrypted items can read them. Those of unknown origin pass, so
/// that recorded traffic can be replayed.
fn check_encryption(item: &Value, account: &str) -> Result<(), ApiError> {
    let maker = item["encrypted_content"].as_str().and_then(|text| text.strip_prefix(ENCRYPTED_BY));
    match maker.and_then(|rest| rest.split(':').next()) {
        Some(maker) if maker != account => {
            let message =
                "Encrypted content organization_id did not match the target organization.";
            Err(ApiError::invalid(message).about("input", "invalid_encrypted_content"))
        }
        _ => Ok(()),
    }
}

fn unknown_response(id: &str) -> ApiError {
    let error = ApiError::invalid(format!("Previous response with id '{id}' not found."));
    error.about("previous_response_id", "previous_response_not_found")
}

fn output_events(turn: &Turn) -> Vec<Value> {
    let id = message_id(turn);
    let mut started = output_item(turn, "in_progress");
    started["content"] = json!([]);
    let mut events = vec![
        item_event("response.output_item.added", started),
        content_event(&id, "response.content_part.added", "part", output_text("")),
    ];
    for piece in turn.pieces() {
        events.push(content_event(&id, "response.output_text.delta", "delta", json!(piece)));
    }
    events.extend([
        content_event(&id, "response.output_text.done", "text", json!(turn.text)),
        content_event(&id, "response.content_part.done", "part", output_text(&turn.text)),
        item_event("response.output_item.done", output_item(turn, "completed")),
    ]);
    events
}

fn item_event(kind: &str, item: Value) -> Value {
    json!({"type": kind, "output_index": 0, "item": item})
}

fn content_event(id: &str, kind: &str, name: &str, value: Value) -> Value {
    let mut event = json!({"type": kind, "item_id": id, "output_index": 0, "content_index": 0});
    event[name] = value;
    event
}

fn output_item(turn: &Turn, status: &str) -> Value {
    let content = [output_text(&turn.text)];
    json!({"id": message_id(turn), "type": "message", "status": status, "role": "assistant", "content": content})
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn message_id(turn: &Turn) -> String {
    format!("msg_{}", turn.id)
}

fn usage(turn: &Turn) -> Value {
    let usage = turn.usage;
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::super::response_store::ResponseStore;
    use super::*;

    fn parsed(body: &Value, store: &ResponseStore) -> Result<ResponseCall, ApiError> {
        parse(body, "a", |id| store.get(id))
    }

    #[test]
    fn a_previous_response_is_the_same_as_sending_everything_again() {
        let mut store = ResponseStore::default();
        let first = parsed(&json!({"model": "m", "input": "hello"}), &store).unwrap();
        let turn = Turn::new(&first.call, 0);
        store.insert(response_id(&turn), first.history(&turn));

        let continued =
            json!({"model": "m", "input": "and?", "previous_response_id": response_id(&turn)});
        let mut input =
            vec![json!({"role": "user", "content": [{"type": "input_text", "text": "hello"}]})];
        input.extend(first.response(&turn)["output"].as_array().unwrap().clone());
        input.push(json!({"type": "message", "role": "user", "content": "and?"}));
        let complete = json!({"model": "m", "input": input});
        assert_eq!(
            parsed(&continued, &store).unwrap().call.prompt.text(),
            parsed(&complete, &store).unwrap().call.prompt.text(),
        );
    }

    #[test]
    fn a_response_of_another_account_is_unknown() {
        let body = json!({"model": "m", "input": "x", "previous_response_id": "resp_1"});
        let error = parsed(&body, &ResponseStore::default()).unwrap_err();
        assert_eq!((error.status, error.code), (400, Some("previous_response_not_found")));
    }

    #[test]
    fn an_item_encrypted_for_another_account_is_refused() {
        let store = ResponseStore::default();
        let body = json!({"model": "m", "input": [{"role": "user", "content": "x"}]});
        let call = parsed(&body, &store).unwrap();
        let compacted = compaction(&call, &Turn::new(&call.call, 0), &body, "a");
        assert_eq!(compacted["output"][0]["content"][0]["text"], "x");
        let next = json!({"model": "m", "input": compacted["output"]});
        assert!(parse(&next, "a", |_| None).is_ok());
        assert_eq!(
            parse(&next, "b", |_| None).unwrap_err().code,
            Some("invalid_encrypted_content")
        );
    }

    #[test]
    fn a_request_that_only_warms_the_cache_has_no_output() {
        let call = parsed(
            &json!({"model": "m", "input": [], "generate": false}),
            &ResponseStore::default(),
        )
        .unwrap();
        let turn = Turn::new(&call.call, 0);
        let kinds: Vec<Value> =
            call.events(&turn).into_iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["response.created", "response.in_progress", "response.completed"]);
        assert_eq!(call.response(&turn)["output"], json!([]));
    }

    #[test]
    fn a_reply_cut_short_is_incomplete() {
        let body = json!({"model": "m", "input": "x", "max_output_tokens": 1});
        let call = parsed(&body, &ResponseStore::default()).unwrap();
        let turn = Turn::new(&call.call, 0);
        assert_eq!(call.events(&turn).last().unwrap()["type"], "response.incomplete");
        assert_eq!(call.response(&turn)["incomplete_details"]["reason"], "max_output_tokens");
    }
}
