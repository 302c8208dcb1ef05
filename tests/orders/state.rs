//! A state of all workers: where each one is, and what is stored.

use std::hash::Hasher;

/// What is stored under a key, and who has read just that and may replace it: workers, with the
/// history in which they did. That is also their token, plus one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) read_by: Vec<(usize, usize)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) at: Vec<usize>,
    /// By key.
    pub(crate) stored: Vec<Slot>,
    /// Who took the last contested step, and how often another one was interrupted; both are left
    /// out where there is no bound.
    pub(crate) last: Option<usize>,
    pub(crate) interruptions: u32,
}

impl State {
    pub(crate) fn slot(&mut self, key: usize) -> Option<&mut Slot> {
        let at = self.stored.binary_search_by_key(&key, |slot| slot.key).ok()?;
        Some(&mut self.stored[at])
    }

    pub(crate) fn put(&mut self, key: usize, value: usize) {
        let slot = Slot { key, value, read_by: Vec::new() };
        match self.stored.binary_search_by_key(&key, |slot| slot.key) {
            Ok(at) => self.stored[at] = slot,
            Err(at) => self.stored.insert(at, slot),
        }
    }
}

/// A hasher of numbers: most of the time goes into finding states again.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, number: usize) {
        let mixed = self.0.rotate_left(5) ^ number as u64;
        self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The workers that use a key, as bits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Users {
    pub(crate) all: u32,
    pub(crate) writers: u32,
}

impl Users {
    pub(crate) fn are_in_conflict(self) -> bool {
        self.writers != 0 && self.all.count_ones() > 1
    }
}

/// How an order ends: the last history of each worker, and the value of each key.
pub(crate) type End = (Vec<usize>, Vec<(usize, usize)>);
