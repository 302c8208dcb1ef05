//! The second act: a credential reaches its rate limit in the middle of sessions.
//!
//! In every round each session takes one turn. After some rounds the busiest credential responds
//! with 429 and `Retry-After` to everything, so that its sessions have to leave. Some rounds later
//! it serves again, while their prompts are still in its cache. The filter learns of either only by
//! an attempt.
//!
//! All sessions use one pool, that of three credentials: so no other can be concerned, and the two
//! that are left show how sessions are distributed over them.

pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::CLIENTS;
use super::replay::{self, ErrorResponse, Turn};
use super::session::{self, Session};
use super::stage::{Size, WORKERS, check_totals};
use super::wire::Api;
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Mode};
use simulated_providers::{Fault, Providers};

/// The configuration with failover within a request.
const MODE: Mode = Mode::Clusters;

/// The `Retry-After` of the limited credential, in seconds. As with real providers, the limit may
/// last longer.
const RETRY_AFTER: u64 = 1;

/// The fewest turns that make three parts, and the most that fit into a line.
const TURNS: (usize, usize) = (3, 6);

/// The most sessions: enough that the busiest credential has several.
const SESSIONS: usize = 8;

/// The outcome of the act.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The credential that reached its limit.
    pub credential: String,
    /// The turns in which it was at its limit, counted from 0.
    pub limited: Range<usize>,
    /// How often it responded with 429, as the provider recorded.
    pub refused: usize,
    /// In the order in which they take turns in every round.
    pub sessions: Vec<Course>,
}

/// What a client got in one session.
#[derive(Clone, Debug)]
pub struct Course {
    /// Its name in the report.
    pub title: String,
    /// In order. After an error the client repeats the request.
    pub turns: Vec<Result<Turn, ErrorResponse>>,
}

/// Whether the configuration of the demo for this Envoy fails over within a request.
pub fn is_possible(envoy: &Envoy) -> bool {
    Mode::of_demo_on(envoy.version) == MODE
}

/// Plays the act, at most with 8 sessions of 3 to 6 turns.
///
/// # Errors
/// If a request gets no response, not even an error, or clients and providers report different
/// numbers.
pub async fn play(envoy: &Envoy, size: Size) -> Result<Limit> {
    let clients: Vec<_> = CLIENTS.iter().filter(|client| client.api == Api::Messages).collect();
    let sessions = session::begin(&clients, size.sessions.min(SESSIONS))?;
    let rounds = size.turns.clamp(TURNS.0, TURNS.1);
    let step = Step::of_parts("limit", (rounds * sessions.len()) as u64);
    step.say("starting Envoy");
    let gateway = Gateway::start(envoy, WORKERS, Ok).await?;
    step.say("requests");
    let mut stage = Stage::new(gateway.envoy.address(), sessions, &step);
    let limit = stage.play(rounds, &gateway.providers).await?;
    if limit.errors().next().is_none() {
        check_totals(limit.served(), &gateway.providers)?;
    }
    gateway.stop().await?;
    let requests = limit.served().count();
    step.done(&format!("{} sessions, {requests} requests", limit.sessions.len()));
    Ok(limit)
}

/// The act while it runs.
struct Stage<'s> {
    gateway: SocketAddr,
    sessions: Vec<(Session, Course)>,
    step: &'s Step,
}

impl<'s> Stage<'s> {
    fn new(gateway: SocketAddr, sessions: Vec<Session>, step: &'s Step) -> Self {
        let sessions = sessions.into_iter().map(|session| {
            let course = Course { title: session.title.clone(), turns: Vec::new() };
            (session, course)
        });
        Self { gateway, sessions: sessions.collect(), step }
    }

    async fn play(&mut self, rounds: usize, providers: &Providers) -> Result<Limit> {
        let third = rounds / 3;
        let limited = rounds - 2 * third..rounds - third;
        for _ in 0..limited.start {
            self.round().await?;
        }
        let credential = busiest(self.served()).context("no request was served")?.to_owned();
        providers.fault(&credential, Fault::rate_limit(RETRY_AFTER), None)?;
        for _ in limited.clone() {
            self.round().await?;
            // Until the provider accepts requests again, by its own words.
            tokio::time::sleep(Duration::from_secs(RETRY_AFTER)).await;
        }
        providers.clear_faults();
        for _ in limited.end..rounds {
            self.round().await?;
        }
        let refused = refused(providers, &credential);
        let sessions = self.sessions.iter().map(|(_, course)| course.clone()).collect();
        Ok(Limit { credential, limited, refused, sessions })
    }

    async fn round(&mut self) -> Result<()> {
        for (session, course) in &mut self.sessions {
            course.turns.push(replay::take_turn(self.gateway, session).await?);
            self.step.advance();
        }
        Ok(())
    }

    fn served(&self) -> impl Iterator<Item = &Turn> {
        self.sessions.iter().flat_map(|(_, course)| course.served())
    }
}

/// The credential with the most prompt tokens: above all providers limit tokens.
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
    /// The turns that were served.
    pub fn served(&self) -> impl Iterator<Item = &Turn> + Clone {
        self.sessions.iter().flat_map(Course::served)
    }

    /// The errors that clients saw.
    pub fn errors(&self) -> impl Iterator<Item = &ErrorResponse> {
        self.sessions
            .iter()
            .flat_map(|course| course.turns.iter().filter_map(|turn| turn.as_ref().err()))
    }

    /// The turns that took more than one attempt.
    pub fn failovers(&self) -> impl Iterator<Item = &Turn> {
        self.served().filter(|turn| !turn.failed.is_empty())
    }

    /// The sessions that had to leave their home.
    pub fn left(&self) -> impl Iterator<Item = &Course> {
        self.sessions.iter().filter(|course| course.credentials().len() > 1)
    }

    /// Checks what failover promises.
    ///
    /// # Errors
    /// The errors that clients saw; or that no request failed over, so that the act shows nothing;
    /// or the sessions that did not return to their home.
    pub fn check(&self) -> Result<()> {
        let errors: Vec<_> = self.errors().map(ToString::to_string).collect();
        ensure!(errors.is_empty(), "clients saw errors: {}", errors.join("; "));
        let Self { credential, refused, .. } = self;
        ensure!(
            self.failovers().next().is_some(),
            "no request failed over ({credential}: {refused} times 429)"
        );
        let astray: Vec<_> =
            self.left().filter(|course| !course.is_home()).map(|it| it.title.as_str()).collect();
        ensure!(
            astray.is_empty(),
            "not at home again, although {credential} is ready: {}",
            astray.join(", ")
        );
        Ok(())
    }
}

impl Course {
    /// The turns that were served.
    pub fn served(&self) -> impl Iterator<Item = &Turn> + Clone {
        self.turns.iter().filter_map(|turn| turn.as_ref().ok())
    }

    /// The credentials that served it.
    pub fn credentials(&self) -> BTreeSet<&str> {
        self.served().map(|turn| turn.credential.as_str()).collect()
    }

    /// The credential that served it first, when none was limited.
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

    /// A turn with attempts on these credentials.
    pub(crate) fn turn(attempted: &str, outcome: &str) -> Result<Turn, ErrorResponse> {
        let mut attempted: Vec<String> =
            attempted.split(' ').map(|letter| format!("openai-{letter}")).collect();
        Ok(Turn {
            credential: attempted.pop().unwrap(),
            failed: attempted,
            outcome: outcome.into(),
            source: None,
            prompt_tokens: 1000,
            cached_tokens: 750,
        })
    }

    fn course(title: &str, turns: [(&str, &str); 6]) -> Course {
        let turns = turns.map(|(attempted, outcome)| turn(attempted, outcome)).into();
        Course { title: title.into(), turns }
    }

    /// Two sessions leave `openai-a`, the third has another home.
    pub(crate) fn limit() -> Limit {
        let (miss, hit) = (("a", "miss"), ("a", "hit"));
        Limit {
            credential: "openai-a".into(),
            limited: 2..4,
            refused: 2,
            sessions: vec![
                course(
                    "Codex #1",
                    [miss, hit, ("a b", "hit"), ("a b", "return"), ("a", "return"), hit],
                ),
                course(
                    "OpenCode #1",
                    [miss, hit, ("c", "substitute"), ("c", "substitute"), ("a", "return"), hit],
                ),
                course(
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
    fn an_act_in_which_clients_notice_nothing_passes() {
        limit().check().unwrap();
        assert_eq!(limit().failovers().count(), 2);
        assert_eq!(
            limit().left().map(|course| course.title.as_str()).collect::<Vec<_>>(),
            ["Codex #1", "OpenCode #1"]
        );
    }

    #[test]
    fn an_error_that_a_client_sees_is_reported() {
        let (request, status) = ("Codex #1, turn 3".to_owned(), StatusCode::TOO_MANY_REQUESTS);
        let error = ErrorResponse { request, status, message: "slow down".into() };
        check(
            |limit| limit.sessions[0].turns[2] = Err(error),
            "clients saw errors: Codex #1, turn 3: 429 Too Many Requests: slow down",
        );
    }

    #[test]
    fn an_act_without_failover_shows_nothing() {
        check(
            |limit| drop(limit.sessions.remove(0)),
            "no request failed over (openai-a: 2 times 429)",
        );
    }

    #[test]
    fn a_session_that_does_not_return_is_named() {
        check(
            |limit| limit.sessions[1].turns.truncate(4),
            "not at home again, although openai-a is ready: OpenCode #1",
        );
    }

    #[test]
    fn the_busiest_has_the_most_prompt_tokens() {
        let mut turns = [("a", 100), ("b", 90), ("c", 100), ("b", 20)]
            .map(|(letter, tokens)| (turn(letter, "hit").unwrap(), tokens));
        turns.iter_mut().for_each(|(turn, tokens)| turn.prompt_tokens = *tokens);
        assert_eq!(busiest(turns.iter().map(|(turn, _)| turn)), Some("openai-b"));
        assert_eq!(busiest([].into_iter()), None);
    }
}
