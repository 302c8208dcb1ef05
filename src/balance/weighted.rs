//! Smooth weighted round-robin.
//!
//! At every turn each member gains its weight, and the member with most credit pays the sum of all
//! weights. So `a:5 b:1 c:1` gives `a a b a c a a`, never five in a row. The credits are kept
//! together with a hash of the members and their weights; if that changes, all start over.

use super::Rotation;
use crate::codec::{Reader, Writer};
use crate::config::Credential;
use crate::shared::{self, SharedData};

/// Slots of shared data for weighted rotations.
const SLOTS: u32 = 256;

/// Weighted rotations that are kept in a slot. Beyond it the least recently used one starts over.
const RINGS: usize = 4;

/// Every key of shared data that weighted rotations use.
pub(super) fn keys() -> impl Iterator<Item = String> {
    (0..SLOTS).map(slot_name)
}

impl<S: SharedData> Rotation<'_, S> {
    /// The next member of a ring by weight.
    pub(super) fn weighted_turn<'c>(
        &mut self,
        ring: &[u8],
        members: &[&'c Credential],
    ) -> Option<&'c Credential> {
        let slot = self.hash(&[ring]).slot(SLOTS);
        let identity = self.identity(ring, members);
        let sum: i64 = members.iter().map(|member| i64::from(member.weight)).sum();
        let updated = shared::update(self.shared, &slot_name(slot), |value| {
            let mut rings = decode(value);
            let known = rings.iter().position(|ring| ring.identity == identity);
            let mut credits = match known {
                Some(at) => rings.remove(at).credits,
                None => Vec::new(),
            };
            credits.resize(members.len(), 0);
            for (credit, member) in credits.iter_mut().zip(members) {
                *credit += i64::from(member.weight);
            }
            // Ties go to the first by id: `max_by_key` would take the last.
            let most = credits.iter().max().copied().unwrap_or_default();
            let at = credits.iter().position(|&credit| credit == most).unwrap_or_default();
            if let Some(credit) = credits.get_mut(at) {
                *credit -= sum;
            }
            rings.insert(0, Ring { identity, credits });
            rings.truncate(RINGS);
            (Some(encode(&rings)), at)
        });
        members.get(self.taken(updated)).copied()
    }

    fn identity(&self, ring: &[u8], members: &[&Credential]) -> u128 {
        let mut weights = Writer::with_capacity(16 * members.len());
        for member in members {
            weights.number(member.fingerprint.0);
            weights.number(u64::from(member.weight));
        }
        self.hash(&[ring, &weights.finish()]).0
    }
}

fn slot_name(slot: u32) -> String {
    format!("session_affinity/wheel/{slot}")
}

/// A weighted rotation: the hash of its members and weights, and the credit of each.
struct Ring {
    identity: u128,
    credits: Vec<i64>,
}

fn encode(rings: &[Ring]) -> Vec<u8> {
    let mut value = Writer::default();
    for ring in rings {
        value.hash(ring.identity);
        value.word(ring.credits.len() as u32);
        ring.credits.iter().for_each(|credit| value.number(credit.cast_unsigned()));
    }
    value.finish()
}

/// The rotations of a slot, the most recently used first, as far as they can be read.
fn decode(value: &[u8]) -> Vec<Ring> {
    let mut rings = Vec::new();
    let mut reader = Reader::new(value);
    while rings.len() < RINGS
        && let Some(ring) = Ring::decode(&mut reader)
    {
        rings.push(ring);
    }
    rings
}

impl Ring {
    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (identity, members) = (reader.hash()?, reader.word()?);
        let credits = reader.take((members as usize).checked_mul(8)?)?.chunks_exact(8);
        let credits =
            credits.filter_map(|credit| Some(i64::from_le_bytes(credit.try_into().ok()?)));
        Some(Self { identity, credits: credits.collect() })
    }
}
