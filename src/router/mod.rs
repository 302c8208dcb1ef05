//! The two decisions: which credential serves a request, and what follows from its
//! response.
//!
//! Data in, data out: the request, the shared data and the time are arguments, so every case can be
//! tested without a proxy. The steps of a decision are in the module `selection`.

mod common_home;
mod decision;
mod failover;
mod gauges;
mod observe;
mod placement;
mod plan;
mod reference;
mod selection;
mod shadow;
mod state;

pub use decision::{Decision, Refusal, Route, Verdict};
pub use failover::NextStep;
pub use plan::{AttemptResult, FailedAttempt, Plan};
pub use state::StateUse;

pub use crate::duration::short;

use crate::api::{Api, model_in_path};
use crate::balance::{self, Cursors};
use crate::binding::Bindings;
use crate::body::Body;
use crate::config::{Config, Pool, Profile};
use crate::cooldown::{Cooldowns, depends_on_message};
use crate::group;
use crate::hash::{SEED_KEY, Seed};
use crate::headroom::{self, Headroom};
use crate::operator::changes;
use crate::outcome::Observed;
use crate::pins::Pins;
use crate::reply::{self, LocalReply};
use crate::request::{Headers, Request};
use crate::response::Response;
use crate::session::tenant_scope;
use crate::session::{ScopeSource, lacks_required};
use crate::shared::SharedData;
use crate::signals::Class;
use crate::target::Knowledge;
use crate::time::Timestamp;
use observe::Observer;
use selection::Selection;

/// How much of a body must be there before a request is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyNeed {
    /// Nothing: headers decide.
    None,
    /// The first bytes, for the model.
    Beginning,
    /// All of it, up to `body.max_bytes`.
    Whole,
    /// All of it, for the state that it may refer to: headers settle the session.
    WholeForState,
}

/// A configuration at work.
pub struct Router {
    pub(crate) config: Config,
    pub(crate) seed: Seed,
    pub(crate) bindings: Bindings,
    pub(crate) cursors: Cursors,
    pub(crate) pins: Pins,
}

impl Router {
    /// Puts a configuration to work.
    pub fn new(config: Config, seed: Seed) -> Self {
        let bindings = Bindings::new(config.session.max_bindings, config.routing.ttl);
        let cap = (config.profile == Profile::Reference).then_some(config.routing.max_rotations);
        let pins = Pins::new(config.pins.max);
        Self { config, seed, bindings, cursors: Cursors::new(cap), pins }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A few digits that distinguish the shared data of one Envoy and `vm_id` from others.
    pub fn shared_data(&self) -> u32 {
        self.seed.hash(&[b"shared data"]).tag()
    }

    /// Every key of shared data that this configuration ever uses.
    pub fn shared_keys(&self) -> impl Iterator<Item = String> + '_ {
        let credentials = self.config.pools.iter().flat_map(|pool| &pool.credentials);
        let cooldowns = credentials.map(|credential| credential.cooldown_key.clone());
        let seed = [SEED_KEY.to_owned()].into_iter();
        let groups = self.config.pools.iter().flat_map(group::keys);
        let all = self.config.pools.iter().flat_map(|pool| &pool.credentials);
        let loads = all.flat_map(headroom::keys);
        let pins = self.pins.keys().filter(|_| self.config.pins.max > 0);
        seed.chain([changes::KEY.to_owned()])
            .chain(self.bindings.keys())
            .chain(balance::keys(&self.cursors))
            .chain(cooldowns)
            .chain(groups)
            .chain(loads)
            .chain(pins)
    }

    /// The attributes of Envoy that a request has to bring along, in this order.
    pub fn properties(&self) -> impl Iterator<Item = &[String]> {
        self.config.session.scope.iter().filter_map(|part| match &part.source {
            ScopeSource::Property(path) => Some(path.as_slice()),
            ScopeSource::Header(_) => None,
        })
    }

    /// How much of the body must be there before a request with these headers is decided.
    ///
    /// Where headers settle the session, only the model is wanted, for cooldowns: it is in the
    /// first bytes of the bodies of the clients that send such headers.
    ///
    /// But where the body may refer to state that a provider keeps, all of it is wanted; also where
    /// sessions are shed that refer to none.
    pub fn needs_body(
        &self,
        headers: &Headers,
        end_of_stream: bool,
        shared: &impl SharedData,
    ) -> BodyNeed {
        let Config { routing, session, body, pools, profile, .. } = &self.config;
        let knowledge = Knowledge::of(headers, pools);
        if knowledge == Knowledge::NoPool || !headers.announce_json(end_of_stream) {
            return BodyNeed::None;
        }
        let api = Api::of(headers.path(), &headers.host());
        let is_settled = !body.always_read
            && routing.session_affinity
            && session.sources.are_settled_by(headers, api);
        let has_model = model_in_path(headers.path()).is_some();
        match knowledge {
            Knowledge::Pool
                if is_settled
                    && (routing.shed_at.is_some() || self.may_refer_to_state(headers, shared)) =>
            {
                if has_model {
                    BodyNeed::Whole
                } else {
                    BodyNeed::WholeForState
                }
            }
            Knowledge::Pool if is_settled && has_model => BodyNeed::None,
            Knowledge::Pool if is_settled && *profile == Profile::Recommended => {
                BodyNeed::Beginning
            }
            Knowledge::Pool if is_settled => BodyNeed::None,
            _ => BodyNeed::Whole,
        }
    }

    /// Whether the body of a request may refer to state, as far as its headers and what was pinned
    /// so far show.
    fn may_refer_to_state(&self, headers: &Headers, shared: &impl SharedData) -> bool {
        let mut betas = headers.all("anthropic-beta");
        let is_in_thread =
            betas.any(|value| memchr::memmem::find(value, b"message-threads").is_some());
        self.config.pins.max > 0
            && headers.text(":method") == "POST"
            && (is_in_thread || self.pins.may_be_in(shared, headers.path()))
    }

    /// Reads a body, whole or cut off at any byte.
    pub fn read_body<'a>(&self, bytes: &'a [u8]) -> Body<'a> {
        Body::read(&self.config.body.paths, bytes)
    }

    /// Reads as much of a body as was needed.
    pub fn read<'a>(&self, bytes: &'a [u8], need: BodyNeed) -> Body<'a> {
        let paths = &self.config.body.paths;
        match need {
            BodyNeed::Beginning => Body::read_beginning(paths, bytes),
            BodyNeed::WholeForState => Body::read_settled(paths, bytes),
            BodyNeed::None | BodyNeed::Whole => Body::read(paths, bytes),
        }
    }

    /// Whether the part of a body that was not read is watched for a second model: the request was
    /// decided by one that the part before it names.
    pub fn watches_rest(&self, headers: &Headers, plan: &Plan) -> bool {
        self.config.profile == Profile::Recommended
            && !plan.model.is_empty()
            && model_in_path(headers.path()).is_none()
    }

    /// The reply to a request whose body turned out to name a second model; `None` if its pool is
    /// not configured.
    pub fn two_models(&self, plan: &Plan) -> Option<LocalReply> {
        self.pool_of(plan).map(|pool| reply::two_models(&plan.target(pool)))
    }

    /// Decides a request at a time given in milliseconds since the epoch.
    pub fn route(
        &self,
        request: &Request<'_>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Decision<'_> {
        let tenant = tenant_scope(&self.config.session.scope, request);
        let mut state = StateUse::of(self, request, tenant, shared);
        let pin = state.find(&self.pins, shared, now);
        let Some(target) = self.target(request, &state, pin) else {
            return Decision::Pass;
        };
        if lacks_required(&self.config.session.scope, request) {
            return Decision::Reply(Refusal::without_tenant(&target, now));
        }
        let pin = pin.filter(|pin| pin.pool == target.pool.fingerprint);
        Selection::new(self, request, target, state, shared, now).decide(pin)
    }

    /// What has to be kept of a route until its response comes.
    pub fn plan(&self, route: &Route<'_>, now: Timestamp) -> Plan {
        let max_attempts = self.config.failover.max_attempts.min(1 + route.others.len());
        Plan {
            pool: route.pool.fingerprint,
            shared_data: self.shared_data(),
            api: route.api,
            operation: route.operation,
            model: route.model.clone(),
            binding: route.session.map(|(_, key)| key),
            max_attempts: max_attempts as u8,
            attempts: 0,
            began: now,
            sent: now,
            current: None,
            result: None,
            next: Some(route.credential.fingerprint),
            is_repeated: false,
            rest: route.others.iter().map(|other| other.fingerprint).collect(),
            failures: Vec::new(),
            state: route.state.clone(),
            ticket: 0,
            hides_account: self.config.hides_account_headers,
        }
    }

    /// Learns from how the current attempt of a routed request ended. Where no cluster runs the
    /// filter, that is the attempt on the first credential of the plan.
    pub fn observe(
        &self,
        plan: &mut Plan,
        response: &Response<'_>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Verdict<'_> {
        let current = plan.current.or_else(|| plan.next.take());
        plan.current = current;
        let pool = self.pool_of(plan);
        let Some((pool, credential)) =
            pool.zip(current).and_then(|(pool, id)| Some((pool, pool.credential(id)?)))
        else {
            let observed = Observed::Class(Class::Unclear);
            return Verdict { observed, next: None, changes: Vec::new(), has_left_group: false };
        };
        match self.config.profile {
            Profile::Recommended => {
                Observer::new(self, pool, plan, shared, now).observe(credential, response)
            }
            Profile::Reference => {
                self.observe_as_the_reference(plan, credential, response, shared, now)
            }
        }
    }

    /// Whether the body of a response with this status shows what it means.
    pub fn reads_body_of(&self, status: u16) -> bool {
        match self.config.profile {
            Profile::Recommended => status >= 400,
            Profile::Reference => depends_on_message(status),
        }
    }

    /// Whether a response with this status means nothing certain without its body.
    pub fn needs_body_of(&self, status: u16, plan: &Plan) -> bool {
        let is_about_state = !plan.state.references.is_empty();
        matches!(status, 400 | 404 | 422) || (status == 403 && is_about_state)
    }

    /// Whether the requests of a pool are counted that are under way.
    pub fn counts_flights(&self, pool: &Pool) -> bool {
        self.config.profile == Profile::Recommended && self.headroom().counts_flights(pool)
    }

    /// Where there is room, in the profile `recommended`.
    pub fn headroom(&self) -> Headroom<'_> {
        Headroom { routing: &self.config.routing, seed: self.seed }
    }

    /// The bindings, for tools that look at them.
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// The cooldowns of the profile `recommended`.
    pub fn cooldowns(&self) -> Cooldowns<'_> {
        Cooldowns { config: &self.config.cooldown, seed: self.seed }
    }
}
