//! Failover within a request: what an attempt does, and what follows from a failure.

use super::{Plan, Router};
use crate::availability::{self, Unready};
use crate::config::{Credential, Pool, Profile};
use crate::reply::{self, LocalReply};
use crate::shared::SharedData;
use crate::time::Timestamp;

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
        now: Timestamp,
    ) -> Option<NextStep<'_>> {
        let pool = self.pool_of(plan)?;
        let Some(next) = plan.next.take() else {
            return Some(NextStep::Reply(self.no_response(plan, shared, now)?));
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
        now: Timestamp,
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

    /// The reply where the last attempt ended without a response. A session that has no substitute
    /// waits for its home.
    pub fn no_response(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<LocalReply> {
        let pool = self.pool_of(plan)?;
        let home = plan.current.filter(|_| pool.strict).and_then(|home| pool.credential(home));
        let unready = home
            .and_then(|home| self.cooldowns().block(shared, home, &plan.model, now))
            .map(Unready::from)
            .or_else(|| self.unready(pool, plan, shared, now))
            .unwrap_or(Unready::Unavailable(None));
        Some(reply::no_credential(&plan.target(pool), unready, now))
    }

    /// The reply in place of the last 429, if all credentials wait for a quota and another one has
    /// it back sooner: the client should come back when it will be served. A session that has no
    /// substitute hears what its home said.
    pub fn earlier_recovery(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
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

    /// Takes the first of the rest that is ready; those before it are passed over for good.
    fn take_ready<'c>(
        &self,
        pool: &'c Pool,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<&'c Credential> {
        while !plan.rest.is_empty() {
            let candidate = pool.credential(plan.rest.remove(0));
            let ready = candidate.filter(|it| self.is_ready(it, plan, shared, now));
            if ready.is_some() {
                return ready;
            }
        }
        None
    }

    fn is_ready(
        &self,
        credential: &Credential,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> bool {
        self.cooldowns().block(shared, credential, &plan.model, now).is_none()
    }

    /// Why no credential of the pool is ready; `None` if one is.
    fn unready(
        &self,
        pool: &Pool,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<Unready> {
        availability::ready(pool, |it| self.cooldowns().block(shared, it, &plan.model, now)).err()
    }

    pub(crate) fn pool_of(&self, plan: &Plan) -> Option<&Pool> {
        self.config.pools.iter().find(|pool| pool.fingerprint == plan.pool)
    }
}
