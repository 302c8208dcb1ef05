//! The cursors of round-robin: the number of the next turn of every rotation.

use crate::codec::{Reader, Writer};
use crate::hash::KeyHash;
use crate::shared::{self, SharedData, Updated};
use crate::table::{Edit, Entry, Table};
use crate::time::Timestamp;

/// Rotations that are kept apart, one for each pool, provider and model in use. Beyond it the least
/// recently used one starts anew.
const ROTATIONS: u32 = 4096;

/// Where a rotation starts over, as in the reference.
const LAST_TURN: u64 = 2_147_483_640;

/// The key of the generation of all cursors, in the profile `reference`.
const GENERATION: &str = "session_affinity/cursor_generation";

/// The cursors of all rotations.
#[derive(Clone, Copy, Debug)]
pub struct Cursors {
    table: Table<1>,
    /// In the reference all cursors start over when a new one would exceed this number.
    cap: Option<u32>,
}

/// Which cursors count in the reference, and how many there are.
#[derive(Clone, Copy, Default)]
struct Generation {
    number: u32,
    cursors: u32,
}

impl Cursors {
    /// The cursors; with a cap, under the reference's rule for it.
    pub fn new(cap: Option<u32>) -> Self {
        // Twice the room, so that the cap is reached before a row is full.
        let entries = cap.map_or(ROTATIONS, |cap| cap.saturating_mul(2).max(ROTATIONS));
        Self { table: Table::new("cursor", entries), cap }
    }

    /// Every key of shared data that cursors use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys().chain(self.cap.map(|_| GENERATION.to_owned()))
    }

    /// Whether a rotation has begun.
    pub(super) fn has_begun(&self, shared: &impl SharedData, key: KeyHash) -> bool {
        self.table.find(shared, key).is_some()
    }

    /// Takes a turn of the rotation with this key; a new rotation begins at `first`.
    pub(super) fn turn(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        now: Timestamp,
        first: u64,
    ) -> Updated<u64> {
        let generation = self.generation(shared, key);
        self.table.update(shared, key, now, |entry| {
            let turn = match entry.map(|entry| entry.numbers) {
                Some([number]) if number >> 32 == generation => number & u64::from(u32::MAX),
                _ => first,
            };
            let turn = if turn >= LAST_TURN { 0 } else { turn };
            (Edit::Put([(generation << 32) | (turn + 1)]), turn)
        })
    }

    /// The generation that a cursor must belong to. A new cursor counts against the cap; where the
    /// cap is reached a new generation begins, in which all others start over.
    fn generation(&self, shared: &impl SharedData, key: KeyHash) -> u64 {
        let Some(cap) = self.cap else {
            return 0;
        };
        let current = Generation::decode(&shared.get(GENERATION).value).unwrap_or_default();
        let known =
            self.table.find(shared, key).map(|Entry { numbers: [number], .. }| number >> 32);
        if known == Some(u64::from(current.number)) {
            return u64::from(current.number);
        }
        let updated = shared::update(shared, GENERATION, |value| {
            let generation = Generation::decode(value).unwrap_or_default().with_one_more(cap);
            (Some(generation.encode()), generation.number)
        });
        u64::from(updated.result)
    }
}

impl Generation {
    fn with_one_more(self, cap: u32) -> Self {
        if self.cursors >= cap.max(1) {
            Self { number: self.number.wrapping_add(1), cursors: 1 }
        } else {
            Self { cursors: self.cursors + 1, ..self }
        }
    }

    fn encode(self) -> Vec<u8> {
        let mut value = Writer::with_capacity(8);
        value.word(self.cursors);
        value.word(self.number);
        value.finish()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let generation = Self { cursors: reader.word()?, number: reader.word()? };
        reader.is_empty().then_some(generation)
    }
}
