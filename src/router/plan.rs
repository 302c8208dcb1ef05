//! The plan of a request: the credentials that it may be sent to, in order, and how far it has got.
//!
//! The listener's filter makes the plan. Envoy's router then makes one attempt after the other, and
//! runs the filter of the cluster once for each: that one takes the plan up, hears the answer of
//! its own attempt, and names the next credential. Between them the plan travels as filter state,
//! so it tells credentials by fingerprint: listener and clusters are not always updated in the same
//! moment.

use crate::api::Api;
use crate::codec::{Reader, Writer};
use crate::config::{CredentialId, Pool, PoolId};
use crate::hash::KeyHash;
use crate::outcome::Failover;
use crate::target::Target;
use crate::time::Timestamp;

const VERSION: u8 = 1;

/// The most credentials that a plan names beside the first ones.
const LONGEST_REST: usize = u8::MAX as usize;

/// What an answer meant for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// It was served.
    Served,
    /// The credential failed, and another one could do better.
    Failed,
    /// It was refused for what it is.
    ClientError,
}

/// Where a request may go, and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The fingerprint of its pool.
    pub pool: PoolId,
    /// What the client speaks.
    pub api: Api,
    /// The model, as the client wrote it.
    pub model: String,
    /// The key that its session is bound under.
    pub binding: Option<KeyHash>,
    /// The most attempts.
    pub max_attempts: u8,
    /// The attempts that filters of clusters have begun; none at the first, and where there are no
    /// such filters.
    pub attempts: u8,
    /// When the newest began, in milliseconds since the epoch.
    pub sent: Timestamp,
    /// Whom the newest attempt asks.
    pub current: Option<CredentialId>,
    /// What that one's answer meant; `None` until there is one, which may be never.
    pub result: Option<AttemptResult>,
    /// Whom the next attempt will ask.
    pub next: Option<CredentialId>,
    /// Who may be asked after that, in order.
    pub rest: Vec<CredentialId>,
}

impl Plan {
    /// How failover ended, if there was any, now that the client is answered.
    pub fn end(&self) -> Option<Failover> {
        match self.result {
            Some(AttemptResult::Failed) if self.next.is_some() => Some(Failover::Abandoned),
            Some(AttemptResult::Failed) => Some(Failover::Exhausted),
            Some(AttemptResult::Served) if self.attempts > 1 => Some(Failover::Served),
            Some(AttemptResult::Served | AttemptResult::ClientError) | None => None,
        }
    }

    /// What the request is for.
    pub(super) fn target<'c>(&self, pool: &'c Pool) -> Target<'c> {
        Target::new(pool, self.api, self.model.clone())
    }

    /// Whether the newest attempt has not been heard of.
    pub fn is_pending(&self) -> bool {
        self.current.is_some() && self.result.is_none()
    }

    /// The bytes for filter state.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Writer::with_capacity(64 + 8 * self.rest.len() + self.model.len());
        bytes.byte(VERSION);
        bytes.byte(self.api as u8);
        bytes.byte(self.max_attempts);
        bytes.byte(self.attempts);
        bytes.byte(self.result.map_or(0, AttemptResult::code));
        bytes.number(self.pool.0);
        bytes.time(self.sent);
        bytes.number(self.current.map_or(0, |current| current.0));
        bytes.number(self.next.map_or(0, |next| next.0));
        bytes.hash(self.binding.map_or(0, |key| key.0));
        bytes.byte(self.rest.len().min(LONGEST_REST) as u8);
        self.rest.iter().take(LONGEST_REST).for_each(|id| bytes.number(id.0));
        bytes.bytes(self.model.as_bytes());
        bytes.finish()
    }

    /// Reads what [`Self::encode`] returned; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader::new(bytes);
        if bytes.byte()? != VERSION {
            return None;
        }
        let api = bytes.byte()?;
        let (max_attempts, attempts) = (bytes.byte()?, bytes.byte()?);
        let result = bytes.byte()?;
        let (pool, sent) = (PoolId(bytes.number()?), bytes.time()?);
        let (current, next) = (bytes.number()?, bytes.number()?);
        let binding = bytes.hash()?;
        let count = bytes.byte()?;
        let rest: Option<_> = (0..count).map(|_| bytes.number().map(CredentialId)).collect();
        Some(Self {
            pool,
            api: Api::ALL.into_iter().find(|known| *known as u8 == api)?,
            model: String::from_utf8(bytes.rest().to_vec()).ok()?,
            binding: (binding != 0).then_some(KeyHash(binding)),
            max_attempts,
            attempts,
            sent,
            current: (current != 0).then_some(CredentialId(current)),
            result: AttemptResult::ALL.into_iter().find(|known| known.code() == result),
            next: (next != 0).then_some(CredentialId(next)),
            rest: rest?,
        })
    }
}

impl AttemptResult {
    const ALL: [Self; 3] = [Self::Served, Self::Failed, Self::ClientError];

    /// The byte for filter state; 0 is none.
    fn code(self) -> u8 {
        match self {
            Self::Served => 1,
            Self::Failed => 2,
            Self::ClientError => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            pool: PoolId(1),
            api: Api::Gemini,
            model: "gemini-2.5-pro".to_owned(),
            binding: Some(KeyHash(2)),
            max_attempts: 3,
            attempts: 2,
            sent: Timestamp::MAX,
            current: Some(CredentialId(4)),
            result: Some(AttemptResult::Failed),
            next: Some(CredentialId(5)),
            rest: vec![CredentialId(6), CredentialId(7)],
        }
    }

    #[test]
    fn a_plan_comes_through_filter_state_as_it_was() {
        let nothing =
            Plan { binding: None, current: None, result: None, next: None, rest: vec![], ..plan() };
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
        let many = Plan { rest: (1..=1_000).map(CredentialId).collect(), ..plan() };
        assert_eq!(Plan::decode(&many.encode()).map(|plan| plan.rest.len()), Some(255));
    }
}
