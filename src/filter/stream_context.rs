//! One request on its way through the filter.
//!
//! Headers can only be changed while they are held: once a stream was continued they are out of
//! reach, and touching them traps. So a stream goes through stages, is decided once, in whichever
//! callback comes first with enough to decide on, and its answer teaches once, as soon as it is
//! clear what it says. Answers pass untouched, but for one: where there is no credential left, the
//! client hears in its own dialect when to come back.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::attempt_context::RETRY;
use super::host::{self, Host, Origin};
use super::pending::PendingError;
use super::{Running, filter_state};
use crate::classify::depends_on_message;
use crate::reply::LocalReply;
use crate::request::{Headers, Request};
use crate::response::Response;
use crate::router::Plan;
use crate::router::{Decision, Route};

/// How often the router may try again: Envoy's own header, which outranks `num_retries` and goes no
/// further.
const MAX_RETRIES: &str = "x-envoy-max-retries";

/// What the router may try again for: Envoy's own header, with which a client would overrule the
/// filter.
const RETRY_ON: &str = "x-envoy-retry-on";

pub(super) struct StreamContext {
    running: Rc<Running>,
    stage: Stage,
}

enum Stage {
    /// Nothing was seen yet.
    New,
    /// The headers are held until the body is there.
    Reading(Headers),
    /// It is on its way to a credential, whose answer will teach.
    Sent(Plan),
    /// An error whose meaning depends on its body.
    Listening(PendingError),
    /// Nothing is left to do.
    Done,
}

impl StreamContext {
    pub(super) fn new(running: Rc<Running>) -> Self {
        Self { running, stage: Stage::New }
    }

    /// Decides the held request with at most so many bytes of its body.
    fn decide_held(&mut self, body_bytes: usize) -> Action {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Reading(headers) => {
                let body = self.get_http_request_body(0, body_bytes).unwrap_or_default();
                self.decide(&headers, &body)
            }
            stage => {
                self.stage = stage;
                Action::Continue
            }
        }
    }

    fn decide(&mut self, headers: &Headers, body: &[u8]) -> Action {
        let running = Rc::clone(&self.running);
        let router = &running.router;
        let properties: Vec<_> = router.properties().map(host::property).collect();
        let request = Request { headers, body: router.read_body(body), properties: &properties };
        let now = host::now();
        let decision = router.route(&request, &Host, now);

        let words = decision.to_string();
        log::debug!("{words}");
        running.counters.count(decision.outcome());
        filter_state::set_decision(&words);
        match decision {
            Decision::Route(route) => {
                let plan = router.plan(&route, now);
                self.send_to(&route, &plan, headers);
                self.stage = Stage::Sent(plan);
                Action::Continue
            }
            Decision::Reply(_, reply) => {
                self.stage = Stage::Done;
                host::answer(&reply);
                Action::Pause
            }
            Decision::Pass => {
                self.stage = Stage::Done;
                Action::Continue
            }
        }
    }

    fn send_to(&self, route: &Route<'_>, plan: &Plan, headers: &Headers) {
        let routing = &self.running.router.config().routing;
        self.set_http_request_header_bytes(
            &routing.header,
            Some(route.credential.cluster.as_bytes()),
        );
        self.set_http_request_header_bytes(
            MAX_RETRIES,
            Some(plan.max_attempts.saturating_sub(1).to_string().as_bytes()),
        );
        if headers.first(RETRY_ON).is_some() {
            self.set_http_request_header_bytes(RETRY_ON, None);
        }
        self.running.select_cluster(route.credential);
        filter_state::set_plan(plan);
        host::clear_route_cache();
    }

    /// What is left to do where filters on the clusters have heard every answer.
    fn end(&self, mut plan: Plan) -> Action {
        let router = &self.running.router;
        let now = host::now();
        let mut reply = None;
        if plan.is_pending() {
            let Origin::FailedConnection = host::origin_of_response() else {
                return Action::Continue;
            };
            self.running.record_metrics(
                router.observe(&mut plan, &Response::ConnectionFailed, &Host, now).observed,
            );
            reply = router.no_response(&plan, &Host, now);
        }
        let Some(end) = plan.end() else {
            return Action::Continue;
        };
        self.running.counters.count_failover(end);
        filter_state::extend_decision(&format!(" failover={end}"));
        if plan.next.is_some() {
            self.set_http_response_header_bytes(RETRY, None);
        }
        self.pass_or_replace(&plan, reply)
    }

    /// Learns from the headers of an answer where no filter on the cluster does, or finds that its
    /// body must be heard.
    fn hear(&mut self, mut plan: Plan, end_of_stream: bool) -> Action {
        let status = host::response_status();
        if status < 400 {
            self.learn(&mut plan, status, &Headers::default(), b"");
            return Action::Continue;
        }
        match host::origin_of_response() {
            Origin::Upstream => {
                let headers = self.get_http_response_headers_bytes().into_iter().collect();
                if depends_on_message(status) && !end_of_stream {
                    self.stage = Stage::Listening(PendingError::new(plan, status, headers));
                    return Action::Continue;
                }
                self.learn(&mut plan, status, &headers, b"");
                self.pass_or_replace(&plan, None)
            }
            Origin::FailedConnection => {
                let router = &self.running.router;
                let now = host::now();
                self.running.record_metrics(
                    router.observe(&mut plan, &Response::ConnectionFailed, &Host, now).observed,
                );
                self.pass_or_replace(&plan, router.no_response(&plan, &Host, now))
            }
            Origin::Envoy => Action::Continue,
        }
    }

    /// The last answer passes, unless the client is better served with another.
    fn pass_or_replace(&self, plan: &Plan, reply: Option<LocalReply>) -> Action {
        let sooner = || match host::response_status() {
            429 => self.running.router.earlier_recovery(plan, &Host, host::now()),
            _ => None,
        };
        match reply.or_else(sooner) {
            Some(reply) => {
                host::answer(&reply);
                Action::Pause
            }
            None => Action::Continue,
        }
    }

    fn learn(&self, plan: &mut Plan, status: u16, headers: &Headers, body: &[u8]) {
        let verdict = self.running.router.observe(
            plan,
            &Response::Received { status, headers, body },
            &Host,
            host::now(),
        );
        self.running.record_metrics(verdict.observed);
    }

    /// Learns from an error with as much of its body as was heard.
    fn learn_from_message(&mut self) {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Listening(PendingError { mut plan, status, headers, message }) => {
                self.learn(&mut plan, status, &headers, &message);
            }
            stage => self.stage = stage,
        }
    }
}

impl Context for StreamContext {}

impl HttpContext for StreamContext {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let headers: Headers = self.get_http_request_headers_bytes().into_iter().collect();
        #[cfg(feature = "trap")]
        super::trap::trap_on_demand(&headers);
        let routing_header = &self.running.router.config().routing.header;
        if headers.first(routing_header).is_some() {
            // A client must not choose its cluster, on no path.
            self.set_http_request_header_bytes(routing_header, None);
        }
        if self.running.router.must_read_body(&headers, end_of_stream) {
            self.stage = Stage::Reading(headers);
            return Action::Pause;
        }
        self.decide(&headers, b"")
    }

    /// While headers are held, `size` is that of the whole body so far.
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !matches!(self.stage, Stage::Reading(_)) {
            return Action::Continue;
        }
        let most = self.running.router.config().body.max_bytes;
        if !end_of_stream && size < most {
            return Action::Pause;
        }
        self.decide_held(size.min(most))
    }

    /// With trailers no body callback ever says that the stream ends.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.decide_held(self.running.router.config().body.max_bytes)
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Sent(sent) => match filter_state::plan().filter(|newest| newest.attempts > 0) {
                Some(newest) => self.end(newest),
                None => self.hear(sent, end_of_stream),
            },
            stage => {
                self.stage = stage;
                Action::Continue
            }
        }
    }

    /// Nothing is held here, so `size` is that of the piece that passes.
    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Stage::Listening(pending) = &mut self.stage
            && pending.read_piece(size, end_of_stream)
        {
            self.learn_from_message();
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.learn_from_message();
        Action::Continue
    }

    /// The end of the stream, also of one that was cut off.
    fn on_log(&mut self) {
        self.learn_from_message();
    }
}
