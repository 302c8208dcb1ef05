//! Bindings: which credential a session uses.
//!
//! A session has a home, and while that cannot serve, one substitute. A binding is kept under the
//! hash of pool, provider, session id and model, and refers to credentials by [`CredentialId`]. It
//! ends when it was not used for the time-to-live that is configured now, so a changed setting
//! applies at once.
//!
//! A chosen credential is written down at once, so that concurrent requests of a session stay
//! together. But only a response confirms it: a credential that fails before it has ever served the
//! session is removed from its binding.

use std::time::Duration;

use crate::config::CredentialId;
use crate::hash::KeyHash;
use crate::shared::{CasMismatch, SharedData};
use crate::table::{Edit, Entry, Slot, Table};
use crate::time::Timestamp;

/// Sentinel: no substitute.
const NO_SUBSTITUTE: CredentialId = CredentialId(0);

/// Where a session is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The credential that the session belongs to.
    pub home: BoundCredential,
    /// The credential that stood in for the home last.
    pub substitute: Option<BoundCredential>,
    /// When the binding was last used.
    pub used: Timestamp,
}

/// A credential, as a session knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundCredential {
    pub credential: CredentialId,
    /// When it last served the session; `None` if it was only chosen for it.
    pub served: Option<Timestamp>,
}

impl BoundCredential {
    /// A credential that was chosen and has not served yet.
    pub fn chosen(credential: CredentialId) -> Self {
        Self { credential, served: None }
    }

    fn from_numbers(credential: u64, served: u64) -> Self {
        let served = (served != 0).then_some(Timestamp::from_millis(served));
        Self { credential: CredentialId(credential), served }
    }

    fn numbers(self) -> [u64; 2] {
        [self.credential.0, self.served.map_or(0, Timestamp::as_millis)]
    }
}

impl Binding {
    /// The binding of a session whose home was just chosen.
    pub fn new(home: BoundCredential, now: Timestamp) -> Self {
        Self { home, substitute: None, used: now }
    }

    /// The binding after a credential has served the session. Another credential replaces the home
    /// only if that never served, or if sessions do not return.
    fn served_by(mut self, credential: CredentialId, returns: bool, now: Timestamp) -> Self {
        let serving = BoundCredential { credential, served: Some(now) };
        if self.home.credential == credential {
            self.home = serving;
        } else if self.home.served.is_none() || !returns {
            return Self::new(serving, now);
        } else {
            self.substitute = Some(serving);
        }
        self
    }

    /// What is left after a credential has failed; `None` if nothing is.
    fn without_chosen(mut self, credential: CredentialId) -> Option<Self> {
        let failed = BoundCredential::chosen(credential);
        if self.substitute == Some(failed) {
            self.substitute = None;
        }
        (self.home != failed).then_some(self)
    }

    fn numbers(&self) -> [u64; 4] {
        let substitute = self.substitute.unwrap_or(BoundCredential::chosen(NO_SUBSTITUTE));
        let [home, home_served] = self.home.numbers();
        let [substitute, substitute_served] = substitute.numbers();
        [home, home_served, substitute, substitute_served]
    }
}

impl From<Entry<4>> for Binding {
    fn from(entry: Entry<4>) -> Self {
        let [home, home_served, substitute, substitute_served] = entry.numbers;
        let substitute = BoundCredential::from_numbers(substitute, substitute_served);
        Self {
            home: BoundCredential::from_numbers(home, home_served),
            substitute: Some(substitute).filter(|it| it.credential != NO_SUBSTITUTE),
            used: entry.used,
        }
    }
}

/// The bindings of all pools.
#[derive(Clone, Copy, Debug)]
pub struct Bindings {
    table: Table<4>,
    ttl: Duration,
}

/// The binding of a key as it was read, and the right to replace just that.
pub struct BindingSlot<'a, S> {
    slot: Slot<'a, S, 4>,
    binding: Option<Binding>,
}

impl<S: SharedData> BindingSlot<'_, S> {
    /// The binding; `None` if there is none, or if it has ended.
    pub fn binding(&self) -> Option<Binding> {
        self.binding
    }

    /// Replaces the binding.
    ///
    /// # Errors
    /// [`CasMismatch`] if another worker has written the row since it was read.
    pub fn write(self, binding: Binding, now: Timestamp) -> Result<(), CasMismatch> {
        self.slot.apply(Edit::Put(binding.numbers()), now)
    }
}

impl Bindings {
    /// Room for at least `capacity` bindings, which end `ttl` after their last use.
    pub fn new(capacity: u32, ttl: Duration) -> Self {
        Self { table: Table::new("binding", capacity), ttl }
    }

    /// The binding of a key. Reading does not prolong it.
    pub fn peek(&self, shared: &impl SharedData, key: KeyHash, now: Timestamp) -> Option<Binding> {
        self.alive(self.table.find(shared, key), now)
    }

    /// Reads the binding of a key in order to replace it.
    pub fn slot<'a, S: SharedData>(
        &self,
        shared: &'a S,
        key: KeyHash,
        now: Timestamp,
    ) -> BindingSlot<'a, S> {
        let slot = self.table.slot(shared, key);
        BindingSlot { binding: self.alive(slot.entry(), now), slot }
    }

    /// Records that a credential has served a session, which prolongs its binding. Returns whether
    /// it could be written.
    pub fn confirm(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: CredentialId,
        returns: bool,
        now: Timestamp,
    ) -> bool {
        let updated = self.table.update(shared, key, now, |entry| {
            let binding = self
                .alive(entry, now)
                .unwrap_or(Binding::new(BoundCredential::chosen(credential), now));
            (Edit::Put(binding.served_by(credential, returns, now).numbers()), ())
        });
        updated.written
    }

    /// Removes a credential that was chosen for a session, if it has never served it. Returns
    /// whether that could be written.
    pub fn withdraw(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: CredentialId,
        now: Timestamp,
    ) -> bool {
        let updated = self.table.update(shared, key, now, |entry| {
            let Some(before) = self.alive(entry, now) else {
                return (Edit::Leave, ());
            };
            let edit = match before.without_chosen(credential) {
                Some(after) if after == before => Edit::Leave,
                Some(after) => Edit::Put(after.numbers()),
                None => Edit::Remove,
            };
            (edit, ())
        });
        updated.written
    }

    /// Every key of shared data that bindings use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys()
    }

    /// The table under the bindings, for tools that walk it.
    pub fn table(&self) -> &Table<4> {
        &self.table
    }

    fn alive(&self, entry: Option<Entry<4>>, now: Timestamp) -> Option<Binding> {
        entry.filter(|entry| now <= entry.used + self.ttl).map(Binding::from)
    }
}
