//! Requests at several workers, in every order of their reads and writes.
//!
//! The workers of an Envoy share nothing but the map of shared data. Each scenario is two or three
//! requests that meet there; after every order it has to hold that
//!
//! - no cooldown is lost that a provider announced;
//! - a session is bound to credentials that served it, and to those of no other session;
//! - a pin that was made is there;
//! - requests under way are counted where they are;
//! - nothing is stored that does not decode.
//!
//! And if the host wrote unconditionally, most scenarios would have to notice it.
//!
//! The longest ones are played in all orders in which workers interrupt each other once or twice,
//! and in a hundred that are drawn at random. `INTERRUPTIONS=2 cargo test --test orders` plays all of
//! them with two.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod explorer;
mod history;
mod requests;
mod room;
mod rules;
mod scenarios;
mod state;
mod worker;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use explorer::{Job, Search, Writes, every_order};
use requests::{Scenario, Work, alone, router};
use scenarios::LIMITED;
use session_affinity::outcome::Outcome;
use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored, update};
use worker::{Forgets, Worker};

#[test]
fn every_order_of_two_and_three_requests_is_sound() {
    let (mut orders, mut refused) = (0, 0);
    for scenario in scenarios::all() {
        let played = scenario.play(Writes::Compared);
        println!("{}: {played:?}", scenario.name);
        assert!(played.played > 1, "{}: they have to meet", scenario.name);
        (orders, refused) = (orders + played.played, refused + played.refused);
    }
    println!("{orders} orders, {refused} writes refused");
}

#[test]
fn a_host_that_writes_unconditionally_is_noticed() {
    let noticed = |it: &Scenario| catch_unwind(AssertUnwindSafe(|| it.play(Writes::Unconditional)));
    let missed: Vec<_> = scenarios::all()
        .filter(|scenario| noticed(scenario).is_err() != scenario.needs_compare)
        .map(|scenario| scenario.name)
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// States that are visited once and steps that commute: neither loses an end of two requests.
#[test]
fn a_short_search_finds_what_a_full_one_finds() {
    let (mut compared, mut saved) = (0, 0);
    for scenario in scenarios::all().filter(|scenario| scenario.work.len() == 2) {
        let (are_alike, orders) = scenario.compare(&[Search::Short, Search::EveryStep]);
        assert!(are_alike, "{}: {orders:?}", scenario.name);
        let [short, every_step] = orders[..] else { panic!("two searches") };
        assert!(short.states <= every_step.states, "{}: {orders:?}", scenario.name);
        saved += every_step.states - short.states;
        if short.played < 40_000 {
            let (are_alike, orders) = scenario.compare(&[Search::Short, Search::EveryOrder]);
            assert!(are_alike, "{}: {orders:?}", scenario.name);
            assert_eq!(orders[0].played, orders[1].played, "{}", scenario.name);
            compared += 1;
        }
    }
    assert!(compared > 5 && saved > 100, "{compared} {saved}");
}

/// Three reads and three writes of one key can follow each other in 90 ways. An order of steps that
/// are left alone is none.
#[test]
fn orders_are_counted_and_lead_where_they_lead() {
    let add = |key: &'static str| {
        move |worker: &Worker<'_>| {
            let one_more = |value: &[u8]| (Some(vec![value.first().map_or(1, |it| it + 1)]), ());
            assert!(update(worker, key, one_more).written);
        }
    };
    for (keys, writes, search, orders, sums) in [
        (["x", "y", "z"], Writes::Compared, Search::Short, 1, &[3][..]),
        (["x", "y", "z"], Writes::Unconditional, Search::EveryStep, 90, &[3]),
        // Each but the last to write may be refused: it reads and writes once more.
        (["x", "x", "y"], Writes::Compared, Search::Short, 6, &[3]),
        // Whoever reads before another one has written loses what that one wrote.
        (["x", "x", "y"], Writes::Unconditional, Search::Short, 6, &[2, 3]),
        (["x", "x", "x"], Writes::Unconditional, Search::Short, 90, &[1, 2, 3]),
        (["x", "x", "x"], Writes::Unconditional, Search::EveryOrder, 90, &[1, 2, 3]),
        (
            ["x", "x", "x"],
            Writes::Unconditional,
            Search::Bounded { interruptions: 0, sample: 0 },
            6,
            &[3],
        ),
        (
            ["x", "x", "x"],
            Writes::Unconditional,
            Search::Bounded { interruptions: 1, sample: 0 },
            24,
            &[1, 2, 3],
        ),
    ] {
        let requests = keys.map(add);
        let requests = [0, 1, 2].map(|at| &requests[at] as Job<'_, ()>);
        let mut seen = BTreeSet::new();
        let sum = |shared: &InMemory, _| {
            let keys = shared.keys();
            seen.insert(keys.iter().map(|key| u64::from(shared.get(key).value[0])).sum::<u64>());
        };
        let played = every_order(&InMemory::default(), &requests, writes, search, sum);
        let case = format!("{keys:?} {writes:?} {search:?}");
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), sums, "{case}");
        assert_eq!(played.played, orders, "{case}");
    }
}

/// Shared data that another worker always writes first.
struct AlwaysLate(InMemory);

impl SharedData for AlwaysLate {
    fn get(&self, key: &str) -> Stored {
        self.0.get(key)
    }

    fn set(&self, _: &str, _: &[u8], _: Cas) -> Result<(), CasMismatch> {
        Err(CasMismatch)
    }
}

impl Forgets for AlwaysLate {}

/// Whose writes are always refused has a name for it, and leaves everything as it was.
#[test]
fn a_write_that_is_given_up_is_an_outcome_with_a_name() {
    for work in [Work::Send("1", &[]), Work::Send("1", &[LIMITED]), Work::Create("1", "resp_1")] {
        let (router, shared) = (router("fill-first", ["{}"; 3]), AlwaysLate(InMemory::default()));
        let seen = alone(&router, &shared, &work);
        assert_eq!(seen.outcome, Some(Outcome::Contended), "{work:?}");
        assert!(seen.contended && seen.served().is_some(), "{work:?}: {seen:?}");
    }
}
