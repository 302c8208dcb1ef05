//! The clients of the demo.
//!
//! Headers, the names of the fields and their order are those of a request in
//! `tests/vectors/client_requests.jsonl`, which follows the real clients. Here is what differs from
//! it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::wire::Api;
use envoy_harness::project_root;

/// One model for each provider, because every model has a rotation of its own: with few sessions of
/// many models, all would begin at the same credential.
const CLAUDE: &str = "claude-sonnet-5";
const GPT: &str = "gpt-5.6";

/// A kind of client.
#[derive(Debug)]
pub struct Client {
    /// Its name in the report.
    pub name: &'static str,
    /// The API that it uses.
    pub api: Api,
    /// The name of its requests in the file.
    line: &'static str,
    /// The id of the session in that request, wherever it is.
    pub(super) id: Option<&'static str>,
    /// The id of the turn.
    pub(super) turn_id: Option<&'static str>,
    /// The tokens that its real system prompt has beyond the one in the file.
    pub(super) system_tokens: usize,
    /// The same for the description of each of its tools.
    pub(super) tool_tokens: usize,
    /// What this client does differently.
    change: fn(&mut Recorded),
}

/// The clients, in the order of the report.
pub const CLIENTS: [Client; 10] = [
    Client {
        name: "Claude Code 2.0",
        api: Api::Messages,
        line: "claude_code_legacy",
        id: Some("3c9e1b7f-2d4a-4c6e-8f10-a2b4c6d8e0f2"),
        turn_id: None,
        system_tokens: 3_000,
        tool_tokens: 2_000,
        change: |request| request.set_model(CLAUDE),
    },
    Client {
        name: "Claude Code 2.1",
        api: Api::Messages,
        line: "claude_code_large",
        id: Some("c2d4e6f8-0a1b-4c3d-9e5f-102938475610"),
        turn_id: None,
        system_tokens: 3_000,
        tool_tokens: 2_500,
        change: |request| request.set_model(CLAUDE),
    },
    Client {
        name: "Amp",
        api: Api::Messages,
        line: "amp",
        id: Some("T-7873e6bd-6354-4a9a-be2c-c7702c6e1b64"),
        turn_id: None,
        system_tokens: 6_000,
        tool_tokens: 0,
        change: |request| {
            request.set_model(CLAUDE);
            // Without the prefix of Amp's own server.
            request.path = "/v1/messages".into();
        },
    },
    Client {
        name: "Anthropic SDK",
        api: Api::Messages,
        line: "anthropic_sdk_python",
        id: None,
        turn_id: None,
        system_tokens: 2_000,
        tool_tokens: 0,
        change: |request| {
            request.set_model(CLAUDE);
            request.remove(&["metadata"]);
        },
    },
    Client {
        name: "OpenCode",
        api: Api::ChatCompletions,
        line: "opencode",
        id: Some("ses_7f3a1c9e2ffeKd83HsQ0pXyZ1a"),
        turn_id: None,
        system_tokens: 4_000,
        tool_tokens: 4_000,
        change: |request| request.set_model(GPT),
    },
    Client {
        name: "Chat app",
        api: Api::ChatCompletions,
        line: "generic_conversation_id",
        id: Some("c-123"),
        turn_id: None,
        system_tokens: 2_000,
        tool_tokens: 0,
        change: |request| request.set_model(GPT),
    },
    Client {
        name: "OpenAI SDK",
        api: Api::ChatCompletions,
        line: "openai_python_chat",
        id: None,
        turn_id: None,
        system_tokens: 2_000,
        tool_tokens: 0,
        change: |request| {
            request.set_model(GPT);
            request.remove(&["prompt_cache_key", "safety_identifier", "stream"]);
        },
    },
    Client {
        name: "Codex",
        api: Api::Responses,
        line: "codex_cli",
        id: Some("019c7a10-5b2e-7c41-9a3d-4f6e8a0b1c2d"),
        turn_id: Some("019c7a10-6000-7000-8000-000000000001"),
        system_tokens: 4_000,
        tool_tokens: 1_500,
        change: |request| request.set_model(GPT),
    },
    Client {
        name: "Gemini SDK",
        api: Api::GenerateContent,
        line: "gemini_cli_api_key",
        id: None,
        turn_id: None,
        system_tokens: 3_000,
        tool_tokens: 1_000,
        change: |request| {
            request.speak_as_gemini_sdk();
            request.path = "/v1beta/models/gemini-3.1-pro:generateContent".into();
        },
    },
    Client {
        name: "Gemini SDK, SSE",
        api: Api::GenerateContent,
        line: "gemini_cli_api_key",
        id: None,
        turn_id: None,
        system_tokens: 3_000,
        tool_tokens: 1_000,
        change: Recorded::speak_as_gemini_sdk,
    },
];

impl Client {
    /// The first request of the session with that number, still with the recorded question.
    pub(super) fn first_request(&self, number: usize) -> Result<Recorded> {
        let mut line = recorded(self.line)?;
        if let Some(id) = self.id {
            replace_text(&mut line, id, &numbered(id, number));
        }
        let path = line["path"]
            .as_str()
            .with_context(|| format!("the recorded request {} has no path", self.line))?;
        let mut request = Recorded {
            path: path.to_owned(),
            headers: line["headers"].take(),
            body: line["body"].take(),
        };
        (self.change)(&mut request);
        Ok(request)
    }
}

/// An id of the same form that ends with the number.
pub(super) fn numbered(id: &str, number: usize) -> String {
    let number = format!("{number:03}");
    let kept = id.len().saturating_sub(number.len());
    format!("{}{number}", id.get(..kept).unwrap_or_default())
}

/// Replaces a text everywhere in a value.
pub(super) fn replace_text(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(elements) => {
            elements.iter_mut().for_each(|element| replace_text(element, from, to))
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| replace_text(field, from, to))
        }
        _ => {}
    }
}

/// A request of the file.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) path: String,
    /// An object of names and values.
    pub(super) headers: Value,
    pub(super) body: Value,
}

impl Recorded {
    fn set_model(&mut self, model: &str) {
        self.body["model"] = json!(model);
    }

    fn remove(&mut self, fields: &[&str]) {
        if let Some(body) = self.body.as_object_mut() {
            fields.iter().for_each(|field| drop(body.shift_remove(*field)));
        }
    }

    /// Gemini CLI is built on the SDK; this leaves out what it adds. It begins every first message
    /// with the same context, so without an id in the request its sessions could not be
    /// distinguished.
    fn speak_as_gemini_sdk(&mut self) {
        self.headers["user-agent"] = json!("google-genai-sdk/1.41.0 gl-node/v24.3.0");
        if let Some(headers) = self.headers.as_object_mut() {
            headers.shift_remove("x-gemini-api-privileged-user-id");
        }
    }
}

fn recorded(line: &str) -> Result<Value> {
    let path = project_root().join("tests/vectors/client_requests.jsonl");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mark = format!("{{\"client\": \"{line}\",");
    let line = text
        .lines()
        .find(|text| text.starts_with(&mark))
        .with_context(|| format!("{} has no {line}", path.display()))?;
    serde_json::from_str(line).with_context(|| format!("{} is damaged", path.display()))
}
