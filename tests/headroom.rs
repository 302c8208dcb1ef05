//! New work goes where there is room: what follows from the limits that responses tell, and from
//! requests in flight, for whole sessions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::headroom::Flights;
use session_affinity::outcome::Outcome;
use session_affinity::router::{BodyNeed, Decision};
use session_affinity::time::Timestamp;
use world::{Fate, HOUR, MINUTE, SECOND, World, is, routed, said};

fn world(routing: Value, credentials: &[&str]) -> World {
    let credentials: Vec<_> =
        credentials.iter().map(|id| json!({"id": id, "cluster": id})).collect();
    // Ends of windows are points in time, which are told from waits by their size.
    let now = Timestamp::from_secs(1_800_000_000);
    World { now, ..World::of(&config(routing, json!(credentials))) }
}

fn config(routing: Value, credentials: Value) -> Value {
    json!({
        "routing": routing,
        "pools": [{"name": "p", "provider": "claude", "credentials": credentials}]
    })
}

impl World {
    /// A credential tells how much of its five hours is used, in percent, and when they end.
    fn tells(&self, session: &str, used: u32, left: Duration) -> String {
        let share = format!("{}", f64::from(used) / 100.0);
        let reset = ((self.now + left).as_millis() / 1000).to_string();
        let headers = [
            ("anthropic-ratelimit-unified-5h-utilization", share.as_str()),
            ("anthropic-ratelimit-unified-5h-reset", reset.as_str()),
        ];
        let decision = self.ask(session, "m");
        self.answer(&decision, 200, &headers, "");
        said(&decision).0
    }

    /// So many new sessions start, and are served; how many each credential gets.
    fn starts(&self, name: &str, count: u32) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for session in 0..count {
            let to = self.play(&self.ask(&format!("{name}{session}"), "m"), &[]).to;
            *counts.entry(to).or_insert(0) += 1;
        }
        counts
    }
}

fn counts<const N: usize>(counts: [(&str, u32); N]) -> BTreeMap<String, u32> {
    counts.into_iter().map(|(id, count)| (id.to_owned(), count)).collect()
}

#[test]
fn a_warm_session_stays_at_a_credential_that_new_ones_avoid() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    assert_eq!(world.tells("old", 50, HOUR), "a");
    world.now += MINUTE;
    assert_eq!(world.tells("old", 95, HOUR), "a");
    assert_eq!(world.starts("new", 10), counts([("b", 10)]));
    assert_eq!(said(&world.ask("old", "m")), is("a", Outcome::Hit));
    world.now += HOUR;
    assert_eq!(world.starts("later", 10), counts([("a", 5), ("b", 5)]), "the window has ended");
}

#[test]
fn sparing_refines_every_strategy_and_is_off_by_default() {
    for (strategy, spare_at, expected) in [
        ("fill-first", json!(0.8), "b"),
        ("round-robin", json!(0.8), "b"),
        ("fill-first", Value::Null, "a"),
    ] {
        let mut routing = json!({"strategy": strategy});
        if !spare_at.is_null() {
            routing["spare_at"] = spare_at;
        }
        let world = world(routing, &["a", "b"]);
        // Whoever serves it: all of them tell.
        for session in 0..30 {
            if world.tells(&format!("x{session}"), 10, HOUR) == "a" {
                world.tells(&format!("x{session}"), 85, HOUR);
                break;
            }
        }
        let starts = world.starts("new", 8);
        assert_eq!(starts, counts([(expected, 8)]), "{strategy}");
    }
}

#[test]
fn priority_outranks_room() {
    let credentials = json!([
        {"id": "paid", "cluster": "a"},
        {"id": "plan", "cluster": "b", "priority": 1},
    ]);
    let world = World::of(&config(json!({"strategy": "headroom"}), credentials));
    assert_eq!(world.tells("old", 99, HOUR), "plan");
    assert_eq!(world.starts("new", 5), counts([("plan", 5)]));
}

#[test]
fn from_shed_at_on_cold_sessions_leave_and_warm_ones_stay() {
    let shed = json!({"strategy": "headroom", "shed_at": 0.8});
    let keep = json!({"strategy": "headroom"});
    let (short, long) = (MINUTE, 10 * MINUTE);
    for (routing, idle, used, expected) in [
        (&shed, short, 85, is("a", Outcome::Hit)),
        (&shed, long, 79, is("a", Outcome::Hit)),
        (&shed, long, 85, is("b", Outcome::Cold)),
        (&keep, long, 85, is("a", Outcome::Hit)),
    ] {
        let mut world = world(routing.clone(), &["a", "b"]);
        let turn = |world: &World| {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
            let headers = [(":path", "/v1/chat/completions"), ("x-session-id", "s")];
            said(&world.decide(&headers, &body))
        };
        // OpenAI's prompts are certainly gone after an hour only, and warm for some minutes.
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        let headers = [(":path", "/v1/chat/completions"), ("x-session-id", "s")];
        let share = format!("{}", f64::from(used) / 100.0);
        let told = [("anthropic-ratelimit-unified-5h-utilization", share.as_str())];
        world.answer(&world.decide(&headers, &body), 200, &told, "");
        world.now += idle;
        assert_eq!(turn(&world), expected, "{routing} {idle:?} {used}");
    }
}

#[test]
fn what_a_cold_session_refers_to_is_read_before_it_is_shed() {
    let credentials = json!([{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]);
    let mut config = config(json!({"strategy": "headroom", "shed_at": 0.8}), credentials);
    config["pools"][0]["cache_lifetime"] = json!("1m");
    for (turn, expected) in [
        (json!({"role": "user", "content": "x"}), is("b", Outcome::Cold)),
        (
            json!({"role": "assistant", "content": [{"type": "thinking", "signature": "c2ln"}]}),
            is("a", Outcome::Hit),
        ),
    ] {
        let now = Timestamp::from_secs(1_800_000_000);
        let mut world = World { now, ..World::of(&config) };
        let headers = [
            (":method", "POST"),
            (":path", "/v1/messages"),
            ("content-type", "application/json"),
            ("x-claude-code-session-id", "5b3a9f0e-6f1d-4d7c-9d3f-0a6a5a1f0c11"),
        ];
        let need = world.router.needs_body(&headers.into_iter().collect(), false, &world.shared);
        assert_eq!(need, BodyNeed::WholeForState);
        let body = json!({"model": "m", "messages": [turn]});
        let told = [("anthropic-ratelimit-unified-5h-utilization", "0.9")];
        world.answer(&world.decide(&headers, &body), 200, &told, "");
        world.now += 2 * MINUTE;
        assert_eq!(said(&world.decide(&headers, &body)), expected, "{turn}");
    }
}

#[test]
fn the_sessions_of_an_exhausted_credential_spread_by_room() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b", "c"]);
    for session in 0..60 {
        world.play(&world.ask(&format!("s{session}"), "m"), &[]);
    }
    // Twenty each. Now `c` has half as much again of the room of `b`, and `a` is at its end.
    for session in 0..60 {
        let at = said(&world.ask(&format!("s{session}"), "m")).0;
        let used = match at.as_str() {
            "b" => 60,
            "c" => 40,
            _ => continue,
        };
        world.tells(&format!("s{session}"), used, HOUR);
    }
    let limit = Fate::Says(429, &[("retry-after", "600")], "");
    let mut moved = BTreeMap::new();
    for session in 0..60 {
        let decision = world.ask(&format!("s{session}"), "m");
        if routed(&decision).credential.id == "a" || decision.outcome() != Outcome::Hit {
            let to = world.play(&decision, &[("a", limit)]).to;
            *moved.entry(to.trim_start_matches("a ").to_owned()).or_insert(0) += 1;
        }
    }
    // Sixty sessions on two: 24 and 36 by their room.
    assert_eq!(moved, counts([("b", 4), ("c", 16)]));
}

#[test]
fn a_refusal_for_too_many_requests_at_once_starts_no_cooldown_where_they_are_counted() {
    let credentials = json!([
        {"id": "a", "cluster": "a", "max_concurrent": 9},
        {"id": "b", "cluster": "b"},
    ]);
    let mut world = World::of(&config(json!({"strategy": "fill-first"}), credentials));
    let mut flights = Flights::new(1);
    let pool = &world.router.config().pools[0];
    let key_a = pool.credentials[0].flights_key.clone();
    world.play(&world.ask("bound", "m"), &[]);
    let tickets: Vec<_> = (0..3).map(|_| flights.begin(&key_a, &world.shared, world.now)).collect();
    world.now += SECOND;
    let sent = world.play(&world.ask("bound", "m"), &[("a", Fate::Status(429))]);
    assert_eq!((sent.to.as_str(), sent.changes.len()), ("a b", 0));
    assert_eq!(world.out_for("m"), "", "nothing cools down");
    flights.end(tickets[0], &world.shared, world.now);
    assert_eq!(said(&world.ask("new1", "m")), is("b", Outcome::Miss), "it took two at once");
    assert_eq!(said(&world.ask("bound", "m")).0, "a", "bound ones pass");
    flights.end(tickets[1], &world.shared, world.now);
    assert_eq!(said(&world.ask("new2", "m")), is("a", Outcome::Miss), "there is room again");
    world.now += HOUR;
    // Long after it has served, the same answer is a limit like any other.
    world.play(&world.ask("bound", "m"), &[("a", Fate::Status(429))]);
    assert_eq!(world.out_for("m"), "a:rate_limit:1s");
}

#[test]
fn if_all_take_no_more_at_once_new_sessions_are_served_all_the_same() {
    let credentials = json!([
        {"id": "a", "cluster": "a", "max_concurrent": 1},
        {"id": "b", "cluster": "b", "max_concurrent": 1},
    ]);
    let world = World::of(&config(json!({}), credentials));
    let mut flights = Flights::new(1);
    for credential in &world.router.config().pools[0].credentials {
        flights.begin(&credential.flights_key, &world.shared, world.now);
    }
    assert!(matches!(world.ask("new", "m"), Decision::Route(_)));
}

#[test]
fn sub_agents_are_sessions_of_their_own_and_go_where_there_is_room() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b", "c", "d"]);
    let mut counts = BTreeMap::new();
    for agent in 0..40 {
        let agent = format!("agent-{agent}");
        let headers = [
            (":path", "/v1/messages"),
            ("x-claude-code-session-id", "5b3a9f0e-6f1d-4d7c-9d3f-0a6a5a1f0c11"),
            ("x-claude-code-agent-id", agent.as_str()),
        ];
        let decision = world.decide(&headers, &json!({"model": "m"}));
        assert_eq!(decision.outcome(), Outcome::Miss);
        *counts.entry(said(&decision).0).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10, 10]);
}

#[test]
fn sessions_that_go_on_count_and_those_that_ended_do_not() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    let first = world.starts("first", 40);
    assert_eq!(first, counts([("a", 20), ("b", 20)]));
    // Those of `a` go on for an hour, those of `b` have ended.
    let of_a: Vec<_> = (0..40)
        .map(|session| format!("first{session}"))
        .filter(|session| said(&world.ask(session, "m")).0 == "a")
        .collect();
    for _ in 0..60 {
        world.now += MINUTE;
        for session in &of_a {
            assert_eq!(world.play(&world.ask(session, "m"), &[]).to, "a");
        }
    }
    assert_eq!(world.starts("new", 9), counts([("b", 9)]));
}

#[test]
fn what_must_find_the_same_home_knows_no_room() {
    for (profile, routing) in [
        ("reference", json!({"strategy": "headroom"})),
        ("reference", json!({"spare_at": 0.9})),
        ("reference", json!({"shed_at": 0.9})),
        ("recommended", json!({"strategy": "consistent", "spare_at": 0.9})),
        ("recommended", json!({"strategy": "consistent", "shed_at": 0.9})),
    ] {
        let mut config = config(routing, json!([{"id": "a", "cluster": "a"}]));
        config["profile"] = json!(profile);
        let parsed = session_affinity::config::Config::parse(config.to_string().as_bytes());
        assert!(parsed.is_err(), "{config}");
    }
}

#[test]
fn turns_that_fail_count_no_session() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    assert_eq!(world.play(&world.ask("looping", "m"), &[]).to, "a");
    world.now += 4 * MINUTE;
    let refusal = Fate::Says(400, &[], r#"{"error": {"type": "invalid_request_error"}}"#);
    for _ in 0..1_000 {
        world.play(&world.ask("looping", "m"), &[("a", refusal)]);
    }
    assert_eq!(world.starts("new", 20), counts([("a", 10), ("b", 10)]));
}

#[test]
fn many_turns_at_once_count_one_session() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    world.play(&world.ask("fan", "m"), &[]);
    world.now += 4 * MINUTE;
    let decisions: Vec<_> = (0..100).map(|_| world.ask("fan", "m")).collect();
    for decision in &decisions {
        assert_eq!(world.play(decision, &[]).to, "a");
    }
    assert_eq!(world.starts("new", 19), counts([("a", 9), ("b", 10)]));
}

#[test]
fn turns_that_follow_their_state_count_one_session() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    let mut last = Value::Null;
    for turn in 0..60 {
        let body = json!({"model": "m", "input": "x", "previous_response_id": last});
        let headers =
            [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", "chained")];
        let decision = world.decide(&headers, &body);
        assert_eq!(said(&decision).0, "a");
        assert_eq!(decision.outcome() == Outcome::Pinned, turn > 0, "{turn}");
        let id = format!("resp_{turn:048x}");
        let served = json!({"id": id, "object": "response", "status": "completed"}).to_string();
        world.play(&decision, &[("a", Fate::Says(200, &[], &served))]);
        last = json!(id);
        world.now += 6 * SECOND;
    }
    assert_eq!(world.starts("new", 19), counts([("a", 9), ("b", 10)]));
}

#[test]
fn a_request_that_is_alone_is_not_one_too_many() {
    let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    world.play(&world.ask("bound", "m"), &[]);
    world.now += SECOND;
    let mut flights = Flights::new(1);
    let key = world.router.config().pools[0].credentials[0].flights_key.clone();
    flights.begin(&key, &world.shared, world.now);
    world.play(&world.ask("bound", "m"), &[("a", Fate::Status(429))]);
    assert_eq!(world.out_for("m"), "a:rate_limit:1s");
}

#[test]
fn a_cold_session_is_not_refused_for_a_limit_that_nears() {
    let credentials = |state: &str| {
        json!([
            {"id": "a", "cluster": "a", "state": state},
            {"id": "b", "cluster": "b"},
            {"id": "c", "cluster": "c"},
        ])
    };
    let turn = |world: &World| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        let headers = [(":path", "/v1/chat/completions"), ("x-session-id", "s")];
        world.play(&world.decide(&headers, &body), &[])
    };
    let told = |world: &World, session: &str, at: &str, used: &str| {
        let told = [("anthropic-ratelimit-unified-5h-utilization", used)];
        world.play(&world.ask(session, "m"), &[(at, Fate::Says(200, &told, ""))]).to
    };
    let routing = json!({"strategy": "fill-first", "shed_at": 0.8});
    let mut world = World::of(&config(routing.clone(), credentials("active")));
    assert_eq!(turn(&world).to, "a");
    assert_eq!(told(&world, "other", "a", "0.1"), "a");
    // All the others are at a limit, and the home takes no new sessions.
    let limit = Fate::Says(429, &[("retry-after", "3600")], "");
    let short = Fate::Says(429, &[("retry-after", "30")], "");
    let sent = world.play(&world.ask("new", "m"), &[("a", short), ("b", limit), ("c", limit)]);
    assert_eq!(sent.to, "a b c");
    world.now += MINUTE;
    world = world.reconfigured(&config(routing.clone(), credentials("drain")));
    assert_eq!(told(&world, "other", "a", "0.85"), "a");
    world.now += 10 * MINUTE;
    assert_eq!(turn(&world).to, "a");

    // The others near their limits too.
    let mut world = World::of(&config(routing.clone(), credentials("active")));
    assert_eq!(turn(&world).to, "a");
    assert_eq!(told(&world, "1", "a", "0.85"), "a");
    assert_eq!(told(&world, "2", "b", "0.99"), "b", "what sessions leave takes no new ones");
    assert_eq!(told(&world, "3", "c", "0.9"), "c");
    world.now += 10 * MINUTE;
    assert_eq!(turn(&world).to, "a");

    // One has room, though it is not the first.
    let mut world = World::of(&config(routing, credentials("active")));
    assert_eq!(turn(&world).to, "a");
    assert_eq!(told(&world, "1", "a", "0.85"), "a");
    assert_eq!(told(&world, "2", "b", "0.99"), "b");
    world.now += 10 * MINUTE;
    assert_eq!(turn(&world).to, "c");
}

#[test]
fn what_a_websocket_tells_while_it_is_open_counts_for_new_sessions() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    let mut plan = world.router.plan(routed(&world.ask("open", "m")), world.now);
    assert_eq!(world.attempt(&mut plan), "a");
    let told = |used| {
        let headers = [("x-codex-primary-used-percent", used)].into_iter().collect();
        world.router.observe_limits(&plan, &headers, &world.shared, world.now);
    };
    told("95");
    assert_eq!(world.starts("spared", 6), counts([("b", 6)]));
    told("0");
    assert_eq!(world.starts("free", 5), counts([("a", 5)]));
}

#[test]
fn what_a_websocket_tells_counts_also_where_no_filter_is_on_the_cluster() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    let plan = world.router.plan(routed(&world.ask("open", "m")), world.now);
    let headers = [("x-codex-primary-used-percent", "95")].into_iter().collect();
    world.router.observe_limits(&plan, &headers, &world.shared, world.now);
    assert_eq!(world.starts("spared", 6), counts([("b", 6)]));
}

#[test]
fn a_limit_of_which_nothing_is_left_is_not_one_for_requests_at_once() {
    const NO: &str = "";
    const TOO_OFTEN: &str = r#"{"error": {"code": "1303", "message": "too often"}}"#;
    const AT_ONCE: &str = r#"{"error": {"code": "1302", "message": "too many"}}"#;
    let left = |limit, remaining, left| vec![(limit, "50"), (remaining, left)];
    let requests = |n| left("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", n);
    let of_a_minute =
        |n| left("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute", n);
    let of_a_month =
        |n| left("x-ratelimit-limit-tokens-month", "x-ratelimit-remaining-tokens-month", n);
    let with_end = |mut headers: Vec<(&'static str, &'static str)>, name, end| {
        headers.push((name, end));
        headers
    };
    let anthropics =
        |n| left("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", n);
    for (what, headers, body, expected) in [
        ("nothing is told", vec![], NO, ""),
        ("requests are left", requests("7"), NO, ""),
        ("OpenAI", with_end(requests("0"), "x-ratelimit-reset-requests", "12s"), NO, "12s"),
        ("Azure", with_end(requests("0"), "x-ratelimit-reset-requests", "12"), NO, "12s"),
        ("xAI tells no end", requests("0"), NO, "60s"),
        ("Mistral's minute", of_a_minute("0"), NO, "60s"),
        ("Mistral's month", of_a_month("0"), NO, "30m"),
        (
            "Anthropic",
            with_end(anthropics("0"), "anthropic-ratelimit-requests-reset", "2027-01-15T08:00:21Z"),
            NO,
            "20s",
        ),
        ("Anthropic tells no end", anthropics("0"), NO, "60s"),
        (
            "OpenRouter",
            vec![
                ("x-ratelimit-limit", "20"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1800000031000"),
            ],
            NO,
            "30s",
        ),
        ("Codex tells no end", vec![("x-codex-primary-used-percent", "100")], NO, "30m"),
        (
            "a subscription to Claude tells no end",
            vec![("anthropic-ratelimit-unified-5h-status", "rejected")],
            NO,
            "30m",
        ),
        (
            "a subscription with room, beyond which nothing more may be spent",
            vec![
                ("anthropic-ratelimit-unified-5h-utilization", "0.2"),
                ("anthropic-ratelimit-unified-overage-utilization", "1.0"),
            ],
            NO,
            "",
        ),
        ("of another model", vec![("x-codex-bengalfox-primary-used-percent", "100")], NO, ""),
        ("Zhipu: too many at once", vec![], AT_ONCE, ""),
        ("Zhipu: too often", vec![], TOO_OFTEN, "1s"),
    ] {
        let mut world = world(json!({"strategy": "headroom"}), &["a", "b"]);
        world.play(&world.ask("bound", "m"), &[]);
        world.now += SECOND;
        let mut flights = Flights::new(1);
        let key = world.router.config().pools[0].credentials[0].flights_key.clone();
        for _ in 0..3 {
            flights.begin(&key, &world.shared, world.now);
        }
        let sent = world.play(&world.ask("bound", "m"), &[("a", Fate::Says(429, &headers, body))]);
        assert_eq!(sent.to, "a b", "{what}");
        let out = world.out_for("m");
        let of_a_limit = ["a:rate_limit:", expected].concat();
        assert_eq!(out, if expected.is_empty() { "" } else { &of_a_limit }, "{what}");
    }
}

#[test]
fn a_guess_that_nothing_is_left_refuses_no_request() {
    let world = world(json!({"strategy": "headroom"}), &["a"]);
    let told = [("x-ratelimit-limit-req-minute", "5"), ("x-ratelimit-remaining-req-minute", "0")];
    world.play(&world.ask("1", "m"), &[("a", Fate::Says(429, &told, ""))]);
    assert_eq!(world.out_for("m"), "a:rate_limit:60s");
    assert_eq!(world.play(&world.ask("2", "m"), &[]).to, "a", "there is no other");
    assert_eq!(world.out_for("m"), "", "it serves again");
}

#[test]
fn a_hundred_sessions_of_a_large_pool_start_on_a_hundred_credentials() {
    let ids: Vec<_> = (0..200).map(|number| format!("c{number:03}")).collect();
    let world =
        world(json!({"strategy": "headroom"}), &ids.iter().map(String::as_str).collect::<Vec<_>>());
    // All are decided before any is served.
    let decisions: Vec<_> = (0..100).map(|at| world.ask(&format!("s{at}"), "m")).collect();
    let mut counts = BTreeMap::new();
    for decision in &decisions {
        *counts.entry(said(decision).0).or_insert(0) += 1;
    }
    assert_eq!((counts.len(), counts.values().max()), (100, Some(&1)));
    // One of them fails: its sessions spread over the others, too.
    let limit = Fate::Says(429, &[("retry-after", "600")], "");
    let (from, session) = (0..100)
        .map(|at| format!("s{at}"))
        .map(|session| (said(&world.ask(&session, "m")).0, session))
        .next()
        .unwrap();
    let sent = world.play(&world.ask(&session, "m"), &[(from.as_str(), limit)]);
    let to = sent.to.strip_prefix(&format!("{from} ")).unwrap();
    assert!(!counts.contains_key(to), "{to} carries one already");
}

#[test]
fn what_is_told_of_counting_tokens_is_not_of_messages() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b"]);
    let told = [
        ("anthropic-ratelimit-requests-limit", "100"),
        ("anthropic-ratelimit-requests-remaining", "0"),
    ];
    let headers = [(":path", "/v1/messages/count_tokens"), ("x-session-id", "s")];
    let decision = world.decide(&headers, &json!({"model": "m"}));
    assert_eq!(world.play(&decision, &[("a", Fate::Says(200, &told, ""))]).to, "a");
    assert_eq!(world.starts("new", 9), counts([("a", 4), ("b", 5)]));
}

#[test]
fn attempts_that_fail_count_no_session() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b", "c"]);
    assert_eq!(world.play(&world.ask("looping", "m"), &[]).to, "a");
    let error = Fate::Says(500, &[], "");
    for _ in 0..200 {
        let fates = ["a", "b", "c"].map(|id| (id, error));
        assert_eq!(world.play(&world.ask("looping", "m"), &fates).to.len(), 5);
    }
    assert_eq!(world.starts("new", 29), counts([("a", 9), ("b", 10), ("c", 10)]));
}

#[test]
fn a_session_that_moves_within_a_request_counts_where_it_was_served() {
    let world = world(json!({"strategy": "headroom"}), &["a", "b", "c"]);
    world.play(&world.ask("s", "m"), &[]);
    let error = Fate::Says(500, &[], "");
    assert_eq!(world.play(&world.ask("s", "m"), &[("a", error)]).to, "a b");
    assert_eq!(world.starts("new", 1), counts([("c", 1)]));
}

#[test]
fn a_credential_that_comes_to_another_cluster_still_carries_its_sessions() {
    let credentials =
        |cluster: &str| json!([{"id": "a", "cluster": cluster}, {"id": "b", "cluster": "b"}]);
    let routing = json!({"strategy": "headroom"});
    let world = World::of(&config(routing.clone(), credentials("a")));
    assert_eq!(world.starts("old", 40), counts([("a", 20), ("b", 20)]));
    let world = world.reconfigured(&config(routing, credentials("other")));
    assert_eq!(world.starts("new", 20), counts([("a", 10), ("b", 10)]));
}
