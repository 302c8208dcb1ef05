//! The plan of a request: the credentials that it may be sent to, in order, and what came of it so
//! far.
//!
//! The listener's filter makes the plan. Envoy's router then makes one attempt after the other and
//! runs the filter of the cluster once for each, which observes the response of its own attempt and
//! names the next credential. Between them the plan travels as filter state, so it refers to
//! credentials by id: listener and clusters are not always updated in the same moment.

use std::time::Duration;

use super::StateUse;
use crate::api::Api;
use crate::codec::{Reader, Writer};
use crate::config::{CredentialId, Pool, PoolId};
use crate::cooldown::Fault;
use crate::hash::KeyHash;
use crate::operation::Operation;
use crate::outcome::Failover;
use crate::response::Failure;
use crate::signals::Class;
use crate::target::{Subject, Target, canonical};
use crate::time::Timestamp;

const VERSION: u8 = 5;

/// The most credentials that a plan names beside the first ones.
const LONGEST_REST: usize = u8::MAX as usize;

/// The most failures that a plan remembers: as many as there can be attempts.
const MOST_FAILURES: usize = 16;

/// Bytes of a provider's code that are kept.
const LONGEST_CODE: usize = 48;

/// What an attempt meant for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// It was served.
    Served,
    /// The credential failed, and another one could do better.
    Failed,
    /// It was refused for what it is.
    ClientError,
}

/// A credential that failed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    pub credential: CredentialId,
    pub fault: Fault,
    /// Whether a cooldown began at once, because the response was proof by itself. Other failures
    /// wait here until the fate of the request is known.
    pub is_learned: bool,
}

/// Where a request may go, and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub pool: PoolId,
    /// A few digits that distinguish the shared data of the filter that made the plan.
    pub shared_data: u32,
    pub api: Api,
    pub operation: Operation,
    /// The model, as the client wrote it; empty if it is not known.
    pub model: String,
    /// The key that its session is bound under.
    pub binding: Option<KeyHash>,
    /// The most credentials that it is sent to.
    pub max_attempts: u8,
    /// The attempts that filters of clusters have begun; 0 where no cluster runs the filter.
    pub attempts: u8,
    /// When the request was decided.
    pub began: Timestamp,
    /// When the current attempt began.
    pub sent: Timestamp,
    /// The credential of the current attempt.
    pub current: Option<CredentialId>,
    /// What came of it; `None` while it is under way.
    pub result: Option<AttemptResult>,
    /// The credential of the next attempt.
    pub next: Option<CredentialId>,
    /// Whether an attempt was repeated on the same credential, because its connection was stale.
    pub is_repeated: bool,
    /// The credentials that may be tried after that, in order.
    pub rest: Vec<CredentialId>,
    /// What failed so far.
    pub failures: Vec<FailedAttempt>,
    /// What it has to do with state that a provider keeps.
    pub state: StateUse,
    /// By which it is known among the requests in flight; 0 where they are not counted.
    pub ticket: u32,
    /// Whether clients do not see the headers that name the provider's account: whoever observes a
    /// response removes them.
    pub hides_account: bool,
}

impl Plan {
    /// How failover ended, if there was any, now that the client gets a response.
    pub fn end(&self) -> Option<Failover> {
        match self.result {
            Some(AttemptResult::Failed) if self.next.is_some() => Some(Failover::Abandoned),
            Some(AttemptResult::Failed) => Some(Failover::Exhausted),
            Some(AttemptResult::Served) if self.has_moved() => Some(Failover::Served),
            _ => None,
        }
    }

    /// Whether more than one credential was tried. Failures alone do not show it: what lies below
    /// the credentials is the failure of none.
    fn has_moved(&self) -> bool {
        let attempts = self.attempts.saturating_sub(u8::from(self.is_repeated));
        attempts > 1 || !self.failures.is_empty()
    }

    /// Whether the current attempt has not ended, as far as is known.
    pub fn is_pending(&self) -> bool {
        self.current.is_some() && self.result.is_none()
    }

    /// Whether the last attempt has ended in an error.
    pub fn has_failed(&self) -> bool {
        matches!(self.result, Some(AttemptResult::Failed | AttemptResult::ClientError))
    }

    /// Whether the client might get the response to the first attempt in the end: it says that what
    /// the request needs is not there, or it is the word of a home that alone can read the request.
    pub fn keeps_first_response(&self) -> bool {
        let is_homes = self.state.has_ciphertext && self.current == self.state.home;
        self.attempts == 1 && (self.state.was_not_here || is_homes)
    }

    /// Whether the client gets the response to the first attempt: no credential has what the
    /// request needs, and none has failed it for another reason but its home.
    pub fn gives_first_response(&self) -> bool {
        let mut failed = self.failures.iter().map(|failed| Some(failed.credential));
        self.attempts > 1
            && self.has_failed()
            && self.state.was_not_here
            && failed.all(|credential| credential == self.state.home)
    }

    /// Whether the request may be sent again after it may have been carried out.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.operation.may_be_repeated() && !self.state.is_once
    }

    /// What a cooldown may cover.
    pub fn subject(&self) -> Subject<'_> {
        Subject { model: canonical(&self.model), operation: self.operation }
    }

    /// A few digits that distinguish the session from others; 0 without a session.
    pub fn session(&self) -> u32 {
        self.binding.map_or(0, KeyHash::tag)
    }

    /// What the request is for.
    pub(super) fn target<'c>(&self, pool: &'c Pool) -> Target<'c> {
        Target::new(pool, self.api, self.operation, self.model.clone())
    }

    /// Why the last failed attempt had no response; `None` if it had one.
    pub(super) fn last_failure(&self) -> Option<Failure> {
        let code = &self.failures.last()?.fault.code;
        Failure::ALL.into_iter().find(|failure| failure.as_str() == code)
    }

    /// Remembers a failure of the current attempt.
    pub(super) fn add_failure(&mut self, failure: FailedAttempt) {
        self.failures.retain(|other| other.credential != failure.credential);
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(failure);
        }
    }

    /// The bytes for filter state.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Writer::with_capacity(96 + 8 * self.rest.len() + self.model.len());
        bytes.byte(VERSION);
        bytes.byte(self.api as u8);
        bytes.byte(self.operation as u8);
        bytes.byte(self.max_attempts);
        bytes.byte(self.attempts);
        bytes.byte(self.result.map_or(0, AttemptResult::code));
        bytes.byte(u8::from(self.is_repeated) | u8::from(self.hides_account) << 1);
        bytes.number(self.pool.0);
        bytes.word(self.shared_data);
        bytes.word(self.ticket);
        bytes.time(self.began);
        bytes.time(self.sent);
        bytes.number(self.current.map_or(0, |current| current.0));
        bytes.number(self.next.map_or(0, |next| next.0));
        bytes.hash(self.binding.map_or(0, |key| key.0));
        bytes.byte(self.rest.len().min(LONGEST_REST) as u8);
        self.rest.iter().take(LONGEST_REST).for_each(|id| bytes.number(id.0));
        bytes.byte(self.failures.len().min(MOST_FAILURES) as u8);
        self.failures.iter().take(MOST_FAILURES).for_each(|failure| failure.encode(&mut bytes));
        self.state.encode(&mut bytes);
        bytes.bytes(self.model.as_bytes());
        bytes.finish()
    }

    /// Reads what [`Self::encode`] returned; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader::new(bytes);
        if bytes.byte()? != VERSION {
            return None;
        }
        let (api, operation) = (bytes.byte()?, bytes.byte()?);
        let (max_attempts, attempts, result) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
        let flags = bytes.byte()?;
        let pool = PoolId(bytes.number()?);
        let (shared_data, ticket) = (bytes.word()?, bytes.word()?);
        let (began, sent) = (bytes.time()?, bytes.time()?);
        let (current, next) = (bytes.number()?, bytes.number()?);
        let binding = bytes.hash()?;
        let count = bytes.byte()?;
        let rest: Option<_> = (0..count).map(|_| bytes.number().map(CredentialId)).collect();
        let count = bytes.byte()?.min(MOST_FAILURES as u8);
        let failures: Option<_> = (0..count).map(|_| FailedAttempt::decode(&mut bytes)).collect();
        let state = StateUse::decode(&mut bytes)?;
        Some(Self {
            pool,
            shared_data,
            api: Api::ALL.into_iter().find(|known| *known as u8 == api)?,
            operation: Operation::ALL.into_iter().find(|known| *known as u8 == operation)?,
            model: String::from_utf8(bytes.rest().to_vec()).ok()?,
            binding: (binding != 0).then_some(KeyHash(binding)),
            max_attempts,
            attempts,
            began,
            sent,
            current: (current != 0).then_some(CredentialId(current)),
            result: AttemptResult::ALL.into_iter().find(|known| known.code() == result),
            next: (next != 0).then_some(CredentialId(next)),
            is_repeated: flags & 1 != 0,
            rest: rest?,
            failures: failures?,
            state,
            ticket,
            hides_account: flags & 2 != 0,
        })
    }
}

impl FailedAttempt {
    fn encode(&self, bytes: &mut Writer) {
        let Fault { class, key, status, wait, long, code } = &self.fault;
        let class = Class::ALL.iter().position(|known| known == class).unwrap_or_default();
        let code = code.as_bytes().get(..LONGEST_CODE).unwrap_or(code.as_bytes());
        bytes.number(self.credential.0);
        bytes.byte(class as u8);
        bytes.byte(u8::from(*long) | u8::from(self.is_learned) << 1);
        bytes.hash(key.0);
        bytes.bytes(&status.to_le_bytes());
        // No wait is as no time: neither is obeyed for less than a second.
        bytes.number(wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        bytes.byte(code.len() as u8);
        bytes.bytes(code);
    }

    fn decode(bytes: &mut Reader<'_>) -> Option<Self> {
        let credential = CredentialId(bytes.number()?);
        let class = *Class::ALL.get(usize::from(bytes.byte()?))?;
        let flags = bytes.byte()?;
        let key = KeyHash(bytes.hash()?);
        let status = u16::from_le_bytes(bytes.array()?);
        let wait = bytes.number()?;
        // A longer one would be another plan when it is encoded again.
        let length = Some(usize::from(bytes.byte()?)).filter(|it| *it <= LONGEST_CODE)?;
        let code = String::from_utf8(bytes.take(length)?.to_vec()).ok()?;
        let wait = (wait != 0).then_some(Duration::from_millis(wait));
        let fault = Fault { class, key, status, wait, long: flags & 1 != 0, code };
        Some(Self { credential, fault, is_learned: flags & 2 != 0 })
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
    use crate::pins::{KindId, Reference};

    fn failure(credential: u64) -> FailedAttempt {
        let fault = Fault {
            class: Class::Denied,
            key: KeyHash(9),
            status: 401,
            wait: Some(Duration::from_secs(7)),
            long: true,
            code: "invalid_api_key".to_owned(),
        };
        FailedAttempt { credential: CredentialId(credential), fault, is_learned: true }
    }

    fn plan() -> Plan {
        Plan {
            pool: PoolId(1),
            shared_data: 8,
            api: Api::Gemini,
            operation: Operation::CountTokens,
            model: "gemini-2.5-pro".to_owned(),
            binding: Some(KeyHash(2)),
            max_attempts: 3,
            attempts: 2,
            began: Timestamp::from_secs(1),
            sent: Timestamp::MAX,
            current: Some(CredentialId(4)),
            result: Some(AttemptResult::Failed),
            next: Some(CredentialId(5)),
            is_repeated: true,
            rest: vec![CredentialId(6), CredentialId(7)],
            failures: vec![failure(1), failure(2)],
            state: StateUse {
                references: vec![Reference { kind: KindId(3), key: KeyHash(8) }],
                creates: Some(KindId(0)),
                tenant: Some(KeyHash(6)),
                home: Some(CredentialId(4)),
                is_by_path: true,
                is_sole: false,
                is_pinned: false,
                may_search: true,
                is_once: false,
                has_ciphertext: true,
                was_not_here: false,
                was_unreadable: true,
            },
            ticket: 11,
            hides_account: false,
        }
    }

    #[test]
    fn a_plan_comes_through_filter_state_as_it_was() {
        let nothing = Plan {
            binding: None,
            current: None,
            result: None,
            next: None,
            rest: vec![],
            failures: vec![],
            hides_account: true,
            state: StateUse {
                is_sole: true,
                is_pinned: true,
                is_once: true,
                was_not_here: true,
                ..StateUse::default()
            },
            ..plan()
        };
        for plan in [plan(), nothing, Plan { model: String::new(), ..plan() }] {
            assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        }
    }

    #[test]
    fn another_attempt_on_the_same_credential_is_no_failover() {
        let served = Plan { result: Some(AttemptResult::Served), failures: vec![], ..plan() };
        for (attempts, is_repeated, expected) in [
            (1, false, None),
            (2, true, None),
            (2, false, Some(Failover::Served)),
            (3, true, Some(Failover::Served)),
        ] {
            assert_eq!(Plan { attempts, is_repeated, ..served.clone() }.end(), expected);
        }
        let failed = Plan { attempts: 1, failures: vec![failure(1)], is_repeated: false, ..served };
        assert_eq!(failed.end(), Some(Failover::Served), "the first cluster had no host");
    }

    #[test]
    fn what_is_no_plan_is_none() {
        let good = plan().encode();
        let other_version = [&[VERSION + 1], &good[1..]].concat();
        let other_api = [&good[..1], &[99], &good[2..]].concat();
        let not_utf8 = [&good[..], &[0xff]].concat();
        let code = good.windows(15).position(|it| it == b"invalid_api_key").unwrap();
        let longer = [&good[..code - 1], &[49], &[b'a'; 49], &good[code + 15..]].concat();
        for bad in
            [&[][..], &good[..20], &good[..60], &other_version, &other_api, &not_utf8, &longer]
        {
            assert_eq!(Plan::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_longest_pool_fits() {
        let many = Plan { rest: (1..=1_000).map(CredentialId).collect(), ..plan() };
        assert_eq!(Plan::decode(&many.encode()).map(|plan| plan.rest.len()), Some(255));
    }

    #[test]
    fn a_plan_remembers_a_bounded_number_of_failures_and_one_of_each_credential() {
        let mut plan = Plan { failures: vec![], ..plan() };
        (0..100).for_each(|credential| plan.add_failure(failure(credential % 50)));
        assert_eq!(plan.failures.len(), MOST_FAILURES);
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
    }
}
