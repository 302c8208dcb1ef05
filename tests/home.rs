//! Homes and substitutes: where a session goes when its credential fails, and when it comes back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, Plan, Refusal};
use session_affinity::shared::{InMemory, SharedData};
use world::{MINUTE, SECOND, World, is, routed, said};

/// Three credentials, chosen by id, so that a choice can be told from a binding; and these
/// sections.
fn config(sections: Value) -> Value {
    let mut config = json!({
        "routing": {"strategy": "fill-first"},
        "cooldown": {"max": "12h"},
        "pools": [{"name": "p", "provider": "claude", "credentials": [
            {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
        ]}]
    });
    for (name, section) in sections.as_object().unwrap() {
        match name.as_str() {
            "pool" => config["pools"][0]
                .as_object_mut()
                .unwrap()
                .extend(section.as_object().unwrap().clone()),
            _ => config[name] = section.clone(),
        }
    }
    config
}

impl World {
    fn new(sections: Value) -> Self {
        Self::of(&config(sections))
    }

    /// A request of a session that is served: by whom, and why.
    fn serve(&self, session: &str) -> (String, Outcome) {
        self.serve_body(session, &json!({"model": "m"}))
    }

    fn serve_body(&self, session: &str, body: &Value) -> (String, Outcome) {
        let decision = self.decide(&[(":path", "/v1/messages"), ("x-session-id", session)], body);
        self.answer(&decision, 200, &[], "");
        said(&decision)
    }

    /// A request of a session that fails.
    fn fail(&self, session: &str, status: u16) {
        self.answer(&self.ask(session, "m"), status, &[], "");
    }

    /// A request of a session that meets a limit of so many seconds.
    fn limit(&self, session: &str, seconds: u64) {
        self.answer(&self.ask(session, "m"), 429, &[("retry-after", &seconds.to_string())], "");
    }
}

#[test]
fn a_session_comes_home_while_its_cache_is_warm() {
    let mut world = World::new(json!({}));
    assert_eq!(world.serve("1"), is("a", Outcome::Miss));
    world.limit("1", 60);
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    world.now += 59 * SECOND;
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute), "the substitute is sticky");
    world.now += SECOND;
    assert_eq!(world.serve("1"), is("a", Outcome::Return));
    assert_eq!(world.serve("1"), is("a", Outcome::Hit));
}

#[test]
fn once_its_home_is_cold_it_stays_where_it_is() {
    let mut world = World::new(json!({}));
    world.serve("1");
    world.limit("1", 300);
    for _ in 0..5 {
        assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
        world.now += MINUTE;
    }
    assert_eq!(
        world.serve("1"),
        is("b", Outcome::Rebind),
        "five minutes after its last success a is cold"
    );
    assert_eq!(world.serve("1"), is("b", Outcome::Hit), "and b is its home");
}

#[test]
fn a_prompt_that_is_cached_for_an_hour_keeps_its_home_warm_for_an_hour() {
    let mut world = World::new(json!({}));
    let body = json!({"model": "m", "system": [{"text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]});
    world.serve_body("1", &body);
    world.limit("1", 59 * 60);
    for _ in 0..59 {
        assert_eq!(world.serve_body("1", &body), is("b", Outcome::Substitute));
        world.now += MINUTE;
    }
    assert_eq!(world.serve_body("1", &body), is("a", Outcome::Return));
}

#[test]
fn a_pool_may_say_how_long_its_caches_live() {
    let mut world = World::new(json!({"pool": {"cache_lifetime": "30s"}}));
    world.serve("1");
    world.limit("1", 30);
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    world.now += 29 * SECOND;
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    world.now += SECOND;
    assert_eq!(world.serve("1"), is("b", Outcome::Rebind));
}

#[test]
fn an_operator_may_have_sessions_always_or_never_return() {
    for (returns, expected) in
        [("always", is("a", Outcome::Return)), ("never", is("b", Outcome::Hit))]
    {
        let mut world = World::new(json!({"failover": {"return": returns}}));
        world.serve("1");
        world.limit("1", 600);
        for _ in 0..10 {
            assert_eq!(world.serve("1").0, "b", "{returns}");
            world.now += MINUTE;
        }
        assert_eq!(world.serve("1"), expected, "{returns}");
    }
}

#[test]
fn the_reference_rebinds_for_good_at_once() {
    let mut world = World::new(
        json!({"profile": "reference", "routing": {"session_affinity": true, "strategy": "ff"}}),
    );
    assert_eq!(world.serve("1"), is("a", Outcome::Miss));
    world.fail("1", 503);
    assert_eq!(said(&world.ask("1", "m")), is("b", Outcome::Rebind));
    world.now += 2 * MINUTE;
    assert_eq!(world.serve("1"), is("b", Outcome::Hit));
}

#[test]
fn a_session_that_was_never_served_is_stuck_to_nobody() {
    let world =
        World::new(json!({"disable_cooling": true, "routing": {"strategy": "round-robin"}}));
    for expected in ["a", "b", "c", "a"] {
        let decision = world.ask("1", "m");
        assert_eq!(said(&decision), is(expected, Outcome::Miss));
        world.answer(&decision, 503, &[], "");
    }
}

#[test]
fn requests_of_a_new_session_that_come_together_stay_together() {
    let world = World::new(json!({"routing": {"strategy": "round-robin"}}));
    let (first, second) = (world.ask("1", "m"), world.ask("1", "m"));
    assert_eq!((said(&first), said(&second)), (is("a", Outcome::Miss), is("a", Outcome::Hit)));
    world.answer(&second, 200, &[], "");
    world.answer(&first, 503, &[], "");
    assert_eq!(
        said(&world.ask("1", "m")).1,
        Outcome::Substitute,
        "it was served at a, which fails for the moment"
    );
}

#[test]
fn who_was_chosen_and_cannot_serve_any_more_is_no_home() {
    let world = World::new(json!({}));
    assert_eq!(said(&world.ask("1", "m")), is("a", Outcome::Miss));
    world.limit("2", 60);
    assert_eq!(world.serve("1"), is("b", Outcome::Rebind));
    assert_eq!(world.serve("1"), is("b", Outcome::Hit));
}

#[test]
fn a_fault_of_the_request_moves_nobody() {
    let world = World::new(json!({}));
    for status in [400, 413, 422] {
        let decision = world.ask("1", "m");
        assert_eq!(said(&decision).0, "a");
        world.answer(&decision, status, &[], "");
    }
    assert_eq!(said(&world.ask("1", "m")), is("a", Outcome::Hit));
}

#[test]
fn a_substitute_that_fails_too_is_replaced_and_the_home_is_not_lost() {
    let mut world = World::new(json!({}));
    world.serve("1");
    world.limit("1", 100);
    world.now += SECOND;
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    world.limit("1", 100);
    world.now += SECOND;
    assert_eq!(world.serve("1"), is("c", Outcome::Substitute));
    world.now += 98 * SECOND;
    assert_eq!(world.serve("1"), is("a", Outcome::Return));
}

#[test]
fn a_home_that_is_removed_leaves_the_session_to_its_substitute() {
    let world = World::new(json!({}));
    world.serve("1");
    world.limit("1", 100);
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    let left = json!({"pool": {"credentials": [{"id": "b", "cluster": "b"}, {"id": "A", "cluster": "A"}]}});
    let world = world.reconfigured(&config(left));
    assert_eq!(world.serve("1"), is("b", Outcome::Rebind));
    assert_eq!(world.serve("1"), is("b", Outcome::Hit));
}

#[test]
fn a_session_keeps_its_substitute_where_its_home_is_gone_and_the_new_place_fails() {
    let world = World::new(json!({}));
    world.serve("1");
    world.limit("1", 100);
    assert_eq!(world.serve("1"), is("b", Outcome::Substitute));
    let left = json!({"pool": {"credentials": [{"id": "b", "cluster": "b"}, {"id": "A", "cluster": "A"}]}});
    let mut world = world.reconfigured(&config(left));
    world.limit("1", 30);
    let elsewhere = world.ask("1", "m");
    assert_eq!(said(&elsewhere).0, "A", "the substitute is limited");
    world.answer(&elsewhere, 429, &[("retry-after", "300")], "");
    world.now += 31 * SECOND;
    assert_eq!(world.serve("1"), is("b", Outcome::Hit), "its prompt is cached there");
}

#[test]
fn a_session_that_is_cold_everywhere_is_placed_anew() {
    let mut world = World::new(json!({"routing": {"strategy": "round-robin"}}));
    assert_eq!(world.serve("1"), is("a", Outcome::Miss));
    world.now += 5 * MINUTE - Duration::from_millis(1);
    assert_eq!(world.serve("1"), is("a", Outcome::Hit));
    world.now += 5 * MINUTE;
    assert_eq!(world.serve("1"), is("b", Outcome::Cold));
    assert_eq!(world.serve("1"), is("b", Outcome::Hit));
}

#[test]
fn what_may_still_be_cached_or_stored_is_not_cold() {
    let later = |path: &str, body: Value| {
        let mut world = World::new(json!({"routing": {"strategy": "round-robin"}}));
        let headers = [(":path", path), ("x-session-id", "1")];
        world.answer(&world.decide(&headers, &body), 200, &[], "");
        world.now += 10 * MINUTE;
        world.decide(&headers, &body).outcome()
    };
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "m"});
        body[name] = value;
        body
    };
    assert_eq!(later("/v1/messages", json!({"model": "m"})), Outcome::Cold);
    assert_eq!(
        later("/v1/messages", with("cache_control", json!({"type": "ephemeral", "ttl": "1h"}))),
        Outcome::Hit
    );
    assert_eq!(later("/v1/messages", with("container", json!("container_1"))), Outcome::Hit);
    assert_eq!(later("/v1/messages", with("continuation_token", json!("x"))), Outcome::Hit);
    assert_eq!(later("/v1/messages", with("x", json!({"signature": "x"}))), Outcome::Hit);
    assert_eq!(
        later("/v1/chat/completions", json!({"model": "m"})),
        Outcome::Hit,
        "OpenAI may keep it for a day"
    );
}

/// A session of OpenAI's API is placed anew only when its prompt is certainly gone, and returns to
/// its home while it can be counted on there.
#[test]
fn a_session_is_cold_when_what_its_request_asks_for_has_ended() {
    let hour = 60 * MINUTE;
    let chat = [(":path", "/v1/chat/completions"), ("x-session-id", "1")];
    let in_memory = json!({"model": "gpt-4.1", "prompt_cache_retention": "in_memory"});
    for (body, idle, expected) in [
        (json!({"model": "gpt-4.1"}), 24 * hour - SECOND, Outcome::Hit),
        (json!({"model": "gpt-4.1"}), 24 * hour, Outcome::Cold),
        (in_memory.clone(), hour - SECOND, Outcome::Hit),
        (in_memory, hour, Outcome::Cold),
    ] {
        let mut world = World::new(
            json!({"routing": {"strategy": "round-robin", "session_affinity_ttl": "72h"}}),
        );
        world.answer(&world.decide(&chat, &body), 200, &[], "");
        world.now += idle;
        assert_eq!(world.decide(&chat, &body).outcome(), expected, "{body} {idle:?}");
    }
    let options = json!({"ttl": "12h"});
    for (body, away, expected) in [
        (json!({"model": "gpt-4.1"}), 6 * MINUTE, is("b", Outcome::Rebind)),
        (json!({"model": "gpt-5.6"}), 6 * MINUTE, is("a", Outcome::Return)),
        (json!({"model": "gpt-5.6"}), 31 * MINUTE, is("b", Outcome::Rebind)),
        (
            json!({"model": "gpt-5.6", "prompt_cache_options": options}),
            31 * MINUTE,
            is("a", Outcome::Return),
        ),
    ] {
        let mut world = World::new(
            json!({"routing": {"strategy": "fill-first", "session_affinity_ttl": "72h"}}),
        );
        let serve = |world: &World| {
            let decision = world.decide(&chat, &body);
            world.answer(&decision, 200, &[], "");
            said(&decision)
        };
        assert_eq!(serve(&world), is("a", Outcome::Miss));
        world.now += SECOND;
        let seconds = away.as_secs().to_string();
        world.answer(&world.decide(&chat, &body), 429, &[("retry-after", &seconds)], "");
        assert_eq!(serve(&world), is("b", Outcome::Substitute), "{body}");
        world.now += away;
        assert_eq!(serve(&world), expected, "{body} {away:?}");
    }
}

#[test]
fn a_strict_session_is_served_by_its_home_or_not_at_all() {
    for section in
        [json!({"session": {"strict": true}}), json!({"pool": {"session": {"strict": true}}})]
    {
        let mut world = World::new(section);
        assert_eq!(world.serve("1"), is("a", Outcome::Miss));
        world.limit("1", 1_000);
        let Decision::Reply(Refusal { reply, .. }) = world.ask("1", "m") else {
            panic!("it was served elsewhere")
        };
        assert_eq!((reply.status, reply.retry_after), (429, Some(1_000)));
        assert_eq!(world.serve("2"), is("b", Outcome::Miss), "a new session has no home yet");
        world.now += 1_000 * SECOND;
        assert_eq!(
            world.serve("1"),
            is("a", Outcome::Hit),
            "also when it is cold: state may be there"
        );
        world.fail("1", 503);
        assert_eq!(
            said(&world.ask("1", "m")),
            is("a", Outcome::Probe),
            "a home that only failed is tried"
        );
    }
}

#[test]
fn an_answer_that_takes_long_prolongs_the_binding_from_its_end() {
    let mut world = World::new(json!({"routing": {"session_affinity_ttl": "1m"}}));
    world.serve("1");
    world.now += SECOND;
    let decision = world.ask("1", "m");
    let mut plan = world.router.plan(routed(&decision), world.now);
    world.attempt(&mut plan);
    world.now += 50 * SECOND;
    let headers = Headers::default();
    let served = Response::Received { status: 200, headers: &headers, body: b"" };
    world.router.observe(&mut plan, &served, &world.shared, world.now);
    world.now += 50 * SECOND;
    assert_eq!(said(&world.ask("1", "m")).1, Outcome::Hit);
}

#[test]
fn a_binding_that_was_written_moments_ago_is_not_written_again() {
    let mut world = World::new(json!({}));
    world.serve("1");
    let before = world::copy_of(&world.shared);
    let bindings = |shared: &InMemory| {
        let keys = shared.keys().into_iter().filter(|key| key.contains("/binding/"));
        keys.map(|key| shared.get(&key).value).collect::<Vec<_>>()
    };
    world.now += SECOND;
    world.serve("1");
    assert_eq!(bindings(&before), bindings(&world.shared));
    world.now += 5 * SECOND;
    world.serve("1");
    assert_ne!(bindings(&before), bindings(&world.shared));
}

#[test]
fn a_strict_session_has_no_plan_but_its_home() {
    let world = World::new(json!({"session": {"strict": true}}));
    let plan = |decision: &Decision<'_>| world.router.plan(routed(decision), world.now);
    let first = world.ask("1", "m");
    assert_eq!(plan(&first).max_attempts, 3, "a session without a home may be placed anywhere");
    world.answer(&first, 200, &[], "");
    let Plan { max_attempts, rest, .. } = plan(&world.ask("1", "m"));
    assert_eq!((max_attempts, rest), (1, vec![]));
}

#[test]
fn a_turn_that_inherits_the_home_does_not_lose_it_to_a_short_limit() {
    let mut world = World::new(json!({"pins": {"max": 0}}));
    let turn = |world: &World, body: Value, status: u16| {
        let headers: Headers = [(":path", "/v1/responses")].into_iter().collect();
        let body = body.to_string();
        let body = world.router.read_body(body.as_bytes());
        let request = Request::new(&headers, body);
        let decision = world.router.route(&request, &world.shared, world.now);
        world.answer(&decision, status, &[("retry-after", "30")], "");
        said(&decision)
    };
    let first = json!({"model": "m", "conversation": "conv_1"});
    let second = json!({"model": "m", "conversation": "conv_1", "prompt_cache_key": "k"});
    assert_eq!(turn(&world, first, 200), is("a", Outcome::Miss));
    assert_eq!(turn(&world, second.clone(), 429), is("a", Outcome::Inherit));
    world.now += SECOND;
    assert_eq!(turn(&world, second.clone(), 200), is("b", Outcome::Substitute));
    world.now += 29 * SECOND;
    assert_eq!(turn(&world, second, 200), is("a", Outcome::Return));
}
