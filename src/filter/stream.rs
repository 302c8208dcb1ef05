//! One request on its way through the filter.
//!
//! Headers can only be changed while they are held: once a stream was continued they are out of reach, and touching them
//! traps. So a stream has three stages, is decided once, in whichever callback comes first with enough to decide on, and
//! is left alone from then on.

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::Running;
use super::host::{self, Host};
use crate::reply::LocalReply;
use crate::request::{Headers, Request};
use crate::route::{Decision, Route};

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
    /// Nothing is left to do.
    Decided,
}

impl Stream {
    pub(super) fn new(running: Rc<Running>) -> Self {
        Self { running, stage: Stage::New }
    }

    /// Decides the held request with at most so many bytes of its body.
    fn decide_held(&mut self, body_bytes: usize) -> Action {
        match mem::replace(&mut self.stage, Stage::Decided) {
            Stage::Reading(headers) => {
                let body = self.get_http_request_body(0, body_bytes).unwrap_or_default();
                self.decide(&headers, &body)
            }
            Stage::New | Stage::Decided => Action::Continue,
        }
    }

    fn decide(&mut self, headers: &Headers, body: &[u8]) -> Action {
        self.stage = Stage::Decided;
        let running = Rc::clone(&self.running);
        let router = &running.router;
        let properties: Vec<_> = router.properties().map(host::property).collect();
        let request = Request { headers, body: router.read_body(body), properties: &properties };
        let decision = router.route(&request, &Host, host::now());

        log::debug!("{decision}");
        running.counters.count(decision.outcome());
        host::set_filter_state(DECISION, &decision.to_string());
        match decision {
            Decision::Route(route) => self.send_to(&route),
            Decision::Reply(reply) => self.answer(&reply),
            Decision::Pass => Action::Continue,
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
        let headers = vec![("content-type", "application/json")];
        self.send_http_response(u32::from(reply.status), headers, Some(reply.body.as_bytes()));
        Action::Pause
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
}
