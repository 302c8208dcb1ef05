//! Pins: which credential has the state that a request refers to.
//!
//! Providers keep responses, conversations, threads, files, caches and more, each known to one
//! project or organization only. A response that creates one names its id; the filter keeps a pin,
//! the hash of the id and the credential that has it, and later requests with the id go there,
//! whatever their session says. Nothing in requests and responses is changed.
//!
//! A pin may be unknown: another Envoy saw the response, or this one was restarted. Then the
//! request goes where it would go without the id, and if the provider says that it does not know
//! it, to the other credentials. Who serves it is pinned.
//!
//! Only ids that a provider has named, or served, make pins: no client can set one.

mod kinds;
mod references;

use std::time::Duration;

pub use kinds::{KINDS, Kind, KindId};
pub use references::{Id, IdPaths, created, in_path};

use crate::config::{CredentialId, PoolId};
use crate::hash::{KeyHash, Seed};
use crate::shared::{self, SharedData};
use crate::table::{Edit, Entry, Table};
use crate::time::Timestamp;

/// The key of shared data that says which kinds were ever pinned.
const SEEN_KEY: &str = "session_affinity/pin_kinds";

/// A pin that was used within this time is not written again.
const REFRESH_AFTER: Duration = Duration::from_mins(1);

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
        Self { table: Table::new("pin", capacity) }
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
        let pin = Pin::from(self.table.find(shared, reference.key)?);
        let life = reference.kind.kind()?.life;
        // A use that is still to come is from before the clock was set back.
        (now <= pin.used + life && pin.used <= now + REFRESH_AFTER).then_some(pin)
    }

    /// Whether a kind was ever pinned, as far as is known.
    pub fn may_have(&self, shared: &impl SharedData, kind: KindId) -> bool {
        seen(&shared.get(SEEN_KEY).value) & mask(kind) != 0
    }

    /// Pins what a reference stands for to the credential that has it. Returns whether that could
    /// be written.
    pub fn pin(
        &self,
        shared: &impl SharedData,
        reference: Reference,
        owner: (PoolId, CredentialId),
        now: Timestamp,
    ) -> bool {
        let (PoolId(pool), CredentialId(credential)) = owner;
        let updated = self.table.update(shared, reference.key, now, |entry| {
            let is_fresh = entry.is_some_and(|entry| {
                entry.numbers == [pool, credential]
                    && entry.used <= now
                    && now.since(entry.used) < REFRESH_AFTER
            });
            (if is_fresh { Edit::Leave } else { Edit::Put([pool, credential]) }, ())
        });
        updated.written && note_seen(shared, reference.kind)
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
        assert!(pins.pin(&shared, it, OWNER, at(1)));
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
        pins.pin(&shared, it, OWNER, at(100));
        pins.pin(&shared, it, OWNER, at(159));
        assert_eq!(pins.find(&shared, it, at(160)).unwrap().used, at(100));
        pins.pin(&shared, it, OWNER, at(160));
        assert_eq!(pins.find(&shared, it, at(160)).unwrap().used, at(160));
        let other = (PoolId(1), CredentialId(3));
        pins.pin(&shared, it, other, at(161));
        assert_eq!(pins.find(&shared, it, at(161)).unwrap().credential, CredentialId(3));
    }

    #[test]
    fn only_the_owner_makes_a_pin_forgotten() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        let it = reference("resp_1", None);
        pins.pin(&shared, it, OWNER, at(1));
        pins.forget(&shared, it, CredentialId(9), at(2));
        assert!(pins.find(&shared, it, at(2)).is_some());
        pins.forget(&shared, it, CredentialId(2), at(2));
        assert_eq!(pins.find(&shared, it, at(2)), None);
    }

    #[test]
    fn it_is_known_which_kinds_there_are() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        for (kind, _) in KindId::all() {
            assert!(!pins.may_have(&shared, kind));
            let it = Reference { kind, key: KeyHash(u128::from(kind.0)) };
            pins.pin(&shared, it, OWNER, at(1));
            assert!(pins.may_have(&shared, kind));
        }
    }

    #[test]
    fn a_flood_of_ids_writes_known_keys_only() {
        let (pins, shared) = (Pins::new(64), InMemory::default());
        for number in 0..10_000 {
            pins.pin(&shared, reference(&format!("resp_{number}"), None), OWNER, at(number));
        }
        let known: Vec<_> = pins.keys().collect();
        assert!(shared.keys().iter().all(|key| known.contains(key)));
    }
}
