//! The changes of the last time, for the operator's page: cooldowns that began or ended, and what
//! an operator did.
//!
//! They are a ring of [`MOST`] entries under one key of shared data, written on a change only.
//! What happens again and again to one credential is one entry with a number, so that it does not
//! push out everything else. An entry has no session and no model.
//!
//! The value is a version byte and entries of `Entry::BYTES` bytes, the newest last.

use crate::codec::{Reader, Writer};
use crate::config::{Credential, CredentialId, PoolId};
use crate::cooldown::Change;
use crate::shared::{self, SharedData};
use crate::signals::Class;
use crate::time::Timestamp;

/// The key of shared data.
pub const KEY: &str = "session_affinity/changes";

/// Entries that are kept.
pub const MOST: usize = 64;

const VERSION: u8 = 1;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A cooldown of the credential as a whole began.
    Blocked,
    /// One of a model began.
    ModelBlocked,
    /// A cooldown of the credential as a whole ended by a success.
    Recovered,
    /// One of a model ended by a success.
    ModelRecovered,
    /// An operator drained it.
    Drained,
    /// An operator released its sessions.
    Released,
    /// An operator let the configuration count again.
    Activated,
    /// An operator ended cooldowns.
    Cleared,
    /// An operator made a session forgotten.
    Forgotten,
}

impl What {
    const ALL: [Self; 9] = [
        Self::Blocked,
        Self::ModelBlocked,
        Self::Recovered,
        Self::ModelRecovered,
        Self::Drained,
        Self::Released,
        Self::Activated,
        Self::Cleared,
        Self::Forgotten,
    ];

    /// The word for the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::ModelBlocked => "model_blocked",
            Self::Recovered => "recovered",
            Self::ModelRecovered => "model_recovered",
            Self::Drained => "drained",
            Self::Released => "released",
            Self::Activated => "activated",
            Self::Cleared => "cleared",
            Self::Forgotten => "forgotten",
        }
    }

    /// Whether an operator did it.
    pub fn is_operators(self) -> bool {
        !matches!(self, Self::Blocked | Self::ModelBlocked | Self::Recovered | Self::ModelRecovered)
    }

    fn of(change: &Change) -> Self {
        match (change.length.is_some(), change.is_whole) {
            (true, true) => Self::Blocked,
            (true, false) => Self::ModelBlocked,
            (false, true) => Self::Recovered,
            (false, false) => Self::ModelRecovered,
        }
    }
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened last.
    pub at: Timestamp,
    /// How often it happened in a row.
    pub times: u16,
    pub what: What,
    /// Of what it happened to; zero if to no credential.
    pub pool: PoolId,
    pub credential: CredentialId,
    /// Of the response that caused it; [`Class::Success`] if none did.
    pub class: Class,
    /// The status of that response; 0 without one.
    pub status: u16,
    /// Until when it lasts; the epoch if it does not.
    pub until: Timestamp,
}

impl Entry {
    const BYTES: usize = 38;

    /// What an operator did.
    pub fn of_operator(what: What, until: Timestamp, now: Timestamp) -> Self {
        let (pool, credential) = (PoolId(0), CredentialId(0));
        Self { at: now, times: 1, what, pool, credential, class: Class::Success, status: 0, until }
    }

    fn is_alike(&self, other: &Self) -> bool {
        (self.what, self.pool, self.credential, self.class)
            == (other.what, other.pool, other.credential, other.class)
    }

    fn encode(&self, value: &mut Writer) {
        value.time(self.at);
        value.bytes(&self.times.to_le_bytes());
        value.byte(position(&What::ALL, self.what));
        value.number(self.pool.0);
        value.number(self.credential.0);
        value.byte(position(&Class::ALL, self.class));
        value.bytes(&self.status.to_le_bytes());
        value.time(self.until);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut value = Reader::new(bytes);
        Some(Self {
            at: value.time()?,
            times: u16::from_le_bytes(value.array()?),
            what: *What::ALL.get(usize::from(value.byte()?))?,
            pool: PoolId(value.number()?),
            credential: CredentialId(value.number()?),
            class: *Class::ALL.get(usize::from(value.byte()?))?,
            status: u16::from_le_bytes(value.array()?),
            until: value.time()?,
        })
    }
}

fn position<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).unwrap_or_default() as u8
}

/// The changes that are kept, the newest last.
pub fn recent(shared: &impl SharedData) -> Vec<Entry> {
    decode(&shared.get(KEY).value)
}

/// Notes cooldowns that began or ended.
pub fn note_cooldowns(
    shared: &impl SharedData,
    pool: PoolId,
    changes: &[(&Credential, Change)],
    now: Timestamp,
) {
    for (credential, change) in changes {
        let entry = Entry {
            at: now,
            times: 1,
            what: What::of(change),
            pool,
            credential: credential.fingerprint,
            class: change.class,
            status: change.status,
            until: change.length.map_or(Timestamp::EPOCH, |length| now + length),
        };
        note(shared, entry);
    }
}

/// Notes a change. That it could not be written changes nothing: it is news, not state.
#[inline(never)]
pub(super) fn note(shared: &impl SharedData, entry: Entry) {
    shared::update(shared, KEY, |value| (Some(with(value, entry)), ()));
}

fn with(value: &[u8], mut entry: Entry) -> Vec<u8> {
    let mut entries = decode(value);
    if let Some(last) = entries.pop_if(|last| last.is_alike(&entry)) {
        entry.times = last.times.saturating_add(1);
    }
    entries.push(entry);
    let old = entries.len().saturating_sub(MOST);
    let mut value = Writer::with_capacity(1 + Entry::BYTES * entries.len());
    value.byte(VERSION);
    entries.iter().skip(old).for_each(|entry| entry.encode(&mut value));
    value.finish()
}

fn decode(value: &[u8]) -> Vec<Entry> {
    match value.split_first() {
        Some((&VERSION, entries)) if entries.len() <= MOST * Entry::BYTES => {
            entries.chunks_exact(Entry::BYTES).filter_map(Entry::decode).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Cas, InMemory};

    fn entry(credential: u64, at: u64) -> Entry {
        let at = Timestamp::from_millis(at);
        let credential = CredentialId(credential);
        let entry = Entry::of_operator(What::Blocked, at, at);
        Entry { credential, class: Class::Denied, status: 401, pool: PoolId(7), ..entry }
    }

    #[test]
    fn changes_are_kept_in_their_order_and_the_oldest_go() {
        let shared = InMemory::default();
        for number in 0..100 {
            note(&shared, entry(number, number));
        }
        let expected: Vec<_> = (36..100).map(|number| entry(number, number)).collect();
        assert_eq!(recent(&shared), expected);
        assert_eq!(shared.keys(), [KEY]);
    }

    #[test]
    fn what_repeats_is_one_change_with_a_number() {
        let shared = InMemory::default();
        for number in 0..100_000 {
            note(&shared, entry(1, number));
        }
        note(&shared, entry(2, 100_000));
        let expected = Entry { times: u16::MAX, ..entry(1, 99_999) };
        assert_eq!(recent(&shared), [expected, entry(2, 100_000)]);
    }

    #[test]
    fn what_does_not_decode_is_empty() {
        let shared = InMemory::default();
        note(&shared, entry(1, 1));
        let good = shared.get(KEY).value;
        for bad in [vec![], [&[VERSION + 1], &good[1..]].concat(), vec![VERSION; 9_999]] {
            shared.set(KEY, &bad, Cas(0)).unwrap();
            assert_eq!(recent(&shared), []);
        }
    }

    #[test]
    fn every_change_has_a_word_of_its_own() {
        let mut words = What::ALL.map(What::as_str).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), What::ALL.len());
    }
}
