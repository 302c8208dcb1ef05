//! The two decisions: which credential serves a request, and what its answer teaches.
//!
//! Data in, data out: the request, the shared data and the time are arguments, so every case can be tested without a
//! proxy. [`Router::route`] reads like the specification; the steps are modules that do not call each other.

use std::fmt;

use crate::api::Api;
use crate::availability::{self, Unready};
use crate::balance::{Cursors, Rotation};
use crate::binding::Bindings;
use crate::body::Body;
use crate::config::{Config, Credential, Pool, Profile, ScopePart};
use crate::cooldown::{self, Block, Class, Cooldowns, Observation, canonical};
use crate::hash::{KeyHash, SEED_KEY, Seed};
use crate::outcome::{Learnt, Outcome};
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
    /// The filter answers it, because no credential is ready.
    Reply(Unready, LocalReply),
    /// No pool serves it: the rest of Envoy's configuration decides.
    Pass,
}

impl Decision<'_> {
    /// The word for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Route(route) => route.outcome,
            Self::Reply(Unready::Cooldown(_), _) => Outcome::ModelCooldown,
            Self::Reply(Unready::Unavailable(_), _) => Outcome::AuthUnavailable,
            Self::Reply(Unready::NotFound, _) => Outcome::AuthNotFound,
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
    /// The model as the client wrote it; empty if it is not known.
    pub model: String,
    /// Why this one.
    pub outcome: Outcome,
    /// Where the session was found, and the hash it is bound under.
    pub session: Option<(&'c str, KeyHash)>,
}

/// What has to be kept of a route until its answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pool: usize,
    credential: usize,
    model: String,
    sent: u64,
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
        seed.chain(self.bindings.keys()).chain(self.cursors.keys()).chain(cooldowns)
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
            None => case.choose(None).map(|credential| case.route(credential, Outcome::None, None)),
        };
        match route {
            Ok(route) => Decision::Route(route),
            Err(unready) => Decision::Reply(unready, case.reply(unready)),
        }
    }

    /// What has to be kept of a route until its answer comes.
    pub fn ticket(&self, route: &Route<'_>, now: u64) -> Option<Ticket> {
        let pool = self.config.pools.iter().position(|pool| pool.name == route.pool.name)?;
        let credential = route.pool.credentials.iter().position(|it| it.id == route.credential.id)?;
        Some(Ticket { pool, credential, model: route.model.clone(), sent: now })
    }

    /// Learns from the answer to a routed request: its status (0 if there was none), its headers, and the beginning of
    /// its body where [`cooldown::depends_on_message`] says that it counts.
    pub fn observe(
        &self,
        ticket: &Ticket,
        status: u16,
        headers: &Headers,
        message: &[u8],
        shared: &impl SharedData,
        now: u64,
    ) -> Learnt {
        let pool = self.config.pools.get(ticket.pool);
        let Some(credential) = pool.and_then(|pool| pool.credentials.get(ticket.credential)) else {
            return Learnt::Class(Class::Unclear);
        };
        let message = String::from_utf8_lossy(message);
        // The reference leaves it to each provider's client to find out when it may be asked again.
        let has_hints = status == 429 || status >= 500;
        let reads_hints = has_hints && self.config.profile == Profile::Recommended;
        let observation = Observation {
            status,
            message: &message,
            wait: if reads_hints { cooldown::wait(headers, now) } else { None },
            whole: reads_hints && cooldown::is_for_the_whole_credential(headers),
            sent: ticket.sent,
        };
        self.learn(credential, &ticket.model, &observation, shared, now)
    }

    /// Learns from what is already known of an answer.
    pub fn learn(
        &self,
        credential: &Credential,
        model: &str,
        observation: &Observation<'_>,
        shared: &impl SharedData,
        now: u64,
    ) -> Learnt {
        let cooldowns = self.cooldowns();
        match cooldowns.learn(shared, credential, model, observation, now) {
            Some(updated) if !updated.written => Learnt::Contended,
            _ => Learnt::Class(cooldowns.class_of(observation)),
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

    /// The route of a session, which is bound to it from now on.
    fn settle(&self, session: &Session<'c>) -> Result<Route<'c>, Unready> {
        // The strategy is asked once, however often other workers make us look again: a turn taken is a turn used.
        let mut chosen = None;
        let mut choose = || *chosen.get_or_insert_with(|| self.choose(Some(&session.primary)));

        let key = self.binding_key(&session.primary);
        let mut failure = Unready::NotFound;
        let settled = self.router.bindings.settle(self.shared, key, self.now, |bound| {
            let choice = match bound {
                Some(fingerprint) => match self.serving(fingerprint) {
                    Some(credential) => Ok((credential, Outcome::Hit)),
                    None => choose().map(|credential| (credential, Outcome::Rebind)),
                },
                None => match self.inherited(session) {
                    Some(credential) => Ok((credential, Outcome::Inherit)),
                    None => choose().map(|credential| (credential, Outcome::Miss)),
                },
            };
            let (credential, outcome) = choice.map_err(|unready| failure = unready).ok()?;
            Some((credential.fingerprint, (credential, outcome)))
        });
        let settled = settled.ok_or(failure)?;
        let (credential, outcome) = settled.result;
        let outcome = if settled.written { outcome } else { Outcome::Contended };
        Ok(self.route(credential, outcome, Some((session.source, key))))
    }

    fn reply(&self, unready: Unready) -> LocalReply {
        let reply = reply::no_credential(&self.target, unready, self.now);
        match (self.router.config.profile, unready) {
            // The reference names a time only where all wait for a quota.
            (Profile::Reference, Unready::Unavailable(_)) => LocalReply { retry_after: None, ..reply },
            _ => reply,
        }
    }

    /// The credential that the strategy gives to a new session.
    fn choose(&self, session: Option<&[u8]>) -> Result<&'c Credential, Unready> {
        let Target { pool, provider, .. } = &self.target;
        let rotation = Rotation {
            cursors: &self.router.cursors,
            shared: self.shared,
            seed: self.router.seed,
            scope: [pool.name.as_bytes(), provider.as_bytes(), canonical(&self.target.model).as_bytes()],
            now: self.now,
        };
        let mut candidates = self.ready()?;
        if self.prefers_websockets() {
            candidates = availability::prefer_websockets(candidates);
        }
        let session = session.map(|id| match self.scope() {
            Some(scope) => [id, &scope.0.to_le_bytes()].concat(),
            None => id.to_vec(),
        });
        let strategy = self.router.config.routing.strategy;
        rotation.choose(strategy, &candidates, session.as_deref()).ok_or(Unready::NotFound)
    }

    /// The credential of the conversation's first turn, if it was bound under the fallback id and still serves.
    fn inherited(&self, session: &Session<'_>) -> Option<&'c Credential> {
        let key = self.binding_key(session.fallback.as_deref()?);
        self.serving(self.router.bindings.peek(self.shared, key, self.now)?)
    }

    /// The credential that a session is bound to, if it may go on serving it. An established binding outranks priority,
    /// because moving a conversation costs its prompt cache; in the reference it does not.
    fn serving(&self, fingerprint: u64) -> Option<&'c Credential> {
        let credential = availability::bound(self.target.pool, fingerprint)?;
        let may = match self.router.config.profile {
            Profile::Recommended => !self.request.tried.contains(&fingerprint) && self.block(credential).is_none(),
            Profile::Reference => self.ready().is_ok_and(|ready| ready.iter().any(|it| it.id == credential.id)),
        };
        may.then_some(credential)
    }

    fn ready(&self) -> Result<Vec<&'c Credential>, Unready> {
        availability::ready(self.target.pool, self.request.tried, |credential| self.block(credential))
    }

    fn block(&self, credential: &Credential) -> Option<Block> {
        self.router.cooldowns().block(self.shared, credential, &self.target.model, self.now)
    }

    fn prefers_websockets(&self) -> bool {
        let is_codex = || self.target.provider.trim().eq_ignore_ascii_case("codex");
        self.request.headers.ask_for_websocket() && (self.router.config.profile == Profile::Recommended || is_codex())
    }

    fn binding_key(&self, session_id: &[u8]) -> KeyHash {
        let Target { pool, provider, model, .. } = &self.target;
        let scope = self.scope().map_or([0; 16], |scope| scope.0.to_le_bytes());
        let key: [&[u8]; 3] = match self.router.config.profile {
            Profile::Recommended => [provider.as_bytes(), session_id, canonical(model).as_bytes()],
            // The reference parts them by colons only, so ids that contain colons can meet: that, too, is recorded.
            Profile::Reference => [&[provider.as_bytes(), session_id, model.as_bytes()].join(&b"::"[..]), b"", b""],
        };
        let [provider, session_id, model] = key;
        self.router.seed.hash(&[pool.name.as_bytes(), &scope, provider, session_id, model])
    }

    /// The hash of what the operator says tells tenants apart, if he says so: the same on every Envoy, for the strategy
    /// `consistent`.
    fn scope(&self) -> Option<KeyHash> {
        if self.router.config.session.scope.is_empty() {
            return None;
        }
        let hash = |values: Vec<&[u8]>| Seed::STABLE.hash(&values).0.to_le_bytes();
        let mut properties = self.request.properties.iter();
        let parts = self.router.config.session.scope.iter().map(|part| match part {
            ScopePart::Header(name) => hash(self.request.headers.all(name).collect()),
            ScopePart::Property(_) => hash(properties.next().map(Vec::as_slice).into_iter().collect()),
        });
        let parts: Vec<_> = parts.collect();
        Some(Seed::STABLE.hash(&parts.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>()))
    }

    fn route(&self, credential: &'c Credential, outcome: Outcome, session: Option<(&'c str, KeyHash)>) -> Route<'c> {
        Route { pool: self.target.pool, credential, model: self.target.model.clone(), outcome, session }
    }
}
