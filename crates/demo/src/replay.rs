//! Sends the traffic through a gateway and writes down what clients can see of it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use hyper::StatusCode;

use super::conversation::{Conversation, Traffic};
use super::wire::{Answer, Api};
use envoy_harness::client::{self, Protocol, Response};
use simulated_providers::ACCOUNT_HEADER;

/// Set by `envoy.yaml` to the filter's own words.
const DECISION_HEADER: &str = "x-session-affinity-decision";

/// What became of the conversations of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// In the order of the traffic.
    pub conversations: Vec<Track>,
}

/// The way of a conversation over the credentials.
#[derive(Clone, Debug)]
pub struct Track {
    /// What people call it.
    pub title: String,
    /// What it speaks.
    pub api: Api,
    /// In order.
    pub turns: Vec<Turn>,
}

/// How a turn was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The account whose key the provider saw.
    pub credential: String,
    /// The credentials that were asked before in the same request, and failed.
    pub failed: Vec<String>,
    /// The outcome of the filter's decision.
    pub outcome: String,
    /// Where the filter found the session; `None` if it did not look for one.
    pub source: Option<String>,
    /// The length of the prompt, as the provider reports it.
    pub prompt_tokens: u64,
    /// The part of it that the provider had in its cache.
    pub cached_tokens: u64,
}

/// An error in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of whom, and when: `Codex #1, turn 3`.
    pub request: String,
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: answered with {}: {}", self.request, self.status, self.message)
    }
}

impl Error for Refusal {}

/// Sums over turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) requests: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
}

impl Work {
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
        self.conversations.iter().flat_map(|track| &track.turns)
    }
}

impl Track {
    /// The credentials that served it.
    pub fn credentials(&self) -> BTreeSet<&str> {
        self.turns.iter().map(|turn| turn.credential.as_str()).collect()
    }
}

impl Turn {
    /// All credentials that were asked, in order.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
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

/// Holds all conversations, one turn after the other, each request on a connection of its own, so
/// that a conversation meets all workers of Envoy. `progress` is called after every turn.
///
/// # Errors
/// The first request that fails.
pub async fn replay(gateway: SocketAddr, mut traffic: Traffic, progress: impl Fn()) -> Result<Run> {
    let track = |conversation: &Conversation| {
        let Conversation { title, client, .. } = conversation;
        Track { title: title.clone(), api: client.api, turns: Vec::new() }
    };
    let mut tracks: Vec<Track> = traffic.conversations.iter().map(track).collect();
    for index in traffic.order {
        let conversation = traffic
            .conversations
            .get_mut(index)
            .context("the order names an unknown conversation")?;
        let track = tracks.get_mut(index).context("every conversation has a track")?;
        track.turns.push(take_turn(gateway, conversation).await??);
        progress();
    }
    Ok(Run { conversations: tracks })
}

/// Sends the next request of a conversation, which goes on if there is an answer.
///
/// # Errors
/// If there is no answer, not even an error, or one that the demo cannot read.
pub(super) async fn take_turn(
    gateway: SocketAddr,
    conversation: &mut Conversation,
) -> Result<Result<Turn, Refusal>> {
    let request = conversation.name_of_turn();
    let response = client::send(gateway, Protocol::Http1, conversation.request()?)
        .await
        .context(request.clone())?;
    if !response.status.is_success() {
        return Ok(Err(Refusal { request, status: response.status, message: response.text() }));
    }
    let (turn, answer) = read_turn(conversation.client.api, &response).context(request)?;
    conversation.go_on(&answer);
    Ok(Ok(turn))
}

fn read_turn(api: Api, response: &Response) -> Result<(Turn, String)> {
    let answer = Answer::read(api, response)?;
    let (credential, failed) = served_by(response)?;
    let turn = Turn {
        credential,
        failed,
        outcome: decision(response, "outcome")
            .next()
            .context("the filter tells no outcome")?
            .to_owned(),
        source: decision(response, "source").next().map(str::to_owned),
        prompt_tokens: answer.prompt_tokens,
        cached_tokens: answer.cached_tokens,
    };
    Ok((turn, answer.text))
}

/// Who served it in the end, and who was asked before. The account must be the one that the filter
/// chose: between them lie the route, the cluster and the key.
fn served_by(response: &Response) -> Result<(String, Vec<String>)> {
    let account = response
        .header(ACCOUNT_HEADER)
        .context("the provider does not say which account served")?;
    let asked = decision(response, "credential").chain(decision(response, "then"));
    let mut asked: Vec<String> = asked.map(str::to_owned).collect();
    let chosen = asked.pop().context("the filter tells no credential")?;
    ensure!(account == chosen, "the filter chose {chosen}, but {account} served");
    Ok((chosen, asked))
}

/// The values of a word of the decision: of `credential` in `outcome=hit credential=a then=b`, that
/// is `a`.
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

    fn check(account: &str, decision: &str, asked: &[&str]) {
        let (turn, answer) = read_turn(Api::Messages, &response(account, decision)).unwrap();
        assert_eq!(turn.asked().collect::<Vec<_>>(), asked, "{decision}");
        assert_eq!((turn.outcome.as_str(), turn.source.as_deref()), ("hit", Some("header")));
        assert_eq!((answer.as_str(), turn.prompt_tokens, turn.cached_tokens), ("Hello", 100, 60));
    }

    #[test]
    fn the_last_credential_that_was_asked_has_served() {
        let words = "outcome=hit source=header pool=p credential=p-a session=670d8883";
        check("p-a", words, &["p-a"]);
        check("p-b", &format!("{words} then=p-b"), &["p-a", "p-b"]);
        check("p-c", &format!("{words} then=p-b then=p-c"), &["p-a", "p-b", "p-c"]);
    }

    #[test]
    fn an_account_that_the_filter_did_not_choose_is_an_error() {
        let problem =
            served_by(&response("p-a", "outcome=hit credential=p-a then=p-b")).unwrap_err();
        assert_eq!(problem.to_string(), "the filter chose p-b, but p-a served");
    }
}
