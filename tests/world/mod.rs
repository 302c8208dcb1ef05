//! A router with its shared data, and a clock that only the test moves.

#![allow(dead_code, reason = "no test uses all of it")]

use std::time::Duration;

use serde_json::Value;
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, Route, Router};
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) shared: InMemory,
    pub(crate) now: Timestamp,
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
