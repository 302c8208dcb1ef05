//! The simulation holds what it promises, on small runs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use session_affinity::{Config, Headers, InMemory, Router, Seed, Timestamp};
use simulate::command::answer;
use simulate::report;
use simulate::subscription::Subscription;
use simulate::suites::Suite;
use simulate::{Limits, Restarts, Results, Scenario, Spread, Subscriptions, Way, crowd, herd, run};

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

/// Half a day on eight accounts, some small, whose weeks and windows allow what is needed.
fn accounts(way: Way, percent: u32) -> Results {
    let sizes = vec![20, 20, 5, 5, 5, 1, 1, 1];
    let with = |week| {
        let subscriptions = Subscriptions { sizes: sizes.clone(), weighted: true, week, percent };
        let base = Scenario { hours: 12.0, fails: false, ..Scenario::usual(3, 700) };
        Scenario { subscriptions: Some(subscriptions), way, ..base }
    };
    let tally = results(&with(f64::INFINITY)).tally;
    let need = tally.tokens as f64 - 0.9 * tally.cachable as f64;
    results(&with(need * f64::from(percent) / 100.0))
}

#[test]
fn accounts_refuse_what_goes_beyond_their_quota_and_nothing_else() {
    for way in [Way::RoundRobin, Way::Headroom] {
        let (ample, short) = (accounts(way, 1_000), accounts(way, 50));
        assert_eq!((ample.errors, ample.failed_attempts), (0.0, 0.0), "{way:?}");
        let (ample, of_short) = (ample.room.unwrap(), short.room.as_ref().unwrap());
        assert_eq!((ample.used_up, ample.refused_sessions), ((0, 0), 0.0), "{way:?}");
        assert!(short.errors > 200.0 && of_short.refused_sessions > 20.0, "{way:?}");
        assert_eq!(short.tally.turns, short.tally.ended());
        assert!(of_short.void < ample.void && of_short.used_up.0 > 0, "{way:?}");
    }
}

#[test]
fn headroom_avoids_accounts_that_would_refuse() {
    let (blind, sees) = (accounts(Way::FillFirst, 120), accounts(Way::Headroom, 120));
    assert!(sees.errors <= blind.errors, "{} {}", sees.errors, blind.errors);
    assert!(sees.failed_attempts < blind.failed_attempts);
    assert!(sees.warm_share >= 99.0, "{}", sees.warm_share);
}

#[test]
fn a_herd_spreads_and_the_sessions_of_an_account_that_runs_out_go_by_room() {
    assert_eq!(herd::starts("headroom", 3).unwrap(), [25; 4]);
    assert_eq!(herd::starts("fill-first", 3).unwrap(), [100, 0, 0, 0]);
    let by_room = herd::runs_out("headroom", 3).unwrap();
    let [a, b, c, d] = by_room;
    assert!(a == 0 && b > c && c > d && b + c + d == 47, "{by_room:?}");
    assert_eq!(herd::runs_out("fill-first", 3).unwrap(), [0, 47, 0, 0]);
}

#[test]
fn a_crowd_is_served_as_well_as_if_nothing_cooled() {
    let rows = crowd::rows(3).unwrap();
    let [bound, own] = rows.iter().find(|(name, _)| name.contains("disable_cooling")).unwrap().1;
    for (name, [of_bound, of_own]) in rows {
        assert!(of_bound.served > bound.served - 1.0, "{name}: {of_bound:?}");
        assert!(of_own.served > own.served - 1.0, "{name}: {of_own:?}");
        let counts = name.contains("max_concurrent") || name.contains("headroom");
        assert_eq!(of_own.at_once > own.at_once + 5.0, counts, "{name}: {of_own:?}");
    }
}

#[test]
fn accounts_answer_as_recorded_ones_and_the_core_reads_both() {
    let recorded: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("recorded_headers.json")).unwrap();
    let config = r#"{"pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "a"}]}]}"#;
    let mut names = std::collections::BTreeSet::new();
    for recorded in &recorded {
        let config = Config::parse(config.as_bytes()).unwrap();
        let router = Router::new(config, Seed::STABLE);
        let (shared, pool) = (InMemory::default(), &router.config().pools[0]);
        let headers = recorded["headers"].as_object().unwrap();
        names.extend(headers.keys().cloned());
        let headers: Headers =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let now = Timestamp::from_secs(recorded["now"].as_u64().unwrap());
        let model = recorded["model"].as_str().unwrap();
        let headroom = router.headroom();
        assert!(headroom.learn(&pool.credentials[0], &headers, model, &shared, now));
        let record = headroom.record(&pool.credentials[0], &shared);
        let tightest = record.windows(now).max_by_key(|window| window.used_at(now)).unwrap();
        let expected = &recorded["expected"];
        assert_eq!(tightest.name(), expected["of"].as_str(), "{recorded}");
        assert_eq!(u64::from(tightest.used_at(now)), expected["used"].as_u64().unwrap());
    }
    let subscriptions =
        Subscriptions { sizes: vec![1], weighted: true, week: 1_000.0, percent: 100 };
    let mut account = Subscription::new(&calm(), &subscriptions, 0);
    let headers = account.headers(0, 1_800_000_000_000);
    assert_eq!(headers.len(), 9);
    // What recorded responses do not show is in Anthropic's own words for its windows.
    for (name, _) in headers {
        let is_known = names.contains(&name)
            || ["5h-status", "7d-status", "reset", "representative-claim"]
                .iter()
                .any(|known| name == format!("anthropic-ratelimit-unified-{known}"));
        assert!(is_known, "{name}");
    }
}
