//! Sends the traffic through a gateway and records what clients see.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use hyper::StatusCode;

use super::session::{Session, Traffic};
use super::wire::{Api, Reply};
use envoy_harness::client::{self, Protocol, Response};
use simulated_providers::ACCOUNT_HEADER;

/// The response header in which `envoy.yaml` puts the words of the decision.
const DECISION_HEADER: &str = "x-session-affinity-decision";

/// The sessions of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// In the order of the traffic.
    pub sessions: Vec<Track>,
}

/// The turns of a session, and where each was served.
#[derive(Clone, Debug)]
pub struct Track {
    /// Its name in the report.
    pub title: String,
    /// The API that it uses.
    pub api: Api,
    /// In order.
    pub turns: Vec<Turn>,
}

/// How a turn was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The credential whose key the provider saw.
    pub credential: String,
    /// The credentials of earlier attempts of the same request, which failed.
    pub failed: Vec<String>,
    /// The outcome of the decision.
    pub outcome: String,
    /// Where the filter found the session; `None` if it did not look for one.
    pub source: Option<String>,
    /// The length of the prompt, as the provider reports it.
    pub prompt_tokens: u64,
    /// The part of it that the provider had in its cache.
    pub cached_tokens: u64,
}

/// A response with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// To which request: `Codex #1, turn 3`.
    pub request: String,
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub message: String,
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.request, self.status, self.message)
    }
}

impl Error for ErrorResponse {}

/// Sums over turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
}

impl Totals {
    pub(super) fn of<'a>(turns: impl Iterator<Item = &'a Turn>) -> Self {
        turns.fold(Self::default(), |sum, turn| Self {
            requests: sum.requests + 1,
            prompt_tokens: sum.prompt_tokens + turn.prompt_tokens,
            cached_tokens: sum.cached_tokens + turn.cached_tokens,
        })
    }

    pub(super) fn cached_ratio(self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }

    pub(super) fn cached_share(self) -> String {
        format!("{:.0} %", 100.0 * self.cached_ratio())
    }
}

impl Run {
    /// All turns.
    pub fn turns(&self) -> impl Iterator<Item = &Turn> + Clone {
        self.sessions.iter().flat_map(|track| &track.turns)
    }
}

impl Track {
    /// The credentials that served it.
    pub fn credentials(&self) -> BTreeSet<&str> {
        self.turns.iter().map(|turn| turn.credential.as_str()).collect()
    }
}

impl Turn {
    /// The credentials of all attempts, in order.
    pub fn attempted(&self) -> impl Iterator<Item = &str> {
        self.failed.iter().chain([&self.credential]).map(String::as_str)
    }

    /// `openai` of `openai-a`.
    pub fn provider(&self) -> &str {
        names(&self.credential).0
    }

    /// `a` of `openai-a`.
    pub fn letter(&self) -> &str {
        letter(&self.credential)
    }
}

/// Takes all turns, one after the other, each request on a connection of its own, so that a session
/// reaches all workers of Envoy. `progress` is called after every turn.
///
/// # Errors
/// The first request that fails.
pub async fn replay(gateway: SocketAddr, mut traffic: Traffic, progress: impl Fn()) -> Result<Run> {
    let mut tracks: Vec<Track> = Vec::new();
    for Session { title, client, .. } in &traffic.sessions {
        tracks.push(Track { title: title.clone(), api: client.api, turns: Vec::new() });
    }
    for index in traffic.order {
        let session =
            traffic.sessions.get_mut(index).context("the order names an unknown session")?;
        let track = tracks.get_mut(index).context("every session has a track")?;
        track.turns.push(take_turn(gateway, session).await??);
        progress();
    }
    Ok(Run { sessions: tracks })
}

/// Sends the next request of a session, which goes on if the response is no error.
///
/// # Errors
/// If there is no response, not even an error, or one that the demo cannot read.
pub(super) async fn take_turn(
    gateway: SocketAddr,
    session: &mut Session,
) -> Result<Result<Turn, ErrorResponse>> {
    let request = session.name_of_turn();
    let response = client::send(gateway, Protocol::Http1, session.request()?)
        .await
        .context(request.clone())?;
    if !response.status.is_success() {
        return Ok(Err(ErrorResponse {
            request,
            status: response.status,
            message: response.text(),
        }));
    }
    let (turn, reply) = read_turn(session.client.api, &response).context(request)?;
    session.go_on(&reply);
    Ok(Ok(turn))
}

fn read_turn(api: Api, response: &Response) -> Result<(Turn, String)> {
    let reply = Reply::read(api, response)?;
    let (credential, failed) = served_by(response)?;
    let turn = Turn {
        credential,
        failed,
        outcome: decision(response, "outcome")
            .next()
            .context("the decision has no outcome")?
            .to_owned(),
        source: decision(response, "source").next().map(str::to_owned),
        prompt_tokens: reply.prompt_tokens,
        cached_tokens: reply.cached_tokens,
    };
    Ok((turn, reply.text))
}

/// The credential that served the request, and those of failed attempts before it. The provider
/// must have seen the key of the one that the filter chose: between them are the route, the cluster
/// and the key.
fn served_by(response: &Response) -> Result<(String, Vec<String>)> {
    let account = response.header(ACCOUNT_HEADER).context("the response has no account")?;
    // Behind the credential of a further attempt, in parentheses, is why the one before failed.
    let further = decision(response, "then").map(|value| value.split('(').next().unwrap_or(value));
    let attempts = decision(response, "credential").chain(further);
    let mut attempts: Vec<String> = attempts.map(str::to_owned).collect();
    let chosen = attempts.pop().context("the decision has no credential")?;
    ensure!(account == chosen, "the filter chose {chosen}, but {account} served");
    Ok((chosen, attempts))
}

/// The values of a name in the decision: `a` of `credential` in `outcome=hit credential=a then=b`.
fn decision<'a>(response: &'a Response, name: &str) -> impl Iterator<Item = &'a str> {
    let words = response.header(DECISION_HEADER).unwrap_or_default().split(' ');
    words
        .filter_map(|word| word.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// `a` of `openai-a`.
pub(super) fn letter(credential: &str) -> &str {
    names(credential).1
}

/// `openai` and `a` of `openai-a`.
fn names(credential: &str) -> (&str, &str) {
    credential.rsplit_once('-').unwrap_or((credential, credential))
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn response(account: &str, decision: &str) -> Response {
        let headers = [(ACCOUNT_HEADER, account), (DECISION_HEADER, decision)];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let body = r#"{"content":[{"text":"Hello"}],"usage":{"input_tokens":40,"cache_read_input_tokens":60}}"#;
        Response {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter(headers),
            body: body.into(),
            trailers: None,
        }
    }

    fn check(account: &str, decision: &str, attempts: &[&str]) {
        let (turn, reply) = read_turn(Api::Messages, &response(account, decision)).unwrap();
        assert_eq!(turn.attempted().collect::<Vec<_>>(), attempts, "{decision}");
        assert_eq!((turn.outcome.as_str(), turn.source.as_deref()), ("hit", Some("header")));
        assert_eq!((reply.as_str(), turn.prompt_tokens, turn.cached_tokens), ("Hello", 100, 60));
    }

    #[test]
    fn the_credential_of_the_last_attempt_has_served() {
        let words =
            "outcome=hit source=header pool=p credential=p-a gen_ai.conversation.id=670d8883";
        check("p-a", words, &["p-a"]);
        check("p-b", &format!("{words} then=p-b"), &["p-a", "p-b"]);
        check(
            "p-c",
            &format!("{words} then=p-b(429,rate_limit,20s) then=p-c(503,transient)"),
            &["p-a", "p-b", "p-c"],
        );
    }

    #[test]
    fn a_key_that_the_filter_did_not_choose_is_an_error() {
        let problem =
            served_by(&response("p-a", "outcome=hit credential=p-a then=p-b")).unwrap_err();
        assert_eq!(problem.to_string(), "the filter chose p-b, but p-a served");
    }
}
