//! What must hold of the stack: a session stays on its credential, and sessions spread over
//! credentials.
//!
//! The simulated providers name in `x-simulated-account` the credential whose key a request
//! carried: the key that Envoy injected, because the client sends none.

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

/// The sessions that begin, and how many of them go on.
const SESSIONS: usize = 6;
const GO_ON: usize = 2;
const TURNS: usize = 3;

/// Sends the sessions, interleaved, and prints the credentials that served them.
pub(super) async fn check() -> Result<()> {
    let mut sessions: Vec<_> = (1..=SESSIONS).map(Session::new).collect();
    for turn in 0..TURNS {
        let speaking = if turn == 0 { SESSIONS } else { GO_ON };
        for session in sessions.iter_mut().take(speaking) {
            session.take_turn().await?;
        }
    }
    print(&format!("{}\n", table(&sessions)))?;
    ensure_affinity(&sessions)
}

/// One client with one session, in the format of the Messages API of Anthropic.
struct Session {
    id: String,
    messages: Vec<Value>,
    /// The credential that served each turn.
    credentials: Vec<String>,
}

impl Session {
    fn new(number: usize) -> Self {
        Self { id: format!("compose-test-{number}"), messages: Vec::new(), credentials: Vec::new() }
    }

    async fn take_turn(&mut self) -> Result<()> {
        let turn = self.credentials.len() + 1;
        let question = format!("Question {turn} of {}", self.id);
        self.messages.push(json!({"role": "user", "content": question}));
        let body =
            json!({"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": self.messages});
        let request = Request::post("/v1/messages")
            .header("content-type", "application/json")
            .header("x-session-id", &self.id)
            .body(client::whole(body.to_string()))?;
        let response = client::send(PUBLISHED, Protocol::Http1, request).await?;
        ensure!(
            response.status.is_success(),
            "unexpected status {}: {}",
            response.status,
            response.text()
        );
        let credential =
            response.header(ACCOUNT_HEADER).context("the response names no account")?;
        self.credentials.push(credential.to_owned());
        let content = response.json()?.get("content").cloned();
        self.messages.push(json!({"role": "assistant", "content": content}));
        Ok(())
    }
}

fn table(sessions: &[Session]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header([
        "X-Session-ID",
        "turn 1",
        "turn 2",
        "turn 3",
    ]);
    for session in sessions {
        table.add_row([&session.id].into_iter().chain(&session.credentials));
    }
    table
}

fn ensure_affinity(sessions: &[Session]) -> Result<()> {
    let mut used = BTreeSet::new();
    for Session { id, credentials, .. } in sessions {
        let served: BTreeSet<_> = credentials.iter().collect();
        ensure!(served.len() == 1, "{id} did not stay on one credential: {credentials:?}");
        used.extend(served);
    }
    ensure!(used.len() > 1, "all sessions went to one credential: {used:?}");
    report("check", format!("every session on one credential, {} credentials in use", used.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(credentials: &[&[&str]]) -> Vec<Session> {
        let sessions = credentials.iter().enumerate().map(|(number, credentials)| Session {
            credentials: credentials.iter().map(|&name| name.to_owned()).collect(),
            ..Session::new(number)
        });
        sessions.collect()
    }

    #[test]
    fn a_session_that_moves_fails_the_check() {
        let problem =
            ensure_affinity(&sessions(&[&["a", "a", "b"], &["b"]])).unwrap_err().to_string();
        assert_eq!(problem, r#"compose-test-0 did not stay on one credential: ["a", "a", "b"]"#);
    }

    #[test]
    fn sessions_that_do_not_spread_fail_the_check() {
        let problem =
            ensure_affinity(&sessions(&[&["a", "a", "a"], &["a"]])).unwrap_err().to_string();
        assert_eq!(problem, r#"all sessions went to one credential: {"a"}"#);
    }

    #[test]
    fn sessions_that_stay_and_spread_pass() {
        ensure_affinity(&sessions(&[&["a", "a", "a"], &["b", "b", "b"], &["a"]])).unwrap();
    }
}
