//! Where a session goes whose home all Envoys of a fleet find (strategy `consistent`).
//!
//! Envoys share nothing, so what they should agree on follows from what each of them can see. The
//! home is the winner among the *configured* credentials, whatever their readiness. Who stands in
//! for it is the next in the same order that is ready, and the session is back as soon as its home
//! is. When an Envoy last saw the session somewhere decides nothing, because others saw other turns.
//!
//! What one Envoy alone knows is that credentials which are ready refused this one session. They are
//! not asked again at once: the session stays where it was served, for a while that doubles with
//! every failure. Another Envoy learns it from one failed attempt of its own.

use super::Router;
use super::placement::Placed;
use super::selection::{Choice, Selection};
use crate::availability::{self, Unready};
use crate::balance::rendezvous;
use crate::binding::{Binding, BoundCredential, HomeRule};
use crate::config::{Credential, Pool, Profile, Return, Strategy};
use crate::cooldown::Block;
use crate::outcome::{Absence, Outcome};
use crate::session::Session;
use crate::shared::SharedData;

/// A home that all Envoys find, and why it may not serve now.
type Found<'c> = (&'c Credential, Option<Block>);

impl Router {
    /// When another credential takes the place of a session's home.
    pub(super) fn home_rule(&self, pool: &Pool) -> HomeRule {
        let is_common = self.config.profile == Profile::Recommended
            && self.config.routing.strategy == Strategy::Consistent
            && !pool.strict;
        match self.config.failover.returns {
            Return::Never => HomeRule::LastServed,
            _ if is_common => HomeRule::Common,
            _ => HomeRule::Kept,
        }
    }
}

impl<'c, S: SharedData> Selection<'_, 'c, S> {
    /// Where a session goes whose home is common; `None` if no credential takes new sessions.
    pub(super) fn place_at_common_home(
        &mut self,
        session: &Session<'_>,
        bound: Option<Binding>,
    ) -> Option<Result<Placed<'c>, Unready>> {
        let is_cold = bound.is_some_and(|it| self.is_cold_everywhere(&it));
        self.used = bound.map(|it| it.used);
        let before = bound.map(|it| it.home.credential);
        let bound = bound.filter(|_| !is_cold);
        let (home, block) = self.common_home(session, bound)?;
        let known = bound.filter(|it| it.home.credential == home.fingerprint);
        let outcome = match known {
            Some(_) => Outcome::Substitute,
            None if is_cold => Outcome::Cold,
            None if before.is_some() => Outcome::Rebind,
            None => Outcome::Miss,
        };
        if let Some(before) = before.filter(|_| outcome == Outcome::Rebind) {
            self.home = Some((availability::bound(self.target.pool, before), Absence::Gone));
        }
        let chosen = BoundCredential::chosen(home.fingerprint);
        let binding = known.unwrap_or(Binding::new(chosen, self.now));
        let mut placed = self.place_from(session, (home, block), binding, outcome);
        if let (Ok(placed), None) = (&mut placed, known) {
            placed.binding = placed.binding.or(Some(binding));
        }
        Some(placed)
    }

    /// At the home, or at who stands in for it. `outcome` is what it is called if the session was
    /// not at home before.
    fn place_from(
        &mut self,
        session: &Session<'_>,
        (home, block): Found<'c>,
        binding: Binding,
        outcome: Outcome,
    ) -> Result<Placed<'c>, Unready> {
        let has_served = binding.home.served.is_some();
        if has_served {
            self.state.home = Some(home.fingerprint);
            self.state.has_ciphertext = self.may_carry_ciphertext();
            if self.is_bound_to_group() {
                return self.place_in_group(home, block, binding, None);
            }
        }
        let is_avoided = self.now < binding.avoid_until;
        let substitute = binding.substitute.filter(|it| it.served.is_some());
        let is_away = substitute.is_some_and(|it| it.served > binding.home.served);
        let at_home = match outcome {
            Outcome::Substitute if is_away => Outcome::Return,
            Outcome::Substitute => Outcome::Hit,
            other => other,
        };
        if block.is_none() && !is_avoided {
            return Ok(Placed::at(home, at_home, None));
        }
        if outcome == Outcome::Substitute {
            let why = block.map_or(Absence::Failed, |block| Absence::Blocked(block.class()));
            self.home = Some((Some(home), why));
        }
        if let Some(credential) =
            substitute.filter(|_| is_avoided).and_then(|it| self.serving(it.credential))
        {
            return Ok(Placed::at(credential, outcome, None));
        }
        let may_stay = has_served && !matches!(block, Some(Block::RateLimited { .. }));
        let (credential, outcome) = match self.choose(Some(session), Some(home.fingerprint)) {
            Ok(Choice { credential, is_probe: false }) => {
                let is_home = credential.fingerprint == home.fingerprint;
                (credential, if is_home { at_home } else { outcome })
            }
            // Without a better one a session stays at a home that is only suspected to fail.
            _ if may_stay => (home, Outcome::Probe),
            choice => (choice?.credential, Outcome::Probe),
        };
        Ok(Placed::at(credential, outcome, None))
    }

    /// The winner among the configured credentials that take new sessions, without those that an
    /// operator has taken out of service. A home that only drains keeps the sessions that it served.
    fn common_home(&mut self, session: &Session<'_>, bound: Option<Binding>) -> Option<Found<'c>> {
        let pool = self.target.pool;
        let served = bound.filter(|it| it.home.served.is_some()).map(|it| it.home.credential);
        let served = served.and_then(|home| availability::bound(pool, home));
        if let Some(home) = served.filter(|home| !availability::takes_new_sessions(home)) {
            let block = self.block(home);
            if block != Some(Block::Disabled) {
                return Some((home, block));
            }
        }
        let id = self.with_tenant_scope(&session.primary);
        let all = pool.credentials.iter();
        let mut all: Vec<_> = all.filter(|it| availability::takes_new_sessions(it)).collect();
        loop {
            let mut highest = availability::highest(all.clone());
            if self.prefers_websockets() {
                highest = availability::prefer_websockets(highest);
            }
            let home = rendezvous(&highest, &id, self.fleet())?;
            let is_new = served.is_none_or(|served| served.fingerprint != home.fingerprint);
            let block = self.block_of(home, is_new);
            if !matches!(block, Some(Block::Disabled | Block::Draining)) {
                return Some((home, block));
            }
            all.retain(|other| other.fingerprint != home.fingerprint);
        }
    }
}
