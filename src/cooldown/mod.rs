//! Cooldowns: times in which a credential is not used, because of what its responses proved.
//!
//! A failure is evidence about a credential only as far as something else was ruled out. So a
//! cooldown rests on [`Grounds`]:
//!
//! | grounds | what was seen | how long |
//! |---|---|---|
//! | [`Grounds::Proof`] | the provider announced the end of a limit, or named the key or account in a code | as announced, up to `cooldown.max_told`; else `cooldown.denied` |
//! | [`Grounds::SecondOpinion`] | another credential served the same request | from a second (a refused key: a minute), doubling up to the longest of its class; a model that a code says is missing: `cooldown.not_found` |
//! | [`Grounds::Alone`] | no other credential was asked | from a second, doubling only with failures of *other* sessions |
//! | [`Grounds::Everywhere`] | every credential that was asked failed alike | nothing; a second where the status itself says overload |
//!
//! Only an announced end makes the filter refuse a request by itself. A guess makes a credential
//! the last choice, and a success of any session ends it. An announced limit is probed with one
//! request every `cooldown.max`, because providers lift limits early.
//!
//! Cooldowns are kept with their class, grounds and beginning, so that what is configured now
//! applies to the ones that exist.

mod record;
mod reference;

use std::fmt;
use std::time::Duration;

pub use record::{Basis, COOLDOWNS, Cooldown, LONGEST_OVERRIDE, Override, Record, WHOLE};
pub use reference::{
    Observation, ReferenceCooldowns, ReferenceState, ReferenceStates, depends_on_message,
};

use crate::config::{Availability, CooldownConfig, Credential};
use crate::duration::short;
use crate::hash::{KeyHash, Seed};
use crate::operation::Operation;
use crate::response::Failure;
use crate::shared::{self, SharedData, Updated};
use crate::signals::{Class, Scope, families};
use crate::target::Subject;
use crate::time::Timestamp;

/// The first and shortest cooldown, which is also the time between probes of a guess.
pub const FIRST: Duration = Duration::from_secs(1);

/// The first cooldown of a key that is refused, or of a model that is missing, where only prose or
/// a status says so.
const FIRST_OF_REFUSALS: Duration = Duration::from_mins(1);

/// The first cooldown of a cluster in which Envoy finds no host. Each try costs a client an error,
/// because Envoy cannot fail over from it, and hosts take seconds to come back.
const FIRST_WITHOUT_A_HOST: Duration = Duration::from_secs(15);

/// A rate limit without an announced end, so soon after the credential has served another request,
/// means too many requests at once: it never doubles.
pub const CONCURRENT: Duration = Duration::from_secs(10);

/// How exactly it is kept when a credential has served last: a write at most this often.
const SERVED_EXACTNESS: Duration = Duration::from_secs(1);

/// What a failure rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// The provider's own word about the credential.
    Proof,
    /// Another credential served the same request.
    SecondOpinion,
    /// No other credential was asked.
    Alone,
    /// Every credential that was asked failed in the same way: the request or the provider is at
    /// fault.
    Everywhere,
}

/// A failure of a credential, as far as a cooldown depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: Class,
    /// What a cooldown would cover.
    pub key: KeyHash,
    /// The status; 0 without a response.
    pub status: u16,
    /// How long the provider wants to be left alone.
    pub wait: Option<Duration>,
    /// Whether a code justifies a long cooldown.
    pub long: bool,
    /// The provider's code, for logs.
    pub code: String,
}

/// What a failure was, as logs show it: `429,rate_limit,20s`; the code of an attempt without a
/// response in place of the status.
impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 | 200 => {
                formatter.write_str(if self.code.is_empty() { "event" } else { &self.code })?
            }
            status => write!(formatter, "{status}")?,
        }
        write!(formatter, ",{}", self.class.as_str())?;
        self.wait.map_or(Ok(()), |wait| write!(formatter, ",{}", short(wait)))
    }
}

/// Why a credential may not be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The provider announced the end of a limit.
    RateLimited {
        class: Class,
        until: Timestamp,
        /// When the next request may be sent: at the end, or earlier as a probe.
        retry_at: Timestamp,
    },
    /// It failed: it is used only if there is no better credential.
    Failing { class: Class, until: Timestamp },
    /// An operator says so; in the profile `reference` also what is stored of a model.
    Disabled,
    /// An operator says that it takes no new session.
    Draining,
}

impl Block {
    /// The class of the response that caused it; `None` if none did.
    pub fn class(self) -> Option<Class> {
        match self {
            Self::RateLimited { class, .. } | Self::Failing { class, .. } => Some(class),
            Self::Disabled | Self::Draining => None,
        }
    }

    /// When it ends by itself; `None` if it does not.
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Self::RateLimited { until, .. } | Self::Failing { until, .. } => Some(until),
            Self::Disabled | Self::Draining => None,
        }
    }

    /// When a request may be sent again; `None` if that is not known.
    pub fn retry_at(self) -> Option<Timestamp> {
        match self {
            Self::RateLimited { retry_at, .. } => Some(retry_at),
            Self::Failing { until, .. } => Some(until),
            Self::Disabled | Self::Draining => None,
        }
    }

    /// Whether a limit is the reason, which credentials of one group share.
    pub fn is_limit(self) -> bool {
        match self {
            Self::RateLimited { .. } => true,
            Self::Failing { class, .. } => class == Class::RateLimit,
            Self::Disabled | Self::Draining => false,
        }
    }

    /// Whether a probe of the limit is due.
    pub fn is_due(self, now: Timestamp) -> bool {
        matches!(self, Self::RateLimited { retry_at, .. } if retry_at <= now)
    }
}

/// A cooldown that began or ended, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub class: Class,
    /// Whether all models are covered.
    pub is_whole: bool,
    /// The status that caused it; 0 without a response.
    pub status: u16,
    /// The provider's code, if there was one.
    pub code: String,
    /// For how long it will last; `None` if it has ended.
    pub length: Option<Duration>,
}

/// What an operator wants of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another state for a time; `None` lets the configuration count again.
    Override(Option<Override>),
    /// No cooldown whose key has these digits; `None`: none at all.
    Clear(Option<u32>),
}

/// The cooldowns of all credentials in the profile `recommended`.
#[derive(Clone, Copy)]
pub struct Cooldowns<'c> {
    pub config: &'c CooldownConfig,
    /// What keys the hashes of models.
    pub seed: Seed,
}

impl Cooldowns<'_> {
    /// Why a credential may not be used for a subject now, by a session that is bound to it; `None`
    /// if it may.
    pub fn block(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> Option<Block> {
        let record = self.record(shared, credential)?;
        match record.override_at(now).map(|it| it.availability) {
            Some(Availability::Disabled) => Some(Block::Disabled),
            _ => self.block_in(&record, credential, subject, now),
        }
    }

    /// As [`Self::block`], by a session that is not bound to it.
    pub fn block_for_new(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> Option<Block> {
        let record = self.record(shared, credential)?;
        match record.override_at(now).map(|it| it.availability) {
            Some(Availability::Disabled) => Some(Block::Disabled),
            Some(_) => Some(Block::Draining),
            None => self.block_in(&record, credential, subject, now),
        }
    }

    /// All that is known of a credential; `None` if nothing is.
    pub fn record(&self, shared: &impl SharedData, credential: &Credential) -> Option<Record> {
        let value = shared.get(&credential.cooldown_key).value;
        (!value.is_empty()).then(|| Record::decode(&value, credential.entry))
    }

    fn block_in(
        &self,
        record: &Record,
        credential: &Credential,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> Option<Block> {
        let keys = self.keys(subject);
        record
            .iter()
            .filter(|cooldown| keys.contains(&Some(cooldown.key)))
            .filter_map(|cooldown| self.block_of(cooldown, credential, now))
            .reduce(stronger)
    }

    /// Every block of a credential, and whether it covers all of it.
    pub fn blocks(
        &self,
        record: &Record,
        credential: &Credential,
        now: Timestamp,
    ) -> Vec<(Block, bool)> {
        let blocks = record.iter().filter_map(|cooldown| {
            Some((self.block_of(cooldown, credential, now)?, cooldown.key == WHOLE))
        });
        blocks.collect()
    }

    /// Applies a fault. Returns the cooldown that began by it, if one did, and whether what changed
    /// was written.
    pub fn learn(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        fault: &Fault,
        grounds: Grounds,
        session: u32,
        now: Timestamp,
    ) -> Updated<Option<Change>> {
        shared::update(shared, &credential.cooldown_key, |value| {
            let mut record = Record::decode(value, credential.entry);
            let Some(cooldown) = self.cooldown(&record, credential, fault, grounds, session, now)
            else {
                return (None, None);
            };
            record.set(cooldown, now);
            let change = Change {
                class: fault.class,
                is_whole: fault.key == WHOLE,
                status: fault.status,
                code: fault.code.clone(),
                length: Some(cooldown.until.since(now)),
            };
            // A failure that is only remembered, in case another session fails too, is no change.
            let change = (cooldown.until > now).then_some(change);
            (Some(record.encode(credential.entry)), change)
        })
    }

    /// Applies a success of a request that was sent at `sent`: it ends every guess about its
    /// subject, and everything else that began before it was sent.
    pub fn succeed(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        subject: Subject<'_>,
        sent: Timestamp,
        now: Timestamp,
    ) -> Updated<Vec<Change>> {
        let keys = self.keys(subject);
        shared::update(shared, &credential.cooldown_key, |value| {
            let mut record = Record::decode(value, credential.entry);
            let over = record.remove(&|cooldown| {
                keys.contains(&Some(cooldown.key))
                    && (cooldown.basis == Basis::Guessed || cooldown.began < sent)
            });
            let is_new = !now.is_within(SERVED_EXACTNESS, record.served);
            if over.is_empty() && !is_new {
                return (None, Vec::new());
            }
            record.served = now;
            let was_open = over.iter().filter(|it| self.block_of(it, credential, now).is_some());
            let changes = was_open.map(Change::of_end).collect();
            (Some(record.encode(credential.entry)), changes)
        })
    }

    /// Does what an operator wants. Returns how many things changed, and whether that was written.
    pub fn operate(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        wish: Wish,
        now: Timestamp,
    ) -> Updated<u64> {
        shared::update(shared, &credential.cooldown_key, |value| {
            let mut record = Record::decode(value, credential.entry);
            let changed = match wish {
                Wish::Override(overridden) => {
                    let changed = record.override_at(now) != overridden;
                    record.overridden = overridden;
                    changed.into()
                }
                Wish::Clear(tag) => self.clear(&mut record, credential, tag, now),
            };
            ((changed > 0).then(|| record.encode(credential.entry)), changed)
        })
    }

    /// Removes the cooldowns whose key has these digits, or all. Returns how many were open.
    fn clear(
        &self,
        record: &mut Record,
        credential: &Credential,
        tag: Option<u32>,
        now: Timestamp,
    ) -> u64 {
        let over = record.remove(&|it| tag.is_none_or(|tag| it.key.tag() == tag));
        let open = over.iter().filter(|it| self.block_of(it, credential, now).is_some());
        open.count() as u64
    }

    /// Claims the right to send a request in spite of a block. Of requests that come together one
    /// gets it; it comes back after [`FIRST`], or after `cooldown.max` for an announced limit.
    pub fn claim_probe(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> bool {
        let keys = self.keys(subject);
        let claimed = shared::update(shared, &credential.cooldown_key, |value| {
            let mut record = Record::decode(value, credential.entry);
            let mut is_claimed = false;
            for key in keys.into_iter().flatten() {
                if let Some(cooldown) = record.get_mut(key)
                    && !now.is_within(FIRST, cooldown.probed)
                {
                    cooldown.probed = now;
                    is_claimed = true;
                }
            }
            (is_claimed.then(|| record.encode(credential.entry)), is_claimed)
        });
        claimed.result && claimed.written
    }

    /// What a fault of this scope covers. Only a generation can show that a credential as a whole
    /// fails.
    pub fn key(&self, scope: Scope, subject: Subject<'_>, is_proof: bool) -> KeyHash {
        match scope {
            Scope::Credential if is_proof || subject.operation == Operation::Generate => WHOLE,
            Scope::Family(family) => self.seed.hash(&[b"family", family.as_bytes()]),
            Scope::Credential | Scope::Model => self.model_key(subject),
        }
    }

    fn model_key(&self, subject: Subject<'_>) -> KeyHash {
        self.seed.hash(&[subject.model.as_bytes(), subject.operation.tag()])
    }

    /// The keys of all cooldowns that cover a subject.
    fn keys(&self, subject: Subject<'_>) -> [Option<KeyHash>; 3] {
        let family = families::of(subject.model);
        let family = family.map(|family| self.seed.hash(&[b"family", family.as_bytes()]));
        [Some(WHOLE), Some(self.model_key(subject)), family]
    }

    /// What a cooldown means now; `None` if nothing.
    pub fn block_of(
        &self,
        cooldown: &Cooldown,
        credential: &Credential,
        now: Timestamp,
    ) -> Option<Block> {
        let until = self.end(cooldown, credential, now);
        let class = cooldown.class;
        match cooldown.basis {
            _ if until <= now => None,
            Basis::Announced => {
                // A probe that is still to come is from before the clock was set back.
                let probed = Some(cooldown.probed).filter(|probed| !probed.is_to_come(now));
                let last = cooldown.began.max(probed.unwrap_or_default());
                let retry_at = until.min(last + self.config.max);
                Some(Block::RateLimited { class, until, retry_at })
            }
            Basis::Proven | Basis::Guessed => Some(Block::Failing { class, until }),
        }
    }

    /// When a cooldown ends by what is configured now.
    fn end(&self, cooldown: &Cooldown, credential: &Credential, now: Timestamp) -> Timestamp {
        let is_ignored = self.ignores(cooldown.class, credential)
            || self
                .config
                .class_of_status(cooldown.status)
                .is_some_and(|class| !class.cools_down());
        if is_ignored || cooldown.began.is_to_come(now) {
            return Timestamp::EPOCH;
        }
        let longest = match cooldown.basis {
            Basis::Announced => self.config.max_told,
            Basis::Proven | Basis::Guessed => self.longest(cooldown.class),
        };
        cooldown.until.min(cooldown.began + longest)
    }

    /// Whether cooling is disabled; a model that a credential does not have cools down all the
    /// same.
    fn ignores(&self, class: Class, credential: &Credential) -> bool {
        let cooling_disabled = credential.disable_cooling.unwrap_or(self.config.cooling_disabled);
        cooling_disabled && class != Class::NotSupported
    }

    /// The cooldown that a fault leads to; `None` if what there is stays as it is.
    fn cooldown(
        &self,
        record: &Record,
        credential: &Credential,
        fault: &Fault,
        grounds: Grounds,
        session: u32,
        now: Timestamp,
    ) -> Option<Cooldown> {
        if self.ignores(fault.class, credential) || !fault.class.cools_down() {
            return None;
        }
        let old = record.get(fault.key).filter(|old| !old.began.is_to_come(now));
        let open = old.filter(|old| self.end(old, credential, now) > now);
        let (basis, length, level) = match (grounds, fault.wait) {
            (Grounds::Proof, Some(wait)) => {
                (Basis::Announced, wait.clamp(FIRST, self.config.max_told), 0)
            }
            (Grounds::Proof, None) => (Basis::Proven, self.longest(fault.class), 0),
            (_, wait) => {
                // The length grows once a window, however many requests were under way when it
                // opened. What a provider announced stays, although a guess may end later.
                let stays =
                    |open: &Cooldown| open.class == fault.class || open.basis == Basis::Announced;
                if open.is_some_and(stays) {
                    return None;
                }
                let level = self.level(old, fault, grounds, record.served, session, now);
                let length = self.guess(fault, grounds, old.is_some(), level)?;
                let wait = wait.unwrap_or_default().min(self.longest(fault.class));
                (Basis::Guessed, length.max(wait), level)
            }
        };
        let until = now + length;
        // A guess that may last longer gives way to what the provider says: any success would end it.
        let counts = |open: &Cooldown| open.basis != Basis::Guessed || basis == Basis::Guessed;
        if open.filter(|it| counts(it)).is_some_and(|it| self.end(it, credential, now) >= until) {
            return None;
        }
        Some(Cooldown {
            key: fault.key,
            class: fault.class,
            basis,
            status: fault.status,
            level,
            began: now,
            until,
            probed: old.map_or(Timestamp::EPOCH, |old| old.probed),
            session,
        })
    }

    /// How often the length is doubled: once more for every session that fails while the last
    /// failure is not forgotten. Requests at once, and what every credential refuses, add nothing.
    fn level(
        &self,
        old: Option<&Cooldown>,
        fault: &Fault,
        grounds: Grounds,
        served: Timestamp,
        session: u32,
        now: Timestamp,
    ) -> u8 {
        let is_concurrent = fault.class == Class::RateLimit && now.is_within(CONCURRENT, served);
        match old {
            _ if is_concurrent || grounds == Grounds::Everywhere => 0,
            Some(old) if old.class != fault.class => 0,
            Some(old) if now.since(old.until) > self.longest(fault.class) => 0,
            Some(old) if old.session == session => old.level,
            Some(old) => old.level.saturating_add(1),
            None => 0,
        }
    }

    /// How long a credential is left alone after a fault that proves nothing by itself.
    fn guess(
        &self,
        fault: &Fault,
        grounds: Grounds,
        has_failed_before: bool,
        level: u8,
    ) -> Option<Duration> {
        let is_refusal =
            matches!(fault.class, Class::Denied | Class::NotFound | Class::NotSupported);
        let first = match grounds {
            Grounds::Everywhere => {
                let is_overload = matches!(fault.class, Class::Overloaded | Class::RateLimit);
                return is_overload.then_some(FIRST);
            }
            // A client that is slow to upload causes this as well: it takes two.
            Grounds::Alone if fault.status == 408 && !has_failed_before => Duration::ZERO,
            Grounds::SecondOpinion if is_refusal && fault.long && fault.class != Class::Denied => {
                return Some(self.config.not_found);
            }
            Grounds::SecondOpinion if is_refusal => FIRST_OF_REFUSALS,
            _ if fault.code == Failure::NoHost.as_str() => FIRST_WITHOUT_A_HOST,
            _ => FIRST,
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(u32::from(level)));
        Some(doubled.min(self.longest(fault.class)))
    }

    /// The longest cooldown that is not announced.
    fn longest(&self, class: Class) -> Duration {
        match class {
            Class::Denied => self.config.denied,
            Class::NotFound | Class::NotSupported => self.config.not_found,
            Class::Transient | Class::Overloaded => self.config.transient,
            _ => self.config.max,
        }
    }
}

/// Of two blocks that hold together: an announced limit, which a guess may delay a probe of but
/// never prolong; else the one that ends later.
fn stronger(one: Block, other: Block) -> Block {
    let (later, earlier) = if one.until() >= other.until() { (one, other) } else { (other, one) };
    match (later, earlier) {
        (Block::RateLimited { class, until, retry_at }, other)
        | (other, Block::RateLimited { class, until, retry_at }) => {
            let next = other.retry_at().unwrap_or_default().min(until);
            Block::RateLimited { class, until, retry_at: retry_at.max(next) }
        }
        (later, _) => later,
    }
}

impl Change {
    fn of_end(cooldown: &Cooldown) -> Self {
        Self {
            class: cooldown.class,
            is_whole: cooldown.key == WHOLE,
            status: cooldown.status,
            code: String::new(),
            length: None,
        }
    }
}
