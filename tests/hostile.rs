//! What clients may try at each other's cost, on the core: floods, models and paths that are not
//! what they seem, and clocks that jump.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{Decision, Router};
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;
use world::{HOUR, MINUTE, World, is, routed, said};

/// Three credentials in one pool, with these members beside it and in it.
fn config(others: &Value, pool: &Value) -> Value {
    let credentials = ["a", "b", "c"].map(|id| json!({"id": id, "cluster": id}));
    let mut config =
        json!({"pools": [{"name": "p", "provider": "claude", "credentials": credentials}]});
    config.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    config["pools"][0].as_object_mut().unwrap().extend(pool.as_object().unwrap().clone());
    config
}

fn world(others: Value, pool: Value) -> World {
    World::of(&config(&others, &pool))
}

impl World {
    /// A request of a tenant in a session, and what its provider says.
    fn turn(&self, tenant: &str, session: &str, status: u16) -> Outcome {
        let headers =
            [(":path", "/v1/messages"), ("authorization", tenant), ("x-session-id", session)];
        let decision = self.decide(&headers, &json!({"model": "m"}));
        self.answer(&decision, status, &[], "");
        decision.outcome()
    }

    fn decide_raw(&self, headers: &[(&str, &str)], body: &str) -> Decision<'_> {
        let headers: Headers = headers.iter().copied().collect();
        let body = self.router.read_body(body.as_bytes());
        self.router.route(&Request::new(&headers, body), &self.shared, self.now)
    }
}

#[test]
fn a_flood_of_refused_sessions_leaves_the_homes_of_served_ones_alone() {
    let world = world(json!({}), json!({}));
    for home in 0..300 {
        world.turn("", &format!("home {home}"), 200);
    }
    for made_up in 0..131_072 {
        world.turn("", &format!("made up {made_up}"), 400);
    }
    let kept = (0..300).filter(|home| world.turn("", &format!("home {home}"), 200) == Outcome::Hit);
    let kept = kept.count();
    assert!(kept >= 297, "{kept} of 300");
}

#[test]
fn a_flood_of_served_sessions_stays_within_the_share_of_its_tenant() {
    let session = json!({"max_bindings": 4_096, "scope": [{"header": "authorization"}]});
    let world = world(json!({"session": session}), json!({}));
    let tenants: Vec<_> = (0..16).map(|tenant| format!("tenant {tenant}")).collect();
    for tenant in &tenants {
        for home in 0..10 {
            world.turn(tenant, &format!("home {home}"), 200);
        }
    }
    for session in 0..16_384 {
        world.turn("flood", &session.to_string(), 200);
    }
    let is_spared = |tenant: &&String| {
        (0..10).all(|home| world.turn(tenant, &format!("home {home}"), 200) == Outcome::Hit)
    };
    let spared = tenants.iter().filter(is_spared).count();
    assert!(spared >= 14, "{spared} of 16 tenants kept all their homes");
}

#[test]
fn a_client_cannot_choose_its_credential_by_names_of_models() {
    let world = world(json!({}), json!({}));
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for model in 0..12 {
        let decision = world.ask(&format!("session {model}"), &format!("fresh-{model}"));
        *first.entry(said(&decision).0).or_default() += 1;
    }
    assert!(first.len() == 3 && first.values().all(|count| *count <= 6), "{first:?}");
}

#[test]
fn with_a_seed_envoys_agree_on_homes_that_no_client_can_compute() {
    let homes = |seed: Option<&str>, random: u8| -> Vec<String> {
        let mut routing = json!({"strategy": "consistent"});
        if let Some(seed) = seed {
            routing["seed"] = json!(seed);
        }
        let config = config(&json!({"routing": routing}), &json!({})).to_string();
        let shared = InMemory::default();
        let router = Router::new(
            Config::parse(config.as_bytes()).unwrap(),
            Seed::agree(&shared, [random; 16]),
        );
        let home = |session: u32| {
            let session = session.to_string();
            let headers: Headers =
                [(":path", "/v1/messages"), ("x-session-id", &session)].into_iter().collect();
            let request = Request::new(&headers, router.read_body(b"{}"));
            said(&router.route(&request, &shared, Timestamp::from_secs(1))).0
        };
        (0..90).map(home).collect()
    };
    let secret = homes(Some("a secret of the fleet"), 1);
    assert_eq!(secret, homes(Some("a secret of the fleet"), 2), "on every Envoy of the fleet");
    for known in [homes(None, 1), homes(Some("another secret"), 1)] {
        let same = secret.iter().zip(&known).filter(|(one, other)| one == other).count();
        assert!((10..=50).contains(&same), "{same} of 90 agree: a third is chance");
    }
}

#[test]
fn a_document_that_names_two_models_is_judged_by_neither() {
    let open = world(json!({}), json!({}));
    let restricted = world(json!({}), json!({"match": {"models": ["cheap-*"]}}));
    let headers = [(":path", "/v1/messages"), ("x-session-id", "1")];
    for (body, expected) in [
        (r#"{"model":"cheap-1"}"#, Some("cheap-1")),
        (r#"{"mod\u0065l":"cheap-1"}"#, Some("cheap-1")),
        (r#"{"model":"cheap-1","model":"dear-1"}"#, None),
        (r#"{"model":"dear-1","messages":[],"model":"cheap-1"}"#, None),
        (r#"{"model":"cheap-1","mod\u0065l":"dear-1"}"#, None),
        (r#"{"\u006dodel":"cheap-1","model":"dear-1"}"#, None),
    ] {
        let decision = open.decide_raw(&headers, body);
        assert_eq!(routed(&decision).model, expected.unwrap_or_default(), "{body}");
        let decision = restricted.decide_raw(&headers, body);
        assert_eq!(matches!(decision, Decision::Route(_)), expected.is_some(), "{body}");
    }
}

#[test]
fn a_pool_serves_whole_segments_and_its_methods_only() {
    let matches = json!({"path_prefixes": ["/v1/messages"], "methods": ["POST"]});
    let world = world(json!({}), json!({"match": matches}));
    for (method, path, is_served) in [
        ("POST", "/v1/messages", true),
        ("POST", "/v1/messages/count_tokens?beta=true", true),
        ("POST", "/v1/messagesX", false),
        ("POST", "/v1/messages;x", false),
        ("POST", "/v1/messages/../files", false),
        ("POST", "/v1/messages/%2E%2e/files", false),
        ("POST", "/v1/messages/..%2Ffiles", false),
        ("POST", "/v1/messages/.", false),
        ("POST", "/v1/messages/..;/files", false),
        ("POST", "/v1/messages/%2e%2E;x=1/files", false),
        ("POST", "/v1/messages%2Fbatches", false),
        ("POST", "/v1/messages/x%2F..;%2f..;%2Ffiles", false),
        ("GET", "/v1/messages", false),
        ("DELETE", "/v1/messages/x", false),
        ("TRACE", "/v1/messages", false),
        ("CONNECT", "/v1/messages", false),
    ] {
        let decision = world.decide(&[(":method", method), (":path", path)], &json!({}));
        assert_eq!(!matches!(decision, Decision::Pass), is_served, "{method} {path}");
    }
    // Behind the slash something has to follow, for a provider that reads an escaped one as well.
    let matches = json!({"path_prefixes": ["/v1/files/", "/model/"]});
    let world = World::of(&config(&json!({}), &json!({"match": matches})));
    for (path, is_served) in [
        ("/v1/files/file-1", true),
        ("/v1/files/", false),
        ("/v1/files//", false),
        ("/v1/files/%2F", false),
        ("/v1/files/%2f/%5C", false),
        ("/v1/files%2Ffile-1", false),
        ("/v1/files/..%2fx", false),
        ("/v1/files/x%252F%252e.%252Fy", false),
        ("/v1/files/%2Fx", true),
        ("/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/invoke", true),
    ] {
        let decision = world.decide(&[(":method", "GET"), (":path", path)], &json!({}));
        assert_eq!(!matches!(decision, Decision::Pass), is_served, "{path}");
    }
    let all = World::of(&config(&json!({}), &json!({})));
    let traced = all.decide(&[(":method", "TRACE"), (":path", "/v1/messages")], &json!({}));
    assert_eq!(traced.outcome(), Outcome::Unmatched, "no configuration lets it through");
}

#[test]
fn weighted_rotations_that_share_a_place_do_not_disturb_each_other() {
    let credentials = json!([
        {"id": "a", "cluster": "a", "weight": 5},
        {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
    ]);
    let world = world(json!({}), json!({"credentials": credentials}));
    // Of so many, some share one of the 256 places.
    let mut shares: BTreeMap<u32, BTreeMap<String, u32>> = BTreeMap::new();
    for turn in 0..14 {
        for model in 0..80 {
            let decision = world.ask(&format!("{model} {turn}"), &format!("m{model}"));
            *shares.entry(model).or_default().entry(said(&decision).0).or_default() += 1;
        }
    }
    for (model, share) in shares {
        assert_eq!(share.values().copied().collect::<Vec<_>>(), [10, 2, 2], "{model}: {share:?}");
    }
}

#[test]
fn a_binding_from_a_clock_that_was_ahead_keeps_its_session_at_home() {
    for back in [MINUTE / 2, HOUR, 1000 * HOUR] {
        let mut world = world(json!({}), json!({}));
        let right = world.now;
        world.now += back;
        world.turn("", "1", 200);
        world.now = right;
        assert_eq!(world.turn("", "1", 200), Outcome::Hit, "{back:?}");
    }
}

#[test]
fn a_configuration_that_names_what_is_not_its_own_is_refused() {
    for (section, path) in [
        (json!({"routing": {"filter_state": "session_affinity.plan"}}), "routing.filter_state"),
        (json!({"routing": {"filter_state": "session_affinity.decision"}}), "routing.filter_state"),
        (json!({"routing": {"header": "host"}}), "routing.header"),
        (json!({"routing": {"header": "content-length"}}), "routing.header"),
        (json!({"routing": {"header": "transfer-encoding"}}), "routing.header"),
        (json!({"routing": {"header": "x-envoy-max-retries"}}), "routing.header"),
        (json!({"cooldown": {"statuses": {"200": "denied"}}}), "cooldown.statuses"),
        (json!({"cooldown": {"statuses": {"+200": "denied"}}}), "cooldown.statuses"),
        (json!({"cooldown": {"statuses": {"99999": "denied"}}}), "cooldown.statuses"),
    ] {
        let problems = Config::parse(config(&section, &json!({})).to_string().as_bytes());
        let problems: Vec<_> = problems.unwrap_err().iter().map(ToString::to_string).collect();
        assert!(problems.len() == 1 && problems[0].starts_with(path), "{section}: {problems:?}");
    }
    for headers in [
        json!([{"name": "x-api-key", "environment": "K", "prefix": "Bearer \r\nx-evil: "}]),
        json!([{"name": "x\r\ny", "environment": "K"}]),
    ] {
        let credentials = json!([{"id": "a", "cluster": "a", "headers": headers}]);
        let config = config(&json!({}), &json!({"credentials": credentials})).to_string();
        let parsed = Config::parse_with(config.as_bytes(), &|_| Some("key".to_owned()));
        assert!(parsed.is_err(), "{headers}");
    }
}

#[test]
fn a_refused_configuration_quotes_no_key_that_stands_in_a_wrong_place() {
    const KEY: &str = "sk-ant-api03-THE-KEY";
    for headers in [
        json!([{"name": "x-api-key", "environment": KEY}]),
        json!([{"name": "x-api-key", "value": KEY}]),
        json!([{"name": "x-api-key", "header": format!("{KEY} ")}]),
        json!([{"name": "x-api-key", "environment": "K", "prefix": format!("{KEY}\n")}]),
        json!([KEY]),
        json!(KEY),
        json!({"x-api-key": KEY}),
    ] {
        let credentials = json!([{"id": "a", "cluster": "a", "headers": headers}]);
        let config = config(&json!({}), &json!({"credentials": credentials})).to_string();
        let problems = Config::parse_with(config.as_bytes(), &|_| None).unwrap_err().to_string();
        assert!(!problems.contains("THE-KEY"), "{problems}");
    }
    let seeds = config(&json!({"routing": {"seed": [KEY]}}), &json!({})).to_string();
    let problems = Config::parse(seeds.as_bytes()).unwrap_err().to_string();
    assert!(!problems.contains("THE-KEY"), "{problems}");
}

#[test]
fn a_tenant_that_must_be_named_is() {
    let scope = json!([{"header": "authorization", "required": true}]);
    let world = world(json!({"session": {"scope": scope}}), json!({}));
    let headers = [(":path", "/v1/messages"), ("x-session-id", "1")];
    assert_eq!(said(&world.decide(&headers, &json!({}))), is("401", Outcome::Unauthorized));
    let named = [&headers[..], &[("authorization", "t")]].concat();
    assert_eq!(said(&world.decide(&named, &json!({}))).1, Outcome::Miss);
}
