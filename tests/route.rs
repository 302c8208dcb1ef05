//! Decisions: data in, data out, with the time as an argument.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeMap;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::body::Body;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{Decision, Refusal};
use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};
use world::{HOUR, World, is, said};

impl World {
    /// A chat message in a session, served: the credential, or the reply's status, and the outcome.
    fn send(&self, session: &str) -> (String, Outcome) {
        self.send_for(session, "m")
    }

    fn send_for(&self, session: &str, model: &str) -> (String, Outcome) {
        self.serve(&self.ask(session, model))
    }

    /// What becomes of a request whose credential serves it.
    fn serve(&self, decision: &Decision<'_>) -> (String, Outcome) {
        if let Decision::Route(_) = decision {
            self.answer(decision, 200, &[], "");
        }
        said(decision)
    }
}

fn pool(credentials: Value) -> Value {
    json!({"pools": [{"name": "p", "provider": "claude", "credentials": credentials}]})
}

fn three() -> Value {
    pool(
        json!([{"id": "a", "cluster": "ca"}, {"id": "b", "cluster": "cb"}, {"id": "c", "cluster": "cc"}]),
    )
}

#[test]
fn a_session_stays_and_new_sessions_go_round() {
    let world = World::of(&three());
    assert_eq!(world.send("1"), is("a", Outcome::Miss));
    assert_eq!(world.send("2"), is("b", Outcome::Miss));
    assert_eq!(world.send("1"), is("a", Outcome::Hit));
    assert_eq!(world.send("3"), is("c", Outcome::Miss));
    assert_eq!(world.send("4"), is("a", Outcome::Miss));
    assert_eq!(world.send("2"), is("b", Outcome::Hit));
}

#[test]
fn models_are_bound_and_rotate_apart_but_a_suffix_is_no_other_model() {
    let world = World::of(&three());
    assert_eq!(world.send_for("1", "opus"), is("a", Outcome::Miss));
    assert_eq!(world.send_for("2", "opus"), is("b", Outcome::Miss));
    assert_eq!(world.send_for("2", "haiku"), is("b", Outcome::Miss), "it begins one further on");
    assert_eq!(world.send_for("3", "haiku"), is("c", Outcome::Miss));
    assert_eq!(world.send_for("3", "opus"), is("c", Outcome::Miss), "with a turn of its own");
    assert_eq!(world.send_for("2", "opus(high)"), is("b", Outcome::Hit));
}

#[test]
fn pools_bind_apart() {
    let world = World::of(&json!({"pools": [
        {"name": "team-1", "provider": "claude", "match": {"headers": [{"name": "x-team", "value": "1"}]},
         "credentials": [{"id": "a", "cluster": "ca"}]},
        {"name": "team-2", "provider": "claude", "match": {"headers": [{"name": "x-team"}]},
         "credentials": [{"id": "b", "cluster": "cb"}]},
    ]}));
    let from = |team| said(&world.decide(&[("x-team", team), ("x-session-id", "1")], &json!({})));
    assert_eq!(from("1"), is("a", Outcome::Miss));
    assert_eq!(from("2"), is("b", Outcome::Miss));
    assert_eq!(from("1"), is("a", Outcome::Hit));
    assert_eq!(from("2"), is("b", Outcome::Hit));
}

#[test]
fn a_binding_ends_when_it_was_not_used_for_its_ttl() {
    let mut config = three();
    config["pools"][0]["cache_lifetime"] = json!("24h");
    let mut world = World::of(&config);
    assert_eq!(world.send("1"), is("a", Outcome::Miss));
    world.now += HOUR;
    assert_eq!(world.send("1"), is("a", Outcome::Hit), "the last millisecond counts");
    world.now += HOUR;
    assert_eq!(world.send("1"), is("a", Outcome::Hit), "and each use prolongs it");
    world.now += HOUR + Duration::from_millis(1);
    assert_eq!(world.send("1"), is("b", Outcome::Miss));
}

#[test]
fn the_second_turn_goes_where_the_first_was_bound() {
    let mut config = three();
    config["pools"][0]["match"] = json!({"path_prefixes": ["/v1/"]});
    let world = World::of(&config);
    let turn = |messages: Value| {
        said(&world.decide(
            &[(":path", "/v1/chat/completions")],
            &json!({"model": "m", "messages": messages}),
        ))
    };
    let (system, question) = (
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Why?"}),
    );
    let (answer, more) = (
        json!({"role": "assistant", "content": "Because."}),
        json!({"role": "user", "content": "So?"}),
    );
    assert_eq!(
        world.send("other"),
        is("a", Outcome::Miss),
        "so that the rotation is not at its start"
    );
    assert_eq!(turn(json!([system, question])), is("b", Outcome::Miss));
    assert_eq!(turn(json!([system, question, answer, more])), is("b", Outcome::Hit));
    assert_eq!(turn(json!([system, question, answer, more])), is("b", Outcome::Hit));
}

#[test]
fn fill_first_takes_the_first_by_id_of_the_highest_priority() {
    let mut config = pool(json!([
        {"id": "a", "cluster": "ca"}, {"id": "c", "cluster": "cc", "priority": 10}, {"id": "b", "cluster": "cb", "priority": 10}
    ]));
    config["routing"] = json!({"strategy": "fill-first"});
    let world = World::of(&config);
    for session in ["1", "2", "3"] {
        assert_eq!(world.send(session), is("b", Outcome::Miss));
    }
}

#[test]
fn only_the_highest_priority_takes_new_sessions() {
    let world = World::of(&pool(json!([
        {"id": "a", "cluster": "ca", "priority": -1}, {"id": "b", "cluster": "cb", "priority": 5}, {"id": "c", "cluster": "cc", "priority": 5}
    ])));
    let chosen: Vec<_> = (0..4).map(|session| world.send(&session.to_string()).0).collect();
    assert_eq!(chosen, ["b", "c", "b", "c"]);
}

#[test]
fn an_established_binding_outranks_priority() {
    let world = World::of(&three());
    assert_eq!(world.send("1"), is("a", Outcome::Miss));
    let mut config = three();
    config["pools"][0]["credentials"][2]["priority"] = json!(10);
    let world = world.reconfigured(&config);
    assert_eq!(world.send("1"), is("a", Outcome::Hit));
    assert_eq!(world.send("2"), is("c", Outcome::Miss));
}

#[test]
fn a_draining_credential_keeps_its_sessions_and_takes_no_new_one() {
    let world = World::of(&three());
    assert_eq!(world.send("1"), is("a", Outcome::Miss));
    let mut config = three();
    config["pools"][0]["credentials"][0]["state"] = json!("drain");
    let mut world = world.reconfigured(&config);
    assert_eq!(world.send("1"), is("a", Outcome::Hit));
    assert!((2..10).all(|session| world.send(&session.to_string()).0 != "a"));
    world.now += HOUR + Duration::from_millis(1);
    assert_ne!(world.send("1").0, "a", "once idle it is gone");
}

#[test]
fn a_disabled_or_removed_credential_loses_its_sessions_for_good() {
    for state in ["disabled", "removed"] {
        let world = World::of(&three());
        assert_eq!(world.send("1"), is("a", Outcome::Miss));
        let mut config = three();
        let credentials = config["pools"][0]["credentials"].as_array_mut().unwrap();
        if state == "removed" {
            drop(credentials.remove(0))
        } else {
            credentials[0]["state"] = json!(state)
        }
        let world = world.reconfigured(&config);
        let (moved_to, outcome) = world.send("1");
        assert_eq!(outcome, Outcome::Rebind, "{state}");
        let world = world.reconfigured(&three());
        assert_eq!(world.send("1"), (moved_to, Outcome::Hit), "{state}: it does not move back");
    }
}

#[test]
fn bindings_follow_the_id_through_a_reordered_configuration_and_a_changed_ttl() {
    let world = World::of(&three());
    assert_eq!(world.send("1"), is("a", Outcome::Miss));
    assert_eq!(world.send("2"), is("b", Outcome::Miss));
    let mut config = pool(
        json!([{"id": "z", "cluster": "new"}, {"id": "b", "cluster": "moved"}, {"id": "a", "cluster": "ca"}]),
    );
    config["routing"] = json!({"session_affinity_ttl": "1m"});
    let mut world = world.reconfigured(&config);
    assert_eq!(world.send("1"), is("a", Outcome::Hit));
    assert_eq!(world.send("2"), is("b", Outcome::Hit));
    world.now += Duration::from_millis(60_001);
    assert_eq!(world.send("2").1, Outcome::Miss, "the new TTL counts for old bindings");
}

#[test]
fn accounts_take_turns_and_so_do_their_credentials() {
    let member = |id: &str, parent: &str| json!({"id": id, "cluster": id, "parent": parent});
    let world = World::of(&pool(json!([
        member("a1", "A"),
        member("a2", "A"),
        member("a3", "A"),
        member("b1", "B")
    ])));
    let chosen: Vec<_> = (0..8).map(|session| world.send(&session.to_string()).0).collect();
    let of_a: Vec<_> = chosen.iter().filter(|id| id.starts_with('a')).map(String::as_str).collect();
    assert_eq!(of_a, ["a1", "a2", "a3", "a1"], "{chosen:?}");
    assert!(
        chosen.windows(2).all(|pair| pair[0].as_bytes()[0] != pair[1].as_bytes()[0]),
        "{chosen:?}"
    );
}

#[test]
fn a_credential_without_parent_makes_the_rotation_flat() {
    let world = World::of(&pool(json!([
        {"id": "a1", "cluster": "x", "parent": "A"}, {"id": "a2", "cluster": "x", "parent": "A"}, {"id": "b", "cluster": "x"}
    ])));
    let chosen: Vec<_> = (0..4).map(|session| world.send(&session.to_string()).0).collect();
    assert_eq!(chosen, ["a1", "a2", "b", "a1"]);
}

#[test]
fn websocket_streams_prefer_credentials_that_are_enabled_for_them() {
    let world = World::of(&pool(
        json!([{"id": "a", "cluster": "ca"}, {"id": "b", "cluster": "cb", "websockets": true}]),
    ));
    let upgrade = |session| {
        said(&world.decide(&[("upgrade", "websocket"), ("x-session-id", session)], &json!({})))
    };
    assert_eq!(upgrade("1"), is("b", Outcome::Miss));
    assert_eq!(upgrade("2"), is("b", Outcome::Miss));
    assert_eq!(said(&world.decide(&[("x-session-id", "3")], &json!({}))), is("a", Outcome::Miss));
}

#[test]
fn without_a_session_or_without_affinity_nothing_is_bound() {
    let world = World::of(&three());
    let anonymous = || said(&world.decide(&[], &json!({"model": "m"})));
    assert_eq!(anonymous(), is("a", Outcome::None));
    assert_eq!(anonymous(), is("b", Outcome::None));

    let mut config = three();
    config["routing"] = json!({"session_affinity": false});
    let world = World::of(&config);
    assert_eq!(world.send("1"), is("a", Outcome::None));
    assert_eq!(world.send("1"), is("b", Outcome::None));
}

#[test]
fn a_request_that_no_pool_serves_passes() {
    let mut config = three();
    config["pools"][0]["match"] = json!({"path_prefixes": ["/v1/messages"], "hosts": ["*.example.com"], "models": ["claude-*"]});
    let world = World::of(&config);
    let ask = |path, host, model: Value| {
        world.decide(&[(":path", path), (":authority", host)], &json!({"model": model})).outcome()
    };
    assert_eq!(
        ask("/v1/messages?beta=true", "LLM.example.com:8443", json!("claude-x")),
        Outcome::None
    );
    assert_eq!(ask("/v1/models", "llm.example.com", json!("claude-x")), Outcome::Unmatched);
    assert_eq!(ask("/v1/messages", "example.com", json!("claude-x")), Outcome::Unmatched);
    assert_eq!(ask("/v1/messages", "llm.example.com", json!("gpt")), Outcome::Unmatched);
    assert_eq!(
        ask("/v1/messages", "llm.example.com", Value::Null),
        Outcome::Unmatched,
        "an unknown model fits no pattern"
    );
}

#[test]
fn the_model_of_a_gemini_request_stands_in_its_path() {
    let mut config = three();
    config["pools"][0]["match"] = json!({"models": ["gemini-2.5-pro"]});
    let world = World::of(&config);
    let ask = |path| world.decide(&[(":path", path)], &json!({})).outcome();
    assert_eq!(ask("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"), Outcome::None);
    assert_eq!(
        ask("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent"),
        Outcome::None
    );
    assert_eq!(ask("/v1beta/models/gemini-2.5-flash:generateContent"), Outcome::Unmatched);
}

#[test]
fn a_pool_without_a_ready_credential_answers_in_the_clients_dialect() {
    let world = World::of(&pool(
        json!([{"id": "a", "cluster": "ca", "state": "disabled"}, {"id": "b", "cluster": "cb", "state": "drain"}]),
    ));
    let answer = |path| match world
        .decide(&[(":path", path), ("x-session-id", "1")], &json!({"model": "m"}))
    {
        Decision::Reply(Refusal { reply, .. }) => {
            (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let message = "auth_unavailable: no auth available (providers=claude, model=m)";
    assert_eq!(
        answer("/v1/messages"),
        (503, json!({"type": "error", "error": {"type": "api_error", "message": message}}))
    );
    assert_eq!(
        answer("/v1/chat/completions"),
        (
            503,
            json!({"error": {"message": message, "type": "server_error", "code": "internal_server_error"}})
        )
    );
    assert_eq!(
        answer("/v1beta/models/m:generateContent"),
        (503, json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}))
    );
}

#[test]
fn the_decisions_words_name_no_session_id() {
    let world = World::of(&three());
    let decision = world.decide(&[("x-session-id", "secret-id")], &json!({})).to_string();
    assert!(
        decision
            .starts_with("outcome=miss source=header pool=p credential=a gen_ai.conversation.id="),
        "{decision}"
    );
    assert!(!decision.contains("secret-id"));
}

#[test]
fn shared_data_holds_no_session_id_and_only_known_keys() {
    let world = World::of(&three());
    for session in 0..500 {
        world.send_for(&format!("secret-{session}"), &format!("model-{session}"));
    }
    let known: Vec<_> = world.router.shared_keys().collect();
    for key in world.shared.keys() {
        assert!(known.contains(&key), "{key}");
        let value = world.shared.get(&key).value;
        assert!(!value.windows(6).any(|bytes| bytes == b"secret"), "{key}");
    }
}

#[test]
fn new_sessions_spread_evenly() {
    let world = World::of(&three());
    let mut served = BTreeMap::new();
    for session in 0..300 {
        *served.entry(world.send(&session.to_string()).0).or_insert(0) += 1;
    }
    assert_eq!(served.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

/// Shared data in which another worker wins the first so many writes of some keys.
struct Contended<'a> {
    inner: &'a InMemory,
    keys: &'static str,
    refusals: std::cell::Cell<u32>,
}

impl SharedData for Contended<'_> {
    fn get(&self, key: &str) -> Stored {
        self.inner.get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        if key.contains(self.keys) && self.refusals.get() > 0 {
            self.refusals.set(self.refusals.get() - 1);
            return Err(CasMismatch);
        }
        self.inner.set(key, value, cas)
    }
}

#[test]
fn a_refused_write_is_tried_again_and_costs_no_second_turn() {
    let world = World::of(&three());
    let contended = Contended { inner: &world.shared, keys: "binding", refusals: 5.into() };
    let headers: Headers = [("x-session-id", "1")].into_iter().collect();
    let request = Request::new(&headers, Body::default());
    assert_eq!(said(&world.router.route(&request, &contended, world.now)), is("a", Outcome::Miss));
    let next: Headers = [("x-session-id", "2")].into_iter().collect();
    let request = Request::new(&next, Body::default());
    assert_eq!(said(&world.router.route(&request, &contended, world.now)), is("b", Outcome::Miss));
}

#[test]
fn a_request_is_served_even_if_its_binding_cannot_be_written() {
    let world = World::of(&three());
    let contended = Contended { inner: &world.shared, keys: "binding", refusals: u32::MAX.into() };
    let headers: Headers = [("x-session-id", "1")].into_iter().collect();
    let request = Request::new(&headers, Body::default());
    assert_eq!(
        said(&world.router.route(&request, &contended, world.now)),
        is("a", Outcome::Contended)
    );
}

#[test]
fn a_turn_that_cannot_be_written_is_told_and_the_binding_is_kept() {
    for weight in [1, 2] {
        let mut config = three();
        config["pools"][0]["credentials"][0]["weight"] = json!(weight);
        let world = World::of(&config);
        let keys = if weight == 1 { "cursor" } else { "wheel" };
        let contended = Contended { inner: &world.shared, keys, refusals: u32::MAX.into() };
        let headers: Headers = [("x-session-id", "1")].into_iter().collect();
        let request = Request::new(&headers, Body::default());
        let route = || said(&world.router.route(&request, &contended, world.now));
        assert_eq!(route(), is("a", Outcome::Contended), "{keys}");
        assert_eq!(route(), is("a", Outcome::Hit), "{keys}");
    }
}
