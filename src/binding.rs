//! Bindings: which credential a session is on.
//!
//! A binding is kept under the hash of pool, provider, session id and model, and names its credential by fingerprint. It
//! ends when it was not used for the time-to-live that is configured now, so a changed setting applies at once.

use crate::hash::KeyHash;
use crate::shared::{SharedData, Updated};
use crate::table::{Entry, Table};

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

    /// Ends every binding to a credential.
    pub fn release(&self, shared: &impl SharedData, fingerprint: u64) {
        self.table.retain(shared, |entry| entry.number != fingerprint);
    }

    /// Drops what has ended, and gives the number of bindings that are left. Nothing needs it but who wants to know the
    /// number: a binding that has ended counts as none, and its place is taken when one is wanted.
    pub fn sweep(&self, shared: &impl SharedData, now: u64) -> usize {
        self.table.retain(shared, |entry| self.alive(Some(*entry), now).is_some())
    }

    /// Every key of shared data that bindings use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys()
    }

    fn alive(&self, entry: Option<Entry>, now: u64) -> Option<u64> {
        entry.filter(|entry| now <= entry.used.saturating_add(self.ttl)).map(|entry| entry.number)
    }
}
