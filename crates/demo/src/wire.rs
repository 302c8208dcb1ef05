//! The APIs of the clients: where questions and replies go in a request, where the bulk of a prompt
//! is, and what a response contains.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use envoy_harness::client::Response;

/// An API that clients of the demo use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// Gemini generateContent and streamGenerateContent.
    GenerateContent,
}

impl Api {
    /// Removes the question from a recorded first request. What the client itself puts before it
    /// stays: system messages, reminders, the environment.
    pub(super) fn remove_question(self, body: &mut Value) {
        let Some(messages) = self.messages(body) else { return };
        match self {
            Self::Messages => {
                messages.truncate(1);
                if let Some(first) = messages.first_mut() {
                    let reminders =
                        first["content"].as_array().and_then(|blocks| blocks.split_last());
                    first["content"] =
                        json!(reminders.map(|(_, reminders)| reminders).unwrap_or_default());
                }
            }
            Self::ChatCompletions => messages.retain(|message| message["role"] != "user"),
            Self::Responses => drop(messages.pop()),
            Self::GenerateContent => messages.clear(),
        }
    }

    /// Adds a question and what is attached to it.
    pub(super) fn ask(self, body: &mut Value, question: &str, attachment: &str) {
        let texts = [question, attachment];
        let Some(messages) = self.messages(body) else { return };
        match self {
            Self::Messages => {
                let blocks = texts.map(|text| json!({"type": "text", "text": text}));
                match messages.last_mut().filter(|last| last["role"] == "user") {
                    Some(last) => last["content"]
                        .as_array_mut()
                        .into_iter()
                        .for_each(|all| all.extend(blocks.clone())),
                    None => messages.push(json!({"role": "user", "content": blocks})),
                }
                move_breakpoint(body);
            }
            Self::ChatCompletions => {
                messages.push(json!({"role": "user", "content": texts.join("\n\n")}))
            }
            Self::Responses => {
                let parts = texts.map(|text| json!({"type": "input_text", "text": text}));
                messages.push(json!({"type": "message", "role": "user", "content": parts}));
            }
            Self::GenerateContent => {
                messages.push(
                    json!({"role": "user", "parts": texts.map(|text| json!({"text": text}))}),
                );
            }
        }
    }

    /// Adds the reply of the model.
    pub(super) fn add_reply(self, body: &mut Value, text: &str) {
        let message = match self {
            Self::Messages => {
                json!({"role": "assistant", "content": [{"type": "text", "text": text}]})
            }
            Self::ChatCompletions => json!({"role": "assistant", "content": text}),
            Self::Responses => {
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
            }
            Self::GenerateContent => json!({"role": "model", "parts": [{"text": text}]}),
        };
        if let Some(messages) = self.messages(body) {
            messages.push(message);
        }
    }

    /// The text of the system prompt, to be made as long as in production. In a Messages request it
    /// ends with a cache breakpoint, as with every client that uses the cache.
    pub(super) fn system_prompt(self, body: &mut Value) -> Option<&mut Value> {
        match self {
            Self::Messages => {
                if body["system"].is_string() {
                    let text = body["system"].take();
                    body["system"] = json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
                }
                body["system"].as_array_mut()?.last_mut()?.get_mut("text")
            }
            Self::ChatCompletions => body.pointer_mut("/messages/0/content"),
            Self::Responses => body.get_mut("instructions"),
            Self::GenerateContent => body.pointer_mut("/systemInstruction/parts/0/text"),
        }
    }

    /// The descriptions of the tools, to be made as long as in production.
    pub(super) fn tool_descriptions(self, body: &mut Value) -> impl Iterator<Item = &mut Value> {
        let (list, description) = match self {
            Self::Messages | Self::Responses => ("/tools", "/description"),
            Self::ChatCompletions => ("/tools", "/function/description"),
            Self::GenerateContent => ("/tools/0/functionDeclarations", "/description"),
        };
        let tools = body.pointer_mut(list).and_then(Value::as_array_mut);
        tools.into_iter().flatten().filter_map(move |tool| tool.pointer_mut(description))
    }

    fn messages(self, body: &mut Value) -> Option<&mut Vec<Value>> {
        let name = match self {
            Self::Messages | Self::ChatCompletions => "messages",
            Self::Responses => "input",
            Self::GenerateContent => "contents",
        };
        body.get_mut(name)?.as_array_mut()
    }
}

/// The third breakpoint of Claude Code, beside those in `system`: it moves with the end of the
/// messages.
fn move_breakpoint(body: &mut Value) {
    let control = body
        .pointer("/system/0/cache_control")
        .or(body.pointer("/system/1/cache_control"))
        .cloned();
    let blocks = body["messages"].as_array_mut().into_iter().flatten();
    let mut blocks: Vec<&mut Value> =
        blocks.filter_map(|message| message["content"].as_array_mut()).flatten().collect();
    for block in blocks.iter_mut().filter_map(|block| block.as_object_mut()) {
        block.shift_remove("cache_control");
    }
    if let Some(last) = blocks.last_mut() {
        last["cache_control"] = control.unwrap_or_else(|| json!({"type": "ephemeral"}));
    }
}

/// The reply of a model, and its usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
}

impl Reply {
    /// Reads a response, in one piece or as a stream of events, up to the usage that the provider
    /// reports.
    pub(super) fn read(api: Api, response: &Response) -> Result<Self> {
        let documents = documents(response)?;
        let text: String = documents.iter().flat_map(|document| texts(api, document)).collect();
        ensure!(!text.is_empty(), "the response has no text: {}", response.text());
        let (prompt_tokens, cached_tokens) = documents
            .iter()
            .rev()
            .find_map(|document| usage(api, document))
            .context("the response has no usage")?;
        Ok(Self { text, prompt_tokens, cached_tokens })
    }
}

/// The JSON of the body, or of every event in it.
fn documents(response: &Response) -> Result<Vec<Value>> {
    if !response.header("content-type").unwrap_or_default().starts_with("text/event-stream") {
        return Ok(vec![response.json()?]);
    }
    let text = response.text();
    let events = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]");
    events
        .map(|data| {
            serde_json::from_str(data).with_context(|| format!("an event is not JSON: {data}"))
        })
        .collect()
}

fn texts(api: Api, document: &Value) -> Vec<&str> {
    match api {
        Api::Messages => first_text(document, ["/content/0/text", "/delta/text"]),
        Api::ChatCompletions => {
            first_text(document, ["/choices/0/message/content", "/choices/0/delta/content"])
        }
        // The last event of a stream repeats the whole reply and reports usage.
        Api::Responses => ["/output", "/response/output"]
            .into_iter()
            .filter_map(|items| document.pointer(items)?.as_array())
            .flatten()
            .flat_map(|item| part_texts(item, &["/content"]))
            .collect(),
        Api::GenerateContent => part_texts(document, &["/candidates/0/content/parts"]),
    }
}

/// The text at the first of these pointers that leads to one.
fn first_text<'d>(document: &'d Value, pointers: [&str; 2]) -> Vec<&'d str> {
    let texts = pointers.iter().filter_map(|pointer| document.pointer(pointer)?.as_str());
    texts.take(1).collect()
}

/// The texts of the parts in these lists.
fn part_texts<'d>(document: &'d Value, lists: &[&str]) -> Vec<&'d str> {
    let parts = lists.iter().filter_map(|list| document.pointer(list)?.as_array()).flatten();
    parts.filter_map(|part| part["text"].as_str()).collect()
}

/// Tokens of the prompt, and how many of them were cached. A number that is zero may be left out.
fn usage(api: Api, document: &Value) -> Option<(u64, u64)> {
    let pointers = match api {
        Api::Messages => ["/usage", "/message/usage"],
        Api::Responses => ["/usage", "/response/usage"],
        Api::ChatCompletions => ["/usage", "/usage"],
        Api::GenerateContent => ["/usageMetadata", "/usageMetadata"],
    };
    let usage = pointers
        .iter()
        .find_map(|pointer| document.pointer(pointer).filter(|usage| usage.is_object()))?;
    Some(match api {
        Api::Messages => {
            let cached = number(usage, "/cache_read_input_tokens");
            let written = number(usage, "/cache_creation_input_tokens");
            (number(usage, "/input_tokens") + written + cached, cached)
        }
        Api::ChatCompletions => {
            (number(usage, "/prompt_tokens"), number(usage, "/prompt_tokens_details/cached_tokens"))
        }
        Api::Responses => {
            (number(usage, "/input_tokens"), number(usage, "/input_tokens_details/cached_tokens"))
        }
        Api::GenerateContent => {
            (number(usage, "/promptTokenCount"), number(usage, "/cachedContentTokenCount"))
        }
    })
}

fn number(usage: &Value, pointer: &str) -> u64 {
    usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn check(api: Api, content_type: &str, body: &str) {
        let headers = HeaderMap::from_iter([(
            "content-type".parse().unwrap(),
            content_type.parse().unwrap(),
        )]);
        let response = Response {
            status: StatusCode::OK,
            headers,
            body: body.to_owned().into(),
            trailers: None,
        };
        let expected = Reply { text: "Hello there".into(), prompt_tokens: 100, cached_tokens: 60 };
        assert_eq!(Reply::read(api, &response).unwrap(), expected, "{api:?} {content_type}");
    }

    #[test]
    fn replies_in_one_piece_are_read() {
        let anthropic = r#"{"content":[{"type":"text","text":"Hello there"}],
            "usage":{"input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":60}}"#;
        let chat = r#"{"choices":[{"message":{"content":"Hello there"}}],
            "usage":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60}}}"#;
        let responses = r#"{"output":[{"content":[{"type":"output_text","text":"Hello there"}]}],
            "usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60}}}"#;
        let gemini = r#"{"candidates":[{"content":{"parts":[{"text":"Hello there"}]}}],
            "usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":60}}"#;
        check(Api::Messages, "application/json", anthropic);
        check(Api::ChatCompletions, "application/json", chat);
        check(Api::Responses, "application/json", responses);
        check(Api::GenerateContent, "application/json", gemini);
    }

    #[test]
    fn streamed_replies_are_put_together() {
        let anthropic = concat!(
            "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":40,\"cache_read_input_tokens\":60}}}\n\n",
            "event: content_block_delta\ndata: {\"delta\":{\"text\":\"Hello \"}}\n\n",
            "event: content_block_delta\ndata: {\"delta\":{\"text\":\"there\"}}\n\n",
        );
        let chat = concat!(
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hello \"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"there\"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"prompt_tokens_details\":{\"cached_tokens\":60}}}\n\n",
            "data: [DONE]\n\n",
        );
        let responses = concat!(
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello \"}\n\n",
            "data: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"content\":[{\"text\":\"Hello there\"}]}],",
            "\"usage\":{\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":60}}}}\n\n",
        );
        let gemini = concat!(
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hello \"}]}}],\"usageMetadata\":{}}\n\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"there\"}]}}],",
            "\"usageMetadata\":{\"promptTokenCount\":100,\"cachedContentTokenCount\":60}}\n\n",
        );
        check(Api::Messages, "text/event-stream", anthropic);
        check(Api::ChatCompletions, "text/event-stream", chat);
        check(Api::Responses, "text/event-stream", responses);
        check(Api::GenerateContent, "text/event-stream", gemini);
    }
}
