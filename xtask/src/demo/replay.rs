//! Sends the traffic through a gateway and writes down what clients can see of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::conversation::{Conversation, Traffic};
use super::wire::{Answer, Api};
use crate::envoy::client::{self, Protocol, Response};
use crate::provider::ACCOUNT_HEADER;

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
    /// The outcome of the filter's decision.
    pub outcome: String,
    /// Where the filter found the session; `None` if it did not look for one.
    pub source: Option<String>,
    /// The length of the prompt, as the provider reports it.
    pub prompt_tokens: u64,
    /// The part of it that the provider had in its cache.
    pub cached_tokens: u64,
}

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
}

impl Run {
    /// All turns.
    pub fn turns(&self) -> impl Iterator<Item = &Turn> {
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
    /// `openai` of `openai-a`.
    pub fn provider(&self) -> &str {
        self.names().0
    }

    /// `a` of `openai-a`.
    pub fn letter(&self) -> &str {
        self.names().1
    }

    fn names(&self) -> (&str, &str) {
        self.credential.rsplit_once('-').unwrap_or((&self.credential, &self.credential))
    }
}

/// Holds all conversations, one turn after the other, each request on a connection of its own, so that a conversation
/// meets all workers of Envoy. `progress` is called after every turn.
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
        let conversation = traffic.conversations.get_mut(index).context("the order names an unknown conversation")?;
        let track = tracks.get_mut(index).context("every conversation has a track")?;
        let what = || format!("{}, turn {}", conversation.title, track.turns.len() + 1);
        let (turn, answer) = take_turn(gateway, conversation).await.with_context(what)?;
        conversation.go_on(&answer);
        track.turns.push(turn);
        progress();
    }
    Ok(Run { conversations: tracks })
}

async fn take_turn(gateway: SocketAddr, conversation: &Conversation) -> Result<(Turn, String)> {
    let response = client::send(gateway, Protocol::Http1, conversation.request()?).await?;
    ensure!(response.status.is_success(), "answered with {}: {}", response.status, response.text());
    let answer = Answer::read(conversation.client.api, &response)?;
    let turn = Turn {
        credential: served_by(&response)?.to_owned(),
        outcome: decision(&response, "outcome").context("the filter tells no outcome")?.to_owned(),
        source: decision(&response, "source").map(str::to_owned),
        prompt_tokens: answer.prompt_tokens,
        cached_tokens: answer.cached_tokens,
    };
    Ok((turn, answer.text))
}

/// Who served it in the end must be whom the filter chose: between them lie the route, the cluster and the key.
fn served_by(response: &Response) -> Result<&str> {
    let account = response.header(ACCOUNT_HEADER).context("the provider does not say which account served")?;
    let chosen = decision(response, "credential").context("the filter tells no credential")?;
    ensure!(account == chosen, "the filter chose {chosen}, but {account} served");
    Ok(account)
}

/// A word of the decision, such as `hit` in `outcome=hit source=header`.
fn decision<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let words = response.header(DECISION_HEADER)?.split(' ');
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}
