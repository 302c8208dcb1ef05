//! What answers teach, and what follows for the next request.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::outcome::{Observed, Outcome};
use session_affinity::request::Headers;
use session_affinity::request::Request;
use session_affinity::router::{Decision, Refusal};
use world::{HOUR, MINUTE, SECOND, World, is, received, routed, said};

const NONE: Duration = Duration::ZERO;
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
    let world = World::new(json!({}));
    assert_eq!(world.meets("1", 429, &[("retry-after", "30")], ""), "rate_limit");
    assert_eq!(routed(&world.ask("9", "other")).credential.id, "a");
    assert_eq!(routed(&world.ask("1", "m(high)")).credential.id, "b", "a suffix is no other model");
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
fn statuses_have_their_durations() {
    for (status, message, class, blocked_for) in [
        (0, "", "transient", MINUTE),
        (408, "", "transient", MINUTE),
        (500, "", "transient", MINUTE),
        (501, "", "transient", MINUTE),
        (529, "", "transient", MINUTE),
        (401, "", "denied", 30 * MINUTE),
        (402, "", "denied", 30 * MINUTE),
        (
            404,
            r#"{"error":{"type":"not_found_error","message":"model: m"}}"#,
            "not_found",
            12 * HOUR,
        ),
        (404, r#"{"error":{"message":"no such path"}}"#, "request_fault", NONE),
        (404, "", "request_fault", NONE),
        (
            404,
            "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
            "request_fault",
            NONE,
        ),
        (400, "The requested model is not supported.", "not_supported", 12 * HOUR),
        (422, "Model not supported", "not_supported", 12 * HOUR),
        (400, "max_tokens: expected a number", "request_fault", NONE),
        (413, "", "request_fault", NONE),
        (422, "", "request_fault", NONE),
        (200, "", "success", NONE),
        (101, "", "success", NONE),
    ] {
        let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
        assert_eq!(world.meets("1", status, &[], message), class, "{status} {message}");
        let serves = |world: &World| matches!(world.ask("1", "m"), Decision::Route(_));
        if blocked_for > NONE {
            world.now += blocked_for - MS;
            assert!(!serves(&world), "{status} {message}");
            world.now += MS;
        }
        assert!(serves(&world), "{status} {message}");
    }
}

#[test]
fn the_back_off_rises_once_a_window_and_falls_with_a_success() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    for expected in [1, 2, 4, 8] {
        let plans: Vec<_> =
            (0..5).map(|_| world.router.plan(routed(&world.ask("1", "m")), world.now)).collect();
        for mut plan in plans {
            world.router.observe(
                &mut plan,
                &received(429, &Headers::default(), ""),
                &world.shared,
                world.now,
            );
        }
        assert_eq!(world.retry_after("1"), (429, Some(expected)), "five answers of one window");
        world.now += Duration::from_secs(expected);
    }
    assert_eq!(world.meets("1", 200, &[], ""), "success");
    assert_eq!(world.meets("1", 429, &[], ""), "rate_limit");
    assert_eq!(world.retry_after("1"), (429, Some(1)));
}

#[test]
fn the_back_off_ends_at_half_an_hour() {
    let mut world = World::with(json!([{"id": "a", "cluster": "a"}]), json!({}));
    for _ in 0..20 {
        world.meets("1", 429, &[], "");
        world.now += HOUR;
    }
    world.meets("1", 429, &[], "");
    assert_eq!(world.retry_after("1"), (429, Some(30 * 60)));
}

#[test]
fn a_wish_is_capped_and_never_shortens_a_window() {
    let mut world =
        World::with(json!([{"id": "a", "cluster": "a"}]), json!({"cooldown": {"max": "10m"}}));
    let plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let hint = |world: &World, seconds: &str| {
        let headers: Headers = [("retry-after", seconds)].into_iter().collect();
        let response = received(429, &headers, "");
        world.router.observe(&mut plan.clone(), &response, &world.shared, world.now);
        world.retry_after("1").1.unwrap()
    };
    assert_eq!(hint(&world, "86400"), 600);
    assert_eq!(hint(&world, "5"), 600, "the running window stays");
    world.now += 9 * MINUTE;
    assert_eq!(hint(&world, "300"), 300, "a longer one counts");
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
fn when_some_fail_otherwise_it_is_unavailable_with_a_time() {
    let world = World::new(json!({}));
    world.meets("1", 429, &[("retry-after", "30")], "");
    world.meets("1", 503, &[], "");
    assert_eq!(world.retry_after("1"), (503, Some(30)));
    assert_eq!(world.ask("1", "m").outcome(), Outcome::AuthUnavailable);
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
    assert_eq!(world.meets("2", 400, &[], "unsupported model"), "not_supported");
    assert_eq!(
        world.ask("2", "m").outcome(),
        Outcome::AuthUnavailable,
        "a model that is not there blocks all the same"
    );
}

#[test]
fn durations_and_statuses_are_configurable() {
    let world = World::with(
        json!([{"id": "a", "cluster": "a"}]),
        json!({"cooldown": {"transient": "5s", "statuses": {"418": "transient", "500": "request_fault"}}}),
    );
    assert_eq!(world.meets("1", 500, &[], ""), "request_fault");
    assert_eq!(world.meets("1", 418, &[], ""), "transient");
    assert_eq!(world.retry_after("1"), (503, Some(5)));
}

#[test]
fn cooldowns_survive_an_update_and_leave_with_their_credential() {
    let world = World::new(json!({}));
    world.meets("1", 429, &[("retry-after", "30")], "");
    let credentials = json!([{"id": "z", "cluster": "z"}, {"id": "b", "cluster": "b"}, {"id": "a", "cluster": "moved"}]);
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
