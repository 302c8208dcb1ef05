//! A router with its shared data, and a clock that only the test moves.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
use session_affinity::config::Config;
use session_affinity::cooldown::{Block, Change};
use session_affinity::hash::Seed;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, NextStep, Plan, Route, Router, Verdict, short};
use session_affinity::shared::{Cas, InMemory, SharedData};
use session_affinity::signals;
use session_affinity::time::Timestamp;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) shared: InMemory,
    pub(crate) now: Timestamp,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate<'a> {
    Status(u16),
    /// A status, headers and a body.
    Says(u16, &'a [(&'a str, &'a str)], &'a str),
    /// A stream that begins with this error.
    Event(&'a str),
    Failed(Failure),
}

/// A request that was sent as Envoy sends it, attempt after attempt.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The credentials in the order in which they were tried, with blanks between them.
    pub(crate) to: String,
    pub(crate) plan: Plan,
    /// The cooldowns that began and ended: `+a:rate_limit:30s`, `-a:transient`.
    pub(crate) changes: Vec<String>,
}

impl World {
    pub(crate) fn of(config: &Value) -> Self {
        let shared = InMemory::default();
        Self { router: router(config, &shared), shared, now: Timestamp::from_secs(1_000_000) }
    }

    /// The same shared data under another configuration, as after an update of the listener.
    pub(crate) fn reconfigured(self, config: &Value) -> Self {
        Self { router: router(config, &self.shared), ..self }
    }

    pub(crate) fn decide(&self, headers: &[(&str, &str)], body: &Value) -> Decision<'_> {
        let headers: Headers = headers.iter().copied().collect();
        let body = body.to_string();
        let body = self.router.read_body(body.as_bytes());
        self.router.route(&Request::new(&headers, body), &self.shared, self.now)
    }

    /// Decides a request on Anthropic's API.
    pub(crate) fn ask(&self, session: &str, model: &str) -> Decision<'_> {
        self.decide(
            &[(":path", "/v1/messages"), ("x-session-id", session)],
            &serde_json::json!({"model": model}),
        )
    }

    /// Begins the next attempt on the cluster that the plan names: the credential, or the status of
    /// the reply. The plan goes through filter state, as on Envoy.
    pub(crate) fn attempt(&self, plan: &mut Plan) -> String {
        *plan = Plan::decode(&plan.encode()).unwrap();
        let pool = self.router.pool_of(plan).unwrap();
        let next = plan.next.and_then(|next| pool.credential(next));
        let cluster = next.map_or("", |next| next.cluster.as_str());
        match self.router.attempt(plan, cluster, &self.shared, self.now).unwrap() {
            NextStep::Send { credential, .. } => credential.id.clone(),
            NextStep::Reply(reply) => reply.status.to_string(),
        }
    }

    /// Ends the current attempt.
    pub(crate) fn end(&self, plan: &mut Plan, fate: Fate<'_>) -> Verdict<'_> {
        let headers = match fate {
            Fate::Says(_, headers, _) => headers.iter().copied().collect(),
            _ => Headers::default(),
        };
        let response = match fate {
            Fate::Status(status) => Response::Received { status, headers: &headers, body: b"" },
            Fate::Says(status, _, body) => {
                Response::Received { status, headers: &headers, body: body.as_bytes() }
            }
            Fate::Event(body) => {
                let provider = self.router.pool_of(plan).and_then(|pool| pool.provider.as_deref());
                let provider = provider.unwrap_or_default();
                let context = signals::Context { api: plan.api, provider, model: &plan.model };
                let body = body.as_bytes();
                Response::ErrorEvent(signals::read(0, &headers, body, &context, self.now))
            }
            Fate::Failed(failure) => Response::Failed(failure),
        };
        self.router.observe(plan, &response, &self.shared, self.now)
    }

    /// Sends a request. The named credentials respond with their fates, in turn if one is named
    /// again, and with the last one from then on; all others serve.
    pub(crate) fn play(&self, decision: &Decision<'_>, fates: &[(&str, Fate<'_>)]) -> Sent {
        let mut plan = self.router.plan(routed(decision), self.now);
        let (mut to, mut changes) = (Vec::new(), Vec::new());
        loop {
            let credential = self.attempt(&mut plan);
            let earlier = to.iter().filter(|other| **other == credential).count();
            let own: Vec<_> = fates.iter().filter(|(id, _)| *id == credential).collect();
            let fate = own.get(earlier).or(own.last()).map_or(Fate::Status(200), |(_, fate)| *fate);
            to.push(credential);
            let verdict = self.end(&mut plan, fate);
            changes.extend(
                verdict
                    .changes
                    .iter()
                    .map(|(credential, change)| change_word(&credential.id, change)),
            );
            if verdict.next.is_none() {
                return Sent { to: to.join(" "), plan, changes };
            }
        }
    }

    /// The credentials that are out for a request without a session, with their blocks. Nothing
    /// is bound, claimed or counted by it.
    pub(crate) fn blocks(&self, model: &str) -> Vec<(String, Block)> {
        let blocked = match self.glance(model) {
            Decision::Route(route) => route.blocked,
            Decision::Reply(refusal) => refusal.blocked,
            Decision::Pass => Vec::new(),
        };
        blocked.into_iter().map(|(credential, block)| (credential.id.clone(), block)).collect()
    }

    /// The same in the words of the decision: `a:rate_limit:30s,b:denied:60s`.
    pub(crate) fn out_for(&self, model: &str) -> String {
        out(&self.glance(model))
    }

    fn glance(&self, model: &str) -> Decision<'_> {
        let headers: Headers = [(":path", "/v1/messages")].into_iter().collect();
        let body = serde_json::json!({"model": model}).to_string();
        let body = self.router.read_body(body.as_bytes());
        self.router.route(&Request::new(&headers, body), &copy_of(&self.shared), self.now)
    }

    /// Answers a request; gives the class of the answer.
    pub(crate) fn answer(
        &self,
        decision: &Decision<'_>,
        status: u16,
        headers: &[(&str, &str)],
        message: &str,
    ) -> String {
        let mut plan = self.router.plan(routed(decision), self.now);
        let headers: Headers = headers.iter().copied().collect();
        let verdict = self.router.observe(
            &mut plan,
            &received(status, &headers, message),
            &self.shared,
            self.now,
        );
        verdict.observed.to_string()
    }
}

/// A copy of shared data.
pub(crate) fn copy_of(shared: &InMemory) -> InMemory {
    let copy = InMemory::default();
    for key in shared.keys() {
        copy.set(&key, &shared.get(&key).value, Cas(0)).unwrap();
    }
    copy
}

fn change_word(id: &str, change: &Change) -> String {
    let class = change.class.as_str();
    match change.length {
        Some(length) => format!("+{id}:{class}:{}", short(length)),
        None => format!("-{id}:{class}"),
    }
}

/// What a decision says about credentials that are out, as logs show it: `a:rate_limit:30s`.
pub(crate) fn out(decision: &Decision<'_>) -> String {
    let words = decision.to_string();
    words.split_once(" out=").map_or(String::new(), |(_, out)| out.to_owned())
}

fn router(config: &Value, shared: &InMemory) -> Router {
    let config = Config::parse(config.to_string().as_bytes())
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    Router::new(config, Seed::agree(shared, [7; 16]))
}

/// A response; the status 0 is a connection that failed.
pub(crate) fn received<'a>(status: u16, headers: &'a Headers, body: &'a str) -> Response<'a> {
    match status {
        0 => Response::Failed(Failure::Reset),
        _ => Response::Received { status, headers, body: body.as_bytes() },
    }
}

/// A decision that must be a route.
pub(crate) fn routed<'a, 'c>(decision: &'a Decision<'c>) -> &'a Route<'c> {
    match decision {
        Decision::Route(route) => route,
        other => panic!("{other:?}"),
    }
}

/// The credential, or the reply's status, and the outcome.
pub(crate) fn said(decision: &Decision<'_>) -> (String, Outcome) {
    let target = match decision {
        Decision::Route(route) => route.credential.id.clone(),
        Decision::Reply(refusal) => refusal.reply.status.to_string(),
        Decision::Pass => "pass".to_owned(),
    };
    (target, decision.outcome())
}

pub(crate) fn is(target: &str, outcome: Outcome) -> (String, Outcome) {
    (target.to_owned(), outcome)
}
