//! The decision about one request, step by step.
//!
//! The steps (session, binding, availability, balance, reply) are modules that do not call each
//! other; here they are put together.

use super::placement::{Others, Placed};
use super::state::Followed;
use super::{Decision, Refusal, Route, Router, StateUse};
use crate::availability::{self, Candidates, Unready};
use crate::balance::{Order, Rotation};
use crate::config::{Ciphertext, Credential, CredentialId, Profile, Strategy, WhenBlocked};
use crate::cooldown::Block;
use crate::group;
use crate::hash::{KeyHash, Seed};
use crate::outcome::{Absence, Outcome};
use crate::pins::Pin;
use crate::reply::{self, LocalReply};
use crate::request::Request;
use crate::session::{IsBound, Session, caller};
use crate::shared::{CAS_RETRIES, Note, SharedData};
use crate::target::Target;
use crate::time::Timestamp;

/// One request to be decided.
pub(super) struct Selection<'a, 'c, S> {
    pub(super) router: &'c Router,
    pub(super) request: &'a Request<'a>,
    pub(super) target: Target<'c>,
    pub(super) tenant_scope: Option<KeyHash>,
    pub(super) shared: &'a S,
    pub(super) now: Timestamp,
    /// What was chosen. The strategy is consulted once, however often another worker makes us look
    /// again: a turn that was taken is used.
    chosen: Option<Result<Choice<'c>, Unready>>,
    /// What the request has to do with state that a provider keeps.
    pub(super) state: StateUse,
    /// The blocks that were met on the way, for the words of the decision.
    blocked: Vec<(&'c Credential, Block)>,
    /// When the session was last used.
    pub(super) used: Option<Timestamp>,
    /// The credential that should serve it, and why it would not.
    pub(super) home: Option<(Option<&'c Credential>, Absence)>,
    /// Credentials whose announced limit is due for a probe.
    due: Vec<CredentialId>,
    /// Whether something could not be written, because other workers wrote it in every try.
    contended: bool,
}

/// A credential that was chosen.
#[derive(Clone, Copy)]
pub(super) struct Choice<'c> {
    pub(super) credential: &'c Credential,
    /// Whether it is the last resort: no credential is ready.
    pub(super) is_probe: bool,
}

impl<'a, 'c, S: SharedData> Selection<'a, 'c, S> {
    pub(super) fn new(
        router: &'c Router,
        request: &'a Request<'a>,
        target: Target<'c>,
        state: StateUse,
        shared: &'a S,
        now: Timestamp,
    ) -> Self {
        Self {
            router,
            request,
            target,
            tenant_scope: state.tenant,
            state,
            shared,
            now,
            chosen: None,
            blocked: Vec::new(),
            used: None,
            home: None,
            due: Vec::new(),
            contended: false,
        }
    }

    /// Which credential serves the request; `pin` says who has what it refers to.
    pub(super) fn decide(mut self, pin: Option<Pin>) -> Decision<'c> {
        let session = self.session();
        let followed = match pin {
            Some(pin) => self.follow(pin),
            None => Ok(None),
        };
        let route = match (followed, &session) {
            (Err(unready), _) => Err(unready),
            (Ok(Some(followed)), session) => Ok(self.route_to_state(followed, session.as_ref())),
            (Ok(None), Some(session)) => self.settle(session),
            (Ok(None), None) => self.choose(None, None).map(|Choice { credential, is_probe }| {
                let others = self.others(credential, None, None);
                let outcome = if is_probe { Outcome::Probe } else { Outcome::None };
                self.route(credential, outcome, None, others)
            }),
        };
        match route {
            Ok(route) => Decision::Route(route),
            Err(unready) => Decision::Reply(Refusal {
                unready,
                pool: self.target.pool,
                session: session.map(|it| (it.source, self.binding_key(&it.primary))),
                reply: self.reply(unready),
                blocked: self.blocked,
                decided: self.now,
            }),
        }
    }

    /// The route of a request that goes where its state is.
    fn route_to_state(
        &mut self,
        followed: Followed<'c>,
        session: Option<&Session<'c>>,
    ) -> Route<'c> {
        let Followed { credential, outcome } = followed;
        self.state.is_pinned = true;
        let session = session.map(|it| (it.source, self.binding_key(&it.primary)));
        let others = match self.router.config.pins.when_blocked {
            WhenBlocked::Wait => self.siblings_of(credential),
            WhenBlocked::Elsewhere => self.others(credential, None, None),
        };
        self.route(credential, outcome, session, others)
    }

    fn session(&self) -> Option<Session<'c>> {
        let config = &self.router.config;
        if !config.routing.session_affinity {
            return None;
        }
        let is_bound = |id: &[u8]| {
            let key = self.binding_key(id);
            self.router.bindings.peek(self.shared, key, self.now).is_some()
        };
        let is_consistent = config.routing.strategy == Strategy::Consistent;
        let is_bound: Option<&IsBound<'_>> = (!is_consistent).then_some(&is_bound);
        let session = config.session.sources.identify_bound(self.request, is_bound);
        session.map(Session::of_agent).or_else(|| self.caller())
    }

    /// A WebSocket that names no session goes by its caller.
    fn caller(&self) -> Option<Session<'c>> {
        if self.router.config.profile == Profile::Reference {
            return None;
        }
        let caller = caller(self.request.headers, self.tenant_scope, self.fleet())?;
        let id = [b"caller:".as_slice(), &caller.0.to_le_bytes()].concat();
        Some(Session::new("caller", id, None))
    }

    /// Settles where a session goes: reads its binding, places it, and writes the new binding if
    /// there is one. If another worker wrote first, the session is placed again with what that one
    /// left; so of two workers that bind one session at once, both follow the first.
    fn settle(&mut self, session: &Session<'c>) -> Result<Route<'c>, Unready> {
        let key = self.binding_key(&session.primary);
        for _ in 0..CAS_RETRIES {
            let slot = self.router.bindings.slot(self.shared, key, self.now);
            let placed = match self.router.config.profile {
                Profile::Recommended => self.place(session, slot.binding())?,
                Profile::Reference => self.place_as_the_reference(session, slot.binding())?,
            };
            let written = placed.binding.map_or(Ok(()), |binding| slot.write(binding, self.now));
            if written.is_ok() {
                return Ok(self.route_of(session, key, placed));
            }
        }
        self.contended = true;
        self.shared.note(Note::Contended);
        let choice = self.choose(Some(session), None)?;
        let placed = Placed::at_new_home(choice, Outcome::Contended, self.now);
        Ok(self.route_of(session, key, placed))
    }

    fn route_of(&mut self, session: &Session<'c>, key: KeyHash, placed: Placed<'c>) -> Route<'c> {
        let Placed { credential, outcome, second, others, .. } = placed;
        let others = match others {
            Others::All => self.others(credential, second, Some((&session.primary, key))),
            Others::Siblings => self.siblings_of(credential),
            Others::None => Vec::new(),
        };
        self.route(credential, outcome, Some((session.source, key)), others)
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

    /// The credential that a new session gets, or a request without one. `avoided` gets it only if
    /// there is no other.
    pub(super) fn choose(
        &mut self,
        session: Option<&Session<'_>>,
        avoided: Option<CredentialId>,
    ) -> Result<Choice<'c>, Unready> {
        if let Some(chosen) = self.chosen {
            return chosen;
        }
        let id = session.map(|session| self.with_tenant_scope(&session.primary));
        let chosen = match self.router.config.profile {
            Profile::Recommended => self.choose_or_probe(id.as_deref(), avoided),
            Profile::Reference => self.candidates().ready().and_then(|ready| {
                let credential = self.consult_strategy(ready, id.as_deref())?;
                Ok(Choice { credential, is_probe: false })
            }),
        };
        self.chosen = Some(chosen);
        chosen
    }

    /// A ready credential, or else the last resort: a request is refused only where every candidate
    /// waits for an end that a provider announced. Of requests that come together one probes the
    /// credential whose block ends first; the others follow the strategy.
    fn choose_or_probe(
        &mut self,
        session: Option<&[u8]>,
        avoided: Option<CredentialId>,
    ) -> Result<Choice<'c>, Unready> {
        let candidates = self.candidates();
        let unready = match candidates.ready() {
            Ok(mut ready) => {
                if ready.len() > 1 {
                    ready.retain(|credential| Some(credential.fingerprint) != avoided);
                }
                let ready = self.prefer_group(ready, avoided);
                let ready = self.prefer_other_parents(ready, avoided);
                let credential = self.consult_strategy(ready, session)?;
                return Ok(Choice { credential, is_probe: false });
            }
            Err(unready) => unready,
        };
        let failing = candidates.last_resort();
        let Some((first, _)) = failing.iter().min_by_key(|(_, until)| *until) else {
            return Err(candidates.announced().map_or(unready, Unready::RateLimited));
        };
        let subject = self.target.subject();
        let credential =
            if self.router.cooldowns().claim_probe(self.shared, first, subject, self.now) {
                first
            } else {
                let failing = failing.iter().map(|(credential, _)| *credential).collect();
                self.consult_strategy(availability::highest(failing), session)?
            };
        Ok(Choice { credential, is_probe: true })
    }

    /// Those of the group of a session's home, if it has to leave that: they share its caches. After
    /// a limit, which they may share as well, the others, unless only the group can read what the
    /// request carries.
    fn prefer_group(
        &self,
        ready: Vec<&'c Credential>,
        home: Option<CredentialId>,
    ) -> Vec<&'c Credential> {
        let home = home.and_then(|home| self.target.pool.credential(home));
        let group = home
            .filter(|_| self.router.config.failover.ciphertext != Ciphertext::Any)
            .and_then(|home| Some((home, group::of(home, self.shared)?)));
        let Some((home, group)) = group else { return ready };
        let is_limited = !self.state.has_ciphertext
            && self.blocked.iter().any(|(credential, block)| {
                credential.fingerprint == home.fingerprint && block.is_limit()
            });
        let preferred: Vec<_> = (ready.iter().copied())
            .filter(|it| (group::of(it, self.shared) == Some(group)) != is_limited)
            .collect();
        if preferred.is_empty() { ready } else { preferred }
    }

    /// With `consistent`, those of another parent than the home of a session that has to leave that:
    /// the order in which an attempt at the home is followed by others.
    fn prefer_other_parents(
        &self,
        ready: Vec<&'c Credential>,
        home: Option<CredentialId>,
    ) -> Vec<&'c Credential> {
        let home = home.and_then(|home| self.target.pool.credential(home));
        let parent = home.and_then(|home| home.parent.as_ref());
        let is_consistent = self.router.config.routing.strategy == Strategy::Consistent;
        let Some(parent) = parent.filter(|_| is_consistent) else { return ready };
        let others: Vec<_> =
            ready.iter().copied().filter(|it| it.parent.as_ref() != Some(parent)).collect();
        if others.is_empty() { ready } else { others }
    }

    fn consult_strategy(
        &mut self,
        mut candidates: Vec<&'c Credential>,
        session: Option<&[u8]>,
    ) -> Result<&'c Credential, Unready> {
        if self.prefers_websockets() {
            candidates = availability::prefer_websockets(candidates);
        }
        let Target { pool, provider, canonical_model, .. } = &self.target;
        let strategy = self.router.config.routing.strategy;
        if self.router.config.profile == Profile::Recommended {
            let headroom = self.router.headroom();
            let (shared, now) = (self.shared, self.now);
            if strategy == Strategy::Headroom {
                let request = (session.unwrap_or_default(), canonical_model.as_str());
                let picked = headroom.pick(&candidates, pool, request, shared, now);
                self.contended |= !picked.written;
                return picked.result.ok_or(Unready::NotFound);
            }
            candidates = headroom.with_room(candidates, pool, canonical_model, shared, now);
        }
        let model = self.bound_model();
        let mut rotation = Rotation {
            cursors: &self.router.cursors,
            shared: self.shared,
            seed: self.router.seed,
            fleet: self.fleet(),
            rotation_key: [pool.name.as_bytes(), provider.as_bytes(), model.as_bytes()],
            begins_anywhere: self.router.config.profile == Profile::Recommended,
            now: self.now,
            contended: false,
        };
        let chosen = rotation.choose(strategy, &candidates, session);
        self.contended |= rotation.contended;
        chosen.ok_or(Unready::NotFound)
    }

    /// The credentials to try after the first one, in order. Whether they are ready is checked when
    /// they are needed.
    fn others(
        &self,
        first: &Credential,
        second: Option<CredentialId>,
        session: Option<(&[u8], KeyHash)>,
    ) -> Vec<&'c Credential> {
        if self.router.config.failover.max_attempts < 2 {
            return Vec::new();
        }
        let others: Vec<_> = (self.target.pool.credentials.iter())
            .filter(|other| availability::takes_new_sessions(other))
            .filter(|other| other.fingerprint != first.fingerprint)
            .collect();
        let strategy = self.router.config.routing.strategy;
        let id = match session {
            Some((id, _)) if strategy == Strategy::Consistent => self.with_tenant_scope(id),
            _ => Vec::new(),
        };
        let order = Order {
            strategy,
            fleet: self.fleet(),
            first,
            session: session.map(|(_, key)| (id.as_slice(), key)),
            second,
            prefers_websockets: self.prefers_websockets(),
        };
        order.sort(&others)
    }

    pub(super) fn fleet(&self) -> Seed {
        Seed::of_fleet(&self.router.config.routing.seed, &self.target.pool.name)
    }

    /// What `consistent` goes by: a session's id, and the hash of its tenants if there is one.
    pub(super) fn with_tenant_scope(&self, id: &[u8]) -> Vec<u8> {
        match self.tenant_scope {
            Some(scope) => [id, &scope.0.to_le_bytes()].concat(),
            None => id.to_vec(),
        }
    }

    pub(super) fn candidates(&mut self) -> Candidates<'c> {
        Candidates::of(self.target.pool, |credential| self.block_of(credential, true))
    }

    /// Why a credential may not serve a session that is bound to it.
    pub(super) fn block(&mut self, credential: &'c Credential) -> Option<Block> {
        self.block_of(credential, false)
    }

    /// Why a credential may not be used now. An announced limit that is due for a probe is no
    /// reason.
    #[inline(never)]
    pub(super) fn block_of(&mut self, credential: &'c Credential, is_new: bool) -> Option<Block> {
        let Target { model, .. } = &self.target;
        let (shared, now, subject) = (self.shared, self.now, self.target.subject());
        let block = match self.router.config.profile {
            Profile::Recommended if is_new => {
                self.router.cooldowns().block_for_new(shared, credential, subject, now)
            }
            Profile::Recommended => self.router.cooldowns().block(shared, credential, subject, now),
            Profile::Reference => {
                self.router.reference_cooldowns().block(shared, credential, model, now)
            }
        }?;
        if block.is_due(now) {
            self.due.push(credential.fingerprint);
            return None;
        }
        if self.blocked.iter().all(|(other, _)| other.fingerprint != credential.fingerprint) {
            self.blocked.push((credential, block));
        }
        Some(block)
    }

    pub(super) fn prefers_websockets(&self) -> bool {
        self.request.headers.ask_for_websocket()
            && (self.router.config.profile == Profile::Recommended
                || self.target.provider.trim().eq_ignore_ascii_case("codex"))
    }

    /// The model as far as bindings and rotations depend on it. Where headers settle the session, a
    /// binding is for all its models: whether the model was found must not matter.
    fn bound_model(&self) -> &str {
        if self.request.body.is_settled() { "" } else { &self.target.canonical_model }
    }

    /// The key that a session is bound under.
    pub(super) fn binding_key(&self, session_id: &[u8]) -> KeyHash {
        let Target { pool, provider, model, .. } = &self.target;
        let seed = self.router.seed;
        match self.router.config.profile {
            Profile::Recommended => {
                let key = seed.session(
                    &pool.name,
                    self.tenant_scope,
                    provider,
                    session_id,
                    self.bound_model(),
                );
                self.tenant_scope
                    .map_or(key, |tenant| key.within(seed.hash(&[&tenant.0.to_le_bytes()])))
            }
            // The reference separates them by colons only, so ids that contain colons can collide:
            // that, too, is recorded.
            Profile::Reference => {
                let id = [provider.as_bytes(), session_id, model.as_bytes()].join(&b"::"[..]);
                seed.session(&pool.name, self.tenant_scope, "", &id, "")
            }
        }
    }

    fn route(
        &mut self,
        credential: &'c Credential,
        outcome: Outcome,
        session: Option<(&'c str, KeyHash)>,
        others: Vec<&'c Credential>,
    ) -> Route<'c> {
        let subject = self.target.subject();
        let is_due = self.due.contains(&credential.fingerprint);
        if is_due {
            // Whether this request or another one got the claim: the next one waits its turn.
            self.router.cooldowns().claim_probe(self.shared, credential, subject, self.now);
        }
        let is_probe = is_due || outcome == Outcome::Probe;
        let outcome = if self.contended { Outcome::Contended } else { outcome };
        let Target { pool, api, operation, model, .. } = &self.target;
        let absent = self
            .home
            .take()
            .filter(|(home, _)| home.is_none_or(|home| home.fingerprint != credential.fingerprint));
        Route {
            pool,
            credential,
            others,
            api: *api,
            operation: *operation,
            model: model.clone(),
            outcome,
            session,
            state: std::mem::take(&mut self.state),
            used: self.used,
            absent,
            is_probe,
            blocked: std::mem::take(&mut self.blocked),
            decided: self.now,
        }
    }
}
