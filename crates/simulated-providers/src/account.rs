//! What an account does with a request: from the body to a reply, with a cache and a memory of its
//! own.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::api::{self, Api};
use super::cache::{Prefix, PromptCache};
use super::error::ApiError;
use super::lock::locked;
use super::openai_responses::{self, ResponseCall};
use super::response_store::ResponseStore;
use super::stream::{Framing, Payload};
use super::turn::{Call, Turn, Usage};
use super::vendor::Account;
use super::{anthropic, gemini, openai_chat};

/// Prefixes per account; at 128 tokens each, about 33 million tokens.
const CACHE_CAPACITY: usize = 262_144;

/// An [`Account`] with what it remembers.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) account: Account,
    /// Held once by every request under way.
    pub(super) under_way: Arc<()>,
    cache: Mutex<PromptCache>,
    responses: Mutex<ResponseStore>,
}

/// A reply that is ready to be sent, and what the account remembers once it has begun.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) payload: Payload,
    pub(super) usage: Option<Usage>,
    written: Vec<Prefix>,
    remembered: Option<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    response_id: String,
    history: Arc<str>,
    /// False: not beyond the WebSocket it was made on.
    store: bool,
}

impl AccountState {
    pub(super) fn new(account: Account) -> Self {
        let cache = Mutex::new(PromptCache::new(CACHE_CAPACITY));
        Self { account, under_way: Arc::new(()), cache, responses: Mutex::default() }
    }

    /// The number of requests under way.
    pub(super) fn under_way(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }

    /// Makes the reply to an HTTP request.
    pub(super) fn reply(&self, api: &Api, body: &[u8], now: Instant) -> Result<Reply, ApiError> {
        if *api == Api::Models {
            return Ok(Reply::plain(api::models(self.account.vendor)));
        }
        let body = &parse_json(body)?;
        match api {
            Api::AnthropicMessages => self.anthropic_message(body, now),
            Api::AnthropicCountTokens => anthropic::count_tokens(body).map(Reply::plain),
            Api::OpenAiChat => self.openai_chat(body, now),
            Api::OpenAiResponses => self.openai_response(body, None, now),
            Api::OpenAiCompact => self.openai_compaction(body, now),
            Api::GeminiGenerate { model } => {
                self.gemini_content(gemini::parse(model, false, body)?, Framing::GoogleEvents, now)
            }
            Api::GeminiStream { model, sse } => {
                let framing = if *sse { Framing::GoogleEvents } else { Framing::GoogleArray };
                self.gemini_content(gemini::parse(model, true, body)?, framing, now)
            }
            Api::GeminiCountTokens => gemini::count_tokens(body).map(Reply::plain),
            Api::Models | Api::OpenAiSocket => {
                Err(ApiError::new(405, "This path takes no request with a body."))
            }
        }
    }

    /// Makes the reply to a message on a WebSocket, which has a memory of its own.
    pub(super) fn reply_on_socket(
        &self,
        mut body: Value,
        socket: &ResponseStore,
        now: Instant,
    ) -> Result<Reply, ApiError> {
        body["stream"] = Value::Bool(true);
        self.openai_response(&body, Some(socket), now)
    }

    /// Remembers the reply, when its first byte is about to leave.
    pub(super) fn begin(
        &self,
        reply: &mut Reply,
        socket: Option<&mut ResponseStore>,
        now: Instant,
    ) {
        locked(&self.cache).write(&reply.written, now);
        match (reply.remembered.take(), socket) {
            (Some(Remembered { response_id, history, store: true }), _) => {
                locked(&self.responses).insert(response_id, history);
            }
            (Some(Remembered { response_id, history, store: false }), Some(socket)) => {
                socket.insert(response_id, history);
            }
            (Some(_), None) | (None, _) => {}
        }
    }

    fn anthropic_message(&self, body: &Value, now: Instant) -> Result<Reply, ApiError> {
        let call = anthropic::parse(body)?;
        let mut turn = self.turn(&call, now);
        anthropic::account_for_writes(&mut turn, &call.prefixes);
        let payload = match call.stream {
            true => Payload::Events(Framing::NamedEvents, anthropic::events(&turn)),
            false => Payload::Json(anthropic::message(&turn)),
        };
        Ok(Reply::of(turn, call, payload))
    }

    fn openai_chat(&self, body: &Value, now: Instant) -> Result<Reply, ApiError> {
        let (call, include_usage) = openai_chat::parse(body)?;
        let turn = self.turn(&call, now);
        let payload = match call.stream {
            true => {
                Payload::Events(Framing::DataUntilDone, openai_chat::chunks(&turn, include_usage))
            }
            false => Payload::Json(openai_chat::completion(&turn)),
        };
        Ok(Reply::of(turn, call, payload))
    }

    fn openai_response(
        &self,
        body: &Value,
        socket: Option<&ResponseStore>,
        now: Instant,
    ) -> Result<Reply, ApiError> {
        let call = self.parse_response(body, socket)?;
        let turn = self.turn(&call.call, now);
        let payload = match call.call.stream {
            true => Payload::Events(Framing::NamedEvents, call.events(&turn)),
            false => Payload::Json(call.response(&turn)),
        };
        let remembered = Remembered {
            response_id: openai_responses::response_id(&turn),
            history: call.history(&turn),
            store: call.store,
        };
        Ok(Reply { remembered: Some(remembered), ..Reply::of(turn, call.call, payload) })
    }

    fn openai_compaction(&self, body: &Value, now: Instant) -> Result<Reply, ApiError> {
        let call = self.parse_response(body, None)?;
        let turn = self.turn(&call.call, now);
        let payload =
            Payload::Json(openai_responses::compaction(&call, &turn, body, &self.account.name));
        Ok(Reply::of(turn, call.call, payload))
    }

    fn parse_response(
        &self,
        body: &Value,
        socket: Option<&ResponseStore>,
    ) -> Result<ResponseCall, ApiError> {
        openai_responses::parse(body, &self.account.name, |id| {
            socket.and_then(|socket| socket.get(id)).or_else(|| locked(&self.responses).get(id))
        })
    }

    fn gemini_content(
        &self,
        call: Call,
        framing: Framing,
        now: Instant,
    ) -> Result<Reply, ApiError> {
        let turn = self.turn(&call, now);
        let payload = match call.stream {
            true => Payload::Events(framing, gemini::chunks(&turn)),
            false => Payload::Json(gemini::response(&turn)),
        };
        Ok(Reply::of(turn, call, payload))
    }

    fn turn(&self, call: &Call, now: Instant) -> Turn {
        Turn::new(call, locked(&self.cache).read(&call.prefixes, now))
    }
}

impl Reply {
    fn plain(body: Value) -> Self {
        Self { payload: Payload::Json(body), usage: None, written: vec![], remembered: None }
    }

    fn of(turn: Turn, call: Call, payload: Payload) -> Self {
        Self { payload, usage: Some(turn.usage), written: call.prefixes, remembered: None }
    }
}

pub(super) fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(ApiError::invalid("The body of the request must be a JSON object.")),
        Err(error) => Err(ApiError::invalid(format!(
            "We could not parse the JSON body of your request: {error}"
        ))),
    }
}
