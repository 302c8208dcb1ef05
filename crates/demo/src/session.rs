//! Sessions as they look on the wire: each turn sends everything that came before, the replies of
//! the model included, and something new.
//!
//! System prompt and tools are several thousand tokens and the same for all sessions of one client,
//! as in production. A question comes with a file or the output of a command, one to four thousand
//! tokens. The simulated models call no tools, so these are attached as users attach them.

use anyhow::{Context, Result};
use hyper::Request;
use serde_json::Value;

use super::client::{CLIENTS, Client, Recorded, numbered, replace_text};
use super::text::{self, Random};
use envoy_harness::client::{Body, whole};

/// Tokens of what is attached to a question: at least this many, and below the sum of both.
const ATTACHED_TOKENS: (usize, usize) = (1_000, 3_000);

/// All sessions, and the order of their turns.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Grouped by client.
    pub sessions: Vec<Session>,
    /// Indices of sessions, each as often as it has turns.
    pub order: Vec<usize>,
}

impl Traffic {
    /// This many sessions of this many turns; the clients take turns.
    ///
    /// # Errors
    /// If the recorded requests cannot be used.
    pub fn new(sessions: usize, turns: usize) -> Result<Self> {
        let clients: Vec<_> = CLIENTS.iter().collect();
        let sessions = begin(&clients, sessions)?;
        let order = interleaved(sessions.len(), turns);
        Ok(Self { sessions, order })
    }
}

/// This many sessions, distributed over these clients and grouped by client.
pub(super) fn begin(clients: &[&'static Client], count: usize) -> Result<Vec<Session>> {
    let (rounds, rest) = (count / clients.len(), count % clients.len());
    let mut sessions = Vec::with_capacity(count);
    for (index, client) in clients.iter().enumerate() {
        for number in 1..=rounds + usize::from(index < rest) {
            sessions.push(Session::begin(client, number, sessions.len() + 1)?);
        }
    }
    Ok(sessions)
}

/// A random order. In a fixed one, round-robin would give some sessions the same credential every
/// time by mere arithmetic.
fn interleaved(sessions: usize, turns: usize) -> Vec<usize> {
    let mut random = Random::new(1);
    let mut left: Vec<usize> = (0..sessions).flat_map(|index| vec![index; turns]).collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        order.push(left.swap_remove(random.below(left.len())));
    }
    order
}

/// A session with a question that is to be sent.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client that holds it.
    pub client: &'static Client,
    /// Its name in the report, such as `Codex #2`.
    pub title: String,
    request: Recorded,
    turn: usize,
    random: Random,
}

impl Session {
    /// The session with this number among those of a client, and this ticket among all.
    fn begin(client: &'static Client, number: usize, ticket: usize) -> Result<Self> {
        let mut request = client.first_request(ticket)?;
        client.api.remove_question(&mut request.body);
        lengthen(client, &mut request.body);
        let mut random = Random::new(ticket as u64);
        let question = format!("Ticket SHOP-{ticket}: {}", text::question(&mut random));
        let mut session =
            Self { client, title: format!("{} #{number}", client.name), request, turn: 1, random };
        session.ask(&question);
        Ok(session)
    }

    /// The name of its next request, such as `Codex #2, turn 3`.
    pub(super) fn name_of_turn(&self) -> String {
        format!("{}, turn {}", self.title, self.turn)
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.request.path
    }

    /// The headers as this client sends them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.request.headers.as_object().into_iter().flatten();
        headers.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// The body of the next request.
    pub fn body(&self) -> &Value {
        &self.request.body
    }

    /// The next request.
    pub(super) fn request(&self) -> Result<Request<Body>> {
        let request = Request::post(self.path());
        let builder =
            self.headers().fold(request, |builder, (name, value)| builder.header(name, value));
        builder.body(whole(self.body().to_string())).context("a recorded header cannot be sent")
    }

    /// Adds the reply of the model and the next question.
    pub fn go_on(&mut self, reply: &str) {
        self.turn += 1;
        self.client.api.add_reply(&mut self.request.body, reply);
        if let Some(id) = self.client.turn_id {
            let (last, next) = (numbered(id, self.turn - 1), numbered(id, self.turn));
            replace_text(&mut self.request.headers, &last, &next);
            replace_text(&mut self.request.body["client_metadata"], &last, &next);
        }
        let question = text::question(&mut self.random);
        self.ask(&question);
    }

    fn ask(&mut self, question: &str) {
        let (least, more) = ATTACHED_TOKENS;
        let tokens = least + self.random.below(more);
        let attachment = text::attachment(&mut self.random, tokens);
        self.client.api.ask(&mut self.request.body, question, &attachment);
    }
}

/// Gives system prompt and tools their real length. The seed is the client, so that all its
/// sessions share them.
fn lengthen(client: &Client, body: &mut Value) {
    let mut random = Random::new(client.name.bytes().map(u64::from).sum());
    if let Some(prompt) = client.api.system_prompt(body) {
        append_guidelines(prompt, &mut random, client.system_tokens);
    }
    for description in client.api.tool_descriptions(body) {
        append_guidelines(description, &mut random, client.tool_tokens);
    }
}

fn append_guidelines(text: &mut Value, random: &mut Random, tokens: usize) {
    if let Value::String(text) = text {
        text.push_str("\n\n");
        text.push_str(&text::guidelines(random, tokens));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use session_affinity::config::Config;
    use session_affinity::hash::Seed;
    use session_affinity::request::{self, Headers};
    use session_affinity::router::Router;
    use session_affinity::shared::InMemory;
    use session_affinity::time::Timestamp;

    use super::*;
    use crate::wire::Api;
    use envoy_harness::Fixture;
    use envoy_harness::Mode;

    /// The decisions of the filter, without an Envoy around them.
    struct Filter {
        router: Router,
        shared: InMemory,
    }

    impl Filter {
        fn shipped() -> Self {
            let mut text = String::new();
            Fixture::shipped(Mode::Clusters)
                .unwrap()
                .edit_filter(|filter| text = filter.to_string())
                .unwrap();
            let shared = InMemory::default();
            let router =
                Router::new(Config::parse(text.as_bytes()).unwrap(), Seed::agree(&shared, [7; 16]));
            Self { router, shared }
        }

        /// The value of a name in the decision for the next request.
        fn decide(&self, session: &Session, word: &str) -> String {
            let headers: Headers = session.headers().chain([(":path", session.path())]).collect();
            let body = session.body().to_string();
            let body = self.router.read_body(body.as_bytes());
            let request = request::Request::new(&headers, body);
            let decision =
                self.router.route(&request, &self.shared, Timestamp::from_secs(1_000)).to_string();
            let mut words = decision.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(name, _)| *name == word).unwrap().1.to_owned()
        }
    }

    #[test]
    fn the_filter_recognizes_every_client() {
        let (filter, traffic) = (Filter::shipped(), Traffic::new(CLIENTS.len(), 1).unwrap());
        let expected = [
            ("Amp", "amp"),
            ("Anthropic SDK", "msg"),
            ("Chat app", "conv"),
            ("Claude Code 2.0", "claude"),
            ("Claude Code 2.1", "claude"),
            ("Codex", "codex"),
            ("Gemini SDK", "msg"),
            ("Gemini SDK, SSE", "msg"),
            ("OpenAI SDK", "msg"),
            ("OpenCode", "header"),
        ];
        let sources: BTreeMap<_, _> = traffic
            .sessions
            .iter()
            .map(|session| (session.client.name, filter.decide(session, "source")))
            .collect();
        let expected = expected.map(|(client, source)| (client, source.to_owned()));
        assert_eq!(sources, expected.into());
    }

    #[test]
    fn each_turn_leads_to_the_next_and_no_session_to_another() {
        let (filter, traffic) = (Filter::shipped(), Traffic::new(3 * CLIENTS.len(), 3).unwrap());
        for mut session in traffic.sessions {
            let mut outcomes = vec![filter.decide(&session, "outcome")];
            for _ in 0..2 {
                session.go_on("The same reply in every session.");
                outcomes.push(filter.decide(&session, "outcome"));
            }
            assert_eq!(outcomes, ["miss", "hit", "hit"], "{}", session.title);
        }
    }

    #[test]
    fn a_turn_only_adds_to_what_came_before() {
        for mut session in Traffic::new(CLIENTS.len(), 2).unwrap().sessions {
            let (system, tools, before) = compared(&session);
            session.go_on("Because of the cache.");
            let (system_after, tools_after, after) = compared(&session);
            assert_eq!((system, tools), (system_after, tools_after));
            assert!(after.starts_with(before.trim_end_matches(']')), "{}", session.title);
            assert!(after.contains("Because of the cache."));
        }
    }

    /// What a provider compares: system prompt, tools and messages, without the breakpoints.
    fn compared(session: &Session) -> (Value, Value, String) {
        let mut body = session.body().clone();
        let mut lists = ["messages", "input", "contents"].into_iter();
        let list = lists.find(|name| body[name].is_array()).unwrap();
        let messages = body[list].take().to_string();
        let messages = messages
            .replace(r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#, "")
            .replace(r#","cache_control":{"type":"ephemeral"}"#, "");
        (body["system"].clone(), body["tools"].clone(), messages)
    }

    #[test]
    fn the_order_of_fields_is_the_recorded_one() {
        let traffic = Traffic::new(CLIENTS.len(), 1).unwrap();
        let fields: BTreeMap<_, Vec<String>> = traffic
            .sessions
            .iter()
            .map(|session| (session.client.name, session.body().as_object().unwrap()))
            .map(|(name, body)| (name, body.keys().cloned().collect()))
            .collect();
        let claude = &fields["Claude Code 2.1"][..5];
        assert_eq!(claude, ["model", "messages", "system", "tools", "metadata"]);
        assert_eq!(fields["Anthropic SDK"], ["max_tokens", "messages", "model", "system"]);
        assert_eq!(fields["Chat app"], ["conversation_id", "messages", "model"]);
        assert_eq!(traffic.sessions[0].headers().next(), Some(("accept", "application/json")));
    }

    fn marked(value: &Value) -> usize {
        value.to_string().matches("cache_control").count()
    }

    #[test]
    fn claude_code_marks_the_system_prompt_and_the_end_of_the_session() {
        let mut traffic = Traffic::new(CLIENTS.len(), 1).unwrap();
        for session in traffic.sessions.iter_mut().filter(|it| it.client.api == Api::Messages) {
            session.go_on("Answer.");
            let body = session.body();
            assert_eq!(marked(&body["messages"]), 1, "{}", session.title);
            assert!(body["messages"][2]["content"][1]["cache_control"].is_object());
            assert!((1..=2).contains(&marked(&body["system"])));
        }
    }

    #[test]
    fn all_turns_are_taken_in_a_random_order() {
        let order = interleaved(12, 5);
        assert!((0..12).all(|index| order.iter().filter(|other| **other == index).count() == 5));
        assert_ne!(order[..12], order[12..24]);
        assert_eq!(order, interleaved(12, 5));
    }
}
