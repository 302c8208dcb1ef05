//! Where there is room: how much of its limits a credential has used, what it carries, and how many
//! requests are under way.
//!
//! Providers tell what is used of a limit with every response, so nothing is polled. What is known
//! of a credential is its load:
//!
//! - *room*: what is left of the window that has the least left, of those that are of the request's
//!   model. A window that is over is whole again, one of tokens and requests comes back little by
//!   little; where nothing was told, there is all the room.
//! - *carried*: the sessions that it serves. Each counts as one at a turn that is served, and fades to
//!   a third within five minutes.
//! - *pace*: the room, divided by the share of the window's time that is left, where its length is
//!   known: what is not used at its end is void. Of several windows the lowest pace counts.
//! - *begun*: the sessions that it was chosen for. Each fades to a third within a minute, so that an
//!   account that comes back gets its part of a burst, and not all of it.
//! - *in flight*: the requests that are under way, where they are counted: with the strategy
//!   `headroom`, and in pools with a `max_concurrent`.
//!
//! With the strategy `headroom` a new session, a cold one and one whose credential fails gets the
//! credential with the highest `weight * pace / (1/2 + carried + begun + in flight)`, the pace in
//! steps of a twentieth; among equals the one whose window ends first; among those the first by id.
//! With one half in place of one, small accounts get their part beside large ones. A choice counts
//! at once, by compare-and-swap, so parallel starts spread.
//!
//! Of more than sixteen candidates, sixteen are compared that are drawn for the session; all of them
//! where none of these has room.
//!
//! Two things outrank that order, with every strategy. A credential with as many requests in flight
//! as it takes gets no new session while another one takes more; and from `routing.spare_at` on
//! none while another one is below.

mod flights;
mod record;
mod sample;
mod windows;

use std::cmp::Reverse;
use std::time::Duration;

use crate::config::{Credential, Pool, Routing, Strategy};
use crate::hash::Seed;
use crate::request::Headers;
use crate::shared::{self, CAS_RETRIES, SharedData, Stored, Updated};
use crate::time::Timestamp;
use windows::Models;

pub use flights::Flights;
pub use record::LoadRecord;
pub use windows::{WINDOWS, Window, names};

/// The longest window there is: a month.
const LONGEST: Duration = Duration::from_hours(31 * 24);

/// Paces are told apart in steps of so many thousandths.
const STEP: u32 = 50;

/// What no room counts, in steps.
const LEAST: f64 = 1e-6;

/// What is used of the limits of a credential, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What is used of the window that has the least left, in thousandths.
    pub used: u16,
    /// How much faster than evenly the rest may be used, in thousandths, of the window of which that
    /// is least.
    pub pace: u32,
    /// When that window is whole again; [`Timestamp::MAX`] if none is known.
    pub reset: Timestamp,
}

impl Limits {
    /// Those of these windows together.
    fn of<'w>(windows: impl Iterator<Item = &'w Window>, now: Timestamp) -> Self {
        let mut pace = None;
        let windows = windows.inspect(|it| {
            let of_window = it.pace(now);
            pace = Some(pace.map_or(of_window, |least: u32| least.min(of_window)));
        });
        let tightest = windows.max_by_key(|it| (it.used_at(now), Reverse(it.reset())));
        Self {
            used: tightest.map_or(0, |window| window.used_at(now)),
            reset: tightest.map_or(Timestamp::MAX, Window::reset),
            pace: pace.unwrap_or(windows::WHOLE.into()),
        }
    }
}

/// The load of a credential.
struct Load {
    limits: Limits,
    /// The sessions that it carries.
    carried: f64,
    /// The sessions that have begun there lately.
    begun: f64,
    /// The requests that are under way; 0 where they are not counted.
    in_flight: u32,
    /// The most requests at once; `None` if that is not known.
    most: Option<u32>,
}

impl Load {
    /// Whether it takes no more requests at once.
    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.in_flight >= most)
    }

    fn rank(&self, credential: &Credential) -> f64 {
        let steps = self.limits.pace.div_ceil(STEP);
        // Sessions spread also over credentials of which nothing is left.
        f64::from(credential.weight) * f64::from(steps).max(LEAST)
            / (0.5 + self.carried + self.begun + f64::from(self.in_flight))
    }
}

/// Where there is room.
#[derive(Clone, Copy)]
pub struct Headroom<'c> {
    pub(crate) routing: &'c Routing,
    pub(crate) seed: Seed,
}

/// What a candidate is compared by.
struct Candidate<'c> {
    credential: &'c Credential,
    load: Load,
    record: LoadRecord,
    stored: Stored,
}

impl Headroom<'_> {
    /// Whether requests in flight are counted.
    pub fn counts_flights(&self, pool: &Pool) -> bool {
        self.routing.strategy == Strategy::Headroom
            || pool.credentials.iter().any(|it| it.max_concurrent.is_some())
    }

    /// The limits of a credential, as a request for this model sees them; without a model, all.
    pub fn limits(
        &self,
        credential: &Credential,
        model: Option<&str>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Limits {
        let models = model.map(|model| Models::of(model, self.seed));
        let record = self.record(credential, shared);
        let windows = record.windows(now);
        let covers = |it: &&Window| models.as_ref().is_none_or(|models| it.covers(models));
        Limits::of(windows.filter(covers), now)
    }

    fn load_in(
        &self,
        record: &LoadRecord,
        pool: &Pool,
        credential: &Credential,
        models: &Models,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Load {
        let ceiling = record.ceiling(now);
        Load {
            limits: Limits::of(record.windows(now).filter(|it| it.covers(models)), now),
            carried: record.carried(now),
            begun: record.begun(now),
            in_flight: self.in_flight(pool, credential, shared, now).unwrap_or_default(),
            most: credential.max_concurrent.into_iter().chain(ceiling).min(),
        }
    }

    /// Those of the candidates that have room for a new session; all of them if none has.
    pub fn with_room<'p>(
        &self,
        candidates: Vec<&'p Credential>,
        pool: &Pool,
        model: &str,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<&'p Credential> {
        let matters = self.routing.spare_at.is_some() || self.counts_flights(pool);
        if candidates.len() < 2 || !matters {
            return candidates;
        }
        let candidates = self.candidates(&candidates, pool, model, shared, now);
        let with_room = self.rooms(&candidates);
        with_room.into_iter().map(|candidate| candidate.credential).collect()
    }

    /// The candidate with the most room, which counts a session more from now on. The result is not
    /// written if other workers wrote in every try.
    pub fn pick<'p>(
        &self,
        candidates: &[&'p Credential],
        pool: &Pool,
        (session, model): (&[u8], &str),
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Updated<Option<&'p Credential>> {
        let mut picked = None;
        for _ in 0..CAS_RETRIES {
            let candidates = self.look_at(candidates, pool, (session, model), shared, now);
            let Some(best) = self.best(&candidates) else { break };
            picked = Some(best.credential);
            let mut record = best.record.clone();
            record.carry(None, now);
            let value = record.encode(best.credential.entry);
            if shared.set(&best.credential.load_key, &value, best.stored.cas).is_ok() {
                return Updated { result: picked, written: true };
            }
        }
        Updated { result: picked, written: picked.is_none() }
    }

    /// The candidate with the most room. It counts nothing but what is in flight there.
    pub fn roomiest<'p>(
        &self,
        candidates: &[&'p Credential],
        pool: &Pool,
        (session, model): (&[u8], &str),
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<&'p Credential> {
        let candidates = self.look_at(candidates, pool, (session, model), shared, now);
        Some(self.best(&candidates)?.credential)
    }

    fn best<'a, 'p>(&self, candidates: &'a [Candidate<'p>]) -> Option<&'a Candidate<'p>> {
        // Of equals the last one wins: candidates are sorted by id.
        self.rooms(candidates).into_iter().rev().max_by(|one, other| {
            let rank = one.load.rank(one.credential);
            let rank = rank.total_cmp(&other.load.rank(other.credential));
            rank.then_with(|| other.load.limits.reset.cmp(&one.load.limits.reset))
        })
    }

    /// A few of the candidates, if one of these has room; else all of them.
    #[inline(never)]
    fn look_at<'p>(
        &self,
        candidates: &[&'p Credential],
        pool: &Pool,
        (session, model): (&[u8], &str),
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<Candidate<'p>> {
        if candidates.len() > sample::MOST {
            let draw = self.seed.hash(&[b"sample", session, &now.as_millis().to_le_bytes()]);
            let few = sample::of(candidates, draw);
            let few = self.candidates(&few, pool, model, shared, now);
            if few.iter().any(|it| !it.load.is_full() && !self.spares(&it.load.limits)) {
                return few;
            }
        }
        self.candidates(candidates, pool, model, shared, now)
    }

    #[inline(never)]
    fn candidates<'p>(
        &self,
        candidates: &[&'p Credential],
        pool: &Pool,
        model: &str,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<Candidate<'p>> {
        let models = Models::of(model, self.seed);
        let candidates = candidates.iter().map(|&credential| {
            let stored = shared.get(&credential.load_key);
            let record = LoadRecord::decode(&stored.value, credential.entry);
            let load = self.load_in(&record, pool, credential, &models, shared, now);
            Candidate { credential, load, record, stored }
        });
        candidates.collect()
    }

    /// Those that take another request, and of them those that need not be spared.
    fn rooms<'a, 'p>(&self, candidates: &'a [Candidate<'p>]) -> Vec<&'a Candidate<'p>> {
        let mut rooms: Vec<_> = candidates.iter().collect();
        keep_if_any(&mut rooms, |it| !it.load.is_full());
        keep_if_any(&mut rooms, |it| !self.spares(&it.load.limits));
        rooms
    }

    /// Whether a credential with these limits takes no new session: it nears one of them.
    pub fn spares(&self, limits: &Limits) -> bool {
        self.routing.spare_at.is_some_and(|at| limits.used >= at)
    }

    /// A credential has served a turn of a session, so long after the one before it.
    pub fn carry(
        &self,
        credential: &Credential,
        idle: Duration,
        shared: &impl SharedData,
        now: Timestamp,
    ) {
        change(credential, shared, |record| {
            record.carry(Some(idle), now);
            true
        });
    }

    /// Learns what a response of a credential tells. Returns whether that could be written.
    pub fn learn(
        &self,
        credential: &Credential,
        headers: &Headers,
        model: &str,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> bool {
        let told = windows::told(headers, &Models::of(model, self.seed), now);
        told.is_empty() || change(credential, shared, |record| record.keep(told.clone(), now))
    }

    /// How long it takes until a limit for this model is whole again of which a response says that
    /// nothing is left; `None` if it says that of none.
    pub fn used_up(&self, headers: &Headers, model: &str, now: Timestamp) -> Option<Duration> {
        let models = Models::of(model, self.seed);
        let mut longest = None;
        for window in windows::told(headers, &models, now) {
            if window.covers(&models) && window.used >= windows::WHOLE {
                longest = longest.max(Some(window.reset.since(now)));
            }
        }
        longest
    }

    /// A credential refused one of so many requests, because it takes fewer at once.
    pub fn learn_ceiling(
        &self,
        credential: &Credential,
        in_flight: u32,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> bool {
        change(credential, shared, |record| {
            record.learn_ceiling(in_flight, now);
            true
        })
    }

    /// Whether a credential has begun to be spared, or has ceased to, since this was last asked by
    /// any worker, and its limits; `None` if neither.
    pub fn note_sparing(
        &self,
        credential: &Credential,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<(bool, Limits)> {
        self.routing.spare_at?;
        let record = self.record(credential, shared);
        // Buckets fill on their way: to say that again and again is of no use to anybody.
        let lasting = record.windows(now).filter(|window| !window.is_bucket());
        let limits = Limits::of(lasting, now);
        let is_spared = self.spares(&limits);
        if record.is_spared == is_spared {
            return None;
        }
        let mut is_first = false;
        let written = change(credential, shared, |record| {
            is_first = std::mem::replace(&mut record.is_spared, is_spared) != is_spared;
            is_first
        });
        (is_first && written).then_some((is_spared, limits))
    }

    /// What is known of a credential.
    pub fn record(&self, credential: &Credential, shared: &impl SharedData) -> LoadRecord {
        LoadRecord::decode(&shared.get(&credential.load_key).value, credential.entry)
    }

    /// The requests that are under way at a credential; `None` if they are not counted.
    pub fn in_flight(
        &self,
        pool: &Pool,
        credential: &Credential,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<u32> {
        self.counts_flights(pool).then(|| flights::in_flight(&credential.flights_key, shared, now))
    }
}

/// Every key of shared data that the load of a credential uses.
pub fn keys(credential: &Credential) -> [String; 2] {
    [credential.load_key.clone(), credential.flights_key.clone()]
}

fn keep_if_any<T>(all: &mut Vec<T>, is_kept: impl Fn(&T) -> bool) {
    if all.iter().any(&is_kept) {
        all.retain(is_kept);
    }
}

/// Changes the record of a credential; `change` returns whether that is worth writing. Returns
/// whether it was written, if it was.
fn change(
    credential: &Credential,
    shared: &impl SharedData,
    mut change: impl FnMut(&mut LoadRecord) -> bool,
) -> bool {
    let updated = shared::update(shared, &credential.load_key, |value| {
        let mut record = LoadRecord::decode(value, credential.entry);
        (change(&mut record).then(|| record.encode(credential.entry)), ())
    });
    updated.written
}

#[cfg(test)]
mod tests;
