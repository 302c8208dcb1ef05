//! Which of the ready credentials a new session gets.

use crate::config::{Credential, Strategy};
use crate::hash::{KeyHash, Seed};
use crate::shared::SharedData;
use crate::table::Table;

/// Rotations that are kept apart, one for each pool, provider and model in use. Beyond it the least recently used one
/// starts anew.
const ROTATIONS: u32 = 4096;

/// Where a rotation starts over, as in the reference.
const LAST_TURN: u64 = 2_147_483_640;

/// The cursors of round-robin.
#[derive(Clone, Copy, Debug)]
pub struct Cursors(Table);

impl Default for Cursors {
    fn default() -> Self {
        Self(Table::new("cursor", ROTATIONS))
    }
}

impl Cursors {
    /// Every key of shared data that cursors use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.0.keys()
    }

    /// The number of this turn. Where other workers win every attempt, two of them may get the same turn: that costs a
    /// little balance, never an answer.
    fn turn(&self, shared: &impl SharedData, key: KeyHash, now: u64, first: u64) -> u64 {
        let updated = self.0.update(shared, key, now, |entry| {
            let turn = entry.map_or(first, |entry| entry.number);
            let turn = if turn >= LAST_TURN { 0 } else { turn };
            Some((turn + 1, turn))
        });
        updated.map_or(first, |updated| updated.result)
    }
}

/// The rotation of one pool and model.
pub struct Rotation<'a, S> {
    /// The cursors of all rotations.
    pub cursors: &'a Cursors,
    /// Where they are kept.
    pub shared: &'a S,
    /// What keys their hashes.
    pub seed: Seed,
    /// What tells this rotation from others.
    pub scope: [&'a [u8]; 3],
    /// Milliseconds since the epoch.
    pub now: u64,
}

impl<S: SharedData> Rotation<'_, S> {
    /// Chooses one of the candidates, which are sorted by id; `None` if there are none.
    pub fn choose<'c>(&self, strategy: Strategy, candidates: &[&'c Credential]) -> Option<&'c Credential> {
        match strategy {
            Strategy::FillFirst => candidates.first().copied(),
            Strategy::RoundRobin => match parents(candidates).as_slice() {
                [] | [_] => take_turn(candidates, self.turn(&[b"flat"], 0)),
                parents => self.choose_by_parent(parents, candidates),
            },
        }
    }

    /// Each parent in turn, and each of its credentials in turn, so that an account with many projects gets no more
    /// sessions than one with a single project. The first parent is a random one: after a restart not every instance
    /// should begin with the same account.
    fn choose_by_parent<'c>(&self, parents: &[&str], candidates: &[&'c Credential]) -> Option<&'c Credential> {
        let random = self.hash(&[b"start", &self.now.to_le_bytes()]).slot(parents.len() as u32);
        let parent = take_turn(parents, self.turn(&[b"parents"], u64::from(random)))?;
        let members: Vec<_> =
            candidates.iter().copied().filter(|member| member.parent.as_deref() == Some(parent)).collect();
        take_turn(&members, self.turn(&[b"parent", parent.as_bytes()], 0))
    }

    fn turn(&self, ring: &[&[u8]], first: u64) -> u64 {
        self.cursors.turn(self.shared, self.hash(ring), self.now, first)
    }

    fn hash(&self, ring: &[&[u8]]) -> KeyHash {
        self.seed.hash(&[&self.scope, ring].concat())
    }
}

/// The parents of the candidates, sorted; none if any candidate is without.
fn parents<'c>(candidates: &[&'c Credential]) -> Vec<&'c str> {
    let parents: Option<Vec<&str>> = candidates.iter().map(|credential| credential.parent.as_deref()).collect();
    let mut parents = parents.unwrap_or_default();
    parents.sort_unstable();
    parents.dedup();
    parents
}

fn take_turn<T: Copy>(items: &[T], turn: u64) -> Option<T> {
    let index = turn.checked_rem(items.len() as u64)?;
    items.get(index as usize).copied()
}
