//! Where a session is placed, given its binding.
//!
//! A placement that follows the binding is only read; a new one is written down at once, for
//! concurrent requests of the session.

use super::selection::Selection;
use crate::availability::{self, Unready};
use crate::binding::{Binding, BoundCredential};
use crate::config::{Credential, CredentialId};
use crate::home::{Circumstances, Destination, HomeStatus};
use crate::outcome::Outcome;
use crate::prompt_cache::Lifetime;
use crate::session::Session;
use crate::shared::SharedData;
use crate::time::Timestamp;

/// Where a session was placed.
pub(super) struct Placed<'c> {
    pub(super) credential: &'c Credential,
    pub(super) outcome: Outcome,
    /// The binding to keep from now on; `None` if it stays as it is.
    pub(super) binding: Option<Binding>,
    /// The credential to try first if this one fails.
    pub(super) second: Option<CredentialId>,
    /// Whether any other may be tried.
    pub(super) has_others: bool,
}

impl<'c, S: SharedData> Selection<'_, 'c, S> {
    /// Where a session with this binding goes, or one without.
    pub(super) fn place(
        &mut self,
        session: &Session<'_>,
        bound: Option<Binding>,
    ) -> Result<Placed<'c>, Unready> {
        let inherited = if bound.is_none() { self.first_turn(session) } else { None };
        let Some(binding) = bound.or(inherited) else {
            return Ok(Placed::at_new_home(self.choose(Some(session))?, Outcome::Miss, self.now));
        };
        let home = availability::bound(self.target.pool, binding.home.credential);
        let block = home.and_then(|home| self.block(home));
        let has_served = binding.home.served.is_some();
        if let Some(home) = home.filter(|_| self.target.pool.strict && has_served) {
            return match block {
                Some(block) => Err(block.into()),
                None => {
                    Ok(Placed { has_others: false, ..Placed::at(home, Outcome::Hit, inherited) })
                }
            };
        }
        if self.is_cold_everywhere(&binding) {
            return Ok(Placed::at_new_home(self.choose(Some(session))?, Outcome::Cold, self.now));
        }
        let status = match home {
            Some(_) if block.is_none() => HomeStatus::Ready,
            Some(_) if has_served => HomeStatus::Blocked,
            // A credential that never served the session is no home to return to.
            Some(_) | None => HomeStatus::Gone,
        };
        self.place_bound(session, binding, inherited, status)
    }

    /// Where a bound session goes, given what its home can do.
    fn place_bound(
        &mut self,
        session: &Session<'_>,
        binding: Binding,
        inherited: Option<Binding>,
        home: HomeStatus,
    ) -> Result<Placed<'c>, Unready> {
        let substitute_is_ready = match binding.substitute {
            Some(substitute) => self.serving(substitute.credential).is_some(),
            None => false,
        };
        let circumstances = Circumstances {
            home,
            substitute_is_ready,
            returns: self.router.config.failover.returns,
            cache_lifetime: self.cache_lifetime().warm,
            now: self.now,
        };
        let placed = match (circumstances.destination(&binding), binding.substitute) {
            (Destination::Stay, _) => {
                let outcome = if inherited.is_some() { Outcome::Inherit } else { Outcome::Hit };
                Placed::at(self.bound(binding.home)?, outcome, inherited)
            }
            (Destination::Return, _) => {
                Placed::at(self.bound(binding.home)?, Outcome::Return, inherited)
            }
            (Destination::Substitute, Some(substitute)) => {
                Placed::at(self.bound(substitute)?, Outcome::Substitute, inherited)
            }
            (Destination::Adopt, Some(substitute)) => {
                let home = Binding::new(substitute, self.now);
                Placed::at(self.bound(substitute)?, Outcome::Rebind, Some(home))
            }
            _ if home == HomeStatus::Gone => {
                Placed::at_new_home(self.choose(Some(session))?, Outcome::Rebind, self.now)
            }
            _ => {
                let chosen = self.choose(Some(session))?;
                let substitute = Some(BoundCredential::chosen(chosen.fingerprint));
                Placed::at(chosen, Outcome::Substitute, Some(Binding { substitute, ..binding }))
            }
        };
        Ok(Placed { second: binding.substitute.map(|substitute| substitute.credential), ..placed })
    }

    /// The reference binds every session to the credential that it picks, at once and for good.
    pub(super) fn place_as_the_reference(
        &mut self,
        session: &Session<'_>,
        bound: Option<Binding>,
    ) -> Result<Placed<'c>, Unready> {
        let (binding, kept, moved) = match bound {
            Some(binding) => (Some(binding), Outcome::Hit, Outcome::Rebind),
            None => (self.first_turn(session), Outcome::Inherit, Outcome::Miss),
        };
        let serving = binding.and_then(|binding| self.serving_in_the_reference(&binding));
        let (credential, outcome) = match serving {
            Some(credential) => (credential, kept),
            None => (self.choose(Some(session))?, moved),
        };
        Ok(Placed::at_new_home(credential, outcome, self.now))
    }

    /// In the reference priority outranks a binding.
    fn serving_in_the_reference(&self, binding: &Binding) -> Option<&'c Credential> {
        let ready = self.ready().ok()?;
        ready.into_iter().find(|it| it.fingerprint == binding.home.credential)
    }

    /// A bound credential, if it may go on serving. An established binding outranks priority,
    /// because moving a session costs its prompt cache.
    fn serving(&self, id: CredentialId) -> Option<&'c Credential> {
        availability::bound(self.target.pool, id).filter(|it| self.block(it).is_none())
    }

    fn bound(&self, bound: BoundCredential) -> Result<&'c Credential, Unready> {
        availability::bound(self.target.pool, bound.credential).ok_or(Unready::NotFound)
    }

    /// Whether a session has no prompt cached anywhere, and no state either as far as its request
    /// shows. Such a session is placed anew, which corrects skew at no cost.
    fn is_cold_everywhere(&self, binding: &Binding) -> bool {
        let idle = self.now.since(binding.used);
        !self.target.pool.strict
            && idle >= Lifetime::least(self.target.pool)
            && idle >= self.cache_lifetime().certain
            && !self.router.config.body.refers_to_state(&self.request.body)
    }

    fn cache_lifetime(&self) -> Lifetime {
        Lifetime::of(self.target.pool, self.target.api, self.request)
    }

    /// The binding of the session's first turn, which had only its fallback id.
    fn first_turn(&self, session: &Session<'_>) -> Option<Binding> {
        let key = self.binding_key(session.fallback.as_deref()?);
        self.router.bindings.peek(self.shared, key, self.now)
    }
}

impl<'c> Placed<'c> {
    fn at(credential: &'c Credential, outcome: Outcome, binding: Option<Binding>) -> Self {
        Self { credential, outcome, binding, second: None, has_others: true }
    }

    pub(super) fn at_new_home(
        credential: &'c Credential,
        outcome: Outcome,
        now: Timestamp,
    ) -> Self {
        let home = BoundCredential::chosen(credential.fingerprint);
        Self::at(credential, outcome, Some(Binding::new(home, now)))
    }
}
