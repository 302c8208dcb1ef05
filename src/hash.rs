//! Keyed hashes of what clients choose.
//!
//! Session ids and model names decide where an entry is in shared data. Their hash
//! (SipHash-1-3, 128 bits) is keyed by a random seed that all workers share and no client can
//! know, so none can aim at another's row, and shared data holds no id. The seed lives in shared
//! data too: as long as there are bindings, there is their seed.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::shared::SharedData;

/// The key of the seed in shared data.
pub const SEED_KEY: &str = "session_affinity/seed";

/// The hash of a key; equal for equal keys on all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The slot of the key among `slots`.
    pub fn slot(self, slots: u32) -> u32 {
        // The upper half of a product spreads evenly over any number of slots.
        (((self.0 >> 64) as u64 as u128 * u128::from(slots)) >> 64) as u32
    }

    /// The same key in the part of all slots that `owner` has, one of sixteen: so whatever an owner
    /// stores, it can evict no more than that part.
    pub fn within(self, owner: Self) -> Self {
        const PART: u128 = 0xf << 124;
        Self((self.0 & !PART) | (owner.0 & PART))
    }

    /// A few digits by which a log tells sessions apart. They lead back to no id.
    pub fn tag(self) -> u32 {
        self.0 as u32
    }
}

/// The secret that keys the hashes of this process.
#[derive(Clone, Copy)]
pub struct Seed([u8; 16]);

impl Seed {
    /// The seed of hashes that must be the same everywhere and always, so keyed by nothing.
    pub const STABLE: Self = Self([0; 16]);

    /// A seed that is the same on every Envoy with the same secret and pool.
    pub fn of_fleet(secret: &str, pool: &str) -> Self {
        let hash = Self::STABLE.hash(&[b"fleet", secret.as_bytes(), pool.as_bytes()]);
        Self(hash.0.to_le_bytes())
    }

    /// The seed that all workers use: the one in shared data, or if there is none yet, the proposed
    /// one.
    pub fn agree(shared: &impl SharedData, proposed: [u8; 16]) -> Self {
        let stored = shared.get(SEED_KEY);
        if let Ok(seed) = stored.value.try_into() {
            return Self(seed);
        }
        // A value of the wrong length is no seed: it is replaced. If the write is refused, another
        // worker was first.
        match shared.set(SEED_KEY, &proposed, stored.cas) {
            Ok(()) => Self(proposed),
            Err(_) => Self(shared.get(SEED_KEY).value.try_into().unwrap_or(proposed)),
        }
    }

    /// What a session is bound under.
    pub fn session(
        &self,
        pool: &str,
        tenant: Option<KeyHash>,
        provider: &str,
        id: &[u8],
        model: &str,
    ) -> KeyHash {
        let tenant = tenant.map_or([0; 16], |tenant| tenant.0.to_le_bytes());
        self.hash(&[pool.as_bytes(), &tenant, provider.as_bytes(), id, model.as_bytes()])
    }

    /// The hash of a key made of parts. Their lengths count, so `("ab", "c")` and `("a", "bc")`
    /// differ.
    pub fn hash(&self, parts: &[&[u8]]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        KeyHash(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Cas, InMemory};

    #[test]
    fn all_workers_agree_on_the_first_proposal() {
        let shared = InMemory::default();
        assert_eq!(Seed::agree(&shared, [1; 16]).0, [1; 16]);
        assert_eq!(Seed::agree(&shared, [2; 16]).0, [1; 16]);
    }

    #[test]
    fn a_value_that_is_no_seed_is_replaced() {
        let shared = InMemory::default();
        shared.set(SEED_KEY, b"short", Cas::ABSENT).unwrap();
        assert_eq!(Seed::agree(&shared, [3; 16]).0, [3; 16]);
        assert_eq!(Seed::agree(&shared, [4; 16]).0, [3; 16]);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let seed = Seed([0; 16]);
        assert_ne!(seed.hash(&[b"ab", b"c"]), seed.hash(&[b"a", b"bc"]));
        assert_ne!(seed.hash(&[b"ab"]), seed.hash(&[b"ab", b""]));
    }

    #[test]
    fn slots_are_within_bounds_and_all_used() {
        let seed = Seed([0; 16]);
        let mut seen = [false; 5];
        for key in 0..200_u32 {
            seen[seed.hash(&[&key.to_le_bytes()]).slot(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
