//! How many sessions are bound, and to which credentials.
//!
//! Only a walk through the table can tell. A table of the default size is walked as a whole, which
//! takes some milliseconds of one worker; of a larger one evenly spaced rows are read, and the
//! numbers are scaled. Keys are hashes, so any rows are as good as others.

use crate::config::CredentialId;
use crate::router::Router;
use crate::shared::SharedData;
use crate::time::Timestamp;

/// The most rows of a table that are read.
pub(super) const MOST_ROWS: u32 = 4096;

/// The sessions of every credential, as their home.
pub(super) struct Census {
    /// The sessions of all, as far as rows were read.
    live: u64,
    /// Sorted by credential: there may be a thousand.
    homes: Vec<(CredentialId, u64)>,
    /// One in so many rows was read.
    step: u32,
}

impl Census {
    pub(super) fn take(router: &Router, shared: &impl SharedData, now: Timestamp) -> Self {
        let (bindings, mut homes) = (router.bindings(), Vec::<(CredentialId, u64)>::new());
        let rows = bindings.table().rows();
        let (mut live, step) = (0, rows.div_ceil(MOST_ROWS).max(1));
        for row in (0..rows).step_by(step as usize) {
            for entry in bindings.table().row(shared, row) {
                let Some(binding) = bindings.alive(Some(entry), now) else { continue };
                let home = binding.home.credential;
                match homes.binary_search_by_key(&home.0, |(known, _)| known.0) {
                    Ok(at) => {
                        homes.iter_mut().skip(at).take(1).for_each(|(_, number)| *number += 1)
                    }
                    Err(at) => homes.insert(at, (home, 1)),
                }
                live += 1;
            }
        }
        Self { live, homes, step }
    }

    /// The sessions of all credentials.
    pub(super) fn sessions(&self) -> u64 {
        self.live * u64::from(self.step)
    }

    /// The sessions of a credential. Bindings know a credential by a hash of its id, so those of
    /// equal ids in several pools count together.
    pub(super) fn sessions_of(&self, credential: CredentialId) -> u64 {
        let at = self.homes.binary_search_by_key(&credential.0, |(known, _)| known.0).ok();
        at.and_then(|at| self.homes.get(at)).map_or(0, |(_, number)| *number) * u64::from(self.step)
    }

    /// Whether not every row was read.
    pub(super) fn is_estimated(&self) -> bool {
        self.step > 1
    }
}
