//! Failover within a request: what an attempt does, and what follows from a failure.

use super::{Plan, Router, Verdict};
use crate::availability::{self, Unready};
use crate::config::{Credential, Pool, Profile};
use crate::cooldown::Observation;
use crate::reply::{self, LocalReply};
use crate::shared::SharedData;

/// What an attempt is to do.
#[derive(Clone, Debug)]
pub enum NextStep<'c> {
    /// Ask a credential.
    Send {
        /// The pool that it belongs to.
        pool: &'c Pool,
        /// The one.
        credential: &'c Credential,
        /// Whom to ask if it cannot be reached.
        next: Option<&'c Credential>,
    },
    /// Answer: nobody is left to be asked.
    Reply(LocalReply),
}

impl Router {
    /// Begins an attempt. If the one before was not heard of, its connection failed, which is to be
    /// learnt first. `None` if pool or credential are not configured here, because the listener was
    /// updated before the cluster: then the attempt is none of ours.
    pub fn attempt(
        &self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Option<NextStep<'_>> {
        let pool = self.pool_of(plan)?;
        let Some(next) = plan.next.take() else {
            return Some(NextStep::Reply(self.no_answer(plan, shared, now)?));
        };
        let credential = pool.credential(next)?;
        plan.current = Some(credential.fingerprint);
        plan.result = None;
        plan.sent = now;
        plan.attempts = plan.attempts.saturating_add(1);
        if plan.attempts < plan.max_attempts {
            plan.next = self.take_ready(pool, plan, shared, now).map(|next| next.fingerprint);
        }
        let is_second = self.config.profile == Profile::Reference && plan.attempts > 1;
        if let Some(key) = plan.binding.filter(|_| is_second) {
            // The reference binds whom it picks, also when it picks again.
            self.bindings.confirm(shared, key, credential.fingerprint, false, now);
        }
        Some(NextStep::Send {
            pool,
            credential,
            next: plan.next.and_then(|next| pool.credential(next)),
        })
    }

    /// After a failure: whom to ask next, if that is still ready, else another.
    pub(crate) fn next_after_failure(
        &self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Option<&Credential> {
        let pool = self.pool_of(plan)?;
        let next = pool.credential(plan.next?)?;
        let next = if self.is_ready(next, plan, shared, now) {
            Some(next)
        } else {
            self.take_ready(pool, plan, shared, now)
        };
        plan.next = next.map(|next| next.fingerprint);
        next
    }

    /// Learns that the connection to whom was asked failed, or broke before there was an answer.
    pub fn observe_failed_connection(
        &self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Verdict<'_> {
        self.hear(plan, &Observation { sent: plan.sent, ..Observation::default() }, shared, now)
    }

    /// The reply where the last attempt came to no answer. A session that has no substitute waits
    /// for its home.
    pub fn no_answer(&self, plan: &Plan, shared: &impl SharedData, now: u64) -> Option<LocalReply> {
        let pool = self.pool_of(plan)?;
        let of_home = || {
            let home = pool.credential(plan.current.filter(|_| pool.strict)?)?;
            self.cooldowns().block(shared, home, &plan.model, now).map(Unready::from)
        };
        let unready = of_home().or_else(|| self.unready(pool, plan, shared, now));
        Some(reply::no_credential(
            &plan.target(pool),
            unready.unwrap_or(Unready::Unavailable(None)),
            now,
        ))
    }

    /// The reply in place of the last 429, if all credentials wait for a quota and another one has
    /// it back sooner: the client should come back when it will be served. A session that has no
    /// substitute hears what its home said.
    pub fn earlier_recovery(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Option<LocalReply> {
        let pool = self
            .pool_of(plan)
            .filter(|pool| !pool.strict && self.config.profile == Profile::Recommended)?;
        let Some(Unready::RateLimited(first)) = self.unready(pool, plan, shared, now) else {
            return None;
        };
        let last =
            self.cooldowns().block(shared, pool.credential(plan.current?)?, &plan.model, now)?;
        let is_sooner = last.until().is_some_and(|until| first < until);
        is_sooner
            .then(|| reply::no_credential(&plan.target(pool), Unready::RateLimited(first), now))
    }

    /// The first of the rest that is ready; those before it are passed over for good.
    fn take_ready<'c>(
        &self,
        pool: &'c Pool,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Option<&'c Credential> {
        let is_ready = |fingerprint: &u64| {
            pool.credential(*fingerprint)
                .is_some_and(|credential| self.is_ready(credential, plan, shared, now))
        };
        let at = plan.rest.iter().position(is_ready).unwrap_or(plan.rest.len());
        let passed = plan.rest.drain(..(at + 1).min(plan.rest.len())).nth(at)?;
        pool.credential(passed)
    }

    fn is_ready(
        &self,
        credential: &Credential,
        plan: &Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> bool {
        self.cooldowns().block(shared, credential, &plan.model, now).is_none()
    }

    /// Why no credential of the pool is ready; `None` if one is.
    fn unready(
        &self,
        pool: &Pool,
        plan: &Plan,
        shared: &impl SharedData,
        now: u64,
    ) -> Option<Unready> {
        let block =
            |credential: &Credential| self.cooldowns().block(shared, credential, &plan.model, now);
        availability::ready(pool, &[], block).err()
    }

    pub(crate) fn pool_of(&self, plan: &Plan) -> Option<&Pool> {
        self.config.pools.iter().find(|pool| pool.fingerprint == plan.pool)
    }
}
