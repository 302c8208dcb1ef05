//! One request on its way to a decision. The steps (session, binding, availability, balance, reply) are modules that do
//! not call each other; here they are put together, and it reads like the specification.

use std::cell::Cell;

use crate::availability::{self, Unready};
use crate::balance::Rotation;
use crate::config::{Config, Credential, Profile, ScopePart};
use crate::cooldown::{Block, canonical};
use crate::hash::{KeyHash, Seed};
use crate::outcome::Outcome;
use crate::reply::{self, LocalReply};
use crate::request::Request;
use crate::route::{Decision, Route, Router};
use crate::session::Session;
use crate::shared::SharedData;
use crate::target::Target;

/// One request to be decided.
pub(crate) struct Case<'a, 'c, S> {
    pub(crate) router: &'c Router,
    pub(crate) request: &'a Request<'a>,
    pub(crate) target: Target<'c>,
    pub(crate) shared: &'a S,
    pub(crate) now: u64,
    /// Whether something could not be written, because other workers wrote it in every attempt.
    pub(crate) contended: Cell<bool>,
}

impl<'c, S: SharedData> Case<'_, 'c, S> {
    /// Which credential serves the request.
    pub(crate) fn decide(&self) -> Decision<'c> {
        let route = match self.session() {
            Some(session) => self.settle(&session),
            None => self.choose(None).map(|credential| self.route(credential, Outcome::None, None)),
        };
        match route {
            Ok(route) => Decision::Route(route),
            Err(unready) => Decision::Reply(unready, self.reply(unready)),
        }
    }

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
        self.contended.set(self.contended.get() || !settled.written);
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
            contended: &self.contended,
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
        let outcome = if self.contended.get() { Outcome::Contended } else { outcome };
        Route { pool: self.target.pool, credential, model: self.target.model.clone(), outcome, session }
    }
}
