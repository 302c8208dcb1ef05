//! Failover within a request: the credentials that it may be sent to, in order, and how far it has
//! got.
//!
//! The listener's filter makes the plan. Envoy's router then makes one attempt after the other, and
//! runs the filter of the cluster once for each: that one takes the plan up, hears the answer of
//! its own attempt, and names the next credential. Between them the plan travels as filter state,
//! so it tells credentials by fingerprint: listener and clusters are not always updated in the same
//! moment.

use crate::api::Api;
use crate::availability::{self, Unready};
use crate::config::{Credential, Pool, Profile};
use crate::cooldown::Observation;
use crate::hash::KeyHash;
use crate::outcome::Failover;
use crate::reply::{self, LocalReply};
use crate::route::{Router, Verdict};
use crate::shared::SharedData;
use crate::target::Target;

const VERSION: u8 = 1;

/// What an answer meant for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was served.
    Served,
    /// The credential failed, and another one could do better.
    Failed,
    /// It was refused for what it is.
    Refused,
}

/// Where a request may go, and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The fingerprint of its pool.
    pub pool: u64,
    /// What the client speaks.
    pub api: Api,
    /// The model, as the client wrote it.
    pub model: String,
    /// The key that its session is bound under.
    pub binding: Option<KeyHash>,
    /// The most attempts.
    pub most: u8,
    /// The attempts that filters of clusters have begun; none at the first, and where there are no
    /// such filters.
    pub attempts: u8,
    /// When the newest began, in milliseconds since the epoch.
    pub sent: u64,
    /// Whom the newest attempt asks.
    pub asked: Option<u64>,
    /// What that one's answer meant; `None` until there is one, which may be never.
    pub heard: Option<Heard>,
    /// Whom the next attempt will ask.
    pub next: Option<u64>,
    /// Who may be asked after that, in order.
    pub rest: Vec<u64>,
}

/// What an attempt is to do.
#[derive(Clone, Debug)]
pub enum Attempt<'c> {
    /// Ask a credential.
    Ask {
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
    ) -> Option<Attempt<'_>> {
        let pool = self.pool_of(plan)?;
        let Some(next) = plan.next.take() else {
            return Some(Attempt::Reply(self.no_answer(plan, shared, now)?));
        };
        let credential = pool.credential(next)?;
        plan.asked = Some(credential.fingerprint);
        plan.heard = None;
        plan.sent = now;
        plan.attempts = plan.attempts.saturating_add(1);
        if plan.attempts < plan.most {
            plan.next = self.take_ready(pool, plan, shared, now).map(|next| next.fingerprint);
        }
        let is_second = self.config.profile == Profile::Reference && plan.attempts > 1;
        if let Some(key) = plan.binding.filter(|_| is_second) {
            // The reference binds whom it picks, also when it picks again.
            self.bindings.confirm(shared, key, credential.fingerprint, false, now);
        }
        Some(Attempt::Ask {
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
            let home = pool.credential(plan.asked.filter(|_| pool.strict)?)?;
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
    pub fn sooner(&self, plan: &Plan, shared: &impl SharedData, now: u64) -> Option<LocalReply> {
        let pool = self
            .pool_of(plan)
            .filter(|pool| !pool.strict && self.config.profile == Profile::Recommended)?;
        let Some(Unready::Cooldown(first)) = self.unready(pool, plan, shared, now) else {
            return None;
        };
        let last =
            self.cooldowns().block(shared, pool.credential(plan.asked?)?, &plan.model, now)?;
        let is_sooner = last.until().is_some_and(|until| first < until);
        is_sooner.then(|| reply::no_credential(&plan.target(pool), Unready::Cooldown(first), now))
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

impl Plan {
    /// How failover ended, if there was any, now that the client is answered.
    pub fn end(&self) -> Option<Failover> {
        match self.heard {
            Some(Heard::Failed) if self.next.is_some() => Some(Failover::Abandoned),
            Some(Heard::Failed) => Some(Failover::Exhausted),
            Some(Heard::Served) if self.attempts > 1 => Some(Failover::Served),
            Some(Heard::Served | Heard::Refused) | None => None,
        }
    }

    /// What the request is for.
    fn target<'c>(&self, pool: &'c Pool) -> Target<'c> {
        Target::new(pool, self.api, self.model.clone())
    }

    /// Whether the newest attempt has not been heard of.
    pub fn is_unheard(&self) -> bool {
        self.asked.is_some() && self.heard.is_none()
    }

    /// The bytes for filter state, little endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![
            VERSION,
            self.api as u8,
            self.most,
            self.attempts,
            self.heard.map_or(0, heard_code),
        ];
        for number in [self.pool, self.sent, self.asked.unwrap_or(0), self.next.unwrap_or(0)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.binding.map_or(0, |key| key.0).to_le_bytes());
        bytes.push(self.rest.len().min(usize::from(u8::MAX)) as u8);
        self.rest
            .iter()
            .take(usize::from(u8::MAX))
            .for_each(|one| bytes.extend_from_slice(&one.to_le_bytes()));
        bytes.extend_from_slice(self.model.as_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] gave; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, api, most, attempts, heard], rest) = bytes.split_first_chunk()?;
        let mut rest = rest;
        let [pool, sent, asked, next] =
            [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
        let (key, behind) = rest.split_first_chunk()?;
        let key = u128::from_le_bytes(*key);
        let (&count, mut behind) = behind.split_first()?;
        let others = (0..count).map(|_| number(&mut behind)).collect::<Option<Vec<_>>>()?;
        let plan = Self {
            pool,
            api: Api::ALL.into_iter().find(|known| *known as u8 == api)?,
            model: String::from_utf8(behind.to_vec()).ok()?,
            binding: (key != 0).then_some(KeyHash(key)),
            most,
            attempts,
            sent,
            asked: (asked != 0).then_some(asked),
            heard: [Heard::Served, Heard::Failed, Heard::Refused]
                .into_iter()
                .find(|known| heard_code(*known) == heard),
            next: (next != 0).then_some(next),
            rest: others,
        };
        (version == VERSION).then_some(plan)
    }
}

fn heard_code(heard: Heard) -> u8 {
    match heard {
        Heard::Served => 1,
        Heard::Failed => 2,
        Heard::Refused => 3,
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            pool: 1,
            api: Api::Gemini,
            model: "gemini-2.5-pro".to_owned(),
            binding: Some(KeyHash(2)),
            most: 3,
            attempts: 2,
            sent: u64::MAX,
            asked: Some(4),
            heard: Some(Heard::Failed),
            next: Some(5),
            rest: vec![6, 7],
        }
    }

    #[test]
    fn a_plan_comes_through_filter_state_as_it_was() {
        let nothing =
            Plan { binding: None, asked: None, heard: None, next: None, rest: vec![], ..plan() };
        for plan in [plan(), nothing, Plan { model: String::new(), ..plan() }] {
            assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        }
    }

    #[test]
    fn what_is_no_plan_is_none() {
        let good = plan().encode();
        let other_version = [&[VERSION + 1], &good[1..]].concat();
        let other_api = [&good[..1], &[99], &good[2..]].concat();
        for bad in [
            &[][..],
            &good[..20],
            &good[..60],
            &other_version,
            &other_api,
            &[&good[..], &[0xff]].concat(),
        ] {
            assert_eq!(Plan::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_longest_pool_fits() {
        let many = Plan { rest: (1..=1_000).collect(), ..plan() };
        assert_eq!(Plan::decode(&many.encode()).map(|plan| plan.rest.len()), Some(255));
    }
}
