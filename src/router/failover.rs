//! Failover within a request: what an attempt does, and which credential is next.

use std::time::Duration;

use super::state::siblings;
use super::{AttemptResult, Plan, Router};
use crate::availability::{Unready, takes_new_sessions};
use crate::binding::HomeRule;
use crate::config::{Ciphertext, Credential, Pool, Profile, Strategy};
use crate::cooldown::{Block, FIRST};
use crate::group;
use crate::reply::{self, LocalReply};
use crate::response::Failure;
use crate::shared::SharedData;
use crate::signals::Class;
use crate::time::Timestamp;

/// The last 429 of a provider is given an earlier `retry-after` only where another credential
/// recovers at least this much sooner, and in less than half the time.
const GOOD_DEAL_SOONER: Duration = Duration::from_secs(30);

/// What an attempt is to do.
#[derive(Clone, Debug)]
pub enum NextStep<'c> {
    /// Go to a credential.
    Send { pool: &'c Pool, credential: &'c Credential },
    /// Respond: no credential is left to be tried.
    Reply(LocalReply),
}

impl Router {
    /// Begins an attempt on a cluster (empty if its name is not known). `None` if the attempt is
    /// not managed by this filter: its pool or credential is not configured here, because the
    /// listener was updated before the cluster.
    ///
    /// Which credential an attempt uses follows from where it runs, never from a choice made after
    /// Envoy's router chose: it is the one that the plan named before, and where that is another
    /// cluster's, the one of this cluster.
    pub fn attempt(
        &self,
        plan: &mut Plan,
        cluster: &str,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<NextStep<'_>> {
        let Some(pool) = self.pool_of(plan) else {
            return self.unknown(plan.next.is_some());
        };
        let Some(next) = plan.next.take() else {
            let failure = plan.last_failure().unwrap_or(Failure::Reset);
            return Some(NextStep::Reply(self.no_response(plan, pool, failure)));
        };
        let named = pool.credential(next).filter(|it| cluster.is_empty() || it.cluster == cluster);
        let credential = match named {
            Some(named) => named,
            None if pool.injects_keys() => match self.take_next(pool, plan, None, shared, now) {
                Some(other) if may_take_over(other, cluster) => other,
                _ => return self.unknown(true),
            },
            // It has gone to the address of a replica, whichever others are left.
            None => pool.only_credential_of(cluster).filter(|it| it.endpoint.is_none())?,
        };
        plan.current = Some(credential.fingerprint);
        plan.result = None;
        plan.state.was_not_here = false;
        plan.state.was_unreadable = false;
        plan.sent = now;
        plan.attempts = plan.attempts.saturating_add(1);
        plan.rest.retain(|other| *other != credential.fingerprint);
        if self.config.profile == Profile::Reference
            && plan.attempts > 1
            && let Some(key) = plan.binding
        {
            // The reference binds the credential that it picks, also when it picks again.
            let (id, rule) = (credential.fingerprint, HomeRule::LastServed);
            self.bindings.confirm(shared, key, id, &[], rule, now);
        }
        Some(NextStep::Send { pool, credential })
    }

    /// Begins an attempt anew whose credential has no key: whatever fills in the keys has not read it
    /// yet. Nothing was sent, so nothing is learned. Another credential of the cluster takes its
    /// place. If there is none, the request ends with what failed before, and if nothing did, the
    /// client is asked to come back.
    pub fn without_key(
        &self,
        plan: &mut Plan,
        cluster: &str,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<NextStep<'_>> {
        let pool = self.pool_of(plan)?;
        plan.current = None;
        plan.attempts = plan.attempts.saturating_sub(1);
        let next = self.take_next(pool, plan, None, shared, now);
        match next.filter(|it| may_take_over(it, cluster)) {
            Some(next) => {
                plan.next = Some(next.fingerprint);
                self.attempt(plan, cluster, shared, now)
            }
            None => Some(NextStep::Reply(self.end_without_key(plan, pool, now))),
        }
    }

    /// The reply where no credential is left that has its key.
    fn end_without_key(&self, plan: &mut Plan, pool: &Pool, now: Timestamp) -> LocalReply {
        let Some(last) = plan.failures.last() else {
            return LocalReply::not_ready();
        };
        plan.current = Some(last.credential);
        plan.result = Some(AttemptResult::Failed);
        let unready = match (last.fault.class, last.fault.wait) {
            (Class::RateLimit, Some(wait)) => Unready::RateLimited(now + wait),
            _ => Unready::Unavailable(Some(now + FIRST)),
        };
        reply::no_credential(&plan.target(pool), unready, now)
    }

    /// An attempt of which this configuration knows nothing. Where the filter injects keys it must
    /// not go out without one.
    fn unknown(&self, is_attempt: bool) -> Option<NextStep<'_>> {
        let injects_keys = self.config.pools.iter().any(Pool::injects_keys);
        (injects_keys && is_attempt).then(|| NextStep::Reply(LocalReply::not_ready()))
    }

    /// Takes the next credential after one has failed: the first of the rest that is ready, or one
    /// that is as good and has more room. If none is ready, the one whose block ends first among
    /// those that wait for no announced end.
    pub(super) fn take_next<'c>(
        &self,
        pool: &'c Pool,
        plan: &mut Plan,
        failed: Option<(&Credential, Class)>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<&'c Credential> {
        if let Some((failed, class)) = failed {
            self.order_by_group(pool, plan, failed, class, shared);
        }
        let compares_room = self.compares_room(pool);
        let mut last_resort: Option<(&Credential, Timestamp)> = None;
        let mut ready = Vec::new();
        for id in &plan.rest {
            let Some(credential) = pool.credential(*id) else {
                continue;
            };
            match self.cooldowns().block_for_new(shared, credential, plan.subject(), now) {
                None => {
                    ready.push(credential);
                    if !compares_room {
                        break;
                    }
                }
                Some(Block::Failing { until, .. })
                    if last_resort.is_none_or(|(_, earliest)| until < earliest) =>
                {
                    last_resort = Some((credential, until));
                }
                Some(_) => {}
            }
        }
        let chosen =
            self.roomiest(pool, plan, ready, failed.map(|(failed, _)| failed), shared, now);
        let taken = chosen.or(last_resort.map(|(credential, _)| credential))?;
        plan.rest.retain(|other| *other != taken.fingerprint);
        Some(taken)
    }

    /// Whether the room of credentials decides which of several equals is next.
    fn compares_room(&self, pool: &Pool) -> bool {
        let routing = &self.config.routing;
        let compares = routing.spare_at.is_some() || self.headroom().counts_flights(pool);
        compares && self.config.profile == Profile::Recommended
    }

    /// The one with the most room of the ready ones that are as good as the first: of its priority,
    /// and in a group with the failed one if it is. The first is the session's last substitute, if
    /// there is one: that has its prompt cached, and keeps it.
    fn roomiest<'c>(
        &self,
        pool: &'c Pool,
        plan: &Plan,
        mut ready: Vec<&'c Credential>,
        failed: Option<&Credential>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<&'c Credential> {
        let first = *ready.first()?;
        if ready.len() < 2 {
            return Some(first);
        }
        let binding = plan.binding.and_then(|key| self.bindings.peek(shared, key, now));
        let substitute = binding.and_then(|binding| binding.substitute);
        if substitute.is_some_and(|it| it.credential == first.fingerprint && it.served.is_some()) {
            return Some(first);
        }
        let group = failed.and_then(|failed| group::of(failed, shared));
        let is_sibling = |it: &Credential| group.is_some() && group::of(it, shared) == group;
        let is_first_sibling = is_sibling(first);
        ready.retain(|it| {
            it.priority == first.priority
                && it.websockets == first.websockets
                && is_sibling(it) == is_first_sibling
        });
        let (headroom, model) = (self.headroom(), plan.subject().model);
        if self.config.routing.strategy != Strategy::Headroom {
            return headroom.with_room(ready, pool, model, shared, now).first().copied();
        }
        // By id, as the pool has them.
        let is_ready =
            |it: &&Credential| ready.iter().any(|ready| ready.fingerprint == it.fingerprint);
        let ready: Vec<_> = pool.credentials.iter().filter(is_ready).collect();
        // Its request counts there at once, and its session when it was served.
        headroom.roomiest(&ready, pool, (&plan.session().to_le_bytes(), model), shared, now)
    }

    /// Orders the rest of a plan by what its members have in common with the credential that has
    /// failed. Siblings share its caches, so they come first; after a limit, which they may share as
    /// well, they come last, unless only they can read what the request carries. What one does not
    /// have, its siblings do not have either.
    fn order_by_group(
        &self,
        pool: &Pool,
        plan: &mut Plan,
        failed: &Credential,
        class: Class,
        shared: &impl SharedData,
    ) {
        let counts = self.config.profile == Profile::Recommended
            && self.config.failover.ciphertext != Ciphertext::Any;
        let group = group::of(failed, shared).filter(|_| counts && !plan.rest.is_empty());
        let Some(group) = group else { return };
        let siblings: Vec<_> = siblings(&pool.credentials, failed, group, shared)
            .into_iter()
            .map(|sibling| sibling.fingerprint)
            .collect();
        let rest = std::mem::take(&mut plan.rest);
        let (siblings, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|other| siblings.contains(other));
        plan.rest = match class {
            Class::NotHere => others,
            Class::RateLimit if !plan.state.has_ciphertext => [others, siblings].concat(),
            _ => [siblings, others].concat(),
        };
    }

    /// The reply in place of a response that says that a credential cannot read what the home of
    /// the session wrote: while the home cannot serve, the client had better wait too.
    pub fn wait_for_home(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<LocalReply> {
        let state = &plan.state;
        let pool = self.pool_of(plan).filter(|_| plan.has_failed() && state.was_unreadable)?;
        let home = pool.credential(state.home?).filter(|_| plan.current != state.home)?;
        let unready = match self.cooldowns().block(shared, home, plan.subject(), now)? {
            Block::RateLimited { retry_at, .. } => Unready::RateLimited(retry_at),
            Block::Failing { until, .. } => Unready::Unavailable(Some(until)),
            Block::Disabled | Block::Draining => return None,
        };
        Some(reply::no_credential(&plan.target(pool), unready, now))
    }

    /// The reply in place of a refused key or an empty account, where another credential waits for
    /// an announced end: the client should come back then, and not ask its user to sign in. Not while
    /// one is ready that was not asked, nor where only one has what the request refers to. What else
    /// a 403 says may be about the request.
    pub fn wait_for_limit(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<LocalReply> {
        let pool = self.pool_of(plan).filter(|pool| plan.has_failed() && !pool.strict)?;
        let last = plan.failures.last().filter(|it| Some(it.credential) == plan.current)?;
        let is_dead = last.fault.class == Class::Denied
            && (matches!(last.fault.status, 401 | 402) || last.fault.long);
        if !is_dead || plan.state.is_pinned || self.config.profile == Profile::Reference {
            return None;
        }
        let mut first = None;
        for other in pool.credentials.iter().filter(|it| takes_new_sessions(it)) {
            let id = other.fingerprint;
            match self.cooldowns().block_for_new(shared, other, plan.subject(), now) {
                Some(Block::RateLimited { retry_at, .. }) if Some(id) != plan.current => {
                    first = Some(first.map_or(retry_at, |first: Timestamp| first.min(retry_at)));
                }
                // The next request may be served there.
                None if plan.failures.iter().all(|it| it.credential != id) => return None,
                _ => {}
            }
        }
        Some(reply::no_credential(&plan.target(pool), Unready::RateLimited(first?), now))
    }

    /// The reply where the last attempt ended without a response.
    pub fn no_response(&self, plan: &Plan, pool: &Pool, failure: Failure) -> LocalReply {
        match self.config.profile {
            Profile::Recommended => reply::no_response(&plan.target(pool), failure, FIRST),
            Profile::Reference => {
                let unready = Unready::Unavailable(None);
                reply::no_credential(&plan.target(pool), unready, plan.sent)
            }
        }
    }

    /// The `retry-after` for the last 429 of a provider, if all credentials wait for announced ends
    /// and another one may be tried a good deal sooner. The rest of the response is passed on. A
    /// session that has no substitute gets what its home said.
    pub fn earlier_recovery(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<Duration> {
        let pool = self.pool_of(plan)?;
        if pool.strict || self.config.profile == Profile::Reference {
            return None;
        }
        let current = pool.credential(plan.current?)?;
        let block = self.cooldowns().block(shared, current, plan.subject(), now)?;
        let last = block.until()?.since(now);
        let others = pool.credentials.iter().filter(|it| takes_new_sessions(it));
        let first = others
            .filter(|other| other.fingerprint != current.fingerprint)
            .map(|other| self.cooldowns().block_for_new(shared, other, plan.subject(), now))
            .filter(|block| !matches!(block, Some(Block::Disabled | Block::Draining)))
            .map(|block| match block {
                Some(Block::RateLimited { until, .. }) => Some(until.since(now)),
                _ => None,
            })
            .min()??;
        (first * 2 < last && first + GOOD_DEAL_SOONER <= last).then_some(first)
    }

    /// The pool of a plan, if it is configured here.
    pub fn pool_of(&self, plan: &Plan) -> Option<&Pool> {
        self.config.pools.iter().find(|pool| pool.fingerprint == plan.pool)
    }
}

/// Whether a credential can serve an attempt that is on its way to this cluster, in place of the one
/// that was chosen. Where credentials are replicas, the attempt goes to the address of that one.
fn may_take_over(credential: &Credential, cluster: &str) -> bool {
    credential.endpoint.is_none() && (cluster.is_empty() || credential.cluster == cluster)
}
