//! What is known of a credential in the profile `recommended`: when it last served, and its
//! cooldowns, each for a model, a family of models, or the credential as a whole.
//!
//! All of it is one value in shared data, `session_affinity/credential/<16 hex digits>`, so a
//! decision about a credential costs one read. It has room for [`COOLDOWNS`] cooldowns. Beyond it
//! one gives way: one that is over, else a guess, else the one that began first; a limit that a
//! provider announced goes last. Losing a cooldown costs one request that fails and finds it again.
//!
//! The value is a version byte, a hash of the credential's entry in the configuration (4 bytes),
//! the time at which the credential last served (8), what an operator wants of it (1) and until
//! when (8), and records of [`Cooldown::BYTES`] bytes. A value of another layout, or of another
//! entry, is empty: a changed entry starts without cooldowns.

use std::time::Duration;

use crate::codec::{Reader, Writer};
use crate::config::Availability;
use crate::hash::KeyHash;
use crate::signals::Class;
use crate::time::Timestamp;

/// Cooldowns that are kept of a credential.
pub const COOLDOWNS: usize = 49;

/// The key of cooldowns of the credential as a whole.
pub const WHOLE: KeyHash = KeyHash(0);

const VERSION: u8 = 4;
const HEADER_BYTES: usize = 22;

/// The longest time for which an operator can override the state of a credential.
pub const LONGEST_OVERRIDE: Duration = Duration::from_hours(24);

/// What an operator wants of a credential for a time, in place of its configured state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// `Drain` or `Disabled`: an override takes away and never adds.
    pub availability: Availability,
    pub until: Timestamp,
}

impl Override {
    /// What counts: nothing that is over, and nothing from before the clock was set back.
    fn in_force(self, now: Timestamp) -> Option<Self> {
        let latest = now + LONGEST_OVERRIDE;
        let counts = self.availability != Availability::Active;
        (counts && now < self.until && !self.until.is_to_come(latest)).then_some(self)
    }
}

/// How a cooldown is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The provider announced the end of a limit. Until then nothing is sent but probes.
    Announced,
    /// A code of the provider names the key, the account or its quota.
    Proven,
    /// It follows from failures. A request that has no better credential is sent all the same.
    Guessed,
}

impl Basis {
    const ALL: [Self; 3] = [Self::Announced, Self::Proven, Self::Guessed];
}

/// A time in which a credential is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// What it covers: a model, a family, or [`WHOLE`].
    pub key: KeyHash,
    pub class: Class,
    pub basis: Basis,
    /// The status of the response that caused it; 0 without a response.
    pub status: u16,
    /// How often its length was doubled.
    pub level: u8,
    pub began: Timestamp,
    pub until: Timestamp,
    /// When a request was last sent in spite of it.
    pub probed: Timestamp,
    /// Which session caused it; a few digits of its hash.
    pub session: u32,
}

impl Cooldown {
    const BYTES: usize = 49;

    fn encode(&self, record: &mut Writer) {
        record.hash(self.key.0);
        record.byte(position(&Class::ALL, self.class));
        record.byte(position(&Basis::ALL, self.basis));
        record.byte(self.level);
        record.bytes(&self.status.to_le_bytes());
        record.word(self.session);
        record.time(self.began);
        record.time(self.until);
        record.time(self.probed);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut record = Reader::new(bytes);
        Some(Self {
            key: KeyHash(record.hash()?),
            class: *Class::ALL.get(usize::from(record.byte()?))?,
            basis: *Basis::ALL.get(usize::from(record.byte()?))?,
            level: record.byte()?,
            status: u16::from_le_bytes(record.array()?),
            session: record.word()?,
            began: record.time()?,
            until: record.time()?,
            probed: record.time()?,
        })
    }

    /// Higher gives way later.
    fn worth(&self, now: Timestamp) -> impl Ord + use<> {
        let basis = match self.basis {
            Basis::Announced => 2,
            Basis::Proven => 1,
            Basis::Guessed => 0,
        };
        (self.until > now, basis, self.began)
    }
}

fn position<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).unwrap_or_default() as u8
}

/// All that is known of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the credential last served a request; rounded.
    pub served: Timestamp,
    /// What an operator wants, also if that is over.
    pub overridden: Option<Override>,
    cooldowns: Vec<Cooldown>,
}

/// The states in the order of their bytes.
const STATES: [Availability; 3] =
    [Availability::Active, Availability::Drain, Availability::Disabled];

impl Record {
    /// Reads a value of shared data; `entry` is the hash of the credential's entry now.
    pub fn decode(bytes: &[u8], entry: u32) -> Self {
        Self::read(bytes, entry).unwrap_or_default()
    }

    fn read(bytes: &[u8], entry: u32) -> Option<Self> {
        let mut header = Reader::new(bytes);
        let is_ours = header.byte()? == VERSION && header.word()? == entry;
        let served = header.time()?;
        let availability = *STATES.get(usize::from(header.byte()?))?;
        let until = header.time()?;
        let overridden = Override { availability, until };
        let overridden = (availability != Availability::Active).then_some(overridden);
        let records = header.rest().chunks_exact(Cooldown::BYTES);
        if !is_ours || records.len() > COOLDOWNS || !records.remainder().is_empty() {
            return None;
        }
        Some(Self { served, overridden, cooldowns: records.filter_map(Cooldown::decode).collect() })
    }

    /// The value for shared data.
    pub fn encode(&self, entry: u32) -> Vec<u8> {
        let bytes = HEADER_BYTES + Cooldown::BYTES * self.cooldowns.len();
        let mut value = Writer::with_capacity(bytes);
        value.byte(VERSION);
        value.word(entry);
        value.time(self.served);
        let (state, until) = match self.overridden {
            Some(it) => (position(&STATES, it.availability), it.until),
            None => (0, Timestamp::EPOCH),
        };
        value.byte(state);
        value.time(until);
        self.cooldowns.iter().for_each(|cooldown| cooldown.encode(&mut value));
        value.finish()
    }

    /// What an operator wants now.
    pub fn override_at(&self, now: Timestamp) -> Option<Override> {
        self.overridden?.in_force(now)
    }

    /// The cooldown with this key.
    pub fn get(&self, key: KeyHash) -> Option<&Cooldown> {
        self.cooldowns.iter().find(|cooldown| cooldown.key == key)
    }

    /// The cooldown with this key, to be changed.
    pub fn get_mut(&mut self, key: KeyHash) -> Option<&mut Cooldown> {
        self.cooldowns.iter_mut().find(|cooldown| cooldown.key == key)
    }

    /// All cooldowns.
    pub fn iter(&self) -> impl Iterator<Item = &Cooldown> {
        self.cooldowns.iter()
    }

    /// Puts a cooldown in the place of the one with its key. In a full record the one that is worth
    /// least gives way, which may be this one.
    pub fn set(&mut self, cooldown: Cooldown, now: Timestamp) {
        self.cooldowns.retain(|other| other.key != cooldown.key);
        self.cooldowns.push(cooldown);
        if self.cooldowns.len() > COOLDOWNS {
            let least = (0..self.cooldowns.len())
                .min_by_key(|&at| self.cooldowns.get(at).map(|other| other.worth(now)));
            self.cooldowns.swap_remove(least.unwrap_or_default());
        }
    }

    /// Removes and returns the cooldowns for which this holds.
    pub fn remove(&mut self, is_over: &dyn Fn(&Cooldown) -> bool) -> Vec<Cooldown> {
        let (over, kept) = self.cooldowns.iter().partition(|cooldown| is_over(cooldown));
        self.cooldowns = kept;
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn cooldown(key: u128, basis: Basis, seconds: u64) -> Cooldown {
        Cooldown {
            key: KeyHash(key),
            class: Class::RateLimit,
            basis,
            status: 429,
            level: 3,
            began: NOW,
            until: NOW + Duration::from_secs(seconds),
            probed: Timestamp::EPOCH,
            session: 7,
        }
    }

    fn record(cooldowns: impl IntoIterator<Item = Cooldown>) -> Record {
        let mut record = Record { served: NOW, ..Record::default() };
        cooldowns.into_iter().for_each(|cooldown| record.set(cooldown, NOW));
        record
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let record = record([cooldown(1, Basis::Announced, 9), cooldown(0, Basis::Guessed, 1)]);
        assert_eq!(Record::decode(&record.encode(5), 5), record);
    }

    #[test]
    fn an_override_is_kept_and_counts_until_its_end() {
        let until = NOW + Duration::from_mins(5);
        for availability in [Availability::Drain, Availability::Disabled] {
            let overridden = Some(Override { availability, until });
            let record = Record { overridden, ..record([cooldown(1, Basis::Guessed, 9)]) };
            assert_eq!(Record::decode(&record.encode(5), 5), record);
            assert_eq!(record.override_at(NOW), overridden);
            assert_eq!(record.override_at(until), None, "it is over");
            let earlier = Timestamp::from_millis(1);
            let long_before = Record {
                overridden: Some(Override { availability, until: Timestamp::MAX }),
                ..record
            };
            assert_eq!(long_before.override_at(earlier), None, "the clock was set back");
        }
    }

    #[test]
    fn another_entry_of_the_configuration_starts_without_cooldowns() {
        let record = record([cooldown(1, Basis::Announced, 9)]);
        assert_eq!(Record::decode(&record.encode(5), 6), Record::default());
    }

    #[test]
    fn what_does_not_decode_is_empty() {
        let good = record([cooldown(1, Basis::Announced, 9)]).encode(5);
        let other_version = [&[VERSION + 1], &good[1..]].concat();
        for bad in [&[][..], &other_version, &good[..good.len() - 1], &[VERSION; 5_000]] {
            assert_eq!(Record::decode(bad, 5), Record::default(), "{bad:?}");
        }
    }

    #[test]
    fn a_flood_of_models_evicts_what_is_over_and_guesses_before_announced_limits() {
        let mut record =
            record([cooldown(1, Basis::Announced, 60), cooldown(2, Basis::Proven, 60)]);
        for key in 3..10_000 {
            let began = NOW + Duration::from_millis(key as u64);
            record.set(Cooldown { began, ..cooldown(key, Basis::Guessed, 60) }, NOW);
        }
        assert_eq!(record.iter().count(), COOLDOWNS);
        assert!(record.get(KeyHash(1)).is_some() && record.get(KeyHash(2)).is_some());
        assert!(record.get(KeyHash(9_999)).is_some(), "the newcomer stays");
    }
}
