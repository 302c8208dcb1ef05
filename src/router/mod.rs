//! The two decisions: which credential serves a request, and what its answer teaches.
//!
//! Data in, data out: the request, the shared data and the time are arguments, so every case can be
//! tested without a proxy. What a decision goes through stands in the module `selection`.

mod decision;
mod failover;
mod placement;
mod plan;
mod selection;

pub use decision::{Decision, Route, Verdict};
pub use failover::NextStep;
pub use plan::{AttemptResult, Plan};

use crate::api::Api;
use crate::balance::{self, Cursors};
use crate::binding::Bindings;
use crate::body::Body;
use crate::classify::Class;
use crate::config::{Config, CredentialId, Profile, Return, ScopePart};
use crate::cooldown::{self, Cooldowns, Observation};
use crate::hash::{SEED_KEY, Seed};
use crate::outcome::Observed;
use crate::request::{Headers, Request};
use crate::response::Response;
use crate::shared::SharedData;
use crate::target::{Knowledge, Target};
use crate::time::Timestamp;
use selection::Selection;

/// A configuration at work.
pub struct Router {
    pub(crate) config: Config,
    pub(crate) seed: Seed,
    pub(crate) bindings: Bindings,
    pub(crate) cursors: Cursors,
}

impl Router {
    /// Puts a configuration to work.
    pub fn new(config: Config, seed: Seed) -> Self {
        let bindings = Bindings::new(config.session.max_bindings, config.routing.ttl);
        let cap = (config.profile == Profile::Reference).then_some(config.routing.max_rotations);
        Self { config, seed, bindings, cursors: Cursors::new(cap) }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every key of shared data that this configuration ever uses.
    pub fn shared_keys(&self) -> impl Iterator<Item = String> + '_ {
        let credentials = self.config.pools.iter().flat_map(|pool| &pool.credentials);
        let cooldowns = credentials.map(|credential| credential.cooldown_key.clone());
        let seed = [SEED_KEY.to_owned()].into_iter();
        seed.chain(self.bindings.keys()).chain(balance::keys(&self.cursors)).chain(cooldowns)
    }

    /// The attributes of Envoy that a request has to bring along, in this order.
    pub fn properties(&self) -> impl Iterator<Item = &[String]> {
        self.config.session.scope.iter().filter_map(|part| match part {
            ScopePart::Property(path) => Some(path.as_slice()),
            ScopePart::Header(_) => None,
        })
    }

    /// Whether a request with these headers must be held until its body is there.
    pub fn must_read_body(&self, headers: &Headers, end_of_stream: bool) -> bool {
        let Config { routing, session, body, pools, .. } = &self.config;
        let settled = || {
            !body.always_read
                && routing.session_affinity
                && session.sources.are_settled_by(headers, Api::of(headers.path(), &headers.host()))
        };
        match Knowledge::of(headers, pools) {
            Knowledge::NoPool => false,
            Knowledge::Pool => headers.announce_json(end_of_stream) && !settled(),
            Knowledge::PoolOfModel => headers.announce_json(end_of_stream),
        }
    }

    /// Reads a body, whole or cut off at any byte.
    pub fn read_body<'a>(&self, bytes: &'a [u8]) -> Body<'a> {
        Body::read(&self.config.body.paths, bytes)
    }

    /// Decides a request at a time given in milliseconds since the epoch.
    pub fn route(
        &self,
        request: &Request<'_>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Decision<'_> {
        let Some(target) = Target::of(request, &self.config.pools, self.config.body.model) else {
            return Decision::Pass;
        };
        Selection::new(self, request, target, shared, now).decide()
    }

    /// What has to be kept of a route until its answer comes.
    pub fn plan(&self, route: &Route<'_>, now: Timestamp) -> Plan {
        let most = self.config.failover.max_attempts.min(1 + route.others.len());
        Plan {
            pool: route.pool.fingerprint,
            api: route.api,
            model: route.model.clone(),
            binding: route.session.map(|(_, key)| key),
            max_attempts: most as u8,
            attempts: 0,
            sent: now,
            current: None,
            result: None,
            next: Some(route.credential.fingerprint),
            rest: route.others.iter().map(|other| other.fingerprint).collect(),
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
        let credential = self.pool_of(plan).zip(current).and_then(|(pool, id)| pool.credential(id));
        let Some(credential) = credential else {
            return Verdict { observed: Observed::Class(Class::Unclear), next: None };
        };
        let observation = self.observation(plan, response, now);
        let updated = self.cooldowns().learn(shared, credential, &plan.model, &observation, now);
        let class = updated.result;
        let written = self.learn_placement(plan, credential.fingerprint, class, shared, now);
        let observed =
            if updated.written && written { Observed::Class(class) } else { Observed::Contended };
        let (result, next) = match class {
            Class::Success => (AttemptResult::Served, None),
            class if class.fails_over(observation.status) => {
                (AttemptResult::Failed, self.next_after_failure(plan, shared, now))
            }
            _ => (AttemptResult::ClientError, None),
        };
        plan.result = Some(result);
        Verdict { observed, next }
    }

    fn observation(&self, plan: &Plan, response: &Response<'_>, now: Timestamp) -> Observation {
        let mut observation =
            Observation { status: response.status(), sent: plan.sent, ..Observation::default() };
        let Response::Received { status, headers, body } = response else {
            return observation;
        };
        observation.message = String::from_utf8_lossy(body).into_owned();
        // The reference leaves it to each provider's client to find out when it may retry.
        if self.config.profile == Profile::Recommended && (*status == 429 || *status >= 500) {
            observation.wait = cooldown::wait(headers, now);
            observation.whole = cooldown::is_for_the_whole_credential(headers);
        }
        observation
    }

    /// Learns where the session is. Tells whether it could be written.
    fn learn_placement(
        &self,
        plan: &Plan,
        asked: CredentialId,
        class: Class,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> bool {
        let returns = self.config.failover.returns != Return::Never;
        match (plan.binding, class, self.config.profile) {
            (Some(key), Class::Success, Profile::Recommended) => {
                self.bindings.confirm(shared, key, asked, returns, now)
            }
            (None, _, _)
            | (_, Class::Success | Class::RequestFault, _)
            | (_, _, Profile::Reference) => true,
            (Some(key), _, Profile::Recommended) => self.bindings.withdraw(shared, key, asked, now),
        }
    }

    /// The bindings, for whoever looks after them.
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// The cooldowns, likewise.
    pub fn cooldowns(&self) -> Cooldowns<'_> {
        Cooldowns { profile: self.config.profile, config: &self.config.cooldown, seed: self.seed }
    }
}
