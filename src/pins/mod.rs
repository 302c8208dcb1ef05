//! Pins: which credential has the state that a request refers to.
//!
//! Providers keep responses, conversations, threads, files, caches and more, each known to one
//! project or organization only. A response that creates one names its id; the filter keeps a pin,
//! the hash of the id and the credential that has it, and later requests with the id go there,
//! whatever their session says. Nothing in requests and responses is changed.
//!
//! A pin may be unknown: another Envoy saw the response, or this one was restarted. Then the
//! request goes where it would go without the id, and if the provider says that it does not know
//! it, to the other credentials. Who serves it then is pinned; that no credential has it is known
//! for a minute.
//!
//! A client can set no pin by naming an id: a provider must have named it, or have been found to
//! know it. And it can take none away: while the owner is there, no other credential becomes it.

mod kinds;
mod references;

use std::time::Duration;

pub use kinds::{KINDS, Kind, KindId, Member};
pub use references::{Id, IdPaths, created, in_path};

use crate::config::{CredentialId, PoolId};
use crate::hash::{KeyHash, Seed};
use crate::shared::{self, Note, SharedData};
use crate::table::{Edit, Entry, Table};
use crate::time::Timestamp;

/// The key of shared data that says which kinds were ever pinned.
const SEEN_KEY: &str = "session_affinity/pin_kinds";

/// A pin that was used within this time is not written again.
const REFRESH_AFTER: Duration = Duration::from_mins(1);

/// For so long it is known that no credential has a piece of state.
const NOWHERE_FOR: Duration = Duration::from_mins(1);

/// In place of a credential: there is none.
const NOWHERE: CredentialId = CredentialId(0);

/// Something that a request refers to: the hash of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it is.
    pub kind: KindId,
    /// What its pin is kept under.
    pub key: KeyHash,
}

impl Reference {
    /// The reference of an id, for a tenant if there are tenants.
    pub fn of(id: &Id, seed: Seed, tenant: Option<KeyHash>) -> Self {
        let scope = tenant.map_or([0; 16], |tenant| tenant.0.to_le_bytes());
        let key = seed.hash(&[b"pin", &scope, &[id.kind.0], &id.text]);
        let key = match tenant {
            // A tenant evicts no more than its part of the table.
            Some(tenant) => key.within(seed.hash(&[&tenant.0.to_le_bytes()])),
            None => key,
        };
        Self { kind: id.kind, key }
    }
}

/// Who has a piece of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The pool of the credential.
    pub pool: PoolId,
    /// The credential.
    pub credential: CredentialId,
    /// When it was used last.
    pub used: Timestamp,
}

impl Pin {
    /// Whether it says that no credential has it.
    pub fn is_nowhere(self) -> bool {
        self.credential == NOWHERE
    }
}

impl From<Entry<2>> for Pin {
    fn from(entry: Entry<2>) -> Self {
        let [pool, credential] = entry.numbers;
        Self { pool: PoolId(pool), credential: CredentialId(credential), used: entry.used }
    }
}

/// The pins of all pools.
#[derive(Clone, Copy, Debug)]
pub struct Pins {
    table: Table<2>,
}

impl Pins {
    /// Room for at least `capacity` pins.
    pub fn new(capacity: u32) -> Self {
        // What no credential has displaces nothing that one has.
        let table = Table::new("pin", capacity)
            .ranked(|entry| (!Pin::from(*entry).is_nowhere(), entry.used))
            .living(kinds::LONGEST);
        Self { table }
    }

    /// Every key of shared data that pins use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.table.keys().chain([SEEN_KEY.to_owned()])
    }

    /// The pin of a reference, unless its state is certainly gone.
    pub fn find(
        &self,
        shared: &impl SharedData,
        reference: Reference,
        now: Timestamp,
    ) -> Option<Pin> {
        alive(self.table.find(shared, reference.key), reference.kind, now)
    }

    /// The table under the pins, for tools that walk it.
    pub fn table(&self) -> &Table<2> {
        &self.table
    }

    /// Whether files were ever pinned, as far as is known.
    pub fn may_have_files(&self, shared: &impl SharedData) -> bool {
        KindId::named("files").is_some_and(|files| Self::seen(shared) & mask(files) != 0)
    }

    /// Whether anything was ever pinned that the body of a request with this path may refer to.
    pub fn may_be_in(&self, shared: &impl SharedData, path: &str) -> bool {
        let kinds = KindId::all().filter(|(_, kind)| kind.may_be_in(path));
        let kinds = kinds.fold(0, |kinds, (id, _)| kinds | mask(id));
        kinds != 0 && Self::seen(shared) & kinds != 0
    }

    fn seen(shared: &impl SharedData) -> u16 {
        seen(&shared.get(SEEN_KEY).value)
    }

    /// Pins what a reference means to the credential that has it. Another owner keeps it, as long as
    /// it `may_serve`. Returns whether that could be written.
    pub fn pin(
        &self,
        shared: &impl SharedData,
        reference: Reference,
        owner: (PoolId, CredentialId),
        now: Timestamp,
        may_serve: impl Fn(Pin) -> bool,
    ) -> bool {
        let (PoolId(pool), CredentialId(credential)) = owner;
        let updated = self.table.update(shared, reference.key, now, |entry| {
            let known = alive(entry, reference.kind, now);
            let is_kept = known.is_some_and(|pin| match (pin.pool, pin.credential) == owner {
                true => now.is_within(REFRESH_AFTER, pin.used),
                false => !pin.is_nowhere() && may_serve(pin),
            });
            let is_new = known.is_none_or(Pin::is_nowhere);
            (if is_kept { Edit::Leave } else { Edit::Put([pool, credential]) }, is_new)
        });
        if updated.result && updated.written {
            shared.note(Note::Pinned);
        }
        updated.written && note_seen(shared, reference.kind)
    }

    /// Notes that no credential of a pool has what a reference means.
    pub fn note_nowhere(
        &self,
        shared: &impl SharedData,
        reference: Reference,
        pool: PoolId,
        now: Timestamp,
    ) -> bool {
        let updated = self.table.update(shared, reference.key, now, |entry| {
            let is_known = alive(entry, reference.kind, now).is_some();
            (if is_known { Edit::Leave } else { Edit::Put([pool.0, NOWHERE.0]) }, ())
        });
        updated.written
    }

    /// Forgets a pin whose owner says that it does not have the state.
    pub fn forget(
        &self,
        shared: &impl SharedData,
        reference: Reference,
        owner: CredentialId,
        now: Timestamp,
    ) {
        self.table.update(shared, reference.key, now, |entry| {
            let is_owners = entry.is_some_and(|entry| Pin::from(entry).credential == owner);
            (if is_owners { Edit::Remove } else { Edit::Leave }, ())
        });
    }
}

/// The pin of an entry, unless its state is certainly gone.
fn alive(entry: Option<Entry<2>>, kind: KindId, now: Timestamp) -> Option<Pin> {
    let pin = Pin::from(entry?);
    let life = if pin.is_nowhere() { NOWHERE_FOR } else { kind.kind()?.life };
    // Where the clock was set back, a use may be still to come: an owner remains one, but nothing
    // is nowhere for longer.
    let counts = !pin.is_nowhere() || !pin.used.is_to_come(now);
    (counts && now <= pin.used + life).then_some(pin)
}

fn seen(value: &[u8]) -> u16 {
    value.try_into().map_or(0, u16::from_le_bytes)
}

fn mask(kind: KindId) -> u16 {
    1_u16.checked_shl(u32::from(kind.0)).unwrap_or(0)
}

fn note_seen(shared: &impl SharedData, kind: KindId) -> bool {
    let noted = shared::update(shared, SEEN_KEY, |value| {
        let (before, after) = (seen(value), seen(value) | mask(kind));
        ((after != before).then(|| after.to_le_bytes().to_vec()), ())
    });
    noted.written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::InMemory;

    fn reference(text: &str, tenant: Option<KeyHash>) -> Reference {
        let kind = KindId::named("responses").unwrap();
        Reference::of(&Id { kind, text: text.as_bytes().to_vec() }, Seed::STABLE, tenant)
    }

    const OWNER: (PoolId, CredentialId) = (PoolId(1), CredentialId(2));

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn a_pin_lives_as_long_as_its_state_after_the_last_use() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let it = reference("resp_1", None);
        assert_eq!(pins.find(&shared, it, at(1)), None);
        assert!(pins.pin(&shared, it, OWNER, at(1), |_| false));
        let life = it.kind.kind().unwrap().life.as_secs();
        let found = |now| pins.find(&shared, it, at(now)).map(|pin| (pin.pool, pin.credential));
        assert_eq!(found(1 + life), Some(OWNER));
        assert_eq!(found(2 + life), None);
        assert_eq!(pins.find(&shared, reference("resp_2", None), at(1)), None);
    }

    #[test]
    fn kinds_and_tenants_share_no_pin() {
        let file = Id { kind: KindId::named("files").unwrap(), text: b"resp_1".to_vec() };
        let tenant = Some(KeyHash(7));
        let all = [
            reference("resp_1", None),
            reference("resp_1", tenant),
            reference("resp_1", Some(KeyHash(8))),
            Reference::of(&file, Seed::STABLE, None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other.key != one.key));
        }
    }

    #[test]
    fn a_pin_that_is_used_often_is_written_seldom() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let it = reference("resp_1", None);
        pins.pin(&shared, it, OWNER, at(100), |_| false);
        pins.pin(&shared, it, OWNER, at(159), |_| false);
        assert_eq!(pins.find(&shared, it, at(160)).unwrap().used, at(100));
        pins.pin(&shared, it, OWNER, at(160), |_| false);
        assert_eq!(pins.find(&shared, it, at(160)).unwrap().used, at(160));
        let other = (PoolId(1), CredentialId(3));
        pins.pin(&shared, it, other, at(161), |_| false);
        assert_eq!(pins.find(&shared, it, at(161)).unwrap().credential, CredentialId(3));
    }

    #[test]
    fn an_owner_that_may_serve_keeps_what_it_has() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let (it, thief) = (reference("resp_1", None), (PoolId(1), CredentialId(3)));
        let owner = |now| pins.find(&shared, it, at(now)).map(|pin| pin.credential.0);
        pins.pin(&shared, it, OWNER, at(1), |_| true);
        pins.pin(&shared, it, thief, at(2), |_| true);
        assert_eq!(owner(2), Some(2));
        pins.note_nowhere(&shared, it, PoolId(1), at(2));
        assert_eq!(owner(2), Some(2), "it is somewhere");
        pins.pin(&shared, it, thief, at(2), |_| false);
        assert_eq!(owner(2), Some(3), "the first is not configured any more");
    }

    #[test]
    fn that_a_thing_is_nowhere_is_known_for_a_minute_and_displaces_nothing() {
        let (pins, shared) = (Pins::new(16), InMemory::default());
        let it = reference("resp_1", None);
        pins.note_nowhere(&shared, it, PoolId(1), at(1));
        assert!(pins.find(&shared, it, at(61)).is_some_and(Pin::is_nowhere));
        assert_eq!(pins.find(&shared, it, at(62)), None);
        pins.pin(&shared, it, OWNER, at(2), |_| true);
        assert!(pins.find(&shared, it, at(2)).is_some_and(|pin| !pin.is_nowhere()));
        for number in 0..1_000 {
            let invented = reference(&format!("invented {number}"), None);
            pins.note_nowhere(&shared, invented, PoolId(1), at(3));
        }
        assert!(pins.find(&shared, it, at(3)).is_some());
    }

    #[test]
    fn an_owner_remains_one_when_the_clock_is_set_back_and_nothing_is_nowhere_for_longer() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let (it, lost) = (reference("resp_1", None), reference("resp_2", None));
        pins.pin(&shared, it, OWNER, at(1_000_000), |_| true);
        pins.note_nowhere(&shared, lost, PoolId(1), at(1_000_000));
        assert_eq!(pins.find(&shared, it, at(1)).unwrap().credential, OWNER.1);
        assert_eq!(pins.find(&shared, lost, at(1)), None);
        pins.pin(&shared, it, OWNER, at(1), |_| true);
        assert_eq!(pins.find(&shared, it, at(1)).unwrap().used, at(1), "it is used now");
    }

    #[test]
    fn only_the_owner_makes_a_pin_forgotten() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let it = reference("resp_1", None);
        pins.pin(&shared, it, OWNER, at(1), |_| false);
        pins.forget(&shared, it, CredentialId(9), at(2));
        assert!(pins.find(&shared, it, at(2)).is_some());
        pins.forget(&shared, it, CredentialId(2), at(2));
        assert_eq!(pins.find(&shared, it, at(2)), None);
    }

    #[test]
    fn it_is_known_which_kinds_there_are() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let pin = |name| {
            let kind = KindId::named(name).unwrap();
            pins.pin(&shared, Reference { kind, key: KeyHash(1) }, OWNER, at(1), |_| false);
        };
        let may = |path| pins.may_be_in(&shared, path);
        assert!(!may("/v1/responses") && !may("/v1/messages"));
        pin("responses");
        assert!(may("/v1/responses") && !may("/v1/messages"));
        assert!(!pins.may_have_files(&shared));
        pin("files");
        assert!(may("/v1/messages") && pins.may_have_files(&shared));
        assert!(!may("/v1/embeddings"));
    }

    #[test]
    fn a_flood_of_ids_writes_known_keys_only() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        for number in 0..10_000 {
            pins.pin(
                &shared,
                reference(&format!("resp_{number}"), None),
                OWNER,
                at(number),
                |_| false,
            );
        }
        let known: Vec<_> = pins.keys().collect();
        assert!(shared.keys().iter().all(|key| known.contains(key)));
    }
}
