//! What an account does with a request: from the body to a reply, with the cache and the memory of
//! its group.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::anthropic_output::{self, Extras};
use super::api::{self, Api};
use super::error::ApiError;
use super::group::Group;
use super::interactions;
use super::lock::locked;
use super::objects::{Kind, ObjectStore};
use super::openai_responses;
use super::place::Place;
use super::reply::Reply;
use super::route::Action;
use super::shared::Shared;
use super::stream::{Framing, Payload};
use super::turn::{Call, Turn};
use super::vendor::{Account, Vendor};
use super::{
    anthropic, bedrock, ciphertext, collection, gemini, openai_chat, openai_output, references,
    threads,
};

/// An [`Account`] with what it remembers.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) account: Account,
    /// Held once by every request under way.
    pub(super) under_way: Arc<()>,
    shared: Arc<Shared>,
}

impl AccountState {
    pub(super) fn new(account: Account, shared: Arc<Shared>) -> Self {
        Self { account, under_way: Arc::new(()), shared }
    }

    /// The number of requests under way.
    pub(super) fn under_way(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }

    /// The group that the account is in now.
    pub(super) fn group(&self) -> Arc<Group> {
        self.shared.groups.of(&self.account)
    }

    /// Makes the reply to an HTTP request.
    pub(super) fn reply(
        &self,
        api: &Api,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Reply, ApiError> {
        let vendor = self.account.vendor;
        if *api == Api::Models {
            return Ok(Reply::plain(api::models(vendor)));
        }
        let group = self.group();
        let place = &self.place(&group, headers, None);
        match api {
            Api::State { kind: Kind::Interaction, action: Action::Create } => {
                return interaction(&parse_json(body)?, place);
            }
            Api::State { kind, action } => {
                return collection::serve(vendor, *kind, action, body, place);
            }
            _ => {}
        }
        let body = parse_json(body)?;
        match api {
            Api::AnthropicMessages => anthropic_message(body, place),
            Api::AnthropicCountTokens => anthropic::count_tokens(&body).map(Reply::plain),
            Api::OpenAiChat => openai_chat(&body, place),
            Api::OpenAiResponses => openai_response(&body, place),
            Api::OpenAiCompact => openai_compaction(&body, place),
            Api::GeminiGenerate { model } => gemini_content(model, body, None, place),
            Api::GeminiStream { model, sse } => {
                let framing = if *sse { Framing::GoogleEvents } else { Framing::GoogleArray };
                gemini_content(model, body, Some(framing), place)
            }
            Api::CodeAssist { stream } => code_assist(body, *stream, place),
            Api::Bedrock(method) if method.is_converse => converse(method, &body, place),
            Api::Bedrock(method) => invoke(method, body, place),
            Api::GeminiCountTokens => gemini::count_tokens(&body).map(Reply::plain),
            Api::Models | Api::State { .. } | Api::OpenAiSocket => {
                Err(ApiError::new(405, "This path takes no request with a body."))
            }
        }
    }

    /// Makes the reply to a message on a WebSocket, which has a memory of its own.
    pub(super) fn reply_on_socket(
        &self,
        mut body: Value,
        socket: &ObjectStore,
    ) -> Result<Reply, ApiError> {
        body["stream"] = Value::Bool(true);
        let (group, headers) = (self.group(), HeaderMap::new());
        openai_response(&body, &self.place(&group, &headers, Some(socket)))
    }

    /// Remembers the reply, when its first byte is about to leave.
    pub(super) fn begin(&self, reply: &mut Reply, mut socket: Option<&mut ObjectStore>) {
        let (group, now) = (self.group(), self.shared.clock.now());
        locked(&group.cache).write(&reply.written, now);
        for trace in reply.traces.drain(..) {
            reply.created.extend(trace.created().map(str::to_owned));
            trace.leave(&group, socket.as_deref_mut(), now);
        }
    }

    fn place<'a>(
        &self,
        group: &'a Group,
        headers: &'a HeaderMap,
        socket: Option<&'a ObjectStore>,
    ) -> Place<'a> {
        let foreign = self.shared.foreign(self.account.vendor);
        Place { group, socket, headers, foreign, now: self.shared.clock.now() }
    }
}

fn anthropic_message(mut body: Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    references::check(Vendor::Anthropic, &body, place)?;
    let thread = threads::open(&mut body, place)?;
    let removed = ciphertext::open_messages(&mut body, place)?;
    let call = anthropic::parse(&body)?;
    if let Some(thread) = &thread {
        thread.claim(place)?;
    }
    let mut turn = turn(&call, place);
    anthropic::account_for_writes(&mut turn, &call.prefixes);
    let extras = Extras::of(&body, &call.prompt, removed, place);
    let payload = match call.stream {
        true => Payload::Events(Framing::NamedEvents, anthropic_output::events(&turn, &extras)),
        false => Payload::Json(anthropic_output::message(&turn, &extras)),
    };
    let mut traces = match thread {
        None => vec![],
        Some(thread) => {
            let content = anthropic_output::content(&turn, &extras);
            thread.traces(&anthropic_output::message_id(&turn), &body, &content, place)?
        }
    };
    traces.extend(extras.traces());
    Ok(Reply { traces, ..Reply::of(&turn, call.prefixes, payload) })
}

fn openai_chat(body: &Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    references::check(Vendor::OpenAi, body, place)?;
    let (call, include_usage) = openai_chat::parse(body)?;
    let turn = turn(&call, place);
    let payload = match call.stream {
        true => Payload::Events(Framing::DataUntilDone, openai_chat::chunks(&turn, include_usage)),
        false => Payload::Json(openai_chat::completion(&turn)),
    };
    Ok(Reply::of(&turn, call.prefixes, payload))
}

fn openai_response(body: &Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    let call = openai_responses::parse(body, place)?;
    let mut turn = turn(&call.call, place);
    openai_output::account_for_writes(&mut turn);
    let payload = match (call.call.stream, call.background) {
        (true, _) => Payload::Events(Framing::NamedEvents, call.events(&turn)),
        (false, true) => Payload::Json(call.queued(&turn)),
        (false, false) => Payload::Json(call.response(&turn)),
    };
    let prefixes = call.call.prefixes.clone();
    let traces = call.traces(&turn, place);
    Ok(Reply { traces, ..Reply::of(&turn, prefixes, payload) })
}

fn openai_compaction(body: &Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    let call = openai_responses::parse(body, place)?;
    let mut turn = turn(&call.call, place);
    openai_output::account_for_writes(&mut turn);
    let payload = Payload::Json(openai_responses::compaction(&call, &turn, place));
    Ok(Reply::of(&turn, call.call.prefixes, payload))
}

/// With a framing the reply is a stream.
fn gemini_content(
    model: &str,
    mut body: Value,
    framing: Option<Framing>,
    place: &Place<'_>,
) -> Result<Reply, ApiError> {
    references::check(Vendor::Gemini, &body, place)?;
    let cached = gemini::complete(&mut body, place)?;
    let call = gemini::parse(model, framing.is_some(), &body)?;
    let mut turn = turn(&call, place);
    turn.usage.cached_tokens = turn.usage.cached_tokens.max(cached);
    let payload = match framing {
        Some(framing) => Payload::Events(framing, gemini::chunks(&turn)),
        None => Payload::Json(gemini::response(&turn)),
    };
    Ok(Reply::of(&turn, call.prefixes, payload))
}

/// Gemini's API as Code Assist wraps it, in both directions.
fn code_assist(mut body: Value, is_stream: bool, place: &Place<'_>) -> Result<Reply, ApiError> {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let framing = is_stream.then_some(Framing::GoogleEvents);
    let mut reply = gemini_content(&model, body["request"].take(), framing, place)?;
    let wrap = |inner: Value| json!({"response": inner, "traceId": "0"});
    reply.payload = match reply.payload {
        Payload::Json(inner) => Payload::Json(wrap(inner)),
        Payload::Events(framing, events) => {
            Payload::Events(framing, events.into_iter().map(wrap).collect())
        }
        other => other,
    };
    Ok(reply)
}

fn converse(method: &bedrock::Method, body: &Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    let call = bedrock::parse(method, body)?;
    let mut turn = turn(&call, place);
    anthropic::account_for_writes(&mut turn, &call.prefixes);
    let payload = match call.stream {
        true => Payload::Events(Framing::AwsFrames, bedrock::events(&turn)),
        false => Payload::Json(bedrock::response(&turn)),
    };
    Ok(Reply::of(&turn, call.prefixes, payload))
}

fn invoke(method: &bedrock::Method, mut body: Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    body["model"] = json!(method.model);
    let removed = ciphertext::open_messages(&mut body, place)?;
    let call = anthropic::parse(&body)?;
    let mut turn = turn(&call, place);
    anthropic::account_for_writes(&mut turn, &call.prefixes);
    let extras = Extras::of(&body, &call.prompt, removed, place);
    if method.is_stream {
        let events = bedrock::chunks(&turn, anthropic_output::events(&turn, &extras));
        return Ok(Reply::of(&turn, call.prefixes, Payload::Events(Framing::AwsFrames, events)));
    }
    let headers = bedrock::headers(&turn.usage);
    let payload = Payload::Json(anthropic_output::message(&turn, &extras));
    Ok(Reply { headers, ..Reply::of(&turn, call.prefixes, payload) })
}

fn interaction(body: &Value, place: &Place<'_>) -> Result<Reply, ApiError> {
    let interaction = interactions::parse(body, place)?;
    let turn = turn(&interaction.call, place);
    let payload = match (interaction.call.stream, interaction.background) {
        (true, _) => Payload::Events(Framing::NamedEvents, interaction.events(&turn)),
        (false, true) => Payload::Json(interaction.begun(&turn)),
        (false, false) => Payload::Json(interaction.whole(&turn)),
    };
    let prefixes = interaction.call.prefixes.clone();
    let traces = interaction.traces(&turn).into_iter().collect();
    Ok(Reply { traces, ..Reply::of(&turn, prefixes, payload) })
}

fn turn(call: &Call, place: &Place<'_>) -> Turn {
    Turn::new(call, locked(&place.group.cache).read(&call.prefixes, place.now))
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
