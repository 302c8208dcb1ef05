//! OpenAI Responses: `POST /v1/responses` and `/v1/responses/compact`. [`super::websocket`] speaks
//! the same over a socket.
//!
//! A response that may be stored is remembered by the group that made it: its input and its
//! output, as in production not its instructions or tools. So `previous_response_id` continues it
//! there and is unknown elsewhere; a `conversation` likewise, which grows by each of its responses.
//!
//! There is an item of reasoning, empty but for its ciphertext, if the request has `reasoning`;
//! and a call of the code interpreter if that is among the tools.

use serde_json::{Value, json};

use super::ciphertext;
use super::created;
use super::error::ApiError;
use super::missing;
use super::objects::{Kind, Object, Phase};
use super::openai_chat::{preamble, prefixes};
use super::openai_input;
use super::openai_output::{self, Extras, usage};
use super::place::{Place, Trace};
use super::prompt::Prompt;
use super::references;
use super::request::{boolean, boolean_or, integer, list, required_string, string};
use super::turn::{Call, Turn};
use super::vendor::Vendor;

/// A parsed request for a response.
#[derive(Debug)]
pub(super) struct ResponseCall {
    pub(super) call: Call,
    pub(super) store: bool,
    /// False for a request that only warms the cache.
    pub(super) generate: bool,
    pub(super) background: bool,
    previous_response_id: Option<String>,
    conversation: Option<String>,
    input: Vec<Value>,
    /// What was removed from the input.
    transformations: Vec<Value>,
    extras: Extras,
    /// The container that this request opens.
    opened: Option<(String, Object)>,
    /// Where in the text of the prompt the history begins, and where the input does.
    history_start: usize,
    input_start: usize,
}

/// Reads a request that is served at this place.
pub(super) fn parse(body: &Value, place: &Place<'_>) -> Result<ResponseCall, ApiError> {
    let model = required_string(body, "model")?;
    let previous_response_id = string(body, "previous_response_id")?.map(str::to_owned);
    let conversation = conversation(body);
    if previous_response_id.is_some() && conversation.is_some() {
        let message = "Mutually exclusive parameters: `previous_response_id` and `conversation`.";
        return Err(ApiError::invalid(message).about("conversation", "mutually_exclusive"));
    }
    let mut prompt = Prompt::default();
    preamble(&mut prompt, &body["text"]["format"], list(body, "tools")?);
    if let Some(instructions) = string(body, "instructions")? {
        prompt.message("developer", &json!(instructions));
    }
    let history_start = prompt.text().len();
    if let Some(id) = &previous_response_id {
        let history = place.history(Kind::Response, id);
        prompt.append_rendered(&history.ok_or_else(|| missing::previous_response(id))?);
    }
    if let Some(id) = &conversation {
        let history = place.history(Kind::Conversation, id);
        let missing = || missing::error(Vendor::OpenAi, Kind::Conversation, id);
        prompt.append_rendered(&history.ok_or_else(missing)?);
    }
    references::check(Vendor::OpenAi, body, place)?;
    let input_start = prompt.text().len();
    let mut input = openai_input::items("input", &body["input"])?;
    let transformations = ciphertext::open_items(&mut input, place)?;
    input.iter().for_each(|item| openai_input::render(&mut prompt, item, place));
    let (store, generate) = (boolean_or(body, "store", true)?, boolean_or(body, "generate", true)?);
    // A limit of zero tokens gives no output.
    let max_output_tokens = if generate { integer(body, "max_output_tokens")? } else { Some(0) };
    let opened = opened_container(body, place);
    let container = opened.as_ref().map(|(id, _)| id.clone()).or_else(|| named_container(body));
    let extras = Extras { reasoning: reasoning(body, &prompt, place), container };
    let prefixes = prefixes(&prompt, &model);
    let stream = boolean(body, "stream")?;
    Ok(ResponseCall {
        call: Call { prefixes, stream, max_output_tokens, model, prompt },
        store,
        generate,
        background: boolean(body, "background")?,
        previous_response_id,
        conversation,
        input,
        transformations,
        extras,
        opened,
        history_start,
        input_start,
    })
}

impl ResponseCall {
    /// What the response leaves behind.
    pub(super) fn traces(self, turn: &Turn, place: &Place<'_>) -> Vec<Trace> {
        let output = self.output(turn);
        let text = self.call.prompt.text();
        let mut reply = Prompt::default();
        output.iter().for_each(|item| openai_input::render(&mut reply, item, place));
        let history = text.get(self.history_start..).unwrap_or_default();
        let added = text.get(self.input_start..).unwrap_or_default();
        let (history, added) =
            (format!("{history}{}", reply.text()), format!("{added}{}", reply.text()));
        let shown = self.response(turn);
        let phase = if self.background { Phase::Queued } else { Phase::Ready };
        let (id, conversation) = (response_id(turn), self.conversation);
        let object =
            Object { phase, history: history.into(), ..Object::new(Kind::Response, shown) };
        if !self.store {
            let opened = self.opened.map(|(id, object)| Trace::Object { id, object });
            return opened.into_iter().chain([Trace::OnSocket { id, object }]).collect();
        }
        let input: Vec<Value> = self.input.into_iter().map(openai_input::with_id).collect();
        let items = input.iter().chain(&output).filter_map(|item| {
            let id = item["id"].as_str()?.to_owned();
            Some(Trace::Object { id, object: Object::new(Kind::Item, item.clone()) })
        });
        let mut traces: Vec<Trace> = items.collect();
        traces.extend(conversation.map(|conversation| Trace::Growth {
            conversation,
            items: input.iter().chain(&output).cloned().collect(),
            history: added,
        }));
        traces.extend(self.opened.map(|(id, object)| Trace::Object { id, object }));
        traces.push(Trace::Object { id, object: Object { items: input, ..object } });
        traces
    }

    /// The response in one piece.
    pub(super) fn response(&self, turn: &Turn) -> Value {
        let status = if self.truncated(turn) { "incomplete" } else { "completed" };
        self.envelope(turn, status, self.output(turn), usage(turn))
    }

    /// The response before it is made in the background.
    pub(super) fn queued(&self, turn: &Turn) -> Value {
        self.envelope(turn, "queued", vec![], Value::Null)
    }

    /// The response as a stream of events.
    pub(super) fn events(&self, turn: &Turn) -> Vec<Value> {
        let begun = self.envelope(turn, "in_progress", vec![], Value::Null);
        let mut events = vec![
            json!({"type": "response.created", "response": begun}),
            json!({"type": "response.in_progress", "response": begun}),
        ];
        if self.generate {
            events.extend(openai_output::events(turn, &self.extras));
        }
        let end = if self.truncated(turn) { "response.incomplete" } else { "response.completed" };
        events.push(json!({"type": end, "response": self.response(turn)}));
        for (number, event) in events.iter_mut().enumerate() {
            event["sequence_number"] = json!(number);
        }
        events
    }

    fn output(&self, turn: &Turn) -> Vec<Value> {
        if self.generate { openai_output::items(turn, &self.extras) } else { vec![] }
    }

    fn truncated(&self, turn: &Turn) -> bool {
        self.generate && turn.truncated
    }

    fn envelope(&self, turn: &Turn, status: &str, output: Vec<Value>, usage: Value) -> Value {
        let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let mut envelope = json!({
            "id": response_id(turn),
            "object": "response",
            "created_at": turn.created,
            "status": status,
            "background": self.background,
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
        });
        if let Some(id) = &self.conversation {
            envelope["conversation"] = json!({ "id": id });
        }
        if !self.transformations.is_empty() {
            envelope["input_transformations"] = json!(self.transformations);
        }
        envelope
    }
}

/// The identifier under which a response is known to its group.
fn response_id(turn: &Turn) -> String {
    format!("resp_{}", turn.id)
}

/// The response to a request to compact: the messages of the user stay, the rest becomes one opaque
/// item.
pub(super) fn compaction(call: &ResponseCall, turn: &Turn, place: &Place<'_>) -> Value {
    let mut output: Vec<Value> = call.input.iter().filter_map(user_message).collect();
    output.push(json!({
        "id": format!("cmp_{}", turn.id),
        "type": "compaction",
        "encrypted_content":
            ciphertext::seal(place.group.organization(), call.call.prompt.text()),
    }));
    json!({
        "id": response_id(turn),
        "object": "response.compaction",
        "created_at": turn.created,
        "output": output,
        "usage": usage(turn),
    })
}

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

/// The id of a conversation, which comes in two forms.
fn conversation(body: &Value) -> Option<String> {
    let conversation = &body["conversation"];
    conversation.as_str().or(conversation["id"].as_str()).map(str::to_owned)
}

fn reasoning(body: &Value, prompt: &Prompt, place: &Place<'_>) -> Option<String> {
    let reasoning = &body["reasoning"];
    let is_asked_for = reasoning.is_object() && reasoning["effort"] != "none";
    is_asked_for.then(|| ciphertext::seal(place.group.organization(), prompt.text()))
}

fn opened_container(body: &Value, place: &Place<'_>) -> Option<(String, Object)> {
    let mut tools = body["tools"].as_array()?.iter();
    tools.find(|tool| tool["container"]["type"] == "auto")?;
    created::container("auto", place).into_iter().next()
}

fn named_container(body: &Value) -> Option<String> {
    let tools = body["tools"].as_array()?.iter();
    tools.filter_map(|tool| tool["container"].as_str()).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::HeaderMap;

    use super::super::ciphertext::Foreign;
    use super::super::group::Group;
    use super::*;

    /// A place to serve requests at, in a group of this name.
    fn at<T>(group: &Group, serve: impl FnOnce(&Place<'_>) -> T) -> T {
        let (headers, now) = (HeaderMap::new(), Instant::now());
        serve(&Place { group, socket: None, headers: &headers, foreign: Foreign::Refused, now })
    }

    fn group(name: &str) -> Group {
        Group::new(Vendor::OpenAi, name)
    }

    fn parsed(body: &Value, group: &Group) -> Result<ResponseCall, ApiError> {
        at(group, |place| parse(body, place))
    }

    #[test]
    fn a_previous_response_is_the_same_as_sending_everything_again() {
        let group = group("a");
        let body = json!({"model": "m", "input": "hello", "reasoning": {"effort": "low"}});
        let first = parsed(&body, &group).unwrap();
        let turn = Turn::new(&first.call, 0);
        let (id, output) = (response_id(&turn), first.response(&turn)["output"].clone());
        assert_eq!(output[0]["type"], "reasoning");
        at(&group, |place| {
            let traces = first.traces(&turn, place);
            traces.into_iter().for_each(|trace| trace.leave(place.group, None, place.now));
        });

        let continued = json!({"model": "m", "input": "and?", "previous_response_id": id});
        let mut input =
            vec![json!({"role": "user", "content": [{"type": "input_text", "text": "hello"}]})];
        input.extend(output.as_array().unwrap().clone());
        input.push(json!({"type": "message", "role": "user", "content": "and?"}));
        let complete = json!({"model": "m", "input": input});
        let [continued, complete] =
            [continued, complete].map(|body| parsed(&body, &group).unwrap());
        assert_eq!(continued.call.prompt.text(), complete.call.prompt.text());
    }

    #[test]
    fn a_response_of_another_group_is_unknown() {
        let body = json!({"model": "m", "input": "x", "previous_response_id": "resp_1"});
        let error = parsed(&body, &group("a")).unwrap_err();
        assert_eq!((error.status, error.code), (400, Some("previous_response_not_found")));
    }

    #[test]
    fn an_item_encrypted_for_another_organization_is_refused() {
        let (a, b) = (group("a"), group("b"));
        let body = json!({"model": "m", "input": [{"role": "user", "content": "x"}]});
        let call = parsed(&body, &a).unwrap();
        let compacted = at(&a, |place| compaction(&call, &Turn::new(&call.call, 0), place));
        assert_eq!(compacted["output"][0]["content"][0]["text"], "x");
        let next = json!({"model": "m", "input": compacted["output"]});
        assert!(parsed(&next, &a).is_ok());
        assert_eq!(parsed(&next, &b).unwrap_err().code, Some("invalid_encrypted_content"));
    }

    #[test]
    fn a_request_that_only_warms_the_cache_has_no_output() {
        let body = json!({"model": "m", "input": [], "generate": false});
        let call = parsed(&body, &group("a")).unwrap();
        let turn = Turn::new(&call.call, 0);
        let kinds: Vec<Value> =
            call.events(&turn).into_iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["response.created", "response.in_progress", "response.completed"]);
        assert_eq!(call.response(&turn)["output"], json!([]));
    }

    #[test]
    fn a_reply_cut_short_is_incomplete() {
        let body = json!({"model": "m", "input": "x", "max_output_tokens": 1});
        let call = parsed(&body, &group("a")).unwrap();
        let turn = Turn::new(&call.call, 0);
        assert_eq!(call.events(&turn).last().unwrap()["type"], "response.incomplete");
        assert_eq!(call.response(&turn)["incomplete_details"]["reason"], "max_output_tokens");
    }
}
