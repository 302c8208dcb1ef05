//! What is known of a credential: for every model that it was used with, and for the credential as
//! a whole.
//!
//! All of it is one value in shared data, `session_affinity/credential/<16 hex digits>`, so a
//! decision about a credential costs one read. It has room for [`MODELS`] models; beyond it the one
//! that was changed longest ago gives way, a blocked one last. Losing a cooldown costs one request
//! that fails and finds it again.
//!
//! The value is a version byte and records of 42 bytes, little endian: the hash of the model (16;
//! zero for the credential itself), flags (1), the level of the back-off (1), the end of the block
//! (8), the recovery of the quota (8), the time of the last change (8). Times are milliseconds
//! since the epoch. A value that does not read so is empty.

use crate::codec::{Reader, Writer};
use crate::cooldown::{Block, WHOLE};
use crate::hash::KeyHash;
use crate::signals::Class;
use crate::time::Timestamp;

/// Models of which a credential's state is kept.
const MODELS: usize = 48;

const VERSION: u8 = 1;
const RECORD_BYTES: usize = 42;

const UNAVAILABLE: u8 = 1;
const DISABLED: u8 = 2;
const HAS_RETRY: u8 = 4;
const EXCEEDED: u8 = 8;
const HAS_RECOVERY: u8 = 16;

/// What is known of a credential for one model, or of the credential itself. The default is that
/// all is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReferenceState {
    /// The last response was an error. It blocks only together with a time.
    pub unavailable: bool,
    /// Turned off by an operator for this model.
    pub disabled: bool,
    /// When it may be used again.
    pub retry_at: Option<Timestamp>,
    /// Whether a quota ran out.
    pub exceeded: bool,
    /// When the quota recovers.
    pub recover_at: Option<Timestamp>,
    /// How many windows of the back-off came in a row.
    pub level: u8,
}

impl ReferenceState {
    /// Whether, and why, it may not be used now. In the reference the recovery of the quota
    /// replaces the end of the block, even where it is earlier.
    pub fn block(&self, now: Timestamp) -> Option<Block> {
        if self.disabled {
            return Some(Block::Disabled);
        }
        let retry_at = self.retry_at.filter(|&retry_at| self.unavailable && retry_at > now)?;
        let until = self.recover_at.filter(|&recover_at| recover_at > now).unwrap_or(retry_at);
        Some(if self.exceeded {
            Block::RateLimited { class: Class::RateLimit, until, retry_at: until }
        } else {
            Block::Failing { class: Class::Unclear, until }
        })
    }
}

/// All that is known of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceStates {
    records: Vec<(KeyHash, ReferenceState, Timestamp)>,
}

impl ReferenceStates {
    /// Reads a value of shared data.
    pub fn decode(bytes: &[u8]) -> Self {
        let records = match bytes.split_first() {
            Some((&VERSION, records)) if records.len() <= (MODELS + 1) * RECORD_BYTES => records,
            _ => return Self::default(),
        };
        let chunks = records.chunks_exact(RECORD_BYTES);
        if !chunks.remainder().is_empty() {
            return Self::default();
        }
        Self { records: chunks.filter_map(decode_record).collect() }
    }

    /// The value for shared data.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Writer::with_capacity(1 + RECORD_BYTES * self.records.len());
        value.byte(VERSION);
        for (model, state, changed) in &self.records {
            value.hash(model.0);
            value.byte(flags_of(state));
            value.byte(state.level);
            value.time(state.retry_at.unwrap_or_default());
            value.time(state.recover_at.unwrap_or_default());
            value.time(*changed);
        }
        value.finish()
    }

    /// The state for a model, or under [`WHOLE`] that of the credential.
    pub fn get(&self, model: KeyHash) -> Option<ReferenceState> {
        self.records.iter().find(|(known, _, _)| *known == model).map(|(_, state, _)| *state)
    }

    /// Sets a state; the default is not kept for a credential as a whole.
    pub fn set(&mut self, model: KeyHash, state: ReferenceState, now: Timestamp) {
        self.records.retain(|(known, _, _)| *known != model);
        if model == WHOLE && state == ReferenceState::default() {
            return;
        }
        if model != WHOLE && self.models().count() >= MODELS {
            let models =
                self.records.iter().enumerate().filter(|(_, (model, _, _))| *model != WHOLE);
            if let Some((least, _)) =
                models.min_by_key(|(_, (_, state, changed))| (state.block(now).is_some(), *changed))
            {
                self.records.swap_remove(least);
            }
        }
        self.records.push((model, state, now));
    }

    /// The states of all models.
    pub fn models(&self) -> impl Iterator<Item = &ReferenceState> {
        self.records.iter().filter(|(model, _, _)| *model != WHOLE).map(|(_, state, _)| state)
    }

    /// The states of all models, to be changed.
    pub fn models_mut(&mut self) -> impl Iterator<Item = &mut ReferenceState> {
        self.records.iter_mut().filter(|(model, _, _)| *model != WHOLE).map(|(_, state, _)| state)
    }
}

fn flags_of(state: &ReferenceState) -> u8 {
    [
        (state.unavailable, UNAVAILABLE),
        (state.disabled, DISABLED),
        (state.retry_at.is_some(), HAS_RETRY),
        (state.exceeded, EXCEEDED),
        (state.recover_at.is_some(), HAS_RECOVERY),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .fold(0, |flags, (_, flag)| flags | flag)
}

fn decode_record(bytes: &[u8]) -> Option<(KeyHash, ReferenceState, Timestamp)> {
    let mut reader = Reader::new(bytes);
    let (model, flags, level) = (KeyHash(reader.hash()?), reader.byte()?, reader.byte()?);
    let (retry_at, recover_at, changed) = (reader.time()?, reader.time()?, reader.time()?);
    let state = ReferenceState {
        unavailable: flags & UNAVAILABLE != 0,
        disabled: flags & DISABLED != 0,
        retry_at: (flags & HAS_RETRY != 0).then_some(retry_at),
        exceeded: flags & EXCEEDED != 0,
        recover_at: (flags & HAS_RECOVERY != 0).then_some(recover_at),
        level,
    };
    Some((model, state, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::from_millis(milliseconds)
    }

    fn limited(until: Timestamp) -> Block {
        Block::RateLimited { class: Class::RateLimit, until, retry_at: until }
    }

    fn blocked_until(retry_at: u64) -> ReferenceState {
        ReferenceState {
            unavailable: true,
            retry_at: Some(at(retry_at)),
            level: 3,
            ..ReferenceState::default()
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut states = ReferenceStates::default();
        states.set(KeyHash(7), blocked_until(9), at(1));
        states.set(
            WHOLE,
            ReferenceState {
                disabled: true,
                exceeded: true,
                recover_at: Some(Timestamp::MAX),
                ..ReferenceState::default()
            },
            at(2),
        );
        states.set(KeyHash(8), ReferenceState::default(), at(3));
        assert_eq!(ReferenceStates::decode(&states.encode()), states);
    }

    #[test]
    fn what_does_not_decode_is_empty() {
        let mut states = ReferenceStates::default();
        states.set(KeyHash(7), blocked_until(9), at(1));
        let good = states.encode();
        for bad in [&[][..], &[VERSION + 1], &good[..good.len() - 1], &[VERSION; 5000]] {
            assert_eq!(ReferenceStates::decode(bad), ReferenceStates::default(), "{bad:?}");
        }
    }

    #[test]
    fn a_flood_of_models_does_not_wash_a_block_away() {
        let mut states = ReferenceStates::default();
        states.set(KeyHash(1), blocked_until(1_000_000), at(0));
        states.set(WHOLE, blocked_until(5), at(0));
        for model in 2..10_000 {
            states.set(
                KeyHash(model),
                ReferenceState { unavailable: true, ..ReferenceState::default() },
                at(model as u64),
            );
        }
        assert_eq!(states.get(KeyHash(1)), Some(blocked_until(1_000_000)));
        assert_eq!(states.get(WHOLE), Some(blocked_until(5)));
        assert_eq!(states.models().count(), MODELS);
        assert!(states.get(KeyHash(9_999)).is_some());
    }

    #[test]
    fn a_block_needs_a_time_and_tells_its_reason() {
        let now = at(10);
        assert_eq!(
            ReferenceState { unavailable: true, ..ReferenceState::default() }.block(now),
            None
        );
        assert_eq!(blocked_until(10).block(now), None, "at its end it is over");
        assert_eq!(
            blocked_until(11).block(now),
            Some(Block::Failing { class: Class::Unclear, until: at(11) })
        );
        let quota = ReferenceState { exceeded: true, ..blocked_until(20) };
        assert_eq!(quota.block(now), Some(limited(at(20))));
        assert_eq!(
            ReferenceState { recover_at: Some(at(12)), ..quota }.block(now),
            Some(limited(at(12)))
        );
        assert_eq!(
            ReferenceState { recover_at: Some(at(9)), ..quota }.block(now),
            Some(limited(at(20)))
        );
        assert_eq!(ReferenceState { disabled: true, ..quota }.block(now), Some(Block::Disabled));
    }
}
