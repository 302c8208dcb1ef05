//! One request on its way through the filter.
//!
//! Headers can only be changed while they are held: once a stream was continued they are out of
//! reach, and touching them traps. So a stream goes through stages, is decided once, in whichever
//! callback comes first with enough to decide on, and its response is observed once, as soon as it
//! is clear what it means. Responses pass untouched, with three exceptions: where there was none,
//! the client gets the cause in its own dialect; a last 429 gets an earlier `retry-after` if another
//! credential recovers sooner; and headers that name the provider's account go, where that is
//! configured.

mod response;

use std::mem;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::attempt_context::RETRY;
use super::header_map::{self, Map};
use super::host::{self, Host, Piece};
use super::meter::Meter;
use super::pending::PendingError;
use super::watch::Watch;
use super::{Running, filter_state, flights, hygiene};
use crate::config::UsageReading;
use crate::outcome::Outcome;
use crate::reply::LocalReply;
use crate::request::{Headers, Request};
use crate::response::Response;
use crate::router::{BodyNeed, Decision, Plan, Route};
use crate::second_model::SecondModel;

/// How often the router may try again: Envoy's own header, which outranks `num_retries` and goes no
/// further.
const MAX_RETRIES: &str = "x-envoy-max-retries";

/// When the router tries again, in addition to what the route says. Envoy removes both headers.
const RETRY_ON: [(&str, &str); 2] = [
    ("x-envoy-retry-on", "connect-failure,reset,refused-stream,retriable-headers"),
    ("x-envoy-retriable-header-names", RETRY),
];

/// Bytes of a body that are read where only its beginning is needed. Clients whose headers settle
/// the session name the model within them.
const BEGINNING: usize = 2 << 10;

/// The most bytes that are kept of the body of a request that is only watched. They are the VM's, for
/// as long as the request arrives.
const MOST_SEEN: usize = 1 << 20;

/// Bytes that are copied at once of what is held and was not read.
const PIECE: usize = 64 << 10;

pub(super) struct StreamContext {
    running: Rc<Running>,
    stage: Stage,
    /// What watches the part of the body that was not read.
    rest: Option<SecondModel>,
    /// What reads what the response has cost.
    meter: Option<Meter>,
    /// The request's ticket among those in flight; 0 if it is not counted.
    flight: u32,
    /// What was seen of the body of a request that is only watched, which is not held.
    seen: Vec<u8>,
    /// How a request that is only watched would have been decided.
    watched: Outcome,
    /// Whether the response has come to its end.
    is_complete: bool,
}

enum Stage {
    /// Nothing was seen yet.
    New,
    /// The headers are held until as much of the body is there as is needed.
    Reading(Headers, BodyNeed),
    /// The filter responds itself, once the request is there: over HTTP/2 clients lose a response
    /// that comes before.
    Responding(LocalReply),
    /// The request is on its way to a credential, whose response will be observed.
    Sent(Plan),
    /// An error whose meaning depends on its body.
    PassingError(PendingError),
    /// A stream or a WebSocket whose beginning is read.
    PassingStream(Plan, Watch),
    /// The response has begun, and filters on the clusters observe it.
    Passing(Plan),
    /// Nothing is left to do.
    Done,
}

impl StreamContext {
    pub(super) fn new(running: Rc<Running>) -> Self {
        let (meter, watched, seen) = (None, Outcome::Unmatched, Vec::new());
        let (stage, flight) = (Stage::New, 0);
        Self { running, stage, rest: None, meter, flight, seen, watched, is_complete: false }
    }

    /// Decides the held request with at most `body_bytes` of its body.
    fn decide_held(&mut self, body_bytes: usize, end_of_stream: bool) -> Action {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Reading(headers, need) => {
                let most = match need {
                    BodyNeed::Beginning => BEGINNING,
                    _ => self.running.router.config().body.max_bytes,
                };
                let body = self.get_http_request_body(0, body_bytes.min(most)).unwrap_or_default();
                let action = self.decide(&headers, &body, need, end_of_stream);
                let is_whole = end_of_stream && body_bytes <= most;
                if !is_whole && self.watches_rest(&headers) {
                    self.rest = Some(SecondModel::default());
                    return self.watch_held(action);
                }
                action
            }
            stage => {
                self.stage = stage;
                Action::Continue
            }
        }
    }

    /// Whether a request passes that is only watched, and is not decided yet.
    fn sees_body(&self) -> bool {
        self.running.router.config().is_shadow && matches!(self.stage, Stage::Reading(..))
    }

    /// Keeps what is needed of a piece that passes of a request that is only watched.
    fn see(&mut self, size: usize, end_of_stream: bool) {
        let most = self.running.router.config().body.max_bytes.min(MOST_SEEN);
        let wanted = most.saturating_sub(self.seen.len()).min(size);
        self.seen.extend_from_slice(&host::request_body(0, wanted));
        let needs_beginning = matches!(self.stage, Stage::Reading(_, BodyNeed::Beginning));
        let is_enough = self.seen.len() >= most || needs_beginning && size > 0;
        if end_of_stream || is_enough {
            self.decide_seen(end_of_stream);
        }
    }

    /// Decides a request that is only watched, with what was seen of its body.
    fn decide_seen(&mut self, end_of_stream: bool) {
        if let Stage::Reading(headers, need) = mem::replace(&mut self.stage, Stage::Done) {
            let body = mem::take(&mut self.seen);
            self.decide(&headers, &body, need, end_of_stream);
        }
    }

    fn decide(
        &mut self,
        headers: &Headers,
        body: &[u8],
        need: BodyNeed,
        end_of_stream: bool,
    ) -> Action {
        let running = Rc::clone(&self.running);
        let router = &running.router;
        let properties: Vec<_> = router.properties().map(host::property).collect();
        let body = router.read(body, need);
        let request = Request { headers, body, properties: &properties };
        let now = host::now();
        let decision = router.route(&request, &Host, now);
        if !matches!(decision, Decision::Pass) {
            running.watch_scope(&request);
        }

        if let Some(words) = running.words_of(&decision) {
            log::debug!("{words}");
            filter_state::set_decision(words.as_bytes());
        }
        running.count_decision(&decision);
        if router.config().is_shadow {
            if let Decision::Route(route) = decision {
                self.watched = route.outcome;
                self.stage = Stage::Sent(running.watch(&route, now));
            }
            return Action::Continue;
        }
        match decision {
            Decision::Route(route) => {
                let mut plan = router.plan(&route, now);
                if router.counts_flights(route.pool) {
                    self.flight = flights::begin(route.credential);
                    plan.ticket = self.flight;
                }
                self.meter = Meter::of(&running, &plan, route.outcome, headers);
                self.send_to(&route, &plan, headers);
                self.stage = Stage::Sent(plan);
                Action::Continue
            }
            Decision::Reply(refusal) if headers.announce_json(end_of_stream) => {
                self.stage = Stage::Responding(refusal.reply);
                Action::Pause
            }
            Decision::Reply(refusal) => {
                self.stage = Stage::Done;
                host::respond(&refusal.reply);
                Action::Pause
            }
            Decision::Pass => {
                self.stage = Stage::Done;
                Action::Continue
            }
        }
    }

    fn watches_rest(&self, headers: &Headers) -> bool {
        let router = &self.running.router;
        !router.config().is_shadow
            && matches!(&self.stage, Stage::Sent(plan) if router.watches_rest(headers, plan))
    }

    /// Watches all that is held, which goes on now.
    fn watch_held(&mut self, action: Action) -> Action {
        let mut at = 0;
        loop {
            let piece = host::request_body(at, PIECE);
            if piece.is_empty() {
                return action;
            }
            if self.has_second_model(&piece) {
                return self.refuse_second_model();
            }
            at += piece.len();
        }
    }

    /// Watches a piece that passes.
    fn watch_piece(&mut self, size: usize) -> Action {
        if self.rest.is_some() && self.has_second_model(&host::request_body(0, size)) {
            return self.refuse_second_model();
        }
        Action::Continue
    }

    fn has_second_model(&mut self, piece: &[u8]) -> bool {
        self.rest.as_mut().is_some_and(|rest| rest.read(piece))
    }

    /// Ends a request whose body names a second model, before the upstream has all of it. Nothing
    /// follows for the credential.
    fn refuse_second_model(&mut self) -> Action {
        self.rest = None;
        let Stage::Sent(plan) = &self.stage else {
            // The response has begun.
            return Action::Continue;
        };
        let Some(reply) = self.running.router.two_models(plan) else {
            return Action::Continue;
        };
        self.running.extend_decision(plan, " refused=second_model");
        self.stage = Stage::Done;
        filter_state::remove_plan();
        host::respond(&reply);
        Action::Pause
    }

    /// Responds once the request has ended, or is too long to wait for.
    fn respond_after(&mut self, size: usize, end_of_stream: bool) -> Action {
        let is_over = end_of_stream || size >= self.running.router.config().body.max_bytes;
        if let Stage::Responding(reply) = &self.stage
            && is_over
        {
            host::respond(reply);
            self.stage = Stage::Done;
        }
        Action::Pause
    }

    /// Reads what the response has cost, once it is over: in time for access logs, which are written
    /// before `on_log` is called.
    fn end_meter(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.end(&self.running, self.is_complete);
        }
    }

    fn send_to(&self, route: &Route<'_>, plan: &Plan, headers: &Headers) {
        let config = self.running.router.config();
        self.running.select_cluster(route.credential);
        filter_state::set_plan(plan);
        if self.meter.is_some() && config.observe.usage == UsageReading::Identity {
            hygiene::refuse_encodings(self, headers);
        } else {
            hygiene::narrow_encodings(self, headers);
        }
        if route.pool.injects_keys() {
            hygiene::remove_identities(self, headers, route.pool);
        }
        // One more for a connection that turns out to be stale.
        let retries = plan.max_attempts.to_string();
        self.set_http_request_header_bytes(MAX_RETRIES, Some(retries.as_bytes()));
        if self.running.observes_attempts(plan.pool) {
            for (name, value) in RETRY_ON {
                self.set_http_request_header_bytes(name, Some(value.as_bytes()));
            }
        }
        // A changed header makes Envoy choose the route again, with the filter states above.
        self.set_http_request_header_bytes(
            &config.routing.header,
            Some(route.credential.cluster.as_bytes()),
        );
    }
}

impl Context for StreamContext {}

impl HttpContext for StreamContext {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let headers = header_map::headers(Map::Request);
        #[cfg(feature = "trap")]
        super::trap::trap_on_demand(&headers);
        if !self.running.router.config().is_shadow {
            let routing_header = &self.running.router.config().routing.header;
            if headers.first(routing_header).is_some() {
                // A client must not choose its cluster, on no path.
                self.set_http_request_header_bytes(routing_header, None);
            }
            hygiene::remove_controls_and_keys(self, &headers);
        }
        match self.running.router.needs_body(&headers, end_of_stream, &Host) {
            BodyNeed::None => self.decide(&headers, b"", BodyNeed::None, end_of_stream),
            need => {
                self.stage = Stage::Reading(headers, need);
                if self.sees_body() { Action::Continue } else { Action::Pause }
            }
        }
    }

    /// While headers are held, `size` is that of the whole body so far.
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.running.saw_body();
        if self.sees_body() {
            self.see(size, end_of_stream);
            return Action::Continue;
        }
        let need = match &self.stage {
            Stage::Reading(_, need) => need,
            Stage::Responding(_) => return self.respond_after(size, end_of_stream),
            _ => return self.watch_piece(size),
        };
        let enough = match need {
            BodyNeed::Beginning => BEGINNING,
            _ => self.running.router.config().body.max_bytes,
        };
        // The beginning is there with the first piece, however small clients make the others.
        let has_beginning = *need == BodyNeed::Beginning && size > 0;
        if !end_of_stream && size < enough && !has_beginning {
            return Action::Pause;
        }
        self.decide_held(size, end_of_stream)
    }

    /// With trailers no body callback ever says that the stream ends.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        if let Stage::Responding(_) = &self.stage {
            return self.respond_after(0, true);
        }
        if self.sees_body() {
            self.decide_seen(true);
            return Action::Continue;
        }
        self.decide_held(usize::MAX, true)
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.is_complete = end_of_stream;
        if self.sees_body() {
            // The response did not wait for the request's end.
            self.decide_seen(false);
        }
        let sent = match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Sent(sent) => sent,
            stage => {
                self.stage = stage;
                return Action::Continue;
            }
        };
        if self.running.router.config().is_shadow {
            return self.witness(sent, end_of_stream);
        }
        // Where a filter on the cluster has observed the response, it has changed its headers too.
        let is_sample = self.running.samples.take();
        let headers = (!is_sample && self.running.expects_no_attempt(sent.pool))
            .then(|| header_map::headers(Map::Response))
            .filter(|headers| host::status_of(headers) < 400);
        if headers.is_none()
            && let Some(newest) = filter_state::plan().filter(|newest| newest.attempts > 0)
        {
            // Also by a module in another VM.
            self.running.note_observed(newest.pool, true);
            return self.end(newest);
        }
        let headers = headers.unwrap_or_else(|| header_map::headers(Map::Response));
        if sent.hides_account {
            hygiene::remove_account_headers(self, &headers);
        }
        if headers.first(RETRY).is_some() {
            self.set_http_response_header_bytes(RETRY, None);
        }
        self.observe_headers(sent, headers, end_of_stream, is_sample)
    }

    /// Nothing is held here, so `size` is that of the piece that passes.
    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.is_complete |= end_of_stream;
        let is_shared = self.meter.is_some() && matches!(self.stage, Stage::PassingStream(..));
        let piece = if is_shared { Piece::shared(size) } else { Piece::of(size) };
        if let Some(meter) = &mut self.meter {
            meter.pass(&piece, &self.running);
        }
        if end_of_stream {
            self.end_meter();
        }
        if let Stage::PassingError(pending) = &mut self.stage
            && pending.read_piece(size, end_of_stream)
        {
            self.observe_error();
        }
        self.observe_stream(&piece, end_of_stream);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.is_complete = true;
        self.end_meter();
        self.observe_error();
        Action::Continue
    }

    /// The end of the stream, also of one that was cut off.
    fn on_log(&mut self) {
        flights::end(mem::take(&mut self.flight));
        self.observe_error();
        self.end_meter();
        if let Stage::Passing(plan) = &self.stage
            && plan.is_pending()
            && let Some(newest) = filter_state::plan()
        {
            // The response was watched as it passed, and showed what it was after its headers.
            self.note_end(&newest);
        }
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Passing(plan) if !self.is_complete && host::was_cut_off() => {
                self.running.router.observe_cut(&plan, &Host, host::now());
            }
            Stage::Reading(..) if !self.running.router.config().is_shadow => {
                self.running.warn_of_missing_body();
            }
            // A WebSocket on which the provider has said nothing.
            Stage::PassingStream(mut plan, watch) if watch.is_silent_websocket() => {
                let headers = Headers::default();
                let response = Response::Received { status: 101, headers: &headers, body: b"" };
                self.observe(&mut plan, &response);
            }
            _ => {}
        }
        if !self.is_complete && !self.running.router.config().is_shadow {
            // The client has left: that its attempt ends after this is no failure.
            filter_state::remove_plan();
        }
    }
}
