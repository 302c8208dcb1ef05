//! Requests of every API, whole and streamed, to be compressed and to be broken off; and what
//! providers tell of what they cost.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_affinity::api::Api;
use session_affinity::outcome::TokenType;
use session_affinity::usage::Unread;
use simulated_providers::{FAULT_HEADER, Told, Vendor};

/// The header that tells requests apart.
pub(crate) const TAG: &str = "x-test-tag";

/// A request.
pub(crate) struct Asked {
    pub(crate) vendor: Vendor,
    pub(crate) api: Api,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Value,
    /// Whether nothing is asked to go wrong with it.
    pub(crate) is_sound: bool,
}

/// Kinds of requests: so many consecutive numbers have one of each.
pub(crate) const KINDS: u64 = 20;

/// The request of this number. Sessions come again, so that their prompts are cached.
pub(crate) fn asked(number: u64) -> Asked {
    let round = number / KINDS;
    let mut asked = of_kind(number % KINDS, &session(round % 7), round);
    asked.headers.push((TAG, number.to_string()));
    let encoding = ["gzip, deflate, br, zstd", "identity", "deflate", "identity"];
    asked.headers.push(("accept-encoding", encoding[(round % 4) as usize].to_owned()));
    // Events of the handshake come first; an answer that breaks off before content is another
    // credential's to give.
    let events = 4 + round % 9;
    let fault = match round % 11 {
        3 => format!("cut={events}"),
        5 => format!("end={events}"),
        8 => format!("account={}-a; status=500", asked.vendor),
        _ => return asked,
    };
    asked.is_sound = false;
    asked.headers.push((FAULT_HEADER, fault));
    asked
}

/// What all requests of a session begin with: more than any provider's minimum for caching.
fn session(number: u64) -> String {
    format!("session {number}: ").repeat(800)
}

fn of_kind(kind: u64, session: &str, round: u64) -> Asked {
    let question = format!("question {round}? {{\"usage\":{{\"input_tokens\":7}}}}");
    let is_stream = kind % 2 == 1;
    let (vendor, api, path, body) = match kind / 2 {
        0 => {
            let system = json!([{"type": "text", "text": session,
                "cache_control": {"type": "ephemeral"}}]);
            let body = json!({"model": "claude-sonnet-5", "max_tokens": 64, "stream": is_stream,
                "system": system, "messages": [{"role": "user", "content": question}]});
            (Vendor::Anthropic, Api::Anthropic, "/v1/messages", body)
        }
        1 => {
            let messages = json!([{"role": "system", "content": session},
                {"role": "user", "content": question}]);
            let mut body = json!({"model": "gpt-5.6", "stream": is_stream, "messages": messages});
            if is_stream && !round.is_multiple_of(3) {
                body["stream_options"] = json!({"include_usage": true});
            }
            (Vendor::OpenAi, Api::OpenAi, "/v1/chat/completions", body)
        }
        2 => {
            let body = json!({"model": "gpt-5.6", "stream": is_stream, "store": false,
                "instructions": session, "input": question});
            (Vendor::OpenAi, Api::OpenAi, "/v1/responses", body)
        }
        3 => {
            let body = json!({"model": "gpt-5.6", "input": [{"role": "user",
                "content": format!("{session}{question}")}]});
            (Vendor::OpenAi, Api::OpenAi, "/v1/responses/compact", body)
        }
        kind @ (4 | 5) => {
            let path = match (kind, is_stream) {
                (4, false) => "/v1beta/models/gemini-3.1-pro:generateContent",
                (4, true) => "/v1beta/models/gemini-3.1-pro:streamGenerateContent?alt=sse",
                (_, false) => "/v1beta/models/gemini-3.1-pro:streamGenerateContent",
                (_, true) => "/v1internal:streamGenerateContent?alt=sse",
            };
            (Vendor::Gemini, Api::Gemini, path, contents(path, session, &question))
        }
        6 if is_stream => {
            let path = "/v1internal:generateContent";
            (Vendor::Gemini, Api::Gemini, path, contents(path, session, &question))
        }
        kind @ (6 | 7) => {
            let body = json!({"model": "gemini-3.1-pro", "stream": kind == 7 && is_stream,
                "store": false, "system_instruction": session, "input": question});
            (Vendor::Gemini, Api::Gemini, "/v1beta/interactions", body)
        }
        8 => {
            let path =
                ["/model/anthropic.claude/converse", "/model/anthropic.claude/converse-stream"];
            let system = json!([{"text": session}, {"cachePoint": {"type": "default"}}]);
            let body = json!({"system": system, "inferenceConfig": {"maxTokens": 64},
                "messages": [{"role": "user", "content": [{"text": question}]}]});
            (Vendor::Anthropic, Api::Bedrock, path[usize::from(is_stream)], body)
        }
        _ => {
            let path = [
                "/model/anthropic.claude/invoke",
                "/model/anthropic.claude/invoke-with-response-stream",
            ];
            let system = json!([{"type": "text", "text": session,
                "cache_control": {"type": "ephemeral"}}]);
            let body = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64,
                "system": system, "messages": [{"role": "user", "content": question}]});
            (Vendor::Anthropic, Api::Bedrock, path[usize::from(is_stream)], body)
        }
    };
    let headers = vec![("content-type", "application/json".to_owned())];
    Asked { vendor, api, path: path.to_owned(), headers, body, is_sound: true }
}

fn contents(path: &str, session: &str, question: &str) -> Value {
    let body = json!({"systemInstruction": {"parts": [{"text": session}]},
        "contents": [{"role": "user", "parts": [{"text": question}]}]});
    match path.starts_with("/v1internal") {
        true => json!({"model": "gemini-3.1-pro", "request": body}),
        false => body,
    }
}

/// What is to be counted of a response: tokens by type, and why some are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) tokens: BTreeMap<&'static str, u64>,
    pub(crate) unread: Option<&'static str>,
}

impl Counted {
    /// By the ledger of the provider.
    pub(crate) fn of(told: Told) -> Self {
        if told.is_compressed && !told.in_headers {
            return Self { unread: Some(Unread::Compressed.as_str()), ..Self::default() };
        }
        let mut tokens = BTreeMap::new();
        if let Some(usage) = told.usage {
            let written =
                usage.written_5m_tokens + usage.written_1h_tokens + usage.written_30m_tokens;
            let rest = usage.prompt_tokens - usage.cached_tokens - written;
            let counts = [rest, usage.cached_tokens, written, usage.output_tokens];
            let counts = TokenType::ALL.map(TokenType::as_str).into_iter().zip(counts);
            tokens.extend(counts.filter(|(_, count)| *count > 0));
        }
        let unread = match (told.is_cut, told.usage) {
            (true, _) => Some(Unread::Cut),
            (false, None) => Some(Unread::Absent),
            (false, Some(_)) => None,
        };
        Self { tokens, unread: unread.map(Unread::as_str) }
    }
}
