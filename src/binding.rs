//! Bindings: which credential a session is on.
//!
//! A session has a home, and while that cannot serve, one substitute. A binding is kept under the
//! hash of pool, provider, session id and model, and names credentials by fingerprint. It ends when
//! it was not used for the time-to-live that is configured now, so a changed setting applies at
//! once.
//!
//! A place that was chosen is written down at once, so that requests of one session that come
//! together stay together. But only an answer confirms it: a place that fails before it ever served
//! the session is forgotten.

use crate::hash::KeyHash;
use crate::shared::{SharedData, Updated};
use crate::table::{Edit, Entry, Table};

/// The fingerprint in place of a substitute that there is not.
const NONE: u64 = 0;

/// Where a session is. Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The credential that it belongs to.
    pub home: BoundCredential,
    /// The credential that stood in for the home last.
    pub substitute: Option<BoundCredential>,
    /// When the binding was last used.
    pub used: u64,
}

/// A credential, as a session knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundCredential {
    /// Its fingerprint.
    pub credential: u64,
    /// When it last served the session; `None` if it was only chosen for it.
    pub served: Option<u64>,
}

impl BoundCredential {
    /// A credential that was chosen, and has not served yet.
    pub fn chosen(credential: u64) -> Self {
        Self { credential, served: None }
    }
}

impl Binding {
    /// The binding of a session that a credential was chosen for.
    pub fn new(home: BoundCredential, now: u64) -> Self {
        Self { home, substitute: None, used: now }
    }

    /// What it is after a credential has served the session. A home is replaced by another
    /// credential only if it never served, or if sessions do not return.
    fn served_by(mut self, credential: u64, returns: bool, now: u64) -> Self {
        let place = BoundCredential { credential, served: Some(now) };
        if self.home.credential == credential {
            self.home = place;
        } else if self.home.served.is_none() || !returns {
            return Self::new(place, now);
        } else {
            self.substitute = Some(place);
        }
        self
    }

    /// What is left of it after a credential has failed; `None` if nothing is.
    fn without_chosen(mut self, credential: u64) -> Option<Self> {
        let failed = BoundCredential::chosen(credential);
        if self.substitute == Some(failed) {
            self.substitute = None;
        }
        (self.home != failed).then_some(self)
    }

    fn numbers(&self) -> [u64; 4] {
        let substitute = self.substitute.unwrap_or(BoundCredential::chosen(NONE));
        let [home_served, substitute_served] =
            [self.home, substitute].map(|place| place.served.unwrap_or(0));
        [self.home.credential, home_served, substitute.credential, substitute_served]
    }

    fn of(entry: Entry<4>) -> Self {
        let [home, home_served, substitute, substitute_served] = entry.numbers;
        let place = |credential, served| BoundCredential {
            credential,
            served: (served != 0).then_some(served),
        };
        Self {
            home: place(home, home_served),
            substitute: (substitute != NONE).then(|| place(substitute, substitute_served)),
            used: entry.used,
        }
    }
}

/// The bindings of all pools.
#[derive(Clone, Copy, Debug)]
pub struct Bindings {
    table: Table<4>,
    ttl: u64,
}

impl Bindings {
    /// Room for at least so many bindings that live for so many milliseconds after their last use.
    pub fn new(capacity: u32, ttl: u64) -> Self {
        Self { table: Table::new("binding", capacity), ttl }
    }

    /// The binding of a key. Looking does not prolong it.
    pub fn peek(&self, shared: &impl SharedData, key: KeyHash, now: u64) -> Option<Binding> {
        self.alive(self.table.find(shared, key), now)
    }

    /// Settles where a session goes: `choose` gets its binding, and gives a result and the binding
    /// to keep from now on, or none if it stays as it is. Of two workers that bind one key at once,
    /// the second is asked again and sees what the first one chose.
    pub fn settle<T>(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        now: u64,
        mut choose: impl FnMut(Option<Binding>) -> (T, Option<Binding>),
    ) -> Updated<T> {
        self.table.update(shared, key, now, |entry| {
            let (result, binding) = choose(self.alive(entry, now));
            (binding.map_or(Edit::Leave, |binding| Edit::Put(binding.numbers())), result)
        })
    }

    /// Notes that a credential has served a session, which prolongs its binding. Tells whether it
    /// could be written.
    pub fn confirm(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: u64,
        returns: bool,
        now: u64,
    ) -> bool {
        let updated = self.table.update(shared, key, now, |entry| {
            let binding = self
                .alive(entry, now)
                .unwrap_or(Binding::new(BoundCredential::chosen(credential), now));
            (Edit::Put(binding.served_by(credential, returns, now).numbers()), ())
        });
        updated.written
    }

    /// Forgets that a credential was chosen for a session, if it has never served it. Tells whether
    /// it could be written.
    pub fn withdraw(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: u64,
        now: u64,
    ) -> bool {
        let updated = self.table.update(shared, key, now, |entry| {
            let edit = match self
                .alive(entry, now)
                .map(|binding| (binding, binding.without_chosen(credential)))
            {
                Some((before, Some(after))) if before != after => Edit::Put(after.numbers()),
                Some((_, None)) => Edit::Remove,
                _ => Edit::Leave,
            };
            (edit, ())
        });
        updated.written
    }

    /// Ends every binding whose home is this credential.
    pub fn release(&self, shared: &impl SharedData, fingerprint: u64) {
        self.table.retain(shared, |entry| Binding::of(*entry).home.credential != fingerprint);
    }

    /// Drops what has ended, and gives the number of bindings that are left. Nothing needs it but
    /// who wants to know the number: a binding that has ended counts as none, and its place is
    /// taken when one is wanted.
    pub fn sweep(&self, shared: &impl SharedData, now: u64) -> usize {
        self.table.retain(shared, |entry| self.alive(Some(*entry), now).is_some())
    }

    /// Every key of shared data that bindings use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys()
    }

    fn alive(&self, entry: Option<Entry<4>>, now: u64) -> Option<Binding> {
        entry.filter(|entry| now <= entry.used.saturating_add(self.ttl)).map(Binding::of)
    }
}
