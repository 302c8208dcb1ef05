//! What becomes of the response, as the filter in the listener sees it.
//!
//! Where filters on the clusters have observed every attempt, little is left to do. Where there are
//! none, the response is observed here, as soon as it is clear what it means.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::HttpContext;
use proxy_wasm::types::Action;

use super::{Stage, StreamContext};
use crate::filter::attempt_context::RETRY;
use crate::filter::filter_state;
use crate::filter::header_map::{self, Map};
use crate::filter::host::{self, Host, Origin, Piece};
use crate::filter::hygiene;
use crate::filter::pending::PendingError;
use crate::filter::watch::Watch;
use crate::mistakes::Mistake;
use crate::reply;
use crate::request::Headers;
use crate::response::{Failure, Response};
use crate::router::{AttemptResult, Plan, Router};
use crate::signals::Reading;
use crate::signals::stream::FirstEvent;

impl StreamContext {
    /// What is left to do where filters on the clusters have observed every response.
    pub(super) fn end(&mut self, mut plan: Plan) -> Action {
        let running = Rc::clone(&self.running);
        if plan.result == Some(AttemptResult::Served) && plan.next.is_none() {
            self.measure(None);
            self.note_end(&plan);
            self.stage = Stage::Passing(plan);
            return Action::Continue;
        }
        if plan.hides_account {
            // The filter on the cluster may have missed this response.
            hygiene::remove_account_headers(self, &header_map::headers(Map::Response));
        }
        let mut failure = None;
        if let Origin::Failed(why) = host::origin_of_response() {
            failure = Some(why);
            // A cluster of which Envoy finds no host runs no filter: its attempt is unheard of.
            if why == Failure::NoHost
                && let Some(next) = plan.next.take()
            {
                plan.current = Some(next);
                plan.result = None;
            }
            // A timeout of the route looks like a broken connection from the cluster.
            if why == Failure::Timeout && plan.failures.is_empty() {
                plan.result = None;
            }
            if plan.is_pending() {
                self.observe(&mut plan, &Response::Failed(why));
            }
        }
        self.note_end(&plan);
        if plan.next.is_some() {
            self.set_http_response_header_bytes(RETRY, None);
            let changes = running.router.abandon(&mut plan, &Host, host::now());
            running.log_changes(&changes, &plan);
        }
        let status = host::response_status();
        if failure.is_none() && plan.is_pending() && status < 400 {
            // The filter on the cluster has not seen enough of it.
            self.measure(None);
        }
        let action = self.finish(&plan, failure, status);
        self.stage = Stage::Passing(plan);
        action
    }

    /// Reads what a response has cost that a credential serves. Its headers are only fetched where
    /// they tell.
    fn measure(&mut self, headers: Option<&Headers>) {
        let Some(meter) = &mut self.meter else { return };
        match headers {
            Some(headers) => meter.begin(headers),
            None if meter.needs_headers() => meter.begin(&header_map::headers(Map::Response)),
            None => meter.begin(&Headers::default()),
        }
    }

    /// Counts how failover ended, and adds it to the words of the decision.
    pub(super) fn note_end(&self, plan: &Plan) {
        if let Some(end) = plan.end() {
            self.running.count_failover(plan, end);
            let last = last_failure(plan, &self.running.router).unwrap_or_default();
            self.running.extend_decision(plan, &format!("{last} failover={end}"));
        }
    }

    /// What became of a request that was only watched.
    pub(super) fn witness(&mut self, mut plan: Plan, end_of_stream: bool) -> Action {
        let running = Rc::clone(&self.running);
        let headers = header_map::headers(Map::Response);
        let status = host::status_of(&headers);
        let is_served = (200..400).contains(&status);
        running.witness(&mut plan, self.watched, &host::cluster_name(), is_served);
        if plan.current.is_none() {
            return Action::Continue;
        }
        self.observe_headers(plan, headers, end_of_stream, false)
    }

    /// Observes the headers of a response where no filter on the cluster does, or finds that its
    /// body must be read.
    pub(super) fn observe_headers(
        &mut self,
        mut plan: Plan,
        headers: Headers,
        end_of_stream: bool,
        is_sample: bool,
    ) -> Action {
        let status = host::status_of(&headers);
        let origin = host::origin_of_response();
        if (status >= 400 || is_sample) && self.finds_mistake(&plan, &origin) {
            return Action::Continue;
        }
        match origin {
            Origin::Upstream => {
                self.running.note_observed(plan.pool, false);
                if status < 400 {
                    self.measure(Some(&headers));
                    self.observe_success(plan, status, headers, end_of_stream);
                    return Action::Continue;
                }
                let mut pending = PendingError::new(plan, status, headers);
                if self.running.router.reads_body_of(status) && !end_of_stream {
                    self.stage = Stage::PassingError(pending);
                    return Action::Continue;
                }
                pending.observe(|plan, response| self.observe(plan, response));
                self.finish(&pending.plan, None, status)
            }
            Origin::Failed(failure) => {
                self.observe(&mut plan, &Response::Failed(failure));
                self.finish(&plan, Some(failure), status)
            }
            Origin::Envoy => Action::Continue,
        }
    }

    /// Warns of a mistake that the response shows. Returns whether it is from another cluster than
    /// the one that was chosen: nothing follows from it for the credential.
    fn finds_mistake(&self, plan: &Plan, origin: &Origin) -> bool {
        let is_shadow = self.running.router.config().is_shadow;
        if is_shadow || matches!(origin, Origin::Envoy | Origin::Failed(Failure::NoHost)) {
            return false;
        }
        let router = &self.running.router;
        let Some(mistake) = Mistake::in_response(router, plan, &host::cluster_name()) else {
            return false;
        };
        self.running.warn(&mistake);
        let is_misled = matches!(mistake, Mistake::OtherCluster { .. });
        if is_misled {
            self.running.samples.begin();
        }
        is_misled
    }

    fn observe_success(
        &mut self,
        mut plan: Plan,
        status: u16,
        headers: Headers,
        end_of_stream: bool,
    ) {
        match self.running.watches(status, &headers) {
            Some(kind) if !end_of_stream => {
                self.stage = Stage::PassingStream(plan, Watch::new(kind, headers));
            }
            kind if self.running.is_nothing(&plan, status, kind, end_of_stream) => {
                self.observe(&mut plan, &Response::ErrorEvent(Reading::EMPTY_STREAM));
                self.stage = Stage::Passing(plan);
            }
            _ => {
                let response = Response::Received { status, headers: &headers, body: b"" };
                self.observe(&mut plan, &response);
                self.stage = Stage::Passing(plan);
            }
        }
    }

    /// The last response passes, unless there was none, or the client should come back earlier than
    /// it says.
    fn finish(&self, plan: &Plan, failure: Option<Failure>, status: u16) -> Action {
        let router = &self.running.router;
        if router.config().is_shadow {
            return Action::Continue;
        }
        let now = host::now();
        let reply = router.wait_for_home(plan, &Host, now);
        if let Some(reply) = reply.or_else(|| router.wait_for_limit(plan, &Host, now)) {
            host::respond(&reply);
            return Action::Pause;
        }
        if plan.gives_first_response()
            && let Some(first) = filter_state::first_response()
        {
            host::respond_as(&first);
            return Action::Pause;
        }
        if let Some((failure, pool)) = failure.zip(router.pool_of(plan)) {
            host::respond(&router.no_response(plan, pool, failure));
            return Action::Pause;
        }
        if status == 429
            && let Some(earlier) = router.earlier_recovery(plan, &Host, host::now())
        {
            let seconds = reply::seconds(earlier).to_string();
            self.set_http_response_header_bytes("retry-after", Some(seconds.as_bytes()));
            self.set_http_response_header_bytes("retry-after-ms", None);
        }
        Action::Continue
    }

    pub(super) fn observe(&self, plan: &mut Plan, response: &Response<'_>) {
        let verdict = self.running.router.observe(plan, response, &Host, host::now());
        self.running.record(&verdict, plan);
    }

    /// Observes an error with as much of its body as was read.
    pub(super) fn observe_error(&mut self) {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::PassingError(mut pending) => {
                pending.observe(|plan, response| self.observe(plan, response));
            }
            stage => self.stage = stage,
        }
    }

    /// Observes what the beginning of a stream shows.
    pub(super) fn observe_stream(&mut self, piece: &Piece, end_of_stream: bool) {
        let (mut plan, mut watch) = match mem::replace(&mut self.stage, Stage::Done) {
            Stage::PassingStream(plan, watch) => (plan, watch),
            stage => {
                self.stage = stage;
                return;
            }
        };
        let seen = watch.read_piece(piece, end_of_stream, &plan);
        self.running.learn_limits(&mut watch, &plan);
        match seen {
            FirstEvent::More => {
                self.stage = Stage::PassingStream(plan, watch);
                return;
            }
            FirstEvent::Content => {
                let (headers, body) = (watch.headers(), watch.beginning(&plan));
                let response = Response::Received { status: 200, headers, body: &body };
                self.observe(&mut plan, &response);
                if watch.is_websocket() {
                    self.stage = Stage::PassingStream(plan, watch);
                    return;
                }
            }
            FirstEvent::Error(reading) => {
                self.observe(&mut plan, &Response::ErrorEvent(reading));
            }
            FirstEvent::Ended => {
                self.observe(&mut plan, &Response::ErrorEvent(Reading::EMPTY_STREAM));
            }
        }
        self.stage = Stage::Passing(plan);
    }
}

/// What the last credential said, where it failed the request too.
fn last_failure(plan: &Plan, router: &Router) -> Option<String> {
    let failed = plan.failures.last().filter(|_| plan.has_failed())?;
    let credential = router.pool_of(plan)?.credential(failed.credential)?;
    let is_last = plan.current == Some(failed.credential);
    is_last.then(|| format!(" failed={}({})", credential.id, failed.fault))
}
