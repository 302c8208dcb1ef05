//! The second act: a credential runs into its limit in the middle of conversations.
//!
//! All conversations speak once in every round. After some rounds the busiest credential answers
//! everything with 429 and `Retry-After`, so that its sessions have to leave; some rounds later it
//! serves again, while their prompts are still in its cache. The filter learns of neither but by
//! asking.
//!
//! All of it happens in one pool, that of three credentials: no other can be concerned, and with
//! two left it is seen how the sessions are shared out between them.

pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::CLIENTS;
use super::conversation::{self, Conversation};
use super::replay::{self, Refusal, Turn};
use super::stage::{Size, WORKERS, check_books};
use super::wire::Api;
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Mode};
use simulated_providers::{Fault, Providers};

/// The configuration by which another credential is asked within the request.
const MODE: Mode = Mode::Clusters;

/// What the limited credential says, in seconds. It means it no better than real ones do: the limit
/// may last longer.
const RETRY_AFTER: u64 = 1;

/// The fewest turns for three parts, and as many as are easily read in a line.
const TURNS: (usize, usize) = (3, 6);

/// The most conversations: enough for the busiest credential to have several.
const CONVERSATIONS: usize = 8;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The credential that ran into its limit.
    pub credential: String,
    /// The turns in which it was at its limit, the first of all being 0.
    pub limited: Range<usize>,
    /// How often it has answered 429, as the provider has written down.
    pub refused: usize,
    /// In the order in which they speak in every round.
    pub conversations: Vec<Course>,
}

/// What a client got in one conversation.
#[derive(Clone, Debug)]
pub struct Course {
    /// What people call it.
    pub title: String,
    /// In order. After an error the client asks again.
    pub turns: Vec<Result<Turn, Refusal>>,
}

/// Whether the demo's configuration for this Envoy does.
pub fn is_possible(envoy: &Envoy) -> bool {
    Mode::of_demo_on(envoy.version) == MODE
}

/// Plays the act, at most with 8 conversations of 3 to 6 turns.
///
/// # Errors
/// If a request gets no answer, not even an error, or clients and providers do not tell the same.
pub async fn play(envoy: &Envoy, size: Size) -> Result<Limit> {
    let clients: Vec<_> = CLIENTS.iter().filter(|client| client.api == Api::Messages).collect();
    let conversations = conversation::begin(&clients, size.conversations.min(CONVERSATIONS))?;
    let rounds = size.turns.clamp(TURNS.0, TURNS.1);
    let step = Step::of_parts("limit", (rounds * conversations.len()) as u64);
    step.say("starting Envoy");
    let gateway = Gateway::start(envoy, WORKERS, Ok).await?;
    step.say("requests");
    let mut stage = Stage::new(gateway.envoy.address(), conversations, &step);
    let limit = stage.play(rounds, &gateway.providers).await?;
    if limit.errors().next().is_none() {
        check_books(limit.served(), &gateway.providers)?;
    }
    gateway.stop().await?;
    let requests = limit.served().count();
    step.done(&format!("{} conversations, {requests} requests", limit.conversations.len()));
    Ok(limit)
}

/// The act under way.
struct Stage<'s> {
    gateway: SocketAddr,
    conversations: Vec<(Conversation, Course)>,
    step: &'s Step,
}

impl<'s> Stage<'s> {
    fn new(gateway: SocketAddr, conversations: Vec<Conversation>, step: &'s Step) -> Self {
        let course = |conversation: &Conversation| Course {
            title: conversation.title.clone(),
            turns: Vec::new(),
        };
        let conversations = conversations.into_iter().map(|it| (it.clone(), course(&it))).collect();
        Self { gateway, conversations, step }
    }

    async fn play(&mut self, rounds: usize, providers: &Providers) -> Result<Limit> {
        let third = rounds / 3;
        let limited = rounds - 2 * third..rounds - third;
        for _ in 0..limited.start {
            self.round().await?;
        }
        let credential = busiest(self.served()).context("nobody was served")?.to_owned();
        providers.fault(&credential, Fault::rate_limit(RETRY_AFTER), None)?;
        for _ in limited.clone() {
            self.round().await?;
            // Time must pass, nothing else: now the provider wants to be asked again.
            tokio::time::sleep(Duration::from_secs(RETRY_AFTER)).await;
        }
        providers.clear_faults();
        for _ in limited.end..rounds {
            self.round().await?;
        }
        let refused = refused(providers, &credential);
        let conversations = self.conversations.iter().map(|(_, course)| course.clone()).collect();
        Ok(Limit { credential, limited, refused, conversations })
    }

    async fn round(&mut self) -> Result<()> {
        for (conversation, course) in &mut self.conversations {
            course.turns.push(replay::take_turn(self.gateway, conversation).await?);
            self.step.advance();
        }
        Ok(())
    }

    fn served(&self) -> impl Iterator<Item = &Turn> {
        self.conversations.iter().flat_map(|(_, course)| course.served())
    }
}

/// Who has had to read the most: providers limit tokens, above all.
fn busiest<'a>(turns: impl Iterator<Item = &'a Turn>) -> Option<&'a str> {
    let mut tokens: BTreeMap<&str, u64> = BTreeMap::new();
    turns.for_each(|turn| *tokens.entry(&turn.credential).or_default() += turn.prompt_tokens);
    tokens.into_iter().max_by_key(|(_, tokens)| *tokens).map(|(credential, _)| credential)
}

fn refused(providers: &Providers, credential: &str) -> usize {
    let requests = providers.requests().into_iter();
    requests
        .filter(|it| it.account.as_deref() == Some(credential) && it.status == Some(429))
        .count()
}

impl Limit {
    /// The turns that were answered.
    pub fn served(&self) -> impl Iterator<Item = &Turn> + Clone {
        self.conversations.iter().flat_map(Course::served)
    }

    /// The errors that clients saw.
    pub fn errors(&self) -> impl Iterator<Item = &Refusal> {
        self.conversations
            .iter()
            .flat_map(|course| course.turns.iter().filter_map(|turn| turn.as_ref().err()))
    }

    /// The turns for which more than one credential was asked.
    pub fn failovers(&self) -> impl Iterator<Item = &Turn> {
        self.served().filter(|turn| !turn.failed.is_empty())
    }

    /// The conversations that had to leave their home.
    pub fn left(&self) -> impl Iterator<Item = &Course> {
        self.conversations.iter().filter(|course| course.credentials().len() > 1)
    }

    /// Whether failover has kept its promise.
    ///
    /// # Errors
    /// The errors that clients saw; or that nothing had to be failed over, so that nothing was
    /// shown; or the conversations that did not come home.
    pub fn check(&self) -> Result<()> {
        let errors: Vec<_> = self.errors().map(ToString::to_string).collect();
        ensure!(errors.is_empty(), "clients saw errors: {}", errors.join("; "));
        let Self { credential, refused, .. } = self;
        ensure!(
            self.failovers().next().is_some(),
            "no request was failed over ({credential}: {refused} times 429)"
        );
        let astray: Vec<_> =
            self.left().filter(|course| !course.is_home()).map(|it| it.title.as_str()).collect();
        ensure!(
            astray.is_empty(),
            "not home again, although {credential} is ready: {}",
            astray.join(", ")
        );
        Ok(())
    }
}

impl Course {
    /// The turns that were answered.
    pub fn served(&self) -> impl Iterator<Item = &Turn> + Clone {
        self.turns.iter().filter_map(|turn| turn.as_ref().ok())
    }

    /// The credentials that served it.
    pub fn credentials(&self) -> BTreeSet<&str> {
        self.served().map(|turn| turn.credential.as_str()).collect()
    }

    /// Who served it first, when nobody was limited.
    pub fn home(&self) -> Option<&str> {
        self.served().next().map(|turn| turn.credential.as_str())
    }

    /// Whether its last turn was served at home.
    pub fn is_home(&self) -> bool {
        let last = self.turns.last().and_then(|turn| turn.as_ref().ok());
        last.is_some_and(|turn| Some(turn.credential.as_str()) == self.home())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hyper::StatusCode;

    use super::*;

    /// A turn from the credentials that were asked, of 100 tokens.
    pub(crate) fn turn(asked: &str, outcome: &str) -> Result<Turn, Refusal> {
        let mut asked: Vec<String> =
            asked.split(' ').map(|letter| format!("openai-{letter}")).collect();
        Ok(Turn {
            credential: asked.pop().unwrap(),
            failed: asked,
            outcome: outcome.into(),
            source: None,
            prompt_tokens: 1000,
            cached_tokens: 750,
        })
    }

    /// Two conversations leave `openai-a`, the third lives elsewhere.
    pub(crate) fn limit() -> Limit {
        let conversation = |title: &str, turns: [(&str, &str); 6]| Course {
            title: title.into(),
            turns: turns.map(|(asked, outcome)| turn(asked, outcome)).into(),
        };
        let (miss, hit) = (("a", "miss"), ("a", "hit"));
        Limit {
            credential: "openai-a".into(),
            limited: 2..4,
            refused: 2,
            conversations: vec![
                conversation(
                    "Codex #1",
                    [miss, hit, ("a b", "hit"), ("a b", "return"), ("a", "return"), hit],
                ),
                conversation(
                    "OpenCode #1",
                    [miss, hit, ("c", "substitute"), ("c", "substitute"), ("a", "return"), hit],
                ),
                conversation(
                    "Chat #1",
                    [
                        ("b", "miss"),
                        ("b", "hit"),
                        ("b", "hit"),
                        ("b", "hit"),
                        ("b", "hit"),
                        ("b", "hit"),
                    ],
                ),
            ],
        }
    }

    fn check(change: impl FnOnce(&mut Limit), problem: &str) {
        let mut limit = limit();
        change(&mut limit);
        assert_eq!(limit.check().unwrap_err().to_string(), problem);
    }

    #[test]
    fn an_act_in_which_clients_notice_nothing_is_good() {
        limit().check().unwrap();
        assert_eq!(limit().failovers().count(), 2);
        assert_eq!(
            limit().left().map(|course| course.title.as_str()).collect::<Vec<_>>(),
            ["Codex #1", "OpenCode #1"]
        );
    }

    #[test]
    fn an_error_that_a_client_sees_is_told() {
        let (request, status) = ("Codex #1, turn 3".to_owned(), StatusCode::TOO_MANY_REQUESTS);
        let refusal = Refusal { request, status, message: "slow down".into() };
        check(
            |limit| limit.conversations[0].turns[2] = Err(refusal),
            "clients saw errors: Codex #1, turn 3: answered with 429 Too Many Requests: slow down",
        );
    }

    #[test]
    fn an_act_without_failover_shows_nothing() {
        check(
            |limit| drop(limit.conversations.remove(0)),
            "no request was failed over (openai-a: 2 times 429)",
        );
    }

    #[test]
    fn a_conversation_that_stays_away_is_named() {
        check(
            |limit| limit.conversations[1].turns.truncate(4),
            "not home again, although openai-a is ready: OpenCode #1",
        );
    }

    #[test]
    fn the_busiest_has_read_the_most() {
        let mut turns = [("a", 100), ("b", 90), ("c", 100), ("b", 20)]
            .map(|(asked, tokens)| (turn(asked, "hit").unwrap(), tokens));
        turns.iter_mut().for_each(|(turn, tokens)| turn.prompt_tokens = *tokens);
        assert_eq!(busiest(turns.iter().map(|(turn, _)| turn)), Some("openai-b"));
        assert_eq!(busiest([].into_iter()), None);
    }
}
