//! One attempt on its way to a credential.
//!
//! Envoy runs the filters of a cluster once for every attempt, before there is a connection, and
//! lets them see each attempt's own response, also one that is retried. So here the credential is
//! put into the request, its response is observed, and the router is shown where the next attempt
//! goes: when the response is an error, which the router then retries because of a header that is
//! set for it, and when the attempt ends without a response, which Envoy reports before it chooses
//! the cluster of the retry.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::header_map::{self, Map};
use super::held::Held;
use super::host::{self, Host, Piece};
use super::pending::PendingError;
use super::watch::Watch;
use super::{Running, filter_state, flights, hygiene};
use crate::config::{Credential, HeaderValue, Pool};
use crate::mistakes::Mistake;
use crate::request::Headers;
use crate::response::Response;
use crate::router::{NextStep, Plan, Verdict, short};
use crate::signals::stream::FirstEvent;

/// The response header that makes the router try again: the request names it, and perhaps the route.
pub(super) const RETRY: &str = "x-session-affinity-retry";

/// With this header on a 429 Envoy's router does not retry, whatever the route says.
const RATE_LIMITED: &str = "x-envoy-ratelimited";

pub(super) struct AttemptContext {
    running: Rc<Running>,
    id: u32,
    /// Whether the connection had served before.
    is_kept: bool,
    /// Whether all of the request has passed.
    has_sent_all: bool,
    stage: Stage,
}

enum Stage {
    /// Nothing was seen yet.
    New,
    /// The request is on its way.
    Sent(Plan),
    /// An error that is held until its body shows what it means.
    HeldError(PendingError),
    /// Such an error on an Envoy that must not retry it any more.
    PassingError(PendingError),
    /// A stream that is held until its first event with content.
    HeldStream(Plan, Watch, Held),
    /// A stream or a WebSocket that passes while its beginning is read.
    PassingStream(Plan, Watch),
    /// Nothing is left to do.
    Done,
}

impl AttemptContext {
    pub(super) fn new(running: Rc<Running>, id: u32) -> Self {
        Self { running, id, is_kept: false, has_sent_all: false, stage: Stage::New }
    }

    fn warn_of_mistakes(&self, plan: Option<&Plan>, cluster: &str) {
        let router = &self.running.router;
        let has_plan = plan.is_some() || filter_state::has_plan();
        let is_decided = has_plan || filter_state::is_decided();
        let mistake = Mistake::on_cluster(router, plan, has_plan, is_decided, cluster);
        if let Some(mistake) = mistake {
            self.running.warn(&mistake);
        }
    }

    fn begin(&mut self, mut plan: Plan, cluster: &str) -> Action {
        let running = Rc::clone(&self.running);
        self.is_kept = host::has_connection();
        let mut step = running.router.attempt(&mut plan, cluster, &Host, host::now());
        loop {
            match step {
                Some(NextStep::Send { pool, credential }) => {
                    if self.inject_credential(pool, credential) {
                        filter_state::set_plan(&plan);
                        self.stage = Stage::Sent(plan);
                        return Action::Continue;
                    }
                    // Ends: each time there is one credential less.
                    step = running.router.without_key(&mut plan, cluster, &Host, host::now());
                    self.note_without_key(&mut plan, step.as_ref());
                }
                Some(NextStep::Reply(reply)) => {
                    filter_state::set_plan(&plan);
                    host::respond(&reply);
                    return Action::Pause;
                }
                None => return Action::Continue,
            }
        }
    }

    /// Puts the credential into the request, if that is the filter's task, in place of any other
    /// that is in it; returns whether it could.
    fn inject_credential(&self, pool: &Pool, credential: &Credential) -> bool {
        let mut values = Vec::new();
        for header in &credential.headers {
            let value = match &header.value {
                HeaderValue::Secret(secret) => secret.expose().as_bytes().to_vec(),
                HeaderValue::Header { name, prefix } => {
                    let key = self.get_http_request_header_bytes(name);
                    let Some(key) = key.filter(|key| !key.is_empty()) else {
                        self.running.warn(&Mistake::NoKey {
                            credential: credential.id.clone(),
                            pool: pool.name.clone(),
                            header: name.clone(),
                        });
                        return false;
                    };
                    [prefix.as_bytes(), &key].concat()
                }
            };
            values.push((&header.name, value));
        }
        for name in pool.key_headers.iter().chain(&pool.source_headers) {
            self.set_http_request_header_bytes(name, None);
        }
        for (name, value) in values {
            self.set_http_request_header_bytes(name, Some(&value));
        }
        true
    }

    /// Adds to the words of the decision who serves in place of a credential that has no key. If
    /// nobody does, what failed before is settled.
    fn note_without_key(&self, plan: &mut Plan, step: Option<&NextStep<'_>>) {
        match step {
            Some(NextStep::Send { credential, .. }) => {
                flights::go_on(plan.ticket, credential);
                self.running.extend_decision(plan, &format!(" then={}(no_key)", credential.id));
            }
            _ if plan.has_failed() => {
                let changes = self.running.router.abandon(plan, &Host, host::now());
                self.running.log_changes(&changes, plan);
            }
            _ => {}
        }
    }

    /// Records a response, and what follows from it. If another credential could do better, and the
    /// response is still held, the router is made to retry on that one.
    fn record(&self, plan: &mut Plan, response: &Response<'_>, is_held: bool) {
        let running = &self.running;
        let verdict = running.router.observe(plan, response, &Host, host::now());
        running.record(&verdict, plan);
        let next = verdict.next.filter(|_| is_held);
        if let Some(next) = next {
            running.select_cluster(next);
            flights::go_on(plan.ticket, next);
            if plan.keeps_first_response() {
                filter_state::set_first_response(response, plan.hides_account);
            }
            self.note_next(&verdict, plan, response, next);
        } else if verdict.next.is_some() {
            // Too late for another attempt: the client gets this failure.
            let changes = running.router.abandon(plan, &Host, host::now());
            running.log_changes(&changes, plan);
            plan.next = None;
        }
        filter_state::set_plan(plan);
        if next.is_some() && !matches!(response, Response::Failed(_)) {
            self.set_http_response_header_bytes(RATE_LIMITED, None);
            self.set_http_response_header_bytes(RETRY, Some(b"1"));
        }
    }

    /// Adds to the words of the decision what failed, and where the request goes next.
    fn note_next(
        &self,
        verdict: &Verdict<'_>,
        plan: &Plan,
        response: &Response<'_>,
        next: &Credential,
    ) {
        let why = match response {
            Response::Received { status, .. } => status.to_string(),
            Response::ErrorEvent(reading) if reading.code.is_empty() => "event".to_owned(),
            Response::ErrorEvent(reading) => reading.code.to_owned(),
            Response::Failed(failure) => failure.as_str().to_owned(),
        };
        let failed = plan.failures.last().filter(|failed| Some(failed.credential) == plan.current);
        let wait = failed.and_then(|failed| failed.fault.wait);
        let wait = wait.map(|wait| format!(",{}", short(wait))).unwrap_or_default();
        let class = verdict.observed.as_str();
        self.running.extend_decision(plan, &format!(" then={}({why},{class}{wait})", next.id));
    }

    /// Records an error with as much of its body as was read.
    fn record_error(&mut self) {
        let (mut pending, is_held) = match mem::replace(&mut self.stage, Stage::Done) {
            Stage::HeldError(pending) => (pending, true),
            Stage::PassingError(pending) => (pending, false),
            stage => {
                self.stage = stage;
                return;
            }
        };
        pending.observe(|plan, response| self.record(plan, response, is_held));
    }

    /// Records what the beginning of a stream showed; returns whether that settles it.
    fn record_event(
        &self,
        plan: &mut Plan,
        watch: &Watch,
        seen: FirstEvent,
        is_held: bool,
    ) -> bool {
        let reading = match seen {
            FirstEvent::More => return false,
            FirstEvent::Content => {
                self.record_content(plan, watch);
                return true;
            }
            FirstEvent::Error(reading) => reading,
            FirstEvent::Ended => crate::signals::Reading::EMPTY_STREAM,
        };
        self.record(plan, &Response::ErrorEvent(reading), is_held);
        true
    }

    fn record_content(&self, plan: &mut Plan, watch: &Watch) {
        let (headers, body) = (watch.headers(), watch.beginning(plan));
        let response = Response::Received { status: 200, headers, body: &body };
        self.record(plan, &response, true);
    }

    fn record_success(&self, plan: &mut Plan) {
        let headers = Headers::default();
        let response = Response::Received { status: 200, headers: &headers, body: b"" };
        self.record(plan, &response, true);
    }

    /// Reads on in a stream that is held.
    fn read_held(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Stage::HeldStream(mut plan, mut watch, held) =
            mem::replace(&mut self.stage, Stage::Done)
        else {
            return Action::Continue;
        };
        if held.is_released() {
            // Pieces come one by one again.
            self.stage = Stage::PassingStream(plan, watch);
            self.read_passing(size, end_of_stream);
            return Action::Continue;
        }
        let bytes = self.running.router.config().failover.first_event.bytes;
        let is_end = end_of_stream && size <= bytes;
        let seen = watch.read_held(size.min(bytes), is_end, &plan);
        if self.record_event(&mut plan, &watch, seen, true) {
            held.settle();
            return Action::Continue;
        }
        if size >= bytes || held.is_late(host::now()) {
            held.settle();
            self.stage = Stage::PassingStream(plan, watch);
            return Action::Continue;
        }
        held.has_body();
        self.stage = Stage::HeldStream(plan, watch, held);
        Action::Pause
    }
}

impl Context for AttemptContext {
    /// The attempt is over. If it had no response that is known here, before the router chooses the
    /// cluster of the next one.
    fn on_done(&mut self) -> bool {
        let (mut plan, is_kept) = match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Sent(plan) => (plan, self.is_kept),
            // Its response had begun, so its connection was not stale.
            Stage::HeldError(pending) => (pending.plan, false),
            Stage::HeldStream(plan, _, held) => {
                held.settle();
                (plan, false)
            }
            // A WebSocket that was opened and on which the provider has said nothing.
            Stage::PassingStream(mut plan, watch) if watch.is_silent_websocket() => {
                self.record_success(&mut plan);
                return true;
            }
            Stage::New | Stage::PassingError(_) | Stage::PassingStream(..) | Stage::Done => {
                return true;
            }
        };
        if !filter_state::has_plan() {
            // The listener's filter has ended the request.
            return true;
        }
        if let Some(failure) = host::failure_of_attempt(plan.sent, is_kept, self.has_sent_all) {
            self.record(&mut plan, &Response::Failed(failure), true);
        }
        true
    }
}

impl HttpContext for AttemptContext {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.has_sent_all = end_of_stream;
        if self.running.router.config().is_shadow {
            return Action::Continue;
        }
        let plan = filter_state::plan();
        let cluster = host::cluster_name();
        self.warn_of_mistakes(plan.as_ref(), &cluster);
        match plan {
            Some(plan) => self.begin(plan, &cluster),
            None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        self.has_sent_all |= end_of_stream;
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.has_sent_all = true;
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let Stage::Sent(mut plan) = mem::replace(&mut self.stage, Stage::Done) else {
            return Action::Continue;
        };
        let headers = header_map::headers(Map::Response);
        if headers.first(RETRY).is_some() {
            // Only the filter asks for another attempt.
            self.set_http_response_header_bytes(RETRY, None);
        }
        if plan.hides_account {
            hygiene::remove_account_headers(self, &headers);
        }
        let status = host::status_of(&headers);
        if status < 400 {
            let kind = self.running.watches(status, &headers);
            if self.running.is_nothing(&plan, status, kind, end_of_stream) {
                let nothing = Response::ErrorEvent(crate::signals::Reading::EMPTY_STREAM);
                self.record(&mut plan, &nothing, true);
                return Action::Continue;
            }
            let Some(kind) = kind.filter(|_| !end_of_stream) else {
                let response = Response::Received { status, headers: &headers, body: b"" };
                self.record(&mut plan, &response, true);
                return Action::Continue;
            };
            let watch = Watch::new(kind, headers);
            if !watch.is_websocket() && self.running.holds_streams() {
                let held = self.running.hold(self.id, host::now());
                self.stage = Stage::HeldStream(plan, watch, held);
                return Action::Pause;
            }
            self.stage = Stage::PassingStream(plan, watch);
            return Action::Continue;
        }
        let reads_body = self.running.router.reads_body_of(status) && !end_of_stream;
        let mut pending = PendingError::new(plan, status, headers);
        if !reads_body {
            pending.observe(|plan, response| self.record(plan, response, true));
            return Action::Continue;
        }
        if self.running.version.may_retry_held {
            self.stage = Stage::HeldError(pending);
            return Action::Pause;
        }
        if !self.running.router.needs_body_of(status, &pending.plan) {
            // Most of what such an error means is in its status and headers: a retry now is worth
            // more than what its body adds.
            pending.observe(|plan, response| self.record(plan, response, true));
            return Action::Continue;
        }
        self.stage = Stage::PassingError(pending);
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let is_enough = match &mut self.stage {
            Stage::HeldError(pending) => pending.read_held(size, end_of_stream),
            Stage::PassingError(pending) => pending.read_piece(size, end_of_stream),
            Stage::HeldStream(..) => return self.read_held(size, end_of_stream),
            Stage::PassingStream(..) => {
                self.read_passing(size, end_of_stream);
                return Action::Continue;
            }
            Stage::New | Stage::Sent(_) | Stage::Done => return Action::Continue,
        };
        if is_enough {
            self.record_error();
        }
        if matches!(self.stage, Stage::HeldError(_)) { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        if let Stage::HeldError(pending) = &mut self.stage {
            pending.read_held(usize::MAX, true);
        }
        self.record_error();
        if matches!(self.stage, Stage::HeldStream(..)) {
            let bytes = self.running.router.config().failover.first_event.bytes;
            self.read_held(bytes, true);
        }
        self.read_passing(0, true);
        Action::Continue
    }
}

impl AttemptContext {
    /// Reads on in a stream that passes.
    fn read_passing(&mut self, size: usize, end_of_stream: bool) {
        let Stage::PassingStream(mut plan, mut watch) = mem::replace(&mut self.stage, Stage::Done)
        else {
            return;
        };
        let seen = watch.read_piece(&Piece::of(size), end_of_stream, &plan);
        self.running.learn_limits(&mut watch, &plan);
        let is_settled = self.record_event(&mut plan, &watch, seen, false);
        let goes_on = watch.is_websocket() && seen == FirstEvent::Content;
        if !is_settled || goes_on {
            self.stage = Stage::PassingStream(plan, watch);
        }
    }
}
