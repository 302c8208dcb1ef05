//! A router with its shared data, and a clock that only the test moves.

#![allow(dead_code, reason = "no test uses all of it")]

use serde_json::Value;
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{Decision, Route, Router};
use session_affinity::shared::InMemory;

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) shared: InMemory,
    /// Milliseconds since the epoch.
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn of(config: &Value) -> Self {
        let shared = InMemory::default();
        Self { router: router(config, &shared), shared, now: 1_000_000_000 }
    }

    /// The same shared data under another configuration, as after an update of the listener.
    pub(crate) fn reconfigured(self, config: &Value) -> Self {
        Self { router: router(config, &self.shared), ..self }
    }

    pub(crate) fn decide(&self, headers: &[(&str, &str)], body: &Value) -> Decision<'_> {
        let headers: Headers = headers.iter().copied().collect();
        let body = body.to_string();
        let body = self.router.read_body(body.as_bytes());
        self.router.route(
            &Request { headers: &headers, body, tried: &[], properties: &[] },
            &self.shared,
            self.now,
        )
    }

    /// Decides a request on Anthropic's API.
    pub(crate) fn ask(&self, session: &str, model: &str) -> Decision<'_> {
        self.decide(
            &[(":path", "/v1/messages"), ("x-session-id", session)],
            &serde_json::json!({"model": model}),
        )
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
            status,
            &headers,
            message.as_bytes(),
            &self.shared,
            self.now,
        );
        verdict.observed.to_string()
    }
}

fn router(config: &Value, shared: &InMemory) -> Router {
    let config = Config::parse(config.to_string().as_bytes())
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    Router::new(config, Seed::agree(shared, [7; 16]))
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
        Decision::Reply(_, reply) => reply.status.to_string(),
        Decision::Pass => "pass".to_owned(),
    };
    (target, decision.outcome())
}

pub(crate) fn is(target: &str, outcome: Outcome) -> (String, Outcome) {
    (target.to_owned(), outcome)
}
