//! The seam to the host: Envoy's shared data, seen by all workers.
//!
//! Shared data is a hint. Another worker may write at any moment, and all of it is lost with the
//! last VM. Losing a value may cost a new choice of credential, never a wrong response: what is
//! read is checked against the configuration.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::time::Timestamp;

/// A value as it was read, and the token that a write must present to replace just that value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Empty if there is no value: the host cannot tell an empty value from none.
    pub value: Vec<u8>,
    /// Of a key that was never written: [`Cas::ABSENT`].
    pub cas: Cas,
}

/// The token of a compare-and-swap (CAS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas(pub u32);

impl Cas {
    /// Creates a key, and refuses one that exists. The host ignores the token of a missing key and
    /// counts up from 1, so the highest number works as "must not exist". (Zero would mean "write
    /// unconditionally".)
    pub const ABSENT: Self = Self(u32::MAX);
}

impl Default for Cas {
    fn default() -> Self {
        Self::ABSENT
    }
}

/// A lost compare-and-swap: another worker wrote first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CasMismatch;

/// A map with compare-and-swap. Keys can never be removed, so callers use a fixed set of them.
pub trait SharedData {
    /// The newest value of a key.
    fn get(&self, key: &str) -> Stored;

    /// Writes a value if it was not written since it was read.
    ///
    /// # Errors
    /// [`CasMismatch`] if another worker did.
    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch>;

    /// Whether it is worth the effort to look again at what changes slowly and is kept under a key,
    /// part by part. A host may say no where it has just said yes.
    fn is_due(&self, _key: &str, _part: &str, _now: Timestamp) -> bool {
        true
    }

    /// Something has happened to shared data that an operator may count. Nothing depends on it.
    fn note(&self, _note: Note) {}
}

/// What may happen to shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// An entry of a table gave way that could still be used; the name of the table.
    Evicted(&'static str),
    /// A write was given up, because other workers wrote in every try.
    Contended,
    /// A pin was made.
    Pinned,
}

/// How often an update is tried. Every mismatch means that another worker's write went through, so
/// even with four workers in a tight loop on one key this many in succession are rare.
pub const CAS_RETRIES: u32 = 32;

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated<T> {
    /// What `change` gave the last time it was asked.
    pub result: T,
    /// Whether that is so now. If not, other workers wrote the key in every attempt.
    pub written: bool,
}

/// Changes the value of a key. `change` gets the current value and returns the new one, or `None`
/// to leave it, and a result; if another worker wrote meanwhile, it is called again with the value
/// that worker left.
pub fn update<T>(
    shared: &impl SharedData,
    key: &str,
    mut change: impl FnMut(&[u8]) -> (Option<Vec<u8>>, T),
) -> Updated<T> {
    retry(shared, || {
        let stored = shared.get(key);
        let (value, result) = change(&stored.value);
        (value.map_or(Ok(()), |value| shared.set(key, &value, stored.cas)), result)
    })
}

/// Reads, changes and writes until no other worker interferes, at most [`CAS_RETRIES`] times.
pub(crate) fn retry<T>(
    shared: &impl SharedData,
    mut step: impl FnMut() -> (Result<(), CasMismatch>, T),
) -> Updated<T> {
    let mut left = CAS_RETRIES;
    loop {
        let (written, result) = step();
        left -= 1;
        if written.is_ok() || left == 0 {
            if written.is_err() {
                shared.note(Note::Contended);
            }
            return Updated { result, written: written.is_ok() };
        }
    }
}

/// Shared data in memory, with the host's rules: for tests, benchmarks and tools.
#[derive(Debug, Default)]
pub struct InMemory {
    values: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    notes: RefCell<Vec<Note>>,
}

impl InMemory {
    /// The keys that were ever written.
    pub fn keys(&self) -> Vec<String> {
        self.values.borrow().keys().cloned().collect()
    }

    /// What was noted since the last time.
    pub fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }
}

impl SharedData for InMemory {
    fn get(&self, key: &str) -> Stored {
        match self.values.borrow().get(key) {
            Some((value, cas)) => Stored { value: value.clone(), cas: Cas(*cas) },
            None => Stored::default(),
        }
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        let mut values = self.values.borrow_mut();
        let next = match values.get(key) {
            Some((_, current)) if cas.0 != 0 && cas.0 != *current => return Err(CasMismatch),
            Some((_, current)) => current.wrapping_add(1).max(1),
            None => 1,
        };
        values.insert(key.to_owned(), (value.to_vec(), next));
        Ok(())
    }

    fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }
}
