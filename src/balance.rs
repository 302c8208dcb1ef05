//! Which of the ready credentials a new session gets.

use std::cell::Cell;
use std::cmp::Reverse;

use crate::config::{Credential, Strategy};
use crate::hash::{KeyHash, Seed};
use crate::shared::{self, SharedData, Updated};
use crate::table::{Edit, Entry, Table};

/// Rotations that are kept apart, one for each pool, provider and model in use. Beyond it the least
/// recently used one starts anew.
const ROTATIONS: u32 = 4096;

/// Weighted rotations that are kept apart. Two that meet in one place start each other anew: a
/// little balance lost.
const WHEELS: u32 = 256;

/// Where a rotation starts over, as in the reference.
const LAST_TURN: u64 = 2_147_483_640;

/// The key of the generation of all cursors, in the profile `reference`.
const GENERATION: &str = "session_affinity/cursor_generation";

/// The cursors of round-robin.
#[derive(Clone, Copy, Debug)]
pub struct Cursors {
    table: Table<1>,
    /// In the reference all cursors start over when a new one would be more than so many.
    cap: Option<u32>,
}

impl Cursors {
    /// The cursors; with a cap, under the reference's rule for it.
    pub fn new(cap: Option<u32>) -> Self {
        // Twice the room, so that the cap is reached before a row is full.
        let entries = cap.map_or(ROTATIONS, |cap| cap.saturating_mul(2).max(ROTATIONS));
        Self { table: Table::new("cursor", entries), cap }
    }

    /// Every key of shared data that cursors use.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        let wheels = (0..WHEELS).map(wheel_name);
        self.table.keys().chain(wheels).chain(self.cap.map(|_| GENERATION.to_owned()))
    }

    /// The number of this turn.
    fn turn(&self, shared: &impl SharedData, key: KeyHash, now: u64, first: u64) -> Updated<u64> {
        let generation = self.generation(shared, key);
        self.table.update(shared, key, now, |entry| {
            let turn =
                entry.map(|entry| entry.numbers).filter(|[number]| number >> 32 == generation);
            let turn = turn.map_or(first, |[number]| number & u64::from(u32::MAX));
            let turn = if turn >= LAST_TURN { 0 } else { turn };
            (Edit::Put([(generation << 32) | (turn + 1)]), turn)
        })
    }

    /// The generation that a cursor must be of to count. One that is new counts against the cap;
    /// where the cap is reached a new generation begins, in which all others start over.
    fn generation(&self, shared: &impl SharedData, key: KeyHash) -> u64 {
        let Some(cap) = self.cap else {
            return 0;
        };
        let read = |value: &[u8]| {
            value.try_into().map_or((0, 0), |bytes| halves(u64::from_le_bytes(bytes)))
        };
        let (current, _) = read(&shared.get(GENERATION).value);
        let known =
            self.table.find(shared, key).map(|Entry { numbers: [number], .. }| number >> 32);
        if known == Some(u64::from(current)) {
            return u64::from(current);
        }
        let updated = shared::update(shared, GENERATION, |value| {
            let (generation, count) = read(value);
            let next = if count >= cap.max(1) {
                (generation.wrapping_add(1), 1)
            } else {
                (generation, count + 1)
            };
            (Some(((u64::from(next.0) << 32) | u64::from(next.1)).to_le_bytes().to_vec()), next.0)
        });
        u64::from(updated.result)
    }
}

fn halves(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

/// The rotation of one pool and model.
pub struct Rotation<'a, S> {
    /// The cursors of all rotations.
    pub cursors: &'a Cursors,
    /// Where they are kept.
    pub shared: &'a S,
    /// What keys their hashes.
    pub seed: Seed,
    /// What tells this rotation from others: pool, provider, model.
    pub scope: [&'a [u8]; 3],
    /// Milliseconds since the epoch.
    pub now: u64,
    /// Set when other workers won every attempt at a turn. Then two of them may have taken the same
    /// one: that costs a little balance, never an answer.
    pub contended: &'a Cell<bool>,
}

impl<S: SharedData> Rotation<'_, S> {
    /// Chooses one of the candidates, which are sorted by id; `None` if there are none. `session`
    /// is what `consistent` goes by; without one it goes round.
    pub fn choose<'c>(
        &self,
        strategy: Strategy,
        candidates: &[&'c Credential],
        session: Option<&[u8]>,
    ) -> Option<&'c Credential> {
        match (strategy, session) {
            (Strategy::FillFirst, _) => candidates.first().copied(),
            (Strategy::Consistent, Some(session)) => rendezvous(candidates, session),
            (Strategy::RoundRobin | Strategy::Consistent, _) => self.go_round(candidates),
        }
    }

    fn go_round<'c>(&self, candidates: &[&'c Credential]) -> Option<&'c Credential> {
        match parents(candidates).as_slice() {
            [] | [_] => self.take_turn(b"flat", candidates),
            parents => self.choose_by_parent(parents, candidates),
        }
    }

    /// Each parent in turn, and each of its credentials in turn, so that an account with many
    /// projects gets no more sessions than one with a single project. The first parent is a random
    /// one: after a restart not every instance should begin with the same account.
    fn choose_by_parent<'c>(
        &self,
        parents: &[&str],
        candidates: &[&'c Credential],
    ) -> Option<&'c Credential> {
        let random = self.hash(&[b"start", &self.now.to_le_bytes()]).slot(parents.len() as u32);
        let parent = at_turn(parents, self.turn(&[b"parents"], u64::from(random)))?;
        let is_member = |member: &&&Credential| member.parent.as_deref() == Some(parent);
        let members: Vec<_> = candidates.iter().filter(is_member).copied().collect();
        self.take_turn(&[b"parent:", parent.as_bytes()].concat(), &members)
    }

    /// The next in a ring; by weight, if the weights differ.
    fn take_turn<'c>(&self, ring: &[u8], members: &[&'c Credential]) -> Option<&'c Credential> {
        let mut weights = members.iter().map(|member| member.weight);
        let first = weights.next()?;
        if weights.all(|weight| weight == first) {
            return at_turn(members, self.turn(&[ring], 0));
        }
        self.smooth_turn(ring, members)
    }

    /// Smooth weighted round-robin: at every turn each member gains its weight, and the one that
    /// has most pays the sum of all. So `a:5 b:1 c:1` gives `a a b a c a a`, never five in a row.
    /// What members have is kept together with a hash of who they are and what they weigh; if that
    /// changes, all start over.
    fn smooth_turn<'c>(&self, ring: &[u8], members: &[&'c Credential]) -> Option<&'c Credential> {
        let wheel = self.hash(&[ring]);
        let weights: Vec<_> =
            members.iter().flat_map(|it| [it.fingerprint, u64::from(it.weight)]).collect();
        let weights: Vec<_> = weights.iter().flat_map(|number| number.to_le_bytes()).collect();
        let identity = self.hash(&[ring, &weights]).0.to_le_bytes();
        let sum: i64 = members.iter().map(|member| i64::from(member.weight)).sum();

        let updated = shared::update(self.shared, &wheel_name(wheel.slot(WHEELS)), |value| {
            let mut credits = read_wheel(value, &identity, members.len());
            credits
                .iter_mut()
                .zip(members)
                .for_each(|(credit, member)| *credit += i64::from(member.weight));
            // Of several that have most the first by id is chosen: `max_by_key` would take the
            // last.
            let most = credits.iter().max().copied().unwrap_or_default();
            let at = credits.iter().position(|&credit| credit == most).unwrap_or_default();
            if let Some(credit) = credits.get_mut(at) {
                *credit -= sum;
            }
            let credits = credits.iter().flat_map(|credit| credit.to_le_bytes());
            (Some(identity.iter().copied().chain(credits).collect()), at)
        });
        members.get(self.taken(updated)).copied()
    }

    fn turn(&self, ring: &[&[u8]], first: u64) -> u64 {
        self.taken(self.cursors.turn(self.shared, self.hash(ring), self.now, first))
    }

    fn taken<T>(&self, turn: Updated<T>) -> T {
        self.contended.set(self.contended.get() || !turn.written);
        turn.result
    }

    fn hash(&self, ring: &[&[u8]]) -> KeyHash {
        self.seed.hash(&[&self.scope, ring].concat())
    }
}

/// Other candidates in the order in which they are tried when the first one fails: those that are
/// preferred, then by priority, and among equals in the order of the strategy. Round-robin begins
/// at a place that differs by session, so that the sessions of one exhausted credential spread over
/// all others; those of the same parent come last, because limits are often the account's.
pub fn in_order<'c>(
    strategy: Strategy,
    others: &[&'c Credential],
    first: &Credential,
    session: Option<(&[u8], KeyHash)>,
    preferred: impl Fn(&Credential) -> u8,
) -> Vec<&'c Credential> {
    let count = others.len() as u64;
    let successor = || others.iter().position(|other| other.id > first.id).unwrap_or(0) as u64;
    let start = session.map_or_else(successor, |(_, key)| u64::from(key.slot(count as u32)));
    let turn = |at: usize, other: &Credential| match (strategy, session) {
        (Strategy::FillFirst, _) => at as u64,
        // Scores are positive numbers, and those are ordered as their bits are.
        (Strategy::Consistent, Some((id, _))) => u64::MAX - score(other, id).to_bits(),
        (Strategy::RoundRobin | Strategy::Consistent, _) => (at as u64 + count - start) % count,
    };
    let is_sibling = |other: &Credential| other.parent.is_some() && other.parent == first.parent;
    let rank = |(at, other): (usize, &&'c Credential)| {
        (
            (
                Reverse(preferred(other)),
                Reverse(other.priority),
                is_sibling(other),
                turn(at, other),
            ),
            *other,
        )
    };
    let mut ranked: Vec<_> = others.iter().enumerate().map(rank).collect();
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, other)| other).collect()
}

/// Weighted rendezvous hashing: every credential draws a number from its id and the session, and
/// the highest wins. It needs no memory: every Envoy finds the same home, also after a restart, and
/// without a credential only its own sessions move. The draw is the lower half of SipHash-1-3-128
/// with the key zero, over session id (and the hash of its scope, if there is one) and credential
/// id, each behind its length as eight bytes, little endian. Taken as a number between 0 and 1, the
/// score is `-weight / ln(draw)`. None of this may ever change.
fn rendezvous<'c>(candidates: &[&'c Credential], session: &[u8]) -> Option<&'c Credential> {
    candidates
        .iter()
        .copied()
        .max_by(|left, right| score(left, session).total_cmp(&score(right, session)))
}

fn score(credential: &Credential, session: &[u8]) -> f64 {
    let draw = Seed::STABLE.hash(&[session, credential.id.as_bytes()]).0 as u64;
    // The upper 53 bits, shifted by a half: never 0, never 1.
    let draw = ((draw >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(credential.weight) / libm::log(draw)
}

/// The parents of the candidates, sorted; none if any candidate is without.
fn parents<'c>(candidates: &[&'c Credential]) -> Vec<&'c str> {
    let parents: Option<Vec<&str>> =
        candidates.iter().map(|credential| credential.parent.as_deref()).collect();
    let mut parents = parents.unwrap_or_default();
    parents.sort_unstable();
    parents.dedup();
    parents
}

fn at_turn<T: Copy>(items: &[T], turn: u64) -> Option<T> {
    let index = turn.checked_rem(items.len() as u64)?;
    items.get(index as usize).copied()
}

fn wheel_name(slot: u32) -> String {
    format!("session_affinity/wheel/{slot}")
}

/// What the members of a ring have; nothing if the value is another ring's, or of another layout.
fn read_wheel(value: &[u8], identity: &[u8; 16], members: usize) -> Vec<i64> {
    let credits = value.strip_prefix(identity).unwrap_or_default();
    let credits: Vec<_> = credits
        .chunks_exact(8)
        .filter_map(|bytes| bytes.try_into().ok().map(i64::from_le_bytes))
        .collect();
    if credits.len() == members { credits } else { vec![0; members] }
}
