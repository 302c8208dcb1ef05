//! One attempt on its way to a credential.
//!
//! Envoy runs the filters of a cluster once for every attempt, before there is a connection, and
//! lets them see each attempt's own answer, also one that is retried. So here the credential is
//! carried in, its answer is learnt from at once, and the router is told where the next attempt
//! goes: beforehand, because a connection may fail without a word, and again when the answer is an
//! error, which the router then retries because of a header that is set for it.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::{self, Host};
use super::pending::PendingError;
use super::{Running, filter_state};
use crate::classify::depends_on_message;
use crate::config::{Credential, HeaderValue, Pool};
use crate::request::Headers;
use crate::response::Response;
use crate::router::{self, Plan};

/// The response header that makes the router try again: `retriable_headers` of the route names it.
pub(super) const RETRY: &str = "x-session-affinity-retry";

pub(super) struct AttemptContext {
    running: Rc<Running>,
    stage: Stage,
}

enum Stage {
    /// Nothing was seen yet.
    New,
    /// It is on its way.
    Asked(Plan),
    /// An error that is held until its body tells what it means.
    Held(PendingError),
    /// Such an error on an Envoy that must not retry it any more.
    Listening(PendingError),
    /// Nothing is left to do.
    Done,
}

impl AttemptContext {
    pub(super) fn new(running: Rc<Running>) -> Self {
        Self { running, stage: Stage::New }
    }

    fn begin(&mut self, mut plan: Plan) -> Action {
        let running = Rc::clone(&self.running);
        let now = host::now();
        if plan.is_pending() {
            self.running.record_metrics(
                running.router.observe(&mut plan, &Response::ConnectionFailed, &Host, now).observed,
            );
        }
        match running.router.attempt(&mut plan, &Host, now) {
            Some(router::NextStep::Send { pool, credential, next }) => {
                self.inject_credential(pool, credential);
                if let Some(next) = next {
                    self.running.select_cluster(next);
                }
                filter_state::set_plan(&plan);
                if plan.attempts > 1 {
                    filter_state::extend_decision(&format!(" then={}", credential.id));
                }
                self.stage = Stage::Asked(plan);
                Action::Continue
            }
            Some(router::NextStep::Reply(reply)) => {
                filter_state::set_plan(&plan);
                host::answer(&reply);
                Action::Pause
            }
            None => Action::Continue,
        }
    }

    /// Puts the credential into the request, if it is the filter's task, in place of any other that
    /// is in it.
    fn inject_credential(&self, pool: &Pool, credential: &Credential) {
        let value_of = |value: &HeaderValue| match value {
            HeaderValue::Secret(secret) => Some(secret.expose().as_bytes().to_vec()),
            HeaderValue::Header { name, prefix } => {
                let key = self.get_http_request_header_bytes(name)?;
                Some([prefix.as_bytes(), &key].concat())
            }
        };
        let values: Vec<_> = credential
            .headers
            .iter()
            .map(|header| (&header.name, value_of(&header.value)))
            .collect();
        for name in pool.key_headers.iter().chain(&pool.source_headers) {
            self.set_http_request_header_bytes(name, None);
        }
        for (name, value) in values {
            if value.is_none() {
                log::warn!(
                    "credential {} of pool {} has no key for {name}",
                    credential.id,
                    pool.name
                );
            }
            self.set_http_request_header_bytes(name, value.as_deref());
        }
    }

    /// Learns from an answer. If another credential could do better, and the answer is still held,
    /// the router is told to ask that one.
    fn learn(&self, mut pending: PendingError, is_held: bool) {
        let PendingError { plan, status, headers, message } = &mut pending;
        let verdict = self.running.router.observe(
            plan,
            &Response::Received { status: *status, headers, body: message },
            &Host,
            host::now(),
        );
        self.running.record_metrics(verdict.observed);
        filter_state::set_plan(plan);
        if let Some(next) = verdict.next.filter(|_| is_held) {
            self.running.select_cluster(next);
            self.set_http_response_header_bytes(RETRY, Some(b"1"));
        }
    }

    /// Learns from an error with as much of its body as was heard.
    fn learn_from_message(&mut self) {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Held(pending) => self.learn(pending, true),
            Stage::Listening(pending) => self.learn(pending, false),
            stage => self.stage = stage,
        }
    }
}

impl Context for AttemptContext {}

impl HttpContext for AttemptContext {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        match filter_state::plan() {
            Some(plan) => self.begin(plan),
            None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let Stage::Asked(plan) = mem::replace(&mut self.stage, Stage::Done) else {
            return Action::Continue;
        };
        if self.get_http_response_header_bytes(RETRY).is_some() {
            // Nobody but the filter asks for another attempt.
            self.set_http_response_header_bytes(RETRY, None);
        }
        let status = host::response_status();
        if status < 400 {
            self.learn(PendingError::new(plan, status, Headers::default()), true);
            return Action::Continue;
        }
        let headers = self.get_http_response_headers_bytes().into_iter().collect();
        let pending = PendingError::new(plan, status, headers);
        if !depends_on_message(status) || end_of_stream {
            self.learn(pending, true);
            return Action::Continue;
        }
        if self.running.holds_errors {
            self.stage = Stage::Held(pending);
            return Action::Pause;
        }
        self.stage = Stage::Listening(pending);
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let is_enough = match &mut self.stage {
            Stage::Held(pending) => pending.read_held(size, end_of_stream),
            Stage::Listening(pending) => pending.read_piece(size, end_of_stream),
            Stage::New | Stage::Asked(_) | Stage::Done => return Action::Continue,
        };
        if is_enough {
            self.learn_from_message();
        }
        if matches!(self.stage, Stage::Held(_)) { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        if let Stage::Held(pending) = &mut self.stage {
            pending.read_held(usize::MAX, true);
        }
        self.learn_from_message();
        Action::Continue
    }
}
