//! One request on its way through the filter.
//!
//! Headers can only be changed while they are held: once a stream was continued they are out of reach, and touching them
//! traps. So a stream goes through stages, is decided once, in whichever callback comes first with enough to decide on,
//! and its answer teaches once, as soon as it is clear what it says. Answers pass untouched.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::Running;
use super::host::{self, Host, Origin};
use crate::cooldown::depends_on_message;
use crate::reply::LocalReply;
use crate::request::{Headers, Request};
use crate::route::{Decision, Route, Ticket};

/// Bytes of an error's body that are heard: enough for any provider's message.
const MESSAGE_LIMIT: usize = 8 << 10;

/// The filter state that tells access logs what was decided.
const DECISION: &str = "session_affinity.decision";

pub(super) struct Stream {
    running: Rc<Running>,
    stage: Stage,
}

enum Stage {
    /// Nothing was seen yet.
    New,
    /// The headers are held until the body is there.
    Reading(Headers),
    /// It is on its way to a credential, whose answer will teach.
    Sent(Ticket),
    /// An error whose meaning depends on its body; the beginning of that so far.
    Listening { ticket: Ticket, status: u16, headers: Headers, message: Vec<u8> },
    /// Nothing is left to do.
    Done,
}

impl Stream {
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
        let request = Request { headers, body: router.read_body(body), tried: &[], properties: &properties };
        let now = host::now();
        let decision = router.route(&request, &Host, now);

        let words = decision.to_string();
        log::debug!("{words}");
        running.counters.count(decision.outcome());
        host::set_filter_state(DECISION, &words);
        match decision {
            Decision::Route(route) => {
                self.stage = router.ticket(&route, now).map_or(Stage::Done, Stage::Sent);
                self.send_to(&route)
            }
            Decision::Reply(_, reply) => {
                self.stage = Stage::Done;
                self.answer(&reply)
            }
            Decision::Pass => {
                self.stage = Stage::Done;
                Action::Continue
            }
        }
    }

    fn send_to(&self, route: &Route<'_>) -> Action {
        let routing = &self.running.router.config().routing;
        let cluster = &route.credential.cluster;
        self.set_http_request_header_bytes(&routing.header, Some(cluster.as_bytes()));
        host::set_filter_state(&routing.filter_state, cluster);
        host::clear_route_cache();
        Action::Continue
    }

    fn answer(&self, reply: &LocalReply) -> Action {
        let retry_after = reply.retry_after.map(|seconds| seconds.to_string());
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(retry_after.as_deref().map(|seconds| ("retry-after", seconds)));
        self.send_http_response(u32::from(reply.status), headers, Some(reply.body.as_bytes()));
        Action::Pause
    }

    /// Learns from the headers of an answer, or finds that its body must be heard first.
    fn hear(&mut self, ticket: Ticket, end_of_stream: bool) {
        let headers: Headers = self.get_http_response_headers_bytes().into_iter().collect();
        let status = headers.text(":status").parse().unwrap_or(0);
        if status < 400 {
            return self.learn(&ticket, status, &headers, b"");
        }
        match host::origin_of_response() {
            Origin::Upstream if depends_on_message(status) && !end_of_stream => {
                self.stage = Stage::Listening { ticket, status, headers, message: Vec::new() };
            }
            Origin::Upstream => self.learn(&ticket, status, &headers, b""),
            Origin::FailedConnection => self.learn(&ticket, 0, &Headers::default(), b""),
            Origin::Envoy => {}
        }
    }

    fn learn(&self, ticket: &Ticket, status: u16, headers: &Headers, message: &[u8]) {
        let now = host::now();
        let learnt = self.running.router.observe(ticket, status, headers, message, &Host, now);
        log::debug!("learnt {learnt}");
        self.running.counters.count_answer(learnt);
    }

    /// Learns from an error with as much of its body as was heard.
    fn learn_from_message(&mut self) {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Listening { ticket, status, headers, message } => self.learn(&ticket, status, &headers, &message),
            stage => self.stage = stage,
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
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
            Stage::Sent(ticket) => self.hear(ticket, end_of_stream),
            stage => self.stage = stage,
        }
        Action::Continue
    }

    /// Nothing is held here, so `size` is that of the piece that passes.
    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Stage::Listening { message, .. } = &self.stage else {
            return Action::Continue;
        };
        let wanted = MESSAGE_LIMIT.saturating_sub(message.len()).min(size);
        let piece = self.get_http_response_body(0, wanted).unwrap_or_default();
        if let Stage::Listening { message, .. } = &mut self.stage {
            message.extend_from_slice(&piece);
            if end_of_stream || message.len() >= MESSAGE_LIMIT {
                self.learn_from_message();
            }
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
