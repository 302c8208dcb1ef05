//! Smooth weighted round-robin.
//!
//! At every turn each member gains its weight, and the member with most credit pays the sum of all
//! weights. So `a:5 b:1 c:1` gives `a a b a c a a`, never five in a row. The credits are kept
//! together with a hash of the members and their weights; if that changes, all start over.

use super::Rotation;
use crate::codec::{Reader, Writer};
use crate::config::Credential;
use crate::shared::{self, SharedData};

/// Weighted rotations that are kept apart. Two that share a slot restart each other: a little
/// balance is lost.
const SLOTS: u32 = 256;

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
            let mut credits = decode(value, identity, members.len());
            for (credit, member) in credits.iter_mut().zip(members) {
                *credit += i64::from(member.weight);
            }
            // Ties go to the first by id: `max_by_key` would take the last.
            let most = credits.iter().max().copied().unwrap_or_default();
            let at = credits.iter().position(|&credit| credit == most).unwrap_or_default();
            if let Some(credit) = credits.get_mut(at) {
                *credit -= sum;
            }
            (Some(encode(identity, &credits)), at)
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

fn encode(identity: u128, credits: &[i64]) -> Vec<u8> {
    let mut value = Writer::with_capacity(16 + 8 * credits.len());
    value.hash(identity);
    credits.iter().for_each(|credit| value.number(credit.cast_unsigned()));
    value.finish()
}

/// The credits of a ring's members; zeros if the value belongs to another ring or layout.
fn decode(value: &[u8], identity: u128, members: usize) -> Vec<i64> {
    let mut reader = Reader::new(value);
    if reader.hash() != Some(identity) || reader.rest().len() != 8 * members {
        return vec![0; members];
    }
    (0..members).filter_map(|_| reader.number()).map(u64::cast_signed).collect()
}
