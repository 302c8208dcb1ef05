//! The simulation holds what it promises, on small runs.

#![allow(clippy::unwrap_used)]

use simulate::command::answer;
use simulate::report;
use simulate::suites::Suite;
use simulate::{Limits, Restarts, Results, Scenario, Spread, Way, run};

/// A run of seconds, without anything that could fail.
fn calm() -> Scenario {
    Scenario { hours: 0.5, fails: false, ..Scenario::usual(3, 300) }
}

fn results(scenario: &Scenario) -> Results {
    run(scenario).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed| {
        let rough = Scenario {
            seed,
            fails: true,
            envoys: 5,
            way: Way::Consistent,
            restarts: Restarts::Crashes,
            limits: Limits { requests_a_minute: 20.0, ..Limits::NONE },
            ..calm()
        };
        let runs = vec![
            ("rough".to_owned(), rough.clone()),
            ("store".to_owned(), Scenario { common_store: true, ..rough }),
        ];
        let suite = Suite { name: "test", question: "?", axis: "", runs };
        let answered = answer(vec![suite]).unwrap();
        let json = report::json(&answered).unwrap();
        assert_eq!(report::parsed(&json).unwrap().len(), 2);
        (report::page("test", &answered), json)
    };
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

#[test]
fn every_turn_ends_in_exactly_one_way() {
    for restarts in [Restarts::Never, Restarts::Rolling, Restarts::Crashes] {
        for way in [Way::NoAffinity, Way::RoundRobin, Way::FillFirst, Way::Consistent] {
            let limits = Limits { requests_a_minute: 4.0, ..Limits::NONE };
            let scenario =
                Scenario { fails: true, limits, envoys: 4, hours: 1.0, restarts, way, ..calm() };
            let tally = results(&scenario).tally;
            assert_eq!(tally.sessions, 300);
            assert_eq!(tally.turns, tally.ended(), "{scenario:?}");
            assert_eq!(tally.turns, tally.outcomes.values().sum::<u64>(), "{scenario:?}");
            assert!(tally.limited + tally.refused > 0, "{scenario:?}");
            assert!(tally.lost == 0 || restarts == Restarts::Crashes, "{scenario:?}");
            assert!(tally.attempts >= tally.served + tally.failed_attempts, "{scenario:?}");
        }
    }
}

#[test]
fn a_crash_loses_what_is_under_way_and_nothing_else() {
    let crashes = Scenario { restarts: Restarts::Crashes, way: Way::Consistent, ..calm() };
    let tally =
        results(&Scenario { seed: 2, sessions: 1_500, envoys: 10, hours: 1.0, ..crashes }).tally;
    assert!((1..20).contains(&tally.lost), "{}", tally.lost);
    assert_eq!(tally.served + tally.lost, tally.turns);
}

#[test]
fn one_envoy_with_a_table_keeps_every_session_where_it_is_warm() {
    for way in [Way::RoundRobin, Way::FillFirst, Way::Consistent] {
        let results = results(&Scenario { way, ..calm() });
        assert!(results.warm_share >= 99.0, "{way:?}: {}", results.warm_share);
        assert!((results.errors, results.failed_attempts) == (0.0, 0.0), "{way:?}");
    }
}

#[test]
fn what_must_be_better_is_better() {
    let fleet = |way| Scenario { envoys: 10, way, ..calm() };
    let warm = |scenario: &Scenario| results(scenario).warm_share;
    let without = warm(&fleet(Way::NoAffinity));
    let alone = warm(&fleet(Way::RoundRobin));
    let sticky = Scenario { spread: Spread::Sticky, ..fleet(Way::RoundRobin) };
    let connections = Scenario { spread: Spread::Connections, ..fleet(Way::RoundRobin) };
    let store = Scenario { common_store: true, ..fleet(Way::RoundRobin) };
    assert!(without < alone, "{without} {alone}");
    assert!(alone < warm(&connections) && warm(&connections) < warm(&sticky));
    assert!(warm(&store) >= 99.0 && warm(&sticky) >= 99.0);
    assert!(warm(&fleet(Way::Consistent)) >= 99.0);
}

#[test]
fn with_a_common_store_the_size_of_the_fleet_does_not_matter() {
    let store = Scenario { common_store: true, fails: true, ..calm() };
    let fleet = results(&Scenario { envoys: 7, ..store.clone() });
    assert_eq!(fleet, results(&store));
    assert_eq!(fleet, results(&Scenario { common_store: false, ..store }));
}

#[test]
fn replicas_that_share_nothing_agree_within_two_percent_of_one() {
    let one = Scenario { way: Way::Consistent, fails: true, hours: 1.0, ..calm() };
    let three = results(&Scenario { envoys: 3, ..one.clone() });
    let one = results(&one);
    assert!(three.token_share > one.token_share - 2.0, "{} {}", three.token_share, one.token_share);
    assert_eq!(three.tally.served, three.tally.turns);
}

#[test]
fn a_small_table_forgets_sessions_which_consistent_finds_again() {
    let small = Scenario { max_bindings: 16, ..calm() };
    let (forgets, finds) =
        (results(&small), results(&Scenario { way: Way::Consistent, ..small.clone() }));
    assert!(forgets.tally.evicted > 0 && finds.tally.evicted > 0);
    assert!(forgets.warm_share < 99.0, "{}", forgets.warm_share);
    assert!(finds.warm_share >= 99.0, "{}", finds.warm_share);
    assert!(forgets.bytes < results(&calm()).bytes);
}
