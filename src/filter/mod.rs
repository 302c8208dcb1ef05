//! The filter as Envoy sees it: the only part that speaks Proxy-Wasm.
//!
//! It carries data in and out and decides nothing. The root context reads the configuration and
//! refuses a bad one. In the listener a [`StreamContext`] holds a request as long as its body is
//! needed, asks the router, and passes the decision on to Envoy. On a cluster, where Envoy runs the
//! same module once for every attempt, an [`AttemptContext`] injects the credential and observes
//! the response. On a listener of its own an [`OperatorContext`] is the operator's page.

mod attempt_context;
mod changes;
mod filter_state;
mod flights;
mod header_map;
mod held;
mod host;
mod hygiene;
mod meter;
mod metrics;
mod operator_context;
mod pending;
mod role;
mod shadow;
mod stream_context;
#[cfg(feature = "trap")]
mod trap;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::config::{Config, Credential, PoolId, Profile, Words};
use crate::cooldown::Change;
use crate::hash::Seed;
use crate::metrics::Metric;

use crate::mistakes::{Mistake, Samples, ScopeWatch, Warnings};
use crate::operator::changes::note_cooldowns;
use crate::outcome::{Failover, Outcome};
use crate::request::Headers;
use crate::request::Request;
use crate::router::{Decision, Plan, Router, Verdict};
use crate::time::Timestamp;

use attempt_context::AttemptContext;
use changes::Changes;
use held::{Held, HeldStreams};
use host::Host;
use metrics::Metrics;
use operator_context::OperatorContext;
use role::RoleContext;
use stream_context::StreamContext;

/// The `root_id` by which a filter on a cluster is distinguished from one in a listener.
const UPSTREAM_ROOT_ID: &[u8] = b"session_affinity_upstream";

/// The `root_id` of the filter in a listener, which may also be empty.
const LISTENER_ROOT_ID: &[u8] = b"session_affinity";

/// The `root_id` of the filter on the listener of the operator's page.
const OPERATOR_ROOT_ID: &[u8] = b"session_affinity_operator";

/// How often streams that are held are looked after, and how often that is in a second.
const TICK: Duration = Duration::from_millis(100);
const TICKS_OF_A_SECOND: u32 = 10;

/// How often counts are handed over.
const SECOND: Duration = Duration::from_secs(1);

proxy_wasm::main! {{
    // Until Envoy's own level is known.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// The C library's allocator takes three times the instructions, and was a third of what the module
/// did for a request. This one takes as long whatever its state, and has a known bound for what it
/// loses in gaps.
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

thread_local! {
    /// What this VM has warned of.
    static WARNINGS: RefCell<Warnings> = RefCell::default();
    /// Whether filters on clusters observe attempts, as far as nothing is known of a pool: then the
    /// router may make more than one.
    static ARE_ATTEMPTS_OBSERVED: Cell<bool> = const { Cell::new(false) };
}

/// What all streams of one configuration share.
struct Running {
    router: Router,
    metrics: Metrics,
    changes: Changes,
    role: Role,
    version: Version,
    held: HeldStreams,
    bodies: Cell<Bodies>,
    scope: RefCell<ScopeWatch>,
    samples: Samples,
    /// The pools of which responses have shown whether filters on their clusters observe attempts.
    observed: RefCell<Vec<(PoolId, bool)>>,
}

/// Whether bodies ever reach this VM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Unknown,
    Seen,
    Missing,
}

/// What depends on Envoy's version; measured on the versions named.
struct Version {
    /// Whether a response that was held until its body was there may be retried. Before 1.37 Envoy
    /// crashes, or writes the held bytes into the retry's response.
    may_retry_held: bool,
    /// Whether a stream of which some of the body is held may be released on a tick. On 1.37 Envoy
    /// loses the next piece.
    may_release_body: bool,
}

/// Where Envoy runs the filter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// In a listener, once for every request.
    Listener,
    /// On a cluster, once for every attempt.
    Cluster,
    /// On the listener of the operator's page.
    Operator,
}

impl Version {
    fn of_host() -> Self {
        let version = host::version();
        Self { may_retry_held: version >= (1, 37), may_release_body: version >= (1, 39) }
    }
}

impl Running {
    fn saw_body(&self) {
        self.bodies.set(Bodies::Seen);
    }

    /// Whether filters on the clusters of a pool observe attempts.
    fn observes_attempts(&self, pool: PoolId) -> bool {
        let observed = self.observed.borrow();
        let known = observed.iter().find(|(known, _)| *known == pool);
        known.map_or_else(|| ARE_ATTEMPTS_OBSERVED.get(), |(_, is_observed)| *is_observed)
    }

    /// Whether responses have shown that no filter on the clusters of a pool observes attempts, and
    /// none is in this VM that could have begun to.
    fn expects_no_attempt(&self, pool: PoolId) -> bool {
        !ARE_ATTEMPTS_OBSERVED.get() && self.observed.borrow().contains(&(pool, false))
    }

    /// A response has shown whether they do. A gateway may have pools of both kinds, and updates
    /// may change it.
    fn note_observed(&self, pool: PoolId, is_observed: bool) {
        let mut observed = self.observed.borrow_mut();
        match observed.iter_mut().find(|(known, _)| *known == pool) {
            Some((_, known)) => *known = is_observed,
            None => observed.push((pool, is_observed)),
        }
    }

    /// Warns of a mistake, unless this VM has just done so.
    fn warn(&self, mistake: &Mistake) {
        if WARNINGS.with_borrow_mut(|warnings| warnings.is_due(mistake, host::now())) {
            log::warn!("{mistake}");
        }
    }

    /// Warns if a part of the scope never comes.
    fn watch_scope(&self, request: &Request<'_>) {
        let scope = &self.router.config().session.scope;
        if let Some(mistake) = self.scope.borrow_mut().note(scope, request) {
            self.warn(&mistake);
        }
    }

    /// Warns once if a request has ended while its body was waited for, and none has ever come.
    fn warn_of_missing_body(&self) {
        if self.bodies.get() == Bodies::Unknown {
            self.bodies.set(Bodies::Missing);
            log::warn!(
                "a request has ended before its body reached the filter: is \
                 allow_on_headers_stop_iteration: true missing in the filter's configuration?"
            );
        }
    }

    /// Shows the router where to go: the cluster by filter state, and for a credential that is an
    /// endpoint, its address.
    fn select_cluster(&self, credential: &Credential) {
        host::set_filter_state(
            &self.router.config().routing.filter_state,
            credential.cluster.as_bytes(),
        );
        if let Some(endpoint) = &credential.endpoint {
            host::set_destination(endpoint);
        }
    }

    /// The words of a decision; `None` if it is not worth any.
    fn words_of(&self, decision: &Decision<'_>) -> Option<String> {
        let is_usual = match decision {
            Decision::Route(route) => {
                matches!(route.outcome, Outcome::Hit | Outcome::Pinned | Outcome::None)
            }
            // A filter on a cluster knows by them that the request was seen.
            Decision::Reply(_) | Decision::Pass => false,
        };
        let is_shown = match self.router.config().observe.decision {
            Words::Always => true,
            Words::OnChange => !is_usual,
            Words::Off => matches!(decision, Decision::Pass),
        };
        (is_shown || log::log_enabled!(log::Level::Debug)).then(|| decision.words())
    }

    /// What a failure adds to the words of the decision.
    fn extend_decision(&self, plan: &Plan, words: &str) {
        if self.router.config().observe.decision == Words::Off {
            return;
        }
        let mut decision = filter_state::decision();
        if decision.is_empty() {
            // It was nothing to speak of until now.
            decision = self.usual_words(plan).into_bytes();
        }
        decision.extend_from_slice(words.as_bytes());
        filter_state::set_decision(&decision);
    }

    /// The words of a decision that had none, as far as the plan knows them.
    fn usual_words(&self, plan: &Plan) -> String {
        let outcome = match plan.binding {
            _ if plan.state.is_pinned => Outcome::Pinned,
            Some(_) => Outcome::Hit,
            None => Outcome::None,
        };
        let mut words = format!("outcome={}", outcome.as_str());
        if let Some(pool) = self.router.pool_of(plan) {
            let first = plan.failures.first().map(|failed| failed.credential).or(plan.current);
            let first = first.and_then(|first| pool.credential(first));
            let id = first.map_or("-", |first| first.id.as_str());
            words = [&words, " pool=", &pool.name, " credential=", id].concat();
        }
        if plan.binding.is_some() {
            words.push_str(&format!(" gen_ai.conversation.id={:08x}", plan.session()));
        }
        words
    }

    /// Counts a request as it was decided.
    fn count_decision(&self, decision: &Decision<'_>) {
        let outcome = decision.outcome().as_str();
        let (pool, source) = match decision {
            Decision::Route(route) => {
                let pool = route.pool.name.as_str();
                if route.is_probe {
                    self.count_probe(pool, route.credential);
                }
                self.changes.decision(route);
                (pool, route.session.map_or("", |(source, _)| source))
            }
            Decision::Reply(refusal) => (refusal.pool.name.as_str(), ""),
            Decision::Pass => ("", ""),
        };
        self.metrics.count(Metric::Requests, &[pool, outcome, source], 1);
    }

    /// Counts how failover ended.
    fn count_failover(&self, plan: &Plan, end: Failover) {
        let pool = self.router.pool_of(plan).map_or("", |pool| pool.name.as_str());
        self.metrics.count(Metric::Failovers, &[pool, end.as_str()], 1);
    }

    fn count_probe(&self, pool: &str, credential: &Credential) {
        self.metrics.count(Metric::Probes, &[pool, self.label_of(Some(credential))], 1);
    }

    /// The label of a credential, if credentials are counted one by one.
    fn label_of<'c>(&self, credential: Option<&'c Credential>) -> &'c str {
        let credential = credential.filter(|_| self.router.config().observe.by_credential);
        credential.map_or("", |credential| credential.id.as_str())
    }

    /// Counts what was observed, and logs the cooldowns that began or ended.
    fn record(&self, verdict: &Verdict<'_>, plan: &Plan) {
        log::debug!("observed {}", verdict.observed);
        let pool = self.router.pool_of(plan);
        let credential = pool.zip(plan.current).and_then(|(pool, id)| pool.credential(id));
        let pool = pool.map_or("", |pool| pool.name.as_str());
        let class = verdict.observed.as_str();
        self.metrics.count(Metric::Attempts, &[pool, self.label_of(credential), class], 1);
        if let Some(credential) = credential {
            self.changes.suspicion(pool, credential, plan);
        }
        if verdict.has_left_group {
            self.metrics.count(Metric::LeftGroup, &[pool], 1);
            self.extend_decision(plan, " ciphertext=left_group");
        }
        self.log_changes(&verdict.changes, plan);
    }

    fn log_changes(&self, changes: &[(&Credential, Change)], plan: &Plan) {
        if !changes.is_empty() {
            note_cooldowns(&Host, plan.pool, changes, host::now());
        }
        let pool = self.router.pool_of(plan).map_or("", |pool| pool.name.as_str());
        for (credential, change) in changes {
            self.changes.cooldown(pool, credential, change);
        }
    }

    /// A second has passed: counts go to Envoy. In every tenth it is looked how things are.
    fn pass_second(&self) {
        self.changes.pass_second();
        if self.metrics.pass_second() {
            host::adopt_log_level();
            if self.role == Role::Listener {
                flights::refresh();
                self.changes.sparing(&self.router);
                self.metrics.set_gauges(&self.router);
            }
        }
        self.metrics.flush();
    }

    /// Whether a response that a provider accepted may turn out to be none.
    fn reads_beginnings(&self) -> bool {
        let config = self.router.config();
        config.profile == Profile::Recommended && config.failover.first_event.bytes > 0
    }

    /// Whether there is nothing of a model in what a provider accepted: it is a redirection, or a
    /// document without a byte.
    fn is_nothing(
        &self,
        plan: &Plan,
        status: u16,
        kind: Option<watch::Kind>,
        end_of_stream: bool,
    ) -> bool {
        let is_none = status >= 300 || (end_of_stream && kind.is_some());
        is_none && plan.operation.runs_a_model() && self.reads_beginnings()
    }

    /// What kind of response with this status passes, if it may turn into an error.
    fn watches(&self, status: u16, headers: &Headers) -> Option<watch::Kind> {
        if !self.reads_beginnings() || !matches!(status, 101 | 200 | 201) {
            return None;
        }
        watch::Kind::of(status, headers.text("content-type"))
    }

    /// Learns what a WebSocket has told of the limits of its credential.
    fn learn_limits(&self, watch: &mut watch::Watch, plan: &Plan) {
        if let Some(headers) = watch.take_limits() {
            self.router.observe_limits(plan, &headers, &Host, host::now());
        }
    }

    /// Whether streams are held until their first event.
    fn holds_streams(&self) -> bool {
        self.version.may_retry_held
    }

    /// Holds the stream of a context.
    fn hold(&self, context_id: u32, now: Timestamp) -> Held {
        let wait = self.router.config().failover.first_event.wait;
        self.held.add(context_id, now, now + wait)
    }
}

#[derive(Default)]
struct Root {
    running: Option<Rc<Running>>,
    ticks: u32,
    ticks_of_a_second: u32,
}

impl Context for Root {
    /// The configuration, or the VM, is at its end.
    fn on_done(&mut self) -> bool {
        if let Some(running) = &self.running {
            running.metrics.retire();
            running.metrics.flush();
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        host::adopt_log_level();
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse_with(&json, &|variable| std::env::var(variable).ok()) {
            Ok(config) => config,
            Err(problems) => {
                log::error!("the configuration has {} problem(s):\n{problems}", problems.len());
                return false;
            }
        };
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let role = match host::root_id().as_slice() {
            b"" | LISTENER_ROOT_ID => Role::Listener,
            UPSTREAM_ROOT_ID => {
                ARE_ATTEMPTS_OBSERVED.set(true);
                Role::Cluster
            }
            OPERATOR_ROOT_ID => Role::Operator,
            other => {
                log::error!(
                    "unknown root_id {:?}: expected session_affinity in a listener, \
                     session_affinity_upstream on a cluster, session_affinity_operator on the listener \
                     of the operator's page",
                    String::from_utf8_lossy(other)
                );
                return false;
            }
        };
        let router = Router::new(config, Seed::agree(&Host, host::random_bytes()));
        let version = Version::of_host();
        let is_watch = role == Role::Cluster && version.may_retry_held;
        self.set_tick_period(if is_watch { TICK } else { SECOND });
        self.ticks_of_a_second = if is_watch { TICKS_OF_A_SECOND } else { 1 };
        let (metrics, changes) = (Metrics::new(), Changes::default());
        let held = HeldStreams::default();
        let bodies = Cell::new(Bodies::Unknown);
        let scope = RefCell::default();
        let (observed, samples) = (RefCell::default(), Samples::default());
        let running = Running {
            router,
            metrics,
            changes,
            role,
            version,
            held,
            bodies,
            scope,
            samples,
            observed,
        };
        self.running = Some(Rc::new(running));
        true
    }

    fn on_tick(&mut self) {
        let Some(running) = &self.running else { return };
        running.held.release(running.version.may_release_body);
        self.ticks += 1;
        if self.ticks >= self.ticks_of_a_second {
            self.ticks = 0;
            running.pass_second();
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let running = self.running.clone()?;
        Some(Box::new(match running.role {
            Role::Listener => RoleContext::Listener(StreamContext::new(running)),
            Role::Cluster => RoleContext::Cluster(AttemptContext::new(running, context_id)),
            Role::Operator => RoleContext::Operator(OperatorContext::new(running)),
        }))
    }
}
