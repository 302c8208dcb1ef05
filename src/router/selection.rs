//! One request on its way to a decision. The steps (session, binding, availability, balance, reply)
//! are modules that do not call each other; here they are put together, and it reads like the
//! specification.

use std::cell::{Cell, OnceCell};

use super::placement::Placed;
use super::{Decision, Route, Router};
use crate::availability::{self, Unready};
use crate::balance::{self, Rotation};
use crate::config::{Config, Credential, Profile, ScopePart, Strategy};
use crate::cooldown::{Block, canonical};
use crate::hash::{KeyHash, Seed};
use crate::outcome::Outcome;
use crate::reply::{self, LocalReply};
use crate::request::Request;
use crate::session::Session;
use crate::shared::SharedData;
use crate::target::Target;

/// One request to be decided.
pub(super) struct Case<'a, 'c, S> {
    pub(super) router: &'c Router,
    pub(super) request: &'a Request<'a>,
    pub(super) target: Target<'c>,
    pub(super) shared: &'a S,
    pub(super) now: u64,
    /// Whether something could not be written, because other workers wrote it in every attempt.
    pub(super) contended: Cell<bool>,
}

impl<'c, S: SharedData> Case<'_, 'c, S> {
    /// Which credential serves the request.
    pub(super) fn decide(&self) -> Decision<'c> {
        let route = match self.session() {
            Some(session) => self.settle(&session),
            None => self.choose(None).map(|credential| {
                let others = self.others(credential, None, None);
                self.route(credential, Outcome::None, None, others)
            }),
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

    /// The route of a session.
    fn settle(&self, session: &Session<'c>) -> Result<Route<'c>, Unready> {
        // The strategy is asked once, however often other workers make us look again: a turn taken
        // is a turn used.
        let chosen = OnceCell::new();
        let choose = || *chosen.get_or_init(|| self.choose(Some(&session.primary)));

        let key = self.binding_key(&session.primary);
        let settled = self.router.bindings.settle(self.shared, key, self.now, |bound| {
            let placed = match self.router.config.profile {
                Profile::Recommended => self.place(session, bound, &choose),
                Profile::Reference => self.place_as_the_reference(session, bound, &choose),
            };
            let binding = placed.as_ref().ok().and_then(|placed| placed.binding);
            (placed, binding)
        });
        self.contended.set(self.contended.get() || !settled.written);
        let Placed { credential, outcome, second, has_others, .. } = settled.result?;
        let others = if has_others {
            self.others(credential, second, Some((&session.primary, key)))
        } else {
            Vec::new()
        };
        Ok(self.route(credential, outcome, Some((session.source, key)), others))
    }

    fn reply(&self, unready: Unready) -> LocalReply {
        let reply = reply::no_credential(&self.target, unready, self.now);
        match (self.router.config.profile, unready) {
            // The reference names a time only where all wait for a quota.
            (Profile::Reference, Unready::Unavailable(_)) => {
                LocalReply { retry_after: None, ..reply }
            }
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
            scope: [
                pool.name.as_bytes(),
                provider.as_bytes(),
                canonical(&self.target.model).as_bytes(),
            ],
            now: self.now,
            contended: &self.contended,
        };
        let mut candidates = self.ready()?;
        if self.prefers_websockets() {
            candidates = availability::prefer_websockets(candidates);
        }
        let session = session.map(|id| self.with_scope(id));
        let strategy = self.router.config.routing.strategy;
        rotation.choose(strategy, &candidates, session.as_deref()).ok_or(Unready::NotFound)
    }

    /// Who may be asked after the first one, in order. Whether they are ready is seen when they are
    /// needed.
    fn others(
        &self,
        first: &Credential,
        second: Option<u64>,
        session: Option<(&[u8], KeyHash)>,
    ) -> Vec<&'c Credential> {
        if self.router.config.failover.max_attempts < 2 {
            return Vec::new();
        }
        let may_follow = |other: &&Credential| {
            availability::takes_new_sessions(other)
                && other.fingerprint != first.fingerprint
                && !self.is_tried(other)
        };
        let others: Vec<_> = self.target.pool.credentials.iter().filter(may_follow).collect();
        let strategy = self.router.config.routing.strategy;
        let id =
            session.filter(|_| strategy == Strategy::Consistent).map(|(id, _)| self.with_scope(id));
        let session = session.map(|(_, key)| (id.as_deref().unwrap_or_default(), key));
        let prefers_websockets = self.prefers_websockets();
        balance::in_order(strategy, &others, first, session, |other| {
            let is_second = second == Some(other.fingerprint);
            2 * u8::from(is_second) + u8::from(prefers_websockets && other.websockets)
        })
    }

    /// What `consistent` goes by: a session's id, and the hash of its scope if there is one.
    fn with_scope(&self, id: &[u8]) -> Vec<u8> {
        match self.scope() {
            Some(scope) => [id, &scope.0.to_le_bytes()].concat(),
            None => id.to_vec(),
        }
    }

    pub(super) fn is_tried(&self, credential: &Credential) -> bool {
        self.request.tried.contains(&credential.fingerprint)
    }

    /// The credential that a session is bound to, if it may go on serving it. An established
    /// binding outranks priority, because moving a conversation costs its prompt cache; in the
    /// reference it does not.
    pub(super) fn serving(&self, fingerprint: u64) -> Option<&'c Credential> {
        let credential = availability::bound(self.target.pool, fingerprint)?;
        let may = match self.router.config.profile {
            Profile::Recommended => !self.is_tried(credential) && self.block(credential).is_none(),
            Profile::Reference => {
                self.ready().is_ok_and(|ready| ready.iter().any(|it| it.id == credential.id))
            }
        };
        may.then_some(credential)
    }

    fn ready(&self) -> Result<Vec<&'c Credential>, Unready> {
        availability::ready(self.target.pool, self.request.tried, |credential| {
            self.block(credential)
        })
    }

    pub(super) fn block(&self, credential: &Credential) -> Option<Block> {
        self.router.cooldowns().block(self.shared, credential, &self.target.model, self.now)
    }

    fn prefers_websockets(&self) -> bool {
        let is_codex = || self.target.provider.trim().eq_ignore_ascii_case("codex");
        self.request.headers.ask_for_websocket()
            && (self.router.config.profile == Profile::Recommended || is_codex())
    }

    pub(super) fn binding_key(&self, session_id: &[u8]) -> KeyHash {
        let Target { pool, provider, model, .. } = &self.target;
        let scope = self.scope().map_or([0; 16], |scope| scope.0.to_le_bytes());
        let key: [&[u8]; 3] = match self.router.config.profile {
            Profile::Recommended => [provider.as_bytes(), session_id, canonical(model).as_bytes()],
            // The reference parts them by colons only, so ids that contain colons can meet: that,
            // too, is recorded.
            Profile::Reference => {
                [&[provider.as_bytes(), session_id, model.as_bytes()].join(&b"::"[..]), b"", b""]
            }
        };
        let [provider, session_id, model] = key;
        self.router.seed.hash(&[pool.name.as_bytes(), &scope, provider, session_id, model])
    }

    /// The hash of what the operator says tells tenants apart, if he says so: the same on every
    /// Envoy, for the strategy `consistent`.
    fn scope(&self) -> Option<KeyHash> {
        if self.router.config.session.scope.is_empty() {
            return None;
        }
        let hash = |values: Vec<&[u8]>| Seed::STABLE.hash(&values).0.to_le_bytes();
        let mut properties = self.request.properties.iter();
        let parts = self.router.config.session.scope.iter().map(|part| match part {
            ScopePart::Header(name) => hash(self.request.headers.all(name).collect()),
            ScopePart::Property(_) => {
                hash(properties.next().map(Vec::as_slice).into_iter().collect())
            }
        });
        let parts: Vec<_> = parts.collect();
        Some(Seed::STABLE.hash(&parts.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>()))
    }

    fn route(
        &self,
        credential: &'c Credential,
        outcome: Outcome,
        session: Option<(&'c str, KeyHash)>,
        others: Vec<&'c Credential>,
    ) -> Route<'c> {
        let outcome = if self.contended.get() { Outcome::Contended } else { outcome };
        let Target { pool, api, model, .. } = &self.target;
        Route { pool, credential, others, api: *api, model: model.clone(), outcome, session }
    }
}
