//! The decision: which credential serves a request.
//!
//! Data in, data out: the request, the shared data and the time are arguments, so every case can be tested without a
//! proxy. [`Router::route`] reads like the specification; the steps are modules that do not call each other.

use std::fmt;

use crate::availability;
use crate::balance::{Cursors, Rotation};
use crate::binding::Bindings;
use crate::config::{Config, Credential, Pool};
use crate::hash::{KeyHash, Seed};
use crate::outcome::Outcome;
use crate::reply::{self, LocalReply};
use crate::request::Request;
use crate::session::{Session, Source};
use crate::shared::SharedData;
use crate::target::Target;

/// What is to become of a request.
#[derive(Clone, Debug)]
pub enum Decision<'c> {
    /// It goes to a credential.
    Route(Route<'c>),
    /// The filter answers it.
    Reply(LocalReply),
    /// No pool serves it: the rest of Envoy's configuration decides.
    Pass,
}

impl Decision<'_> {
    /// The word for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Route(route) => route.outcome,
            Self::Reply(_) => Outcome::Unavailable,
            Self::Pass => Outcome::Unmatched,
        }
    }
}

/// What access logs and the debug log say: `outcome=hit source=header pool=openai credential=openai-a session=1f9c03b7`.
/// A session is told by a few digits of its hash only.
impl fmt::Display for Decision<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "outcome={}", self.outcome().as_str())?;
        let Self::Route(route) = self else {
            return Ok(());
        };
        if let Some((source, _)) = route.session {
            write!(formatter, " source={}", source.as_str())?;
        }
        write!(formatter, " pool={} credential={}", route.pool.name, route.credential.id)?;
        match route.session {
            Some((_, key)) => write!(formatter, " session={:08x}", key.tag()),
            None => Ok(()),
        }
    }
}

/// A request on its way to a credential.
#[derive(Clone, Debug)]
pub struct Route<'c> {
    /// The pool that serves it.
    pub pool: &'c Pool,
    /// The credential that was chosen.
    pub credential: &'c Credential,
    /// Why this one.
    pub outcome: Outcome,
    /// Where the session was found, and the hash it is bound under.
    pub session: Option<(Source, KeyHash)>,
}

/// A configuration at work.
pub struct Router {
    config: Config,
    seed: Seed,
    bindings: Bindings,
    cursors: Cursors,
}

impl Router {
    /// Puts a configuration to work.
    pub fn new(config: Config, seed: Seed) -> Self {
        let bindings = Bindings::new(config.max_bindings, config.routing.ttl);
        Self { config, seed, bindings, cursors: Cursors::default() }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every key of shared data that this configuration ever uses.
    pub fn shared_keys(&self) -> impl Iterator<Item = String> + '_ {
        [crate::hash::SEED_KEY.to_owned()].into_iter().chain(self.bindings.keys()).chain(self.cursors.keys())
    }

    /// Decides a request at a time given in milliseconds since the epoch.
    pub fn route(&self, request: &Request<'_>, shared: &impl SharedData, now: u64) -> Decision<'_> {
        let Some(target) = Target::of(request, &self.config.pools) else {
            return Decision::Pass;
        };
        let case = Case { router: self, request, target, shared, now };
        let route = match case.session() {
            Some(session) => case.settle(&session),
            None => case.choose().map(|credential| case.route(credential, Outcome::None, None)),
        };
        match route {
            Some(route) => Decision::Route(route),
            None => Decision::Reply(reply::unavailable(request, &case.target)),
        }
    }
}

/// One request to be decided.
struct Case<'a, 'c, S> {
    router: &'c Router,
    request: &'a Request<'a>,
    target: Target<'c>,
    shared: &'a S,
    now: u64,
}

impl<'c, S: SharedData> Case<'_, 'c, S> {
    fn session(&self) -> Option<Session> {
        if self.router.config.routing.session_affinity { Session::identify(self.request) } else { None }
    }

    /// The route of a session, which is bound to it from now on. `None` if no credential is ready.
    fn settle(&self, session: &Session) -> Option<Route<'c>> {
        // The strategy is asked once, however often other workers make us look again: a turn taken is a turn used.
        let mut chosen = None;
        let mut choose = || *chosen.get_or_insert_with(|| self.choose());

        let key = self.binding_key(&session.primary());
        let settled = self.router.bindings.settle(self.shared, key, self.now, |bound| {
            let (credential, outcome) = match bound {
                Some(fingerprint) => match availability::bound(self.target.pool, fingerprint) {
                    Some(credential) => (credential, Outcome::Hit),
                    None => (choose()?, Outcome::Rebind),
                },
                None => match self.inherited(session) {
                    Some(credential) => (credential, Outcome::Inherit),
                    None => (choose()?, Outcome::Miss),
                },
            };
            Some((credential.fingerprint, (credential, outcome)))
        })?;
        let (credential, outcome) = settled.result;
        let outcome = if settled.written { outcome } else { Outcome::Contended };
        Some(self.route(credential, outcome, Some((session.source(), key))))
    }

    /// The credential that the strategy gives to a new session.
    fn choose(&self) -> Option<&'c Credential> {
        let Pool { name, provider, .. } = self.target.pool;
        let rotation = Rotation {
            cursors: &self.router.cursors,
            shared: self.shared,
            seed: self.router.seed,
            scope: [name.as_bytes(), provider.as_bytes(), self.target.canonical_model().as_bytes()],
            now: self.now,
        };
        let candidates = availability::ready(self.target.pool, self.request.is_websocket());
        rotation.choose(self.router.config.routing.strategy, &candidates)
    }

    /// The credential of the conversation's first turn, if it was bound under the fallback id and still serves.
    fn inherited(&self, session: &Session) -> Option<&'c Credential> {
        let key = self.binding_key(&session.fallback()?);
        let fingerprint = self.router.bindings.peek(self.shared, key, self.now)?;
        availability::bound(self.target.pool, fingerprint)
    }

    fn binding_key(&self, session_id: &[u8]) -> KeyHash {
        let Pool { name, provider, .. } = self.target.pool;
        let model = self.target.canonical_model();
        self.router.seed.hash(&[name.as_bytes(), provider.as_bytes(), session_id, model.as_bytes()])
    }

    fn route(&self, credential: &'c Credential, outcome: Outcome, session: Option<(Source, KeyHash)>) -> Route<'c> {
        Route { pool: self.target.pool, credential, outcome, session }
    }
}
