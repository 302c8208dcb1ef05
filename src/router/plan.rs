//! The plan of a request: the credentials that it may be sent to, in order, and how far it has got.
//!
//! The listener's filter makes the plan. Envoy's router then makes one attempt after the other, and
//! runs the filter of the cluster once for each: that one takes the plan up, hears the answer of
//! its own attempt, and names the next credential. Between them the plan travels as filter state,
//! so it tells credentials by fingerprint: listener and clusters are not always updated in the same
//! moment.

use crate::api::Api;
use crate::config::Pool;
use crate::hash::KeyHash;
use crate::outcome::Failover;
use crate::target::Target;

const VERSION: u8 = 1;

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
    pub pool: u64,
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
    pub sent: u64,
    /// Whom the newest attempt asks.
    pub current: Option<u64>,
    /// What that one's answer meant; `None` until there is one, which may be never.
    pub result: Option<AttemptResult>,
    /// Whom the next attempt will ask.
    pub next: Option<u64>,
    /// Who may be asked after that, in order.
    pub rest: Vec<u64>,
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

    /// The bytes for filter state, little endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![
            VERSION,
            self.api as u8,
            self.max_attempts,
            self.attempts,
            self.result.map_or(0, result_code),
        ];
        for number in [self.pool, self.sent, self.current.unwrap_or(0), self.next.unwrap_or(0)] {
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
        let (&[version, api, max_attempts, attempts, result], rest) = bytes.split_first_chunk()?;
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
            max_attempts,
            attempts,
            sent,
            current: (asked != 0).then_some(asked),
            result: [AttemptResult::Served, AttemptResult::Failed, AttemptResult::ClientError]
                .into_iter()
                .find(|known| result_code(*known) == result),
            next: (next != 0).then_some(next),
            rest: others,
        };
        (version == VERSION).then_some(plan)
    }
}

fn result_code(result: AttemptResult) -> u8 {
    match result {
        AttemptResult::Served => 1,
        AttemptResult::Failed => 2,
        AttemptResult::ClientError => 3,
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
            max_attempts: 3,
            attempts: 2,
            sent: u64::MAX,
            current: Some(4),
            result: Some(AttemptResult::Failed),
            next: Some(5),
            rest: vec![6, 7],
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
        let many = Plan { rest: (1..=1_000).collect(), ..plan() };
        assert_eq!(Plan::decode(&many.encode()).map(|plan| plan.rest.len()), Some(255));
    }
}
