//! Conversations as they look on the wire: each turn sends everything that was said before, the
//! model's real answers included, and something new.
//!
//! System prompt and tools are several thousand tokens and the same for all conversations of one
//! client, as in life; a question comes with a file or the output of a command, one to four
//! thousand tokens. The simulated models call no tools, so these come the way users attach them.

use anyhow::{Context, Result};
use hyper::Request;
use serde_json::Value;

use super::client::{CLIENTS, Client, Recorded, numbered, replace_text};
use super::text::{self, Random};
use envoy_harness::client::{Body, whole};

/// Tokens of what is attached to a question: at least this many, and below the sum of both.
const ATTACHED_TOKENS: (usize, usize) = (1_000, 3_000);

/// All conversations, and the order in which their turns arrive.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Grouped by client.
    pub conversations: Vec<Conversation>,
    /// Indices of conversations, each as often as it has turns.
    pub order: Vec<usize>,
}

impl Traffic {
    /// So many conversations of so many turns, of all clients in turn.
    ///
    /// # Errors
    /// If the recorded requests cannot be used.
    pub fn new(conversations: usize, turns: usize) -> Result<Self> {
        let clients: Vec<_> = CLIENTS.iter().collect();
        let conversations = begin(&clients, conversations)?;
        let order = interleaved(conversations.len(), turns);
        Ok(Self { conversations, order })
    }
}

/// So many conversations, of these clients in turn, grouped by client.
pub(super) fn begin(clients: &[&'static Client], count: usize) -> Result<Vec<Conversation>> {
    let (rounds, rest) = (count / clients.len(), count % clients.len());
    let count = |client: usize| rounds + usize::from(client < rest);
    let all = clients
        .iter()
        .enumerate()
        .flat_map(|(index, client)| (1..=count(index)).map(move |n| (client, n)));
    all.enumerate()
        .map(|(index, (client, number))| Conversation::begin(client, number, index + 1))
        .collect()
}

/// Who speaks next is drawn anew each time. In a fixed order, round-robin would by mere arithmetic
/// give some conversations the same credential every time.
fn interleaved(conversations: usize, turns: usize) -> Vec<usize> {
    let mut random = Random::new(1);
    let mut unsaid: Vec<usize> = (0..conversations).flat_map(|index| vec![index; turns]).collect();
    let mut order = Vec::with_capacity(unsaid.len());
    while !unsaid.is_empty() {
        order.push(unsaid.swap_remove(random.below(unsaid.len())));
    }
    order
}

/// A conversation that waits for the answer to its newest question.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Whose it is.
    pub client: &'static Client,
    /// What people call it, such as `Codex #2`.
    pub title: String,
    request: Recorded,
    turn: usize,
    random: Random,
}

impl Conversation {
    /// The conversation of a client with this number, and with this ticket among all conversations.
    fn begin(client: &'static Client, number: usize, ticket: usize) -> Result<Self> {
        let mut request = client.first_request(ticket)?;
        client.api.remove_question(&mut request.body);
        lengthen(client, &mut request.body);
        let mut random = Random::new(ticket as u64);
        let question = format!("Ticket SHOP-{ticket}: {}", text::question(&mut random));
        let mut conversation =
            Self { client, title: format!("{} #{number}", client.name), request, turn: 1, random };
        conversation.ask(&question);
        Ok(conversation)
    }

    /// What people call its next request, such as `Codex #2, turn 3`.
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

    /// Takes the model's answer and asks the next question.
    pub fn go_on(&mut self, answer: &str) {
        self.turn += 1;
        self.client.api.answer(&mut self.request.body, answer);
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
/// conversations share them.
fn lengthen(client: &Client, body: &mut Value) {
    let mut random = Random::new(client.name.bytes().map(u64::from).sum());
    let mut append = |text: Option<&mut Value>, tokens| {
        if let Some(Value::String(text)) = text {
            text.push_str("\n\n");
            text.push_str(&text::guidelines(&mut random, tokens));
        }
    };
    append(client.api.system_prompt(body), client.system_tokens);
    client
        .api
        .tool_descriptions(body)
        .for_each(|description| append(Some(description), client.tool_tokens));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use session_affinity::config::Config;
    use session_affinity::hash::Seed;
    use session_affinity::request::{self, Headers};
    use session_affinity::route::Router;
    use session_affinity::shared::InMemory;

    use super::*;
    use crate::wire::Api;
    use envoy_harness::Fixture;
    use envoy_harness::Mode;

    /// The filter's own decisions, without an Envoy around them.
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

        /// The value of a word in what the filter says about the next request.
        fn decide(&self, conversation: &Conversation, word: &str) -> String {
            let headers: Headers =
                conversation.headers().chain([(":path", conversation.path())]).collect();
            let body = conversation.body().to_string();
            let body = self.router.read_body(body.as_bytes());
            let request = request::Request { headers: &headers, body, tried: &[], properties: &[] };
            let decision = self.router.route(&request, &self.shared, 1_000_000).to_string();
            let mut words = decision.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(name, _)| *name == word).unwrap().1.to_owned()
        }
    }

    #[test]
    fn the_filter_recognizes_every_client() {
        let (filter, traffic) = (Filter::shipped(), Traffic::new(CLIENTS.len(), 1).unwrap());
        let source = |conversation: &Conversation| {
            (conversation.client.name, filter.decide(conversation, "source"))
        };
        let expected = [
            ("Amp", "amp"),
            ("Anthropic SDK", "msg"),
            ("Chat application", "conv"),
            ("Claude Code 2.0", "claude"),
            ("Claude Code 2.1", "claude"),
            ("Codex", "codex"),
            ("Gemini SDK", "msg"),
            ("Gemini SDK, SSE", "msg"),
            ("OpenAI SDK", "msg"),
            ("OpenCode", "header"),
        ];
        let expected = expected.map(|(client, source)| (client, source.to_owned()));
        assert_eq!(
            traffic.conversations.iter().map(source).collect::<BTreeMap<_, _>>(),
            expected.into()
        );
    }

    #[test]
    fn each_turn_leads_to_the_next_and_no_conversation_to_another() {
        let (filter, traffic) = (Filter::shipped(), Traffic::new(3 * CLIENTS.len(), 3).unwrap());
        for mut conversation in traffic.conversations {
            let mut outcomes = vec![filter.decide(&conversation, "outcome")];
            for _ in 0..2 {
                conversation.go_on("The same answer in every conversation.");
                outcomes.push(filter.decide(&conversation, "outcome"));
            }
            let hashed = filter.decide(&conversation, "source") == "msg";
            assert_eq!(
                outcomes,
                ["miss", if hashed { "inherit" } else { "hit" }, "hit"],
                "{}",
                conversation.title
            );
        }
    }

    #[test]
    fn a_turn_only_adds_to_what_was_said() {
        for mut conversation in Traffic::new(CLIENTS.len(), 2).unwrap().conversations {
            let text = |conversation: &Conversation| {
                let mut body = conversation.body().clone();
                let list = ["messages", "input", "contents"]
                    .into_iter()
                    .find(|name| body[name].is_array())
                    .unwrap();
                let messages = body[list].take().to_string();
                // Breakpoints move, and are no part of what the provider compares.
                let mark = |ttl: &str| format!(r#","cache_control":{{"type":"ephemeral"{ttl}}}"#);
                let messages = messages.replace(&mark(r#","ttl":"1h""#), "").replace(&mark(""), "");
                (body["system"].clone(), body["tools"].clone(), messages)
            };
            let (system, tools, before) = text(&conversation);
            conversation.go_on("Because of the cache.");
            let (system_after, tools_after, after) = text(&conversation);
            assert_eq!((system, tools), (system_after, tools_after));
            assert!(after.starts_with(before.trim_end_matches(']')), "{}", conversation.title);
            assert!(after.contains("Because of the cache."));
        }
    }

    #[test]
    fn the_order_of_fields_is_the_recorded_one() {
        let fields = |conversation: &Conversation| -> Vec<String> {
            conversation.body().as_object().unwrap().keys().cloned().collect()
        };
        let traffic = Traffic::new(CLIENTS.len(), 1).unwrap();
        let find = |name| traffic.conversations.iter().find(|it| it.client.name == name).unwrap();
        let claude = find("Claude Code 2.1");
        assert_eq!(fields(claude)[..5], ["model", "messages", "system", "tools", "metadata"]);
        assert_eq!(fields(find("Anthropic SDK")), ["max_tokens", "messages", "model", "system"]);
        assert_eq!(fields(find("Chat application")), ["conversation_id", "messages", "model"]);
        assert_eq!(claude.headers().next(), Some(("accept", "application/json")));
    }

    #[test]
    fn claude_code_marks_the_system_prompt_and_the_end_of_the_conversation() {
        let mut traffic = Traffic::new(CLIENTS.len(), 1).unwrap();
        for conversation in
            traffic.conversations.iter_mut().filter(|it| it.client.api == Api::Messages)
        {
            conversation.go_on("Answer.");
            let body = conversation.body();
            let marked = |value: &Value| value.to_string().matches("cache_control").count();
            assert_eq!(marked(&body["messages"]), 1, "{}", conversation.title);
            assert!(body["messages"][2]["content"][1]["cache_control"].is_object());
            assert!((1..=2).contains(&marked(&body["system"])));
        }
    }

    #[test]
    fn all_turns_are_said_and_not_in_a_fixed_order() {
        let order = interleaved(12, 5);
        assert!((0..12).all(|index| order.iter().filter(|other| **other == index).count() == 5));
        assert_ne!(order[..12], order[12..24]);
        assert_eq!(order, interleaved(12, 5));
    }
}
