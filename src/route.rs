//! The decision: which credential serves a request.
//!
//! Data in, data out: the request, the shared data and the time are arguments, so every case can be tested without a
//! proxy. [`Router::route`] reads like the specification; the steps are modules that do not call each other.

use std::fmt;

use crate::api::Api;
use crate::availability;
use crate::balance::{Cursors, Rotation};
use crate::binding::Bindings;
use crate::body::Body;
use crate::config::{Config, Credential, Pool, Profile, ScopePart};
use crate::hash::{KeyHash, Seed};
use crate::outcome::Outcome;
use crate::reply::{self, LocalReply};
use crate::request::{Headers, Request};
use crate::session::Session;
use crate::shared::SharedData;
use crate::target::{Target, depends_on_body};

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
            write!(formatter, " source={source}")?;
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
    pub session: Option<(&'c str, KeyHash)>,
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
        let bindings = Bindings::new(config.session.max_bindings, config.routing.ttl);
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
                && session.sources.are_settled_by(headers, Api::of(headers.path(), headers.host()))
                && !depends_on_body(headers, pools)
        };
        headers.announce_json(end_of_stream) && !settled()
    }

    /// Reads a body, whole or cut off at any byte.
    pub fn read_body<'a>(&self, bytes: &'a [u8]) -> Body<'a> {
        Body::read(&self.config.body.paths, bytes)
    }

    /// Decides a request at a time given in milliseconds since the epoch.
    pub fn route(&self, request: &Request<'_>, shared: &impl SharedData, now: u64) -> Decision<'_> {
        let Some(target) = Target::of(request, &self.config.pools, self.config.body.model) else {
            return Decision::Pass;
        };
        let case = Case { router: self, request, target, shared, now };
        let route = match case.session() {
            Some(session) => case.settle(&session),
            None => case.choose().map(|credential| case.route(credential, Outcome::None, None)),
        };
        match route {
            Some(route) => Decision::Route(route),
            None => Decision::Reply(reply::unavailable(&case.target)),
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
    fn session(&self) -> Option<Session<'c>> {
        let Config { routing, session, .. } = &self.router.config;
        if routing.session_affinity { session.sources.identify(self.request) } else { None }
    }

    /// The route of a session, which is bound to it from now on. `None` if no credential is ready.
    fn settle(&self, session: &Session<'c>) -> Option<Route<'c>> {
        // The strategy is asked once, however often other workers make us look again: a turn taken is a turn used.
        let mut chosen = None;
        let mut choose = || *chosen.get_or_insert_with(|| self.choose());

        let key = self.binding_key(&session.primary);
        let settled = self.router.bindings.settle(self.shared, key, self.now, |bound| {
            let (credential, outcome) = match bound {
                Some(fingerprint) => match self.serving(fingerprint) {
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
        Some(self.route(credential, outcome, Some((session.source, key))))
    }

    /// The credential that the strategy gives to a new session.
    fn choose(&self) -> Option<&'c Credential> {
        let Target { pool, provider, .. } = &self.target;
        let rotation = Rotation {
            cursors: &self.router.cursors,
            shared: self.shared,
            seed: self.router.seed,
            scope: [pool.name.as_bytes(), provider.as_bytes(), self.target.canonical_model().as_bytes()],
            now: self.now,
        };
        rotation.choose(self.router.config.routing.strategy, &self.ready())
    }

    /// The credential of the conversation's first turn, if it was bound under the fallback id and still serves.
    fn inherited(&self, session: &Session<'_>) -> Option<&'c Credential> {
        let key = self.binding_key(session.fallback.as_deref()?);
        self.serving(self.router.bindings.peek(self.shared, key, self.now)?)
    }

    /// The credential that a session is bound to, if it may go on serving it. In the reference only the highest priority
    /// may.
    fn serving(&self, fingerprint: u64) -> Option<&'c Credential> {
        let credential = availability::bound(self.target.pool, fingerprint)?;
        let may = match self.router.config.profile {
            Profile::Recommended => true,
            Profile::Reference => {
                let ready = availability::ready(self.target.pool, false);
                ready.iter().any(|ready| ready.id == credential.id)
            }
        };
        may.then_some(credential)
    }

    fn ready(&self) -> Vec<&'c Credential> {
        let websocket = self.request.headers.ask_for_websocket();
        let preferred = match self.router.config.profile {
            Profile::Recommended => websocket,
            Profile::Reference => websocket && self.target.provider.trim().eq_ignore_ascii_case("codex"),
        };
        availability::ready(self.target.pool, preferred)
    }

    fn binding_key(&self, session_id: &[u8]) -> KeyHash {
        let Target { pool, provider, model, .. } = &self.target;
        let model = match self.router.config.profile {
            Profile::Recommended => self.target.canonical_model(),
            Profile::Reference => model,
        };
        let scope = self.scope().0.to_le_bytes();
        let mut parts = vec![pool.name.as_bytes(), provider.as_bytes(), session_id, model.as_bytes()];
        if !self.router.config.session.scope.is_empty() {
            parts.push(&scope);
        }
        self.router.seed.hash(&parts)
    }

    /// The hash of what the operator says tells tenants apart.
    fn scope(&self) -> KeyHash {
        let hash = |values: Vec<&[u8]>| self.router.seed.hash(&values).0.to_le_bytes();
        let mut properties = self.request.properties.iter();
        let parts = self.router.config.session.scope.iter().map(|part| match part {
            ScopePart::Header(name) => hash(self.request.headers.all(name).collect()),
            ScopePart::Property(_) => hash(properties.next().map(Vec::as_slice).into_iter().collect()),
        });
        let parts: Vec<_> = parts.collect();
        self.router.seed.hash(&parts.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    }

    fn route(&self, credential: &'c Credential, outcome: Outcome, session: Option<(&'c str, KeyHash)>) -> Route<'c> {
        Route { pool: self.target.pool, credential, outcome, session }
    }
}
