//! What responses lead to for the next request: how long which credential is out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::outcome::{Observed, Outcome};
use session_affinity::request::Headers;
use session_affinity::request::Request;
use session_affinity::router::{Decision, Refusal};
use world::{Fate, HOUR, MINUTE, SECOND, World, is, out, received, routed, said};

/// A model that the project may not use, as Groq says it.
const NOT_SUPPORTED: &str = r#"{"error":{"code":"model_permission_blocked_project"}}"#;
const MS: Duration = Duration::from_millis(1);

impl World {
    /// Two credentials, and these sections.
    fn new(sections: Value) -> Self {
        Self::with(json!([{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]), sections)
    }

    fn with(credentials: Value, sections: Value) -> Self {
        Self::of(&config(credentials, sections))
    }

    /// A request of a session, and its answer.
    fn meets(&self, session: &str, status: u16, headers: &[(&str, &str)], message: &str) -> String {
        self.answer(&self.ask(session, "m"), status, headers, message)
    }

    /// Which credential serves a session, and why.
    fn sends(&self, session: &str) -> (String, Outcome) {
        said(&self.ask(session, "m"))
    }

    /// The seconds after which a refused session may come again.
    fn retry_after(&self, session: &str) -> (u16, Option<u64>) {
        match self.ask(session, "m") {
            Decision::Reply(Refusal { reply, .. }) => (reply.status, reply.retry_after),
            other => panic!("{other:?}"),
        }
    }
}

fn config(credentials: Value, sections: Value) -> Value {
    let mut config =
        json!({"pools": [{"name": "p", "provider": "claude", "credentials": credentials}]});
    config.as_object_mut().unwrap().extend(sections.as_object().unwrap().clone());
    config
}

#[test]
fn a_limited_credential_takes_no_session_until_it_recovers() {
    let mut world = World::new(json!({}));
    assert_eq!(world.sends("1"), is("a", Outcome::Miss));
    assert_eq!(world.meets("1", 429, &[("retry-after", "30")], ""), "rate_limit");
    assert!((2..10).all(|session| world.sends(&session.to_string()).0 == "b"));
    world.now += 30 * SECOND;
    let newcomers: Vec<_> = ["11", "12"].iter().map(|session| world.sends(session).0).collect();
    assert!(newcomers.contains(&"a".to_owned()), "{newcomers:?}");
}

#[test]
fn a_limit_of_one_model_blocks_no_other() {
    let world = World::new(json!({"routing": {"strategy": "fill-first"}}));
    assert_eq!(world.meets("1", 429, &[("retry-after", "30")], ""), "rate_limit");
    assert_eq!(world.out_for("other"), "");
    assert_eq!(world.out_for("m(high)"), "a:rate_limit:30s", "a suffix is no other model");
}

#[test]
fn a_limit_of_the_account_and_a_refused_key_block_all_models() {
    let unified = [
        ("retry-after", "30"),
        ("anthropic-ratelimit-unified-5h-status", "rejected"),
        ("anthropic-ratelimit-unified-5h-reset", "1"),
    ];
    for (status, headers, expected) in
        [(429, &unified[..], "rate_limit"), (401, &[], "denied"), (403, &[], "denied")]
    {
        let world = World::new(json!({}));
        assert_eq!(world.meets("1", status, headers, ""), expected);
        assert_eq!(routed(&world.ask("9", "other")).credential.id, "b", "{status}");
    }
}

#[test]
fn a_failure_without_a_second_opinion_starts_a_short_cooldown() {
    let missing = r#"{"error":{"type":"not_found_error","message":"model: m"}}"#;
    let no_path = r#"{"error":{"message":"no such path"}}"#;
    let no_item = "Item with id 'rs_1' not found. Items are not persisted when `store` is false.";
    for (status, message, class, expected) in [
        (0, "", "transient", "a:transient:1s"),
        (408, "", "transient", ""),
        (500, "", "transient", "a:transient:1s"),
        (501, "", "transient", "a:transient:1s"),
        (529, "", "overloaded", "a:overloaded:1s"),
        (429, "", "rate_limit", "a:rate_limit:1s"),
        (401, "", "denied", "a:denied:1s"),
        (402, "", "denied", "a:denied:1s"),
        (403, "", "denied", "a:denied:1s"),
        (403, "Blocked", "transient", "a:transient:1s"),
        (404, missing, "not_found", "a:not_found:1s"),
        (404, no_path, "request_fault", ""),
        (404, "", "request_fault", ""),
        (404, no_item, "not_here", ""),
        (403, NOT_SUPPORTED, "not_supported", "a:not_supported:1s"),
        (400, "The requested model is not supported.", "elsewhere", ""),
        (400, "max_tokens: expected a number", "request_fault", ""),
        (413, "", "request_fault", ""),
        (422, "", "request_fault", ""),
        (200, "", "success", ""),
        (101, "", "success", ""),
    ] {
        let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
        assert_eq!(world.meets("1", status, &[], message), class, "{status} {message}");
        let decision = world.ask("2", "m");
        assert_eq!(out(&decision), expected, "{status} {message}");
        let outcome = if expected.is_empty() { Outcome::Miss } else { Outcome::Probe };
        assert_eq!(said(&decision), is("a", outcome), "{status} {message}: it is tried");
        world.now += SECOND;
        assert_eq!(out(&world.ask("3", "m")), "", "{status} {message}");
    }
}

#[test]
fn a_guess_doubles_once_a_window_with_other_sessions_and_ends_with_a_success() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    for (window, expected) in ["1s", "2s", "4s", "8s", "16s"].into_iter().enumerate() {
        let sessions = (0..5).map(|session| format!("{window}.{session}"));
        let plans: Vec<_> = sessions
            .map(|session| world.router.plan(routed(&world.ask(&session, "m")), world.now))
            .collect();
        for mut plan in plans {
            world.end(&mut plan, Fate::Status(503));
        }
        let expected = format!("a:transient:{expected}");
        assert_eq!(out(&world.ask("1", "m")), expected, "five responses of one window");
        world.now += SECOND * 2_u32.pow(window as u32);
    }
    assert_eq!(world.meets("1", 200, &[], ""), "success");
    assert_eq!(world.meets("2", 503, &[], ""), "transient");
    assert_eq!(out(&world.ask("1", "m")), "a:transient:1s");
}

#[test]
fn the_failures_of_one_session_never_double() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    for status in [429, 500, 401] {
        for _ in 0..20 {
            world.meets("1", status, &[], "");
            assert!(out(&world.ask("2", "m")).ends_with(":1s"), "{status}");
            world.now += SECOND;
        }
        world.now += HOUR;
    }
}

#[test]
fn a_guess_grows_to_the_longest_cooldown_of_its_class() {
    let sections = json!({"cooldown": {
        "max": "5m", "denied": "4m", "transient": "50s", "not_found": "3m"
    }});
    for (status, message, longest) in [
        (429, "", 5 * MINUTE),
        (401, "", 4 * MINUTE),
        (500, "", 50 * SECOND),
        (529, "", 50 * SECOND),
        (0, "", 50 * SECOND),
        (403, NOT_SUPPORTED, 3 * MINUTE),
    ] {
        let credentials = json!([{"id": "a", "cluster": "a"}]);
        let mut world = World::with(credentials, sections.clone());
        for session in 0..12 {
            world.meets(&session.to_string(), status, &[], message);
            world.now += longest;
        }
        world.meets("12", status, &[], message);
        let decision = world.ask("13", "m");
        let [(_, block)] = routed(&decision).blocked[..] else { panic!("{decision:?}") };
        assert_eq!(block.until(), Some(world.now + longest), "{status}");
        world.now += 2 * longest + MS;
        world.meets("14", status, &[], message);
        assert!(out(&world.ask("15", "m")).ends_with(":1s"), "{status}: what is long past");
    }
}

#[test]
fn an_announced_limit_is_capped_and_never_shortened_by_another() {
    let sections = json!({"cooldown": {"max_told": "10m"}});
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), sections);
    let plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let hint = |world: &World, seconds: &str| {
        let headers: Headers = [("retry-after", seconds)].into_iter().collect();
        let response = received(429, &headers, "");
        world.router.observe(&mut plan.clone(), &response, &world.shared, world.now);
        world.retry_after("1").1.unwrap()
    };
    assert_eq!(hint(&world, "86400"), 600);
    assert_eq!(hint(&world, "5"), 600, "the running cooldown stays");
    world.now += 9 * MINUTE;
    assert_eq!(hint(&world, "300"), 300, "a longer one counts");
}

#[test]
fn an_announced_limit_stays_when_a_request_under_way_fails_otherwise() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    let mut early = world.router.plan(routed(&world.ask("1", "m")), world.now);
    world.meets("2", 429, &[("retry-after", "1")], "");
    world.now += SECOND / 2;
    // The guess would end half a second later than what was announced.
    world.end(&mut early, Fate::Status(503));
    assert_eq!(world.retry_after("3"), (429, Some(1)));
    world.now += SECOND / 2;
    assert_eq!(world.sends("3").0, "a");
}

#[test]
fn a_success_that_set_out_before_a_block_does_not_end_it() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    let mut early = world.router.plan(routed(&world.ask("1", "m")), world.now);
    world.now += SECOND;
    world.meets("2", 429, &[("retry-after", "60")], "");
    world.now += SECOND;
    let none = Headers::default();
    let response = received(200, &none, "");
    let verdict = world.router.observe(&mut early, &response, &world.shared, world.now);
    assert_eq!(verdict.observed.to_string(), "success");
    assert_eq!(world.retry_after("1"), (429, Some(59)));
}

#[test]
fn when_all_wait_the_first_recovery_is_told() {
    let mut world = World::new(json!({}));
    world.meets("1", 429, &[("retry-after", "30")], "");
    world.meets("1", 429, &[("retry-after", "20")], "");
    assert_eq!(world.retry_after("1"), (429, Some(20)));
    let Decision::Reply(Refusal { reply, .. }) = world.ask("1", "m") else { panic!("served") };
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    let message = "All credentials for model m are cooling down via provider claude";
    assert_eq!(
        body,
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}})
    );
    world.now += 20 * SECOND;
    assert_eq!(world.sends("1").0, "b");
}

#[test]
fn where_one_only_failed_it_is_tried_and_nothing_is_refused() {
    let world = World::new(json!({}));
    world.meets("1", 429, &[("retry-after", "30")], "");
    world.meets("1", 503, &[], "");
    let decision = world.ask("1", "m");
    assert_eq!(said(&decision), is("b", Outcome::Probe));
    assert_eq!(out(&decision), "a:rate_limit:30s,b:transient:1s");
}

#[test]
fn cooling_can_be_turned_off_for_all_and_on_for_one() {
    let credentials =
        json!([{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b", "disable_cooling": false}]);
    let world = World::with(credentials, json!({"disable_cooling": true}));
    assert_eq!(world.meets("1", 200, &[], ""), "success");
    assert_eq!(world.meets("1", 429, &[("retry-after", "30")], ""), "rate_limit");
    assert_eq!(world.sends("1"), is("a", Outcome::Hit));
    assert_eq!(world.meets("2", 200, &[], ""), "success");
    assert_eq!(world.meets("2", 429, &[("retry-after", "30")], ""), "rate_limit");
    assert_eq!(world.sends("2"), is("a", Outcome::Substitute));
    assert_eq!(world.meets("2", 403, &[], NOT_SUPPORTED), "not_supported");
    assert_eq!(
        out(&world.ask("3", "m")),
        "a:not_supported:1s,b:rate_limit:30s",
        "a model that is missing counts all the same"
    );
}

#[test]
fn durations_and_statuses_are_configurable() {
    let mut world = World::with(
        json!([{"id": "a", "cluster": "a"}]),
        json!({"cooldown": {"transient": "5s", "statuses": {"418": "transient", "500": "request_fault"}}}),
    );
    assert_eq!(world.meets("1", 500, &[], ""), "request_fault");
    assert_eq!(out(&world.ask("1", "m")), "");
    assert_eq!(world.meets("1", 418, &[], ""), "transient");
    assert_eq!(out(&world.ask("1", "m")), "a:transient:1s");
    world.now += SECOND;
    assert_eq!(world.meets("1", 503, &[("retry-after", "60")], ""), "transient");
    assert_eq!(out(&world.ask("1", "m")), "a:transient:5s");
}

#[test]
fn cooldowns_survive_an_update_and_leave_with_their_credential() {
    let world = World::new(json!({}));
    world.meets("1", 429, &[("retry-after", "30")], "");
    let credentials = json!([{"id": "z", "cluster": "z"}, {"id": "b", "cluster": "b"}, {"id": "a", "cluster": "a", "weight": 2}]);
    let world = world.reconfigured(&config(credentials, json!({})));
    assert!((0..10).all(|session| world.sends(&session.to_string()).0 != "a"));
    let credentials = json!([{"id": "z", "cluster": "z"}, {"id": "y", "cluster": "y"}]);
    let world = world.reconfigured(&config(credentials, json!({})));
    assert_eq!(world.sends("1").1, Outcome::Rebind, "a is gone, and its cooldown with it");
}

#[test]
fn an_unknown_model_is_judged_by_the_credential_alone() {
    let world = World::new(json!({}));
    let without_model = || {
        let headers: Headers =
            [(":path", "/v1/files"), ("x-session-id", "7")].into_iter().collect();
        let request = Request::new(&headers, Default::default());
        match world.router.route(&request, &world.shared, world.now) {
            Decision::Route(route) => {
                (route.credential.id.clone(), world.router.plan(&route, world.now))
            }
            other => panic!("{other:?}"),
        }
    };
    let (first, plan) = without_model();
    let observe = |status| {
        let mut plan = plan.clone();
        let none = Headers::default();
        let response = received(status, &none, "");
        world.router.observe(&mut plan, &response, &world.shared, world.now).observed
    };
    assert_eq!(observe(404).to_string(), "request_fault");
    assert_eq!(without_model().0, first, "a path that is not there blocks no credential");
    assert_ne!(observe(429), Observed::Contended);
    assert_ne!(without_model().0, first);
}
