//! Envoy's clock in leaps: back to the epoch, an hour, years and ages ahead. Nothing panics, nothing
//! is out for longer than a provider may announce, and once the clock is right again, everything
//! is as if it always had been.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::outcome::Outcome;
use session_affinity::router::Decision;
use session_affinity::time::Timestamp;
use world::{Fate, HOUR, MINUTE, SECOND, World, routed, said};

/// The time that is right, and from which the clock leaps.
const RIGHT: Timestamp = Timestamp::from_secs(1_795_262_400);

const DAY: Duration = Duration::from_hours(24);

/// The longest cooldown that a provider may announce, by default.
const LONGEST: Duration = Duration::from_hours(7 * 24);

fn config(strategy: &str, weight: u32) -> Value {
    let credentials = ["a", "b", "c"].map(|id| json!({"id": id, "cluster": id, "weight": weight}));
    json!({
        "routing": {"strategy": strategy},
        "pools": [{"name": "p", "provider": "claude", "credentials": credentials}],
    })
}

/// Times at which the clock may show up, the right one among them.
fn leaps() -> Vec<Timestamp> {
    let right = RIGHT.as_millis();
    let back = [SECOND, MINUTE, HOUR, DAY].map(|span| right - span.as_millis() as u64);
    let ahead = [SECOND, HOUR, DAY, 400 * DAY].map(|span| right + span.as_millis() as u64);
    let far = [0, 1, u64::from(u32::MAX), 1 << 53, u64::MAX - 1, u64::MAX, right];
    [&back[..], &ahead, &far].concat().into_iter().map(Timestamp::from_millis).collect()
}

fn fates() -> [Fate<'static>; 8] {
    const HOUR_FROM_NOW: Fate<'_> = Fate::Says(429, &[("retry-after", "3600")], "");
    const FOR_EVER: Fate<'_> = Fate::Says(429, &[("retry-after", "99999999999")], "");
    const DATE: Fate<'_> = Fate::Says(429, &[("retry-after", "Sat, 21 Nov 2099 12:00:00 GMT")], "");
    let served = Fate::Status(200);
    [served, HOUR_FROM_NOW, served, Fate::Status(500), FOR_EVER, Fate::Status(401), DATE, served]
}

/// Asks for an end of a stay that no client waits for.
fn check(decision: &Decision<'_>) {
    if let Decision::Reply(refusal) = decision {
        let wait = refusal.reply.retry_after.unwrap_or_default();
        assert!(wait <= LONGEST.as_secs(), "{decision}");
    }
}

#[test]
fn a_clock_that_leaps_leaves_nothing_out_for_longer_than_may_be_announced() {
    for (strategy, weight) in [("round-robin", 1), ("round-robin", 3), ("consistent", 1)] {
        for stride in 1..12 {
            let mut world = World::of(&config(strategy, weight));
            let (leaps, fates) = (leaps(), fates());
            for turn in 0..120 {
                world.now = leaps[turn * stride % leaps.len()];
                let decision = world.ask(&format!("{}", turn % 7), "m");
                check(&decision);
                if matches!(decision, Decision::Route(_)) {
                    let fate = fates[(turn * 5 + stride) % fates.len()];
                    world.play(&decision, &["a", "b", "c"].map(|id| (id, fate)));
                }
            }
            world.now = RIGHT + LONGEST + SECOND;
            let mut served = BTreeSet::new();
            for session in 0..24 {
                let name = format!("after {session}");
                let decision = world.ask(&name, "m");
                assert!(matches!(decision, Decision::Route(_)), "{strategy} {stride}: {decision}");
                served.insert(routed(&decision).credential.id.clone());
                world.play(&decision, &[]);
                let again = world.ask(&name, "m");
                assert_eq!(again.outcome(), Outcome::Hit, "{strategy} {stride}: {again}");
                world.play(&again, &[]);
            }
            assert_eq!(served.len(), 3, "{strategy} {stride}: {served:?}");
        }
    }
}

#[test]
fn a_session_and_a_turn_survive_a_clock_that_leaps_and_is_right_again() {
    for strategy in ["round-robin", "consistent"] {
        for leap in leaps() {
            let mut world = World { now: RIGHT, ..World::of(&config(strategy, 1)) };
            let home = world.ask("1", "m");
            world.play(&home, &[]);
            let (home, _) = said(&home);
            world.now = leap;
            for session in 0..6 {
                let decision = world.ask(&format!("others {session}"), "m");
                world.play(&decision, &[]);
            }
            world.now = RIGHT + SECOND;
            assert_eq!(said(&world.ask("1", "m")), (home, Outcome::Hit), "{strategy} {leap:?}");
        }
    }
}

/// As after a time that was wrong by days: what was learned then is all from the future.
fn set_back() -> [Duration; 2] {
    [3 * DAY, 400 * DAY]
}

#[test]
fn a_session_keeps_its_home_when_the_clock_is_set_back() {
    for strategy in ["round-robin", "consistent"] {
        for ahead in set_back() {
            let mut world = World { now: RIGHT + ahead, ..World::of(&config(strategy, 1)) };
            let homes = [0, 1, 2, 3].map(|session| {
                let decision = world.ask(&session.to_string(), "m");
                world.play(&decision, &[]);
                said(&decision).0
            });
            world.now = RIGHT;
            for _ in 0..2 {
                for (session, home) in homes.iter().enumerate() {
                    let decision = world.ask(&session.to_string(), "m");
                    world.play(&decision, &[]);
                    assert_eq!(said(&decision), (home.clone(), Outcome::Hit), "{strategy}");
                }
                world.now += MINUTE;
            }
        }
    }
}

#[test]
fn what_a_session_avoided_before_the_clock_was_set_back_it_avoids_for_an_hour_at_most() {
    for ahead in set_back() {
        let mut world = World { now: RIGHT + ahead, ..World::of(&config("consistent", 1)) };
        let home = world.ask("1", "m");
        world.play(&home, &[]);
        let (home, _) = said(&home);
        for _ in 0..8 {
            let decision = world.ask("1", "m");
            world.play(&decision, &["a", "b", "c"].map(|id| (id, Fate::Status(500))));
        }
        world.now = RIGHT + HOUR + SECOND;
        assert_eq!(said(&world.ask("1", "m")).0, home, "{ahead:?}");
    }
}

#[test]
fn a_table_that_filled_before_the_clock_was_set_back_has_room_for_new_sessions() {
    for ahead in set_back() {
        let mut config = config("round-robin", 1);
        config["session"] = json!({"max_bindings": 1024});
        let mut world = World { now: RIGHT + ahead, ..World::of(&config) };
        for session in 0..4096 {
            let decision = world.ask(&format!("before {session}"), "m");
            world.play(&decision, &[]);
        }
        world.now = RIGHT;
        // One that goes on is as good as a new one.
        let goes_on = (0..4096).map(|session| format!("before {session}"));
        let goes_on = goes_on.filter(|it| world.ask(it, "m").outcome() == Outcome::Hit).take(16);
        let goes_on: Vec<_> = goes_on.collect();
        for session in &goes_on {
            let decision = world.ask(session, "m");
            world.play(&decision, &[]);
        }
        // A quarter of what there is room for: no row gets more than it holds.
        for expected in [Outcome::Miss, Outcome::Hit] {
            for session in 0..256 {
                let decision = world.ask(&format!("after {session}"), "m");
                assert_eq!(decision.outcome(), expected, "{session}");
                world.play(&decision, &[]);
            }
            world.now += SECOND;
        }
        for session in &goes_on {
            assert_eq!(world.ask(session, "m").outcome(), Outcome::Hit, "{session}");
        }
    }
}

#[test]
fn a_credential_is_probed_although_the_last_probe_was_before_the_clock_was_set_back() {
    let week: Fate<'_> = Fate::Says(429, &[("retry-after", "604800")], "");
    let all = ["a", "b", "c"].map(|id| (id, week));
    let mut world = World { now: RIGHT, ..World::of(&config("round-robin", 1)) };
    let is_sent = |world: &World| {
        let decision = world.ask("1", "m");
        let is_sent = matches!(decision, Decision::Route(_));
        if is_sent {
            world.play(&decision, &all);
        }
        is_sent
    };
    assert!(is_sent(&world), "nothing is known yet");
    assert!(!is_sent(&world), "all of them have announced a week");
    // The clock is wrong for a moment, and probes of all are lost.
    world.now = RIGHT + 3 * DAY;
    let claimed = (0..9).filter(|_| matches!(world.ask("1", "m"), Decision::Route(_)));
    assert_eq!(claimed.count(), 3);
    world.now = RIGHT + HOUR;
    let probes = (0..24).filter(|_| {
        world.now += HOUR;
        is_sent(&world)
    });
    assert!(probes.count() > 12, "one probe every half an hour, as configured");
}
