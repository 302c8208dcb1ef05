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
//!
//! A session is never stuck to a home that fails it. What refuses one session may serve all others,
//! so the binding itself counts how often the home failed the session in a row. After
//! [`FAILURES_TO_MOVE`] the credential that serves it next becomes its home.

use std::time::Duration;

use crate::config::CredentialId;
use crate::hash::KeyHash;
use crate::shared::{CasMismatch, SharedData, Updated};
use crate::table::{Edit, Entry, Slot, Table};
use crate::time::Timestamp;

/// A home that has failed its session so often in a row is left for the next credential that serves
/// it. A refusal counts for both.
pub const FAILURES_TO_MOVE: u8 = 2;

/// For so long a session avoids a home that failed it without another credential to serve it, and a
/// common home that failed it too often. It doubles with every further failure.
const AVOIDANCE: Duration = Duration::from_mins(1);

/// The longest that a session avoids a common home: it is asked once more after that.
const LONGEST_AVOIDANCE: Duration = Duration::from_hours(1);

/// Two streams that the home cuts off within this time are no accident.
const CUTS_TOGETHER: Duration = Duration::from_mins(10);

/// Sentinel: no substitute.
const NO_SUBSTITUTE: CredentialId = CredentialId(0);

/// Where a session is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The credential that the session belongs to.
    pub home: BoundCredential,
    /// The credential that stood in for the home last.
    pub substitute: Option<BoundCredential>,
    /// How often the home failed the session since it last served it.
    pub failures: u8,
    /// Until then the session avoids its home, because the client got an error from it. Once it is
    /// past, it is when the home last gave trouble.
    pub avoid_until: Timestamp,
    /// When the binding was last used.
    pub used: Timestamp,
}

/// A binding that is used more often than this is not written every time. Nothing is decided by
/// less: caches live for minutes.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);

/// When another credential takes the place of a session's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeRule {
    /// Never: the home is what all Envoys of a fleet find. Whoever serves instead is a substitute.
    Common,
    /// If the home never served, or failed the session too often.
    Kept,
    /// At once: the home is who served last.
    LastServed,
}

/// Failures of credentials in one request: how much each counts.
pub type Failures<'a> = &'a [(CredentialId, u8)];

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

/// How long a session that was failed so often is served elsewhere, if it can be.
fn avoidance(failures: u8) -> Duration {
    let doublings = failures.saturating_sub(FAILURES_TO_MOVE).min(6);
    (AVOIDANCE * (1 << doublings)).min(LONGEST_AVOIDANCE)
}

impl Binding {
    /// The binding of a session whose home was just chosen.
    pub fn new(home: BoundCredential, now: Timestamp) -> Self {
        Self { home, substitute: None, failures: 0, avoid_until: Timestamp::EPOCH, used: now }
    }

    /// Whether a credential has served the session.
    pub fn is_confirmed(&self) -> bool {
        self.home.served.is_some() || self.substitute.is_some_and(|it| it.served.is_some())
    }

    /// Whether the session is better served elsewhere, though its home may be ready.
    pub fn avoids_home(&self, now: Timestamp) -> bool {
        self.failures >= FAILURES_TO_MOVE || now < self.avoid_until
    }

    fn is_at(&self, credential: CredentialId) -> bool {
        let substitute = self.substitute.map(|it| it.credential);
        self.home.credential == credential || substitute == Some(credential)
    }

    /// The binding after a credential has served the session, and these have failed it in the same
    /// request.
    fn served_by(
        mut self,
        credential: CredentialId,
        failed: Failures<'_>,
        rule: HomeRule,
        now: Timestamp,
    ) -> Self {
        let serving = BoundCredential { credential, served: Some(now) };
        if self.home.credential == credential {
            return Self {
                substitute: self.substitute.filter(|_| rule != HomeRule::Common),
                avoid_until: self.avoid_until.min(now),
                ..Self::new(serving, now)
            };
        }
        self.add_failures(failed, rule);
        let is_left = match rule {
            HomeRule::Common => false,
            HomeRule::Kept => self.home.served.is_none() || self.failures >= FAILURES_TO_MOVE,
            HomeRule::LastServed => true,
        };
        if is_left {
            return Self::new(serving, now);
        }
        let have_failed = failed.iter().any(|(_, count)| *count > 0);
        if rule == HomeRule::Common && have_failed && self.failures >= FAILURES_TO_MOVE {
            self.avoid_until = now + avoidance(self.failures);
        } else if rule == HomeRule::Common && failed.is_empty() && self.avoid_until <= now {
            // The next in the order, and the first that was asked.
            self.failures = 0;
        }
        self.substitute = Some(serving);
        self
    }

    /// With a common home the failures of all count that are asked before the one that serves.
    fn add_failures(&mut self, failed: Failures<'_>, rule: HomeRule) {
        for (credential, count) in failed {
            if *credential == self.home.credential || rule == HomeRule::Common {
                self.failures = self.failures.saturating_add(*count);
            }
        }
    }

    /// What is left after a credential has failed; `None` if nothing is.
    fn without_chosen(mut self, credential: CredentialId) -> Option<Self> {
        let failed = BoundCredential::chosen(credential);
        if self.substitute == Some(failed) {
            self.substitute = None;
        }
        if self.home != failed {
            return Some(self);
        }
        // A substitute that has served the session is all that it has.
        let home = self.substitute.filter(|substitute| substitute.served.is_some())?;
        Some(Self::new(home, self.used))
    }

    fn numbers(&self) -> [u64; 5] {
        let substitute = self.substitute.unwrap_or(BoundCredential::chosen(NO_SUBSTITUTE));
        let [home, home_served] = self.home.numbers();
        let [substitute, substitute_served] = substitute.numbers();
        let trouble = self.avoid_until.as_millis() << 8 | u64::from(self.failures);
        [home, home_served, substitute, substitute_served, trouble]
    }
}

impl From<Entry<5>> for Binding {
    fn from(entry: Entry<5>) -> Self {
        let [home, home_served, substitute, substitute_served, trouble] = entry.numbers;
        let substitute = BoundCredential::from_numbers(substitute, substitute_served);
        Self {
            home: BoundCredential::from_numbers(home, home_served),
            substitute: Some(substitute).filter(|it| it.credential != NO_SUBSTITUTE),
            failures: (trouble & 0xff) as u8,
            avoid_until: Timestamp::from_millis(trouble >> 8),
            used: entry.used,
        }
    }
}

/// The bindings of all pools.
#[derive(Clone, Copy, Debug)]
pub struct Bindings {
    table: Table<5>,
    ttl: Duration,
}

/// The binding of a key as it was read, and the right to replace just that.
pub struct BindingSlot<'a, S> {
    slot: Slot<'a, S, 5>,
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
        let table = Table::new("binding", capacity).living(ttl).ranked(|entry| {
            // A session that no credential has served yet displaces none that was served.
            (Binding::from(*entry).is_confirmed(), entry.used)
        });
        Self { table, ttl }
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

    /// Records that a credential has served a session, which prolongs its binding. If that was
    /// written, the result is when the session was used before; [`Timestamp::EPOCH`]: not there.
    pub fn confirm(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: CredentialId,
        failed: Failures<'_>,
        rule: HomeRule,
        now: Timestamp,
    ) -> Updated<Option<Timestamp>> {
        self.table.update(shared, key, now, |entry| {
            let bound = self.alive(entry, now);
            if failed.is_empty() && bound.is_some_and(|it| self.is_fresh(&it, credential, now)) {
                return (Edit::Leave, None);
            }
            let binding = bound.unwrap_or(Binding::new(BoundCredential::chosen(credential), now));
            let before = bound.filter(|it| it.is_at(credential));
            let before = before.map_or(Timestamp::EPOCH, |it| it.used);
            (Edit::Put(binding.served_by(credential, failed, rule, now).numbers()), Some(before))
        })
    }

    /// Whether a success of a credential would change nothing about a binding but the time, and that
    /// by less than counts.
    fn is_fresh(&self, binding: &Binding, credential: CredentialId, now: Timestamp) -> bool {
        let exactness = WRITTEN_EVERY.min(self.ttl / 100);
        let served = binding.home.served.filter(|_| binding.home.credential == credential);
        binding.substitute.is_none()
            && binding.failures == 0
            && binding.avoid_until <= now
            && !binding.used.is_to_come(now)
            && served.is_some_and(|served| now.is_within(exactness, served))
    }

    /// Records that credentials failed a session, and that its client got an error. Returns whether
    /// it could be written.
    pub fn fail(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        failed: Failures<'_>,
        rule: HomeRule,
        now: Timestamp,
    ) -> bool {
        let updated = self.table.update(shared, key, now, |entry| {
            let Some(before) = self.alive(entry, now) else {
                return (Edit::Leave, ());
            };
            let mut after = before;
            after.add_failures(failed, rule);
            if after == before {
                return (Edit::Leave, ());
            }
            after.avoid_until = now + avoidance(after.failures);
            (Edit::Put(after.numbers()), ())
        });
        updated.written
    }

    /// Records that a credential cut off a stream of a session. A stream begins with a success, so
    /// cuts do not add up as failures do: the second within `CUTS_TOGETHER` is a reason to move.
    pub fn cut(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        credential: CredentialId,
        rule: HomeRule,
        now: Timestamp,
    ) {
        self.table.update(shared, key, now, |entry| {
            let binding = self.alive(entry, now).filter(|it| it.home.credential == credential);
            let Some(mut binding) = binding else {
                return (Edit::Leave, ());
            };
            let are_together = now.since(binding.avoid_until) < CUTS_TOGETHER;
            binding.avoid_until = now;
            if are_together {
                binding.failures = FAILURES_TO_MOVE;
                if rule == HomeRule::Common {
                    binding.avoid_until = now + LONGEST_AVOIDANCE;
                }
            }
            (Edit::Put(binding.numbers()), ())
        });
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

    /// Forgets a binding, because an operator says so. Returns whether there was one, and whether
    /// that was written.
    pub fn forget(&self, shared: &impl SharedData, key: KeyHash, now: Timestamp) -> Updated<bool> {
        self.table.update(shared, key, now, |entry| {
            let edit = if entry.is_some() { Edit::Remove } else { Edit::Leave };
            (edit, self.alive(entry, now).is_some())
        })
    }

    /// Every key of shared data that bindings use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys()
    }

    /// The table under the bindings, for tools that walk it.
    pub fn table(&self) -> &Table<5> {
        &self.table
    }

    /// The binding of an entry; `None` if it has ended. Where the clock was set back, and its use is
    /// still to come, the session keeps its home: it was served just now.
    #[inline(never)]
    pub fn alive(&self, entry: Option<Entry<5>>, now: Timestamp) -> Option<Binding> {
        let mut entry = entry.filter(|entry| now <= entry.used + self.ttl)?;
        let is_to_come = entry.used.is_to_come(now);
        if is_to_come {
            let [_, home_served, _, substitute_served, _] = &mut entry.numbers;
            for served in [home_served, substitute_served] {
                *served = (*served).min(now.as_millis());
            }
        }
        let mut binding = Binding::from(entry);
        if is_to_come {
            binding.avoid_until = binding.avoid_until.min(now + LONGEST_AVOIDANCE);
        }
        Some(binding)
    }
}
