//! Plays three sessions of a client, and one turn more whose credential is at its limit.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use envoy_harness::Envoy;
use envoy_harness::client::{self as http, Protocol};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use hyper::Request;
use simulated_providers::Fault;
use tokio::fs;

use super::client::Client;
use super::install::write_files;
use super::report::Row;

/// What users ask first, in different sessions, and then.
const FIRST: [&str; 3] =
    ["What is a haiku?", "How tall is the tallest tree?", "Which rivers cross Paris?"];
const SECOND: &str = "Say it in other words.";
const THIRD: &str = "And shorter.";

const WORKERS: u32 = 2;

/// That of both keys of OpenAI: what Codex replays, only its organization can read.
const ORGANIZATION: &str = "organization";

/// A request of a client, as the access log has it.
#[derive(Clone, Debug, Default)]
struct Seen {
    bytes: u64,
    status: u16,
    session: String,
    source: String,
    credential: String,
    /// Whether a credential failed without the client's noticing, or was known to fail.
    is_moved: bool,
}

/// A gateway with one client in front.
struct Stage<'c> {
    client: &'c Client,
    gateway: Gateway,
    home: &'c Path,
    turns: u32,
}

/// Plays it.
///
/// # Errors
/// If Envoy does not start; a client that fails is a row.
pub(crate) async fn play(client: &Client, home: &Path, envoy: &Envoy, step: &Step) -> Result<Row> {
    let gateway = Gateway::start(envoy, WORKERS, |fixture| {
        fixture.edit(log_sizes).edit_filter(name_organization)
    });
    let gateway = gateway.await?;
    for account in ["openai-a", "openai-b"] {
        gateway.providers.move_to_group(account, ORGANIZATION)?;
    }
    let mut stage = Stage { client, gateway, home, turns: 0 };
    let row = match stage.sessions(step).await {
        Ok(row) => row,
        Err(error) => Row::not_driven(client, &format!("not driven: {error:#}")),
    };
    stage.gateway.stop().await?;
    Ok(row)
}

/// Prints a line for each request that says how large it was: the largest of a turn is the one that
/// has the session in it, others are titles and the like.
fn log_sizes(document: &mut serde_json::Value) {
    const FORMAT: &str = "/typed_config/log_format/text_format_source/inline_string";
    const LOGS: &str =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0";
    if let Some(format) = document.pointer_mut(&format!("{LOGS}{FORMAT}")) {
        *format = "played path=%PATH(NQ:PATH)% bytes=%BYTES_RECEIVED% status=%RESPONSE_CODE% \
                   %FILTER_STATE(wasm.session_affinity.decision:PLAIN)%\n"
            .into();
    }
}

fn name_organization(filter: &mut serde_json::Value) {
    let pools = filter.pointer_mut("/pools").and_then(|pools| pools.as_array_mut());
    let openai =
        pools.into_iter().flatten().find(|pool| pool.pointer("/name") == Some(&"openai".into()));
    let credentials = openai.and_then(|pool| pool.pointer_mut("/credentials")?.as_array_mut());
    for credential in credentials.into_iter().flatten() {
        if let Some(members) = credential.as_object_mut() {
            members.insert("group".to_owned(), ORGANIZATION.into());
        }
    }
}

impl Stage<'_> {
    async fn sessions(&mut self, step: &Step) -> Result<Row> {
        let address = format!("http://{}", self.gateway.envoy.address());
        write_files(self.client, self.home, &address).await?;
        let mut first = Vec::new();
        for (number, text) in FIRST.iter().enumerate() {
            step.say(&format!("session {}", number + 1));
            first.push(self.turn(number, text, true).await?);
        }
        step.say("resumes");
        let second = self.turn(0, SECOND, false).await?;
        step.say("its credential fails");
        self.gateway.providers.fault(&second.credential, Fault::rate_limit(30), None)?;
        let third = self.turn(0, THIRD, false).await;
        let mut sessions: Vec<_> = first.iter().map(|seen| seen.session.as_str()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let home = first.first().context("no session")?;
        Ok(Row {
            client: self.client.package.pinned().to_owned(),
            source: second.source.clone(),
            kept: second.credential == home.credential,
            apart: sessions.len() == FIRST.len(),
            survives: third.is_ok_and(|it| {
                it.status == 200 && it.is_moved && it.credential != second.credential
            }),
            problem: None,
        })
    }

    /// One turn of a session: the largest of its requests.
    async fn turn(&mut self, session: usize, text: &str, is_first: bool) -> Result<Seen> {
        let address = format!("http://{}", self.gateway.envoy.address());
        let directory = self.home.join("sessions").join(session.to_string());
        fs::create_dir_all(&directory).await?;
        let before = self.mark().await?;
        let directory: PathBuf = directory;
        self.client.turn(self.home, &directory, &address, text, is_first).await?;
        let after = self.mark().await?;
        let log = self.gateway.envoy.log();
        let lines = log.get(before..after).unwrap_or_default().iter();
        let seen = lines.filter_map(|line| Seen::of(line)).max_by_key(|seen| seen.bytes);
        seen.context("it sent no request to a model")
    }

    /// How many lines the log has when everything is in it that came before.
    async fn mark(&mut self) -> Result<usize> {
        self.turns += 1;
        let path = format!("/mark/{}", self.turns);
        let request = Request::get(&path).body(http::empty())?;
        http::send(self.gateway.envoy.address(), Protocol::Http1, request).await?;
        let needle = format!("path={path} ");
        self.gateway.envoy.wait_for_log(&needle).await?;
        let log = self.gateway.envoy.log();
        log.iter().position(|line| line.contains(&needle)).context("the mark is gone")
    }
}

impl Seen {
    /// A line of the access log, if a pool was asked with a body.
    fn of(line: &str) -> Option<Self> {
        let line = line.split_once("played ")?.1;
        let word = |name: &str| {
            line.split(' ').rev().find_map(|word| word.strip_prefix(name)).unwrap_or_default()
        };
        let first = word("credential=");
        if first.is_empty() {
            return None;
        }
        // The last one that was asked.
        let then = word("then=").split('(').next().unwrap_or_default();
        Some(Self {
            bytes: word("bytes=").parse().ok().filter(|bytes| *bytes > 0)?,
            status: word("status=").parse().ok()?,
            session: word("gen_ai.conversation.id=").to_owned(),
            source: word("source=").to_owned(),
            credential: if then.is_empty() { first } else { then }.to_owned(),
            is_moved: !then.is_empty() || word("outcome=") == "substitute",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_line_of_the_log_says_who_served() {
        let line = "played path=/v1/messages bytes=7 status=200 outcome=hit source=claude pool=p credential=a \
                    gen_ai.conversation.id=1f idle=2s then=b(429,rate_limit,30s) failover=served";
        let seen = Seen::of(line).unwrap();
        assert_eq!((seen.bytes, seen.status, seen.is_moved), (7, 200, true));
        assert_eq!((seen.credential.as_str(), seen.session.as_str()), ("b", "1f"));
        assert!(Seen::of("played path=/mark/1 bytes=0 status=404 outcome=none").is_none());
    }
}
