//! Where a session is placed, given its binding.
//!
//! A placement that follows the binding is only read; a new one is written down at once, for
//! concurrent requests of the session.

use std::time::Duration;

use super::selection::{Choice, Selection};
use crate::availability::{self, Unready};
use crate::binding::{Binding, BoundCredential, HomeRule};
use crate::config::{Ciphertext, Credential, CredentialId, carries_ciphertext};
use crate::cooldown::Block;
use crate::home::{Circumstances, Destination, HomeStatus};
use crate::operation::Operation;
use crate::outcome::{Absence, Outcome};
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
    /// Which others may be tried.
    pub(super) others: Others,
}

/// Which other credentials may serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Every one.
    All,
    /// Those of the same group.
    Siblings,
    /// None.
    None,
}

impl<'c, S: SharedData> Selection<'_, 'c, S> {
    /// Where a session with this binding goes, or one without.
    pub(super) fn place(
        &mut self,
        session: &Session<'_>,
        bound: Option<Binding>,
    ) -> Result<Placed<'c>, Unready> {
        let is_common = self.router.home_rule(self.target.pool) == HomeRule::Common;
        if is_common && let Some(placed) = self.place_at_common_home(session, bound) {
            return placed;
        }
        let inherited = if bound.is_none() { self.first_turn(session) } else { None };
        let Some(binding) = bound.or(inherited) else {
            return self.place_anew(session, Outcome::Miss);
        };
        let home = availability::bound(self.target.pool, binding.home.credential);
        let block = home.and_then(|home| self.block(home));
        // What an operator has released is as good as removed.
        let home = home.filter(|_| block != Some(Block::Disabled));
        let has_served = binding.home.served.is_some();
        let why = match (home, block) {
            (Some(_), Some(block)) if has_served => Absence::Blocked(block.class()),
            (Some(_), None) if binding.avoids_home(self.now) => Absence::Failed,
            (Some(_), None) => Absence::Cold,
            _ => Absence::Gone,
        };
        (self.used, self.home) = (Some(binding.used), Some((home, why)));
        if let Some(home) = home.filter(|_| self.target.pool.strict && has_served) {
            return Placed::strictly_at(home, block, inherited);
        }
        if let Some(home) = home.filter(|_| has_served) {
            self.state.home = Some(home.fingerprint);
            self.state.has_ciphertext = self.may_carry_ciphertext();
            if self.is_bound_to_group() {
                return self.place_in_group(home, block, binding, inherited);
            }
        }
        if self.is_cold_everywhere(&binding) {
            return self.place_anew(session, Outcome::Cold);
        }
        if let Some(home) = home.filter(|_| block.is_none())
            && self.sheds(home, &binding)
            && let Ok(choice) = self.choose(Some(session), Some(home.fingerprint))
            && choice.credential.fingerprint != home.fingerprint
        {
            return Ok(Placed::at_new_home(choice, Outcome::Cold, self.now));
        }
        let status = match home {
            Some(_) if block.is_none() && !binding.avoids_home(self.now) => HomeStatus::Ready,
            Some(_) if has_served => HomeStatus::Blocked,
            // A credential that never served the session is no home to return to.
            Some(_) | None => HomeStatus::Gone,
        };
        // Without a better credential a session stays at a home that is only suspected to fail.
        let may_stay = !matches!(block, Some(Block::RateLimited { .. }));
        let last_resort = home.filter(|_| may_stay && has_served);
        self.place_bound(session, binding, inherited, status, last_resort)
    }

    /// Whether the request may not leave the group of its home.
    pub(super) fn is_bound_to_group(&self) -> bool {
        self.state.has_ciphertext && self.router.config.failover.ciphertext == Ciphertext::SameGroup
    }

    /// Where a session goes that may not leave the group of its home.
    pub(super) fn place_in_group(
        &mut self,
        home: &'c Credential,
        block: Option<Block>,
        binding: Binding,
        inherited: Option<Binding>,
    ) -> Result<Placed<'c>, Unready> {
        let placed = match block.and_then(|_| self.ready_sibling(home)) {
            Some(sibling) => {
                let substitute = Some(BoundCredential::chosen(sibling.fingerprint));
                let binding = Some(Binding { substitute, ..binding });
                Placed::at(sibling, Outcome::Substitute, binding)
            }
            None => Placed::strictly_at(home, block, inherited)?,
        };
        Ok(Placed { others: Others::Siblings, ..placed })
    }

    fn place_anew(
        &mut self,
        session: &Session<'_>,
        outcome: Outcome,
    ) -> Result<Placed<'c>, Unready> {
        let choice = self.choose(Some(session), None)?;
        Ok(Placed::at_new_home(choice, outcome, self.now))
    }

    /// Where a bound session goes, given what its home can do.
    fn place_bound(
        &mut self,
        session: &Session<'_>,
        binding: Binding,
        inherited: Option<Binding>,
        home: HomeStatus,
        last_resort: Option<&'c Credential>,
    ) -> Result<Placed<'c>, Unready> {
        let substitute_is_ready = match binding.substitute {
            Some(substitute) => self.serving(substitute.credential).is_some(),
            None => false,
        };
        let circumstances = Circumstances {
            home,
            substitute_is_ready,
            returns: self.router.config.failover.returns,
            // Without a substitute nothing depends on it, and reading it takes a pass over the body.
            cache_lifetime: binding
                .substitute
                .map_or(Duration::ZERO, |_| self.cache_lifetime().warm),
            now: self.now,
        };
        let destination = circumstances.destination(&binding);
        let placed = match (destination, binding.substitute) {
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
            _ => self.place_elsewhere(session, binding, inherited, home, last_resort)?,
        };
        Ok(Placed { second: binding.substitute.map(|substitute| substitute.credential), ..placed })
    }

    /// Where a session goes that neither its home nor its substitute can serve.
    fn place_elsewhere(
        &mut self,
        session: &Session<'_>,
        binding: Binding,
        inherited: Option<Binding>,
        home: HomeStatus,
        last_resort: Option<&'c Credential>,
    ) -> Result<Placed<'c>, Unready> {
        let choice = match (self.choose(Some(session), Some(binding.home.credential)), last_resort)
        {
            (Ok(choice), None) => choice,
            (Ok(choice), Some(_)) if !choice.is_probe => choice,
            (Ok(_) | Err(_), Some(home)) => {
                return Ok(Placed::at(home, Outcome::Probe, inherited));
            }
            (Err(unready), None) => return Err(unready),
        };
        if home == HomeStatus::Gone {
            // A substitute that has served the session stays its substitute, in case the new home
            // fails.
            let placed = Placed::at_new_home(choice, Outcome::Rebind, self.now);
            let substitute = binding.substitute.filter(|it| it.served.is_some());
            let binding = placed.binding.map(|new| Binding { substitute, ..new });
            return Ok(Placed { binding, ..placed });
        }
        if choice.credential.fingerprint == binding.home.credential {
            return Ok(Placed::at(choice.credential, Outcome::Hit, inherited));
        }
        let outcome = if choice.is_probe { Outcome::Probe } else { Outcome::Substitute };
        let substitute = Some(BoundCredential::chosen(choice.credential.fingerprint));
        Ok(Placed::at(choice.credential, outcome, Some(Binding { substitute, ..binding })))
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
            None => (self.choose(Some(session), None)?.credential, moved),
        };
        Ok(Placed::at_new_home(Choice { credential, is_probe: false }, outcome, self.now))
    }

    /// In the reference priority outranks a binding.
    fn serving_in_the_reference(&mut self, binding: &Binding) -> Option<&'c Credential> {
        let ready = self.candidates().ready().ok()?;
        ready.into_iter().find(|it| it.fingerprint == binding.home.credential)
    }

    /// A bound credential, if it may go on serving. An established binding outranks priority,
    /// because moving a session costs its prompt cache.
    pub(super) fn serving(&mut self, id: CredentialId) -> Option<&'c Credential> {
        availability::bound(self.target.pool, id).filter(|it| self.block(it).is_none())
    }

    fn bound(&self, bound: BoundCredential) -> Result<&'c Credential, Unready> {
        availability::bound(self.target.pool, bound.credential).ok_or(Unready::NotFound)
    }

    /// Whether a session has no prompt cached anywhere, and no state either as far as its request
    /// shows. Such a session is placed anew, which corrects skew at no cost.
    pub(super) fn is_cold_everywhere(&self, binding: &Binding) -> bool {
        let idle = self.now.since(binding.used);
        !self.target.pool.strict
            && idle >= Lifetime::least(self.target.pool)
            && idle >= self.cache_lifetime().certain
            && !self.may_refer_to_state()
    }

    /// Whether a session leaves a home that nears its limit: its prompt is not certain to be cached
    /// there any more, and another credential has room.
    fn sheds(&mut self, home: &Credential, binding: &Binding) -> bool {
        let Some(shed_at) = self.router.config.routing.shed_at else { return false };
        let idle = self.now.since(binding.home.served.unwrap_or(binding.used));
        if self.target.pool.strict || idle < self.cache_lifetime().warm || self.may_refer_to_state()
        {
            return false;
        }
        self.used_of(home) >= shed_at
            && (self.candidates().ready().unwrap_or_default().into_iter())
                .any(|it| it.fingerprint != home.fingerprint && self.used_of(it) < shed_at)
    }

    /// What is used of a credential, for the model of the request.
    fn used_of(&self, credential: &Credential) -> u16 {
        let (headroom, model) = (self.router.headroom(), &self.target.canonical_model);
        headroom.limits(credential, Some(model), self.shared, self.now).used
    }

    /// Whether the request refers to state that only its home has.
    fn may_refer_to_state(&self) -> bool {
        self.router.config.body.refers_to_state(&self.request.body) || self.may_carry_ciphertext()
    }

    /// Whether the request carries what only the group of its home can read. Where the body was not
    /// read, one that generates is taken to: clients send reasoning back, signed or encrypted.
    pub(super) fn may_carry_ciphertext(&self) -> bool {
        let (body, path) = (&self.request.body, self.request.headers.path());
        let generates = self.target.operation == Operation::Generate;
        let may_be_there = generates && !path.ends_with("/completions");
        (may_be_there && body.bytes().is_empty()) || carries_ciphertext(self.target.api, body)
    }

    fn cache_lifetime(&self) -> Lifetime {
        Lifetime::of(&self.target, self.request)
    }

    /// The binding of the session's first turn, which had only its fallback id.
    fn first_turn(&self, session: &Session<'_>) -> Option<Binding> {
        let key = self.binding_key(session.fallback.as_deref()?);
        self.router.bindings.peek(self.shared, key, self.now)
    }
}

impl<'c> Placed<'c> {
    pub(super) fn at(
        credential: &'c Credential,
        outcome: Outcome,
        binding: Option<Binding>,
    ) -> Self {
        Self { credential, outcome, binding, second: None, others: Others::All }
    }

    /// At the home of a session that has no substitute. A home that is only suspected to fail is
    /// tried.
    fn strictly_at(
        home: &'c Credential,
        block: Option<Block>,
        inherited: Option<Binding>,
    ) -> Result<Self, Unready> {
        let outcome = match block {
            None => Outcome::Hit,
            Some(Block::Failing { .. }) => Outcome::Probe,
            Some(block) => return Err(block.into()),
        };
        Ok(Self { others: Others::None, ..Self::at(home, outcome, inherited) })
    }

    pub(super) fn at_new_home(choice: Choice<'c>, outcome: Outcome, now: Timestamp) -> Self {
        let Choice { credential, is_probe } = choice;
        let outcome = if is_probe { Outcome::Probe } else { outcome };
        let home = BoundCredential::chosen(credential.fingerprint);
        Self::at(credential, outcome, Some(Binding::new(home, now)))
    }
}
