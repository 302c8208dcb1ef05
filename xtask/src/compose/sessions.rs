//! What has to hold of the stack: a conversation stays on its account, and conversations spread
//! over accounts.
//!
//! The simulated providers name in `x-simulated-account` the account whose key a request bore: the
//! key that Envoy injected, not the one the client sent, because it sends none.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use hyper::Request;
use serde_json::{Value, json};

use super::report::report;
use super::stack::PUBLISHED;
use envoy_harness::client::{self, Protocol};
use envoy_harness::output::print;
use simulated_providers::ACCOUNT_HEADER;

/// So many conversations begin, and the first two of them go on.
const CONVERSATIONS: usize = 6;
const GO_ON: usize = 2;
const TURNS: usize = 3;

/// Holds the conversations, interleaved, and prints who served them.
pub(super) async fn check() -> Result<()> {
    let mut conversations: Vec<_> = (1..=CONVERSATIONS).map(Conversation::new).collect();
    for turn in 0..TURNS {
        let speaking = if turn == 0 { CONVERSATIONS } else { GO_ON };
        for conversation in conversations.iter_mut().take(speaking) {
            conversation.take_turn().await?;
        }
    }
    print(&format!("{}\n", table(&conversations)))?;
    ensure_affinity(&conversations)
}

/// One client with one session, in the format of Anthropic's Messages API.
struct Conversation {
    session: String,
    messages: Vec<Value>,
    /// The account that served each turn.
    accounts: Vec<String>,
}

impl Conversation {
    fn new(number: usize) -> Self {
        Self {
            session: format!("compose-test-{number}"),
            messages: Vec::new(),
            accounts: Vec::new(),
        }
    }

    async fn take_turn(&mut self) -> Result<()> {
        let turn = self.accounts.len() + 1;
        let question = format!("Question {turn} of {}", self.session);
        self.messages.push(json!({"role": "user", "content": question}));
        let body =
            json!({"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": self.messages});
        let request = Request::post("/v1/messages")
            .header("content-type", "application/json")
            .header("x-session-id", &self.session)
            .body(client::whole(body.to_string()))?;
        let response = client::send(PUBLISHED, Protocol::Http1, request).await?;
        ensure!(
            response.status.is_success(),
            "{} instead of an answer: {}",
            response.status,
            response.text()
        );
        let account = response.header(ACCOUNT_HEADER).context("the answer names no account")?;
        self.accounts.push(account.to_owned());
        let content = response.json()?.get("content").cloned();
        self.messages.push(json!({"role": "assistant", "content": content}));
        Ok(())
    }
}

fn table(conversations: &[Conversation]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header([
        "X-Session-ID",
        "turn 1",
        "turn 2",
        "turn 3",
    ]);
    for conversation in conversations {
        table.add_row([&conversation.session].into_iter().chain(&conversation.accounts));
    }
    table
}

fn ensure_affinity(conversations: &[Conversation]) -> Result<()> {
    let mut used = BTreeSet::new();
    for Conversation { session, accounts, .. } in conversations {
        let served: BTreeSet<_> = accounts.iter().collect();
        ensure!(served.len() == 1, "{session} did not stay on one account: {accounts:?}");
        used.extend(served);
    }
    ensure!(used.len() > 1, "all conversations went to one account: {used:?}");
    report("story", format!("every conversation on one account, {} accounts in use", used.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversations(accounts: &[&[&str]]) -> Vec<Conversation> {
        let conversation = |(number, accounts): (usize, &&[&str])| Conversation {
            accounts: accounts.iter().map(|&account| account.to_owned()).collect(),
            ..Conversation::new(number)
        };
        accounts.iter().enumerate().map(conversation).collect()
    }

    #[test]
    fn a_conversation_that_moves_fails_the_story() {
        let problem =
            ensure_affinity(&conversations(&[&["a", "a", "b"], &["b"]])).unwrap_err().to_string();
        assert_eq!(problem, r#"compose-test-0 did not stay on one account: ["a", "a", "b"]"#);
    }

    #[test]
    fn conversations_that_do_not_spread_fail_the_story() {
        let problem =
            ensure_affinity(&conversations(&[&["a", "a", "a"], &["a"]])).unwrap_err().to_string();
        assert_eq!(problem, r#"all conversations went to one account: {"a"}"#);
    }

    #[test]
    fn conversations_that_stay_and_spread_pass() {
        ensure_affinity(&conversations(&[&["a", "a", "a"], &["b", "b", "b"], &["a"]])).unwrap();
    }
}
