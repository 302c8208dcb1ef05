//! Which of the ready credentials a new session gets.

mod cursors;
mod weighted;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use cursors::Cursors;

use crate::config::{Credential, CredentialId, Strategy};
use crate::hash::{KeyHash, Seed};
use crate::shared::{SharedData, Updated};
use crate::time::Timestamp;

/// Every key of shared data that rotations use.
pub fn keys(cursors: &Cursors) -> impl Iterator<Item = String> + '_ {
    cursors.keys().chain(weighted::keys())
}

/// The rotation of one pool and model.
pub struct Rotation<'a, S> {
    /// The cursors of all rotations.
    pub cursors: &'a Cursors,
    /// Where they are kept.
    pub shared: &'a S,
    /// What keys their hashes.
    pub seed: Seed,
    /// What keys the draws of `consistent`: the same on every Envoy of the fleet.
    pub fleet: Seed,
    /// What tells this rotation from others: pool, provider, model.
    pub rotation_key: [&'a [u8]; 3],
    /// Whether a new rotation begins where the pool's rotations have got to, so that models that
    /// were not used yet do not all begin with the same credential. The reference begins with the
    /// first.
    pub begins_anywhere: bool,
    /// Now.
    pub now: Timestamp,
    /// Set when other workers won every try for a turn. Then two of them may have taken the same
    /// one: that costs a little balance, never a response.
    pub contended: bool,
}

impl<S: SharedData> Rotation<'_, S> {
    /// Chooses one of the candidates, which are sorted by id; `None` if there are none. `session`
    /// is what `consistent` goes by; without one it goes round.
    pub fn choose<'c>(
        &mut self,
        strategy: Strategy,
        candidates: &[&'c Credential],
        session: Option<&[u8]>,
    ) -> Option<&'c Credential> {
        match (strategy, session) {
            (Strategy::FillFirst, _) => candidates.first().copied(),
            (Strategy::Consistent, Some(session)) => rendezvous(candidates, session, self.fleet),
            // `headroom` has chosen before it comes to turns.
            (Strategy::RoundRobin | Strategy::Consistent | Strategy::Headroom, _) => {
                self.go_round(candidates)
            }
        }
    }

    fn go_round<'c>(&mut self, candidates: &[&'c Credential]) -> Option<&'c Credential> {
        match parents(candidates).as_slice() {
            [] | [_] => self.take_turn(b"flat", candidates),
            parents => self.choose_by_parent(parents, candidates),
        }
    }

    /// Each parent in turn, and each of its credentials in turn, so that an account with many
    /// projects gets no more sessions than one with a single project. The first parent is a random
    /// one: after a restart not every instance should begin with the same account.
    fn choose_by_parent<'c>(
        &mut self,
        parents: &[&str],
        candidates: &[&'c Credential],
    ) -> Option<&'c Credential> {
        let random =
            self.hash(&[b"start", &self.now.as_millis().to_le_bytes()]).slot(parents.len() as u32);
        let parent = at_turn(parents, self.turn(&[b"parents"], u64::from(random)))?;
        let members: Vec<_> = candidates
            .iter()
            .filter(|member| member.parent.as_deref() == Some(parent))
            .copied()
            .collect();
        self.take_turn(&[b"parent:", parent.as_bytes()].concat(), &members)
    }

    /// The next in a ring; by weight, if the weights differ.
    fn take_turn<'c>(&mut self, ring: &[u8], members: &[&'c Credential]) -> Option<&'c Credential> {
        let mut weights = members.iter().map(|member| member.weight);
        let first = weights.next()?;
        if weights.all(|weight| weight == first) {
            let first = if self.begins_anywhere { self.next_beginning(ring) } else { 0 };
            return at_turn(members, self.turn(&[ring], first));
        }
        self.weighted_turn(ring, members)
    }

    /// Where a rotation of this pool begins, should it be new.
    fn next_beginning(&mut self, ring: &[u8]) -> u64 {
        if self.cursors.has_begun(self.shared, self.hash(&[ring])) {
            return 0;
        }
        let [pool, provider, _] = self.rotation_key;
        let key = self.seed.hash(&[pool, provider, b"beginnings", ring]);
        let beginning = self.cursors.turn(self.shared, key, self.now, 0);
        self.taken(beginning)
    }

    fn turn(&mut self, ring: &[&[u8]], first: u64) -> u64 {
        let turn = self.cursors.turn(self.shared, self.hash(ring), self.now, first);
        self.taken(turn)
    }

    fn taken<T>(&mut self, turn: Updated<T>) -> T {
        self.contended |= !turn.written;
        turn.result
    }

    fn hash(&self, ring: &[&[u8]]) -> KeyHash {
        self.seed.hash(&[&self.rotation_key, ring].concat())
    }
}

/// What decides the order of candidates after the first.
pub struct Order<'a> {
    pub strategy: Strategy,
    /// What keys the draws of `consistent`.
    pub fleet: Seed,
    /// The credential that is tried first.
    pub first: &'a Credential,
    /// What `consistent` goes by, and the key of the session; `None` without a session.
    pub session: Option<(&'a [u8], KeyHash)>,
    /// The last substitute of the session, which is tried before all others.
    pub second: Option<CredentialId>,
    /// Whether credentials for WebSockets come before others.
    pub prefers_websockets: bool,
}

impl Order<'_> {
    /// Other candidates in the order in which they are tried when the first one fails: the
    /// preferred ones, then by priority, and among equals in the order of the strategy. Round-robin
    /// begins at a position that differs by session, so that the sessions of one exhausted
    /// credential spread over all others; those of the same parent come last, because limits often
    /// apply to the whole account.
    pub fn sort<'c>(&self, others: &[&'c Credential]) -> Vec<&'c Credential> {
        let start = match self.session {
            Some((_, key)) => key.slot(others.len() as u32) as usize,
            None => others.iter().position(|other| other.id > self.first.id).unwrap_or(0),
        };
        // A heap sorts with a tenth of the code of the library's sort.
        let ranked: BinaryHeap<_> = others
            .iter()
            .enumerate()
            .map(|(at, other)| match self.strategy {
                // The order of `fill-first` is that of the ids.
                Strategy::FillFirst => (self.rank(other, at), at),
                _ => (self.rank(other, (at + others.len() - start) % others.len()), at),
            })
            .collect();
        let ranked = ranked.into_sorted_vec().into_iter();
        ranked.filter_map(|(_, at)| others.get(at).copied()).collect()
    }

    /// Lower goes first. `turn` breaks ties: the position, counted from where the strategy begins.
    fn rank(&self, other: &Credential, turn: usize) -> impl Ord + Copy + use<> {
        let is_second = self.second == Some(other.fingerprint);
        let is_for_websockets = self.prefers_websockets && other.websockets;
        let is_sibling = other.parent.is_some() && other.parent == self.first.parent;
        // Scores are positive numbers, and those are ordered as their bits are.
        let score = match (self.strategy, self.session) {
            (Strategy::Consistent, Some((id, _))) => score(other, id, self.fleet).to_bits(),
            _ => 0,
        };
        (
            (Reverse(is_second), Reverse(is_for_websockets), Reverse(other.priority)),
            (is_sibling, Reverse(score), turn),
        )
    }
}

/// Weighted rendezvous hashing: every credential draws a number from its id and the session, and
/// the highest wins. It needs no memory: every Envoy finds the same home, also after a restart, and
/// without a credential only its own sessions move. The draw is the lower half of SipHash-1-3-128
/// over session id (and the hash of its tenants, if there is one) and credential id, each behind
/// its length as eight bytes, little endian. Its key is the same hash, with the key zero, over
/// `fleet`, `routing.seed` and the name of the pool: without the seed no client can choose its
/// credential by its session id. Taken as a number between 0 and 1, the score is `-weight /
/// ln(draw)`. None of this may ever change.
#[inline(never)]
pub fn rendezvous<'c>(
    candidates: &[&'c Credential],
    session: &[u8],
    fleet: Seed,
) -> Option<&'c Credential> {
    candidates
        .iter()
        .copied()
        .max_by(|left, right| score(left, session, fleet).total_cmp(&score(right, session, fleet)))
}

#[inline(never)]
fn score(credential: &Credential, session: &[u8], fleet: Seed) -> f64 {
    let draw = fleet.hash(&[session, credential.id.as_bytes()]).0 as u64;
    // The upper 53 bits, shifted by a half: never 0, never 1.
    let draw = ((draw >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(credential.weight) / libm::log(draw)
}

/// The parents of the candidates, sorted; none if any candidate is without.
fn parents<'c>(candidates: &[&'c Credential]) -> Vec<&'c str> {
    let mut parents = Vec::new();
    for candidate in candidates {
        let Some(parent) = candidate.parent.as_deref() else { return Vec::new() };
        if let Err(at) = parents.binary_search(&parent) {
            parents.insert(at, parent);
        }
    }
    parents
}

fn at_turn<T: Copy>(items: &[T], turn: u64) -> Option<T> {
    let index = turn.checked_rem(items.len() as u64)?;
    items.get(index as usize).copied()
}
