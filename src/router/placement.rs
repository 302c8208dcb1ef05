//! Where a session is placed, given what it is bound to.
//!
//! A place that is kept is only read; a new one is written down at once, for requests of the
//! session that come together.

use super::selection::Case;
use crate::availability::{self, Unready};
use crate::binding::{Binding, BoundCredential};
use crate::config::Credential;
use crate::home::{self, Destination, HomeStatus};
use crate::outcome::Outcome;
use crate::prompt_cache::Lifetime;
use crate::session::Session;
use crate::shared::SharedData;

/// Where a session was placed.
pub(super) struct Placed<'c> {
    pub(super) credential: &'c Credential,
    pub(super) outcome: Outcome,
    /// The binding to keep from now on; `None` if it stays as it is.
    pub(super) binding: Option<Binding>,
    /// Whom to ask first if this one fails.
    pub(super) second: Option<u64>,
    /// Whether any other may be asked.
    pub(super) has_others: bool,
}

impl<'c, S: SharedData> Case<'_, 'c, S> {
    /// Where a session goes that is bound so, or not yet.
    pub(super) fn place(
        &self,
        session: &Session<'_>,
        bound: Option<Binding>,
        choose: &dyn Fn() -> Result<&'c Credential, Unready>,
    ) -> Result<Placed<'c>, Unready> {
        let inherited = if bound.is_none() { self.first_turns(session) } else { None };
        let Some(binding) = bound.or(inherited) else {
            return Ok(Placed::at_new_home(choose()?, Outcome::Miss, self.now));
        };
        let home = availability::bound(self.target.pool, binding.home.credential);
        let block = home.and_then(|home| self.block(home));
        if let Some(home) =
            home.filter(|_| self.target.pool.strict && binding.home.served.is_some())
        {
            return match block {
                Some(block) => Err(block.into()),
                None => {
                    Ok(Placed { has_others: false, ..Placed::at(home, Outcome::Hit, inherited) })
                }
            };
        }
        if self.is_cold_everywhere(&binding) {
            return Ok(Placed::at_new_home(choose()?, Outcome::Cold, self.now));
        }
        let state = match home {
            Some(home) if block.is_none() && !self.is_tried(home) => HomeStatus::Ready,
            Some(_) if binding.home.served.is_some() => HomeStatus::Blocked,
            // One that never served the session is no home to come back to.
            Some(_) | None => HomeStatus::Gone,
        };
        self.place_bound(binding, inherited, state, choose)
    }

    /// Where a session goes whose home can do this now.
    fn place_bound(
        &self,
        binding: Binding,
        inherited: Option<Binding>,
        home: HomeStatus,
        choose: &dyn Fn() -> Result<&'c Credential, Unready>,
    ) -> Result<Placed<'c>, Unready> {
        let credential = |place: BoundCredential| {
            availability::bound(self.target.pool, place.credential).ok_or(Unready::NotFound)
        };
        let substitute = || binding.substitute.ok_or(Unready::NotFound);
        let is_ready =
            || substitute().is_ok_and(|substitute| self.serving(substitute.credential).is_some());
        let lifetime = || self.cache_lifetime().warm;
        let returns = self.router.config.failover.returns;
        let placed = match home::destination(&binding, home, is_ready, returns, lifetime, self.now)
        {
            Destination::Stay => {
                let outcome = if inherited.is_some() { Outcome::Inherit } else { Outcome::Hit };
                Placed::at(credential(binding.home)?, outcome, inherited)
            }
            Destination::Return => {
                Placed::at(credential(binding.home)?, Outcome::Return, inherited)
            }
            Destination::Substitute => {
                Placed::at(credential(substitute()?)?, Outcome::Substitute, inherited)
            }
            Destination::Adopt => {
                let home = Binding::new(substitute()?, self.now);
                Placed::at(credential(substitute()?)?, Outcome::Rebind, Some(home))
            }
            Destination::Elsewhere if home == HomeStatus::Gone => {
                Placed::at_new_home(choose()?, Outcome::Rebind, self.now)
            }
            Destination::Elsewhere => {
                let chosen = choose()?;
                let substitute = Some(BoundCredential::chosen(chosen.fingerprint));
                Placed::at(chosen, Outcome::Substitute, Some(Binding { substitute, ..binding }))
            }
        };
        Ok(Placed { second: binding.substitute.map(|substitute| substitute.credential), ..placed })
    }

    /// The reference binds whom it picks, at once and for good.
    pub(super) fn place_as_the_reference(
        &self,
        session: &Session<'_>,
        bound: Option<Binding>,
        choose: &dyn Fn() -> Result<&'c Credential, Unready>,
    ) -> Result<Placed<'c>, Unready> {
        let serving = |binding: Binding| self.serving(binding.home.credential);
        let (credential, outcome) = match bound {
            Some(binding) => match serving(binding) {
                Some(credential) => (credential, Outcome::Hit),
                None => (choose()?, Outcome::Rebind),
            },
            None => match self.first_turns(session).and_then(serving) {
                Some(credential) => (credential, Outcome::Inherit),
                None => (choose()?, Outcome::Miss),
            },
        };
        Ok(Placed::at_new_home(credential, outcome, self.now))
    }

    /// Whether a session has no prompt cached anywhere, and no state either as far as its request
    /// tells: it is free to be placed anew, which mends skew at no cost.
    fn is_cold_everywhere(&self, binding: &Binding) -> bool {
        let idle = self.now.saturating_sub(binding.used);
        let body = &self.request.body;
        let refers_to_state =
            || self.router.config.body.state.iter().any(|&path| body.get(path).is_some());
        !self.target.pool.strict
            && idle >= Lifetime::least(self.target.pool)
            && idle >= self.cache_lifetime().certain
            && !refers_to_state()
    }

    fn cache_lifetime(&self) -> Lifetime {
        Lifetime::of(self.target.pool, self.target.api, self.request)
    }

    /// The binding of the conversation's first turn, which had only its fallback id.
    fn first_turns(&self, session: &Session<'_>) -> Option<Binding> {
        let key = self.binding_key(session.fallback.as_deref()?);
        self.router.bindings.peek(self.shared, key, self.now)
    }
}

impl<'c> Placed<'c> {
    fn at(credential: &'c Credential, outcome: Outcome, binding: Option<Binding>) -> Self {
        Self { credential, outcome, binding, second: None, has_others: true }
    }

    fn at_new_home(credential: &'c Credential, outcome: Outcome, now: u64) -> Self {
        Self::at(
            credential,
            outcome,
            Some(Binding::new(BoundCredential::chosen(credential.fingerprint), now)),
        )
    }
}
