//! Bindings: which credential a session is on.
//!
//! A binding is kept under the hash of pool, provider, session id and model, and names its credential by fingerprint. It
//! ends when it was not used for the time-to-live that is configured now, so a changed setting applies at once.

use crate::hash::KeyHash;
use crate::shared::SharedData;
use crate::table::{Entry, Table, Updated};

/// The bindings of all pools.
#[derive(Clone, Copy, Debug)]
pub struct Bindings {
    table: Table,
    ttl: u64,
}

impl Bindings {
    /// Room for at least so many bindings that live for so many milliseconds after their last use.
    pub fn new(capacity: u32, ttl: u64) -> Self {
        Self { table: Table::new("binding", capacity), ttl }
    }

    /// The credential that a key is bound to. Looking does not prolong the binding.
    pub fn peek(&self, shared: &impl SharedData, key: KeyHash, now: u64) -> Option<u64> {
        self.alive(self.table.find(shared, key), now)
    }

    /// Binds a key to what `choose` gives, given the credential that it is bound to now; a binding that is kept is
    /// prolonged. Of two workers that bind one key at once, the second is asked again and sees the first one's choice.
    pub fn settle<T>(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        now: u64,
        mut choose: impl FnMut(Option<u64>) -> Option<(u64, T)>,
    ) -> Option<Updated<T>> {
        self.table.update(shared, key, now, |entry| choose(self.alive(entry, now)))
    }

    /// Every key of shared data that bindings use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys()
    }

    fn alive(&self, entry: Option<Entry>, now: u64) -> Option<u64> {
        entry.filter(|entry| now <= entry.used.saturating_add(self.ttl)).map(|entry| entry.number)
    }
}
