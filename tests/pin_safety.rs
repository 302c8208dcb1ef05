//! What clients and providers may try with ids at the cost of others.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use serde_json::{Value, json};
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{BodyNeed, Decision};
use world::{Fate, MINUTE, World, is, routed, said};

const NOT_HERE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"previous_response_not_found","message":"x"}}"#);

const UNREADABLE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"invalid_encrypted_content","message":"x"}}"#);

fn pool(name: &str, ids: &str, models: &[&str]) -> Value {
    let ids = ids.split(' ');
    let credentials: Vec<_> = ids.map(|id| json!({"id": id, "cluster": id})).collect();
    json!({"name": name, "credentials": credentials, "match": {"models": models}})
}

fn world(strategy: &str) -> World {
    let pools = [pool("p", "a b c d", &[])];
    World::of(&json!({"routing": {"strategy": strategy}, "pools": pools}))
}

/// A pool for a small model, and one for another provider's.
fn two_pools() -> World {
    let pools = [pool("cheap", "a b", &["gpt-5-mini"]), pool("claude", "e f", &["claude-*"])];
    World::of(&json!({"routing": {"strategy": "fill-first"}, "pools": pools}))
}

fn send<'w>(world: &'w World, method: &str, path: &str, body: &Value) -> Decision<'w> {
    world.decide(&[(":method", method), (":path", path)], body)
}

fn in_session<'w>(world: &'w World, session: &str, path: &str, body: &Value) -> Decision<'w> {
    let headers = [(":method", "POST"), (":path", path), ("x-session-id", session)];
    world.decide(&headers, body)
}

/// Whoever is asked serves it with this body; returns who that was.
fn serve(world: &World, decision: &Decision<'_>, body: &str) -> String {
    let fates = ["a", "b", "c", "d", "e", "f"].map(|id| (id, Fate::Says(200, &[], body)));
    world.play(decision, &fates).to
}

fn create(world: &World, path: &str, response: &str) -> String {
    serve(world, &send(world, "POST", path, &json!({"model": "gpt-5-mini"})), response)
}

fn get(world: &World, path: &str) -> (String, Outcome) {
    said(&send(world, "GET", path, &json!({})))
}

#[test]
fn state_opens_no_pool_for_other_models() {
    let world = two_pools();
    create(&world, "/v1/responses", r#"{"id":"resp_1"}"#);
    let post = |body: &str, headers: &[(&str, &str)]| {
        let all = [&[(":method", "POST"), (":path", "/v1/responses")], headers].concat();
        let headers: Headers = all.into_iter().collect();
        let body = world.router.read_body(body.as_bytes());
        said(&world.router.route(&Request::new(&headers, body), &world.shared, world.now)).0
    };
    assert_eq!(post(r#"{"model":"gpt-5-mini","model":"o3-pro"}"#, &[]), "pass");
    assert_eq!(post("", &[("content-encoding", "zstd")]), "pass");
    assert_eq!(post(r#"{"model":"o3-pro","previous_response_id":"resp_1"}"#, &[]), "pass");
    assert_eq!(post(r#"{"model":"claude-x","previous_response_id":"resp_1"}"#, &[]), "e");
    let batch = send(&world, "POST", "/v1/batches", &json!({"input_file_id": "file-1"}));
    assert_eq!(said(&batch).0, "pass", "nobody knows which models it is for");
    assert_eq!(get(&world, "/v1/responses/resp_1"), is("a", Outcome::Pinned));
}

#[test]
fn no_client_takes_over_what_another_one_has() {
    let theirs = |world: &World| get(world, "/v1/conversations/conv_theirs");
    let world = world("round-robin");
    let owner = create(&world, "/v1/conversations", r#"{"id":"conv_theirs"}"#);
    let mine = create(&world, "/v1/responses", r#"{"id":"resp_mine"}"#);
    assert_ne!(owner, mine);

    let body = json!({"model": "m", "conversation": "conv_theirs"});
    serve(&world, &send(&world, "GET", "/v1/responses/resp_mine", &body), "{}");
    assert_eq!(theirs(&world), is(&owner, Outcome::Pinned), "the body of a GET says nothing");

    let body =
        json!({"model": "m", "previous_response_id": "resp_mine", "conversation": "conv_theirs"});
    assert_eq!(serve(&world, &send(&world, "POST", "/v1/responses", &body), "{}"), mine);
    assert_eq!(theirs(&world), is(&owner, Outcome::Pinned), "only what led there is found there");

    for _ in 0..4 {
        create(&world, "/v1/conversations", r#"{"id":"conv_theirs"}"#);
    }
    assert_eq!(theirs(&world), is(&owner, Outcome::Pinned), "a name that a client may choose");

    let body = json!({"model": "m", "previous_response_id": "x1", "conversation": "conv_theirs"});
    world.play(&send(&world, "POST", "/v1/responses", &body), &[(owner.as_str(), NOT_HERE)]);
    assert_eq!(theirs(&world), is(&owner, Outcome::Pinned), "it was not what is missing");
}

#[test]
fn ids_that_are_only_named_make_no_pins() {
    let world = world("round-robin");
    for number in 0..50 {
        let id = format!("resp_{number}");
        let body = json!({"model": "m", "previous_response_id": id});
        serve(&world, &send(&world, "POST", "/v1/responses", &body), "{}");
        assert_ne!(get(&world, &format!("/v1/responses/{id}")).1, Outcome::Pinned);
    }
    assert!(world.shared.keys().iter().all(|key| !key.contains("/pin/")));
}

#[test]
fn an_id_that_no_credential_knows_is_not_looked_for_again_at_once() {
    let mut world = world("fill-first");
    let nowhere = ["a", "b", "c", "d"].map(|id| (id, NOT_HERE));
    let body = json!({"model": "m", "previous_response_id": "invented"});
    let asked = |world: &World| {
        let sent = world.play(&send(world, "POST", "/v1/responses", &body), &nowhere);
        sent.to.split(' ').count()
    };
    assert_eq!([asked(&world), asked(&world), asked(&world)], [3, 1, 1]);
    world.now += 2 * MINUTE;
    assert_eq!(asked(&world), 3);
}

#[test]
fn an_error_that_quotes_an_id_is_not_multiplied() {
    let world = world("fill-first");
    let says = r#"{"error":{"message":"Item with id 'x' not found."}}"#;
    let fates = ["a", "b", "c", "d"].map(|id| (id, Fate::Says(400, &[], says)));
    let sent = world.play(&send(&world, "POST", "/v1/responses", &json!({"model": "m"})), &fates);
    assert_eq!((sent.to.as_str(), sent.changes), ("a", vec![]));
}

#[test]
fn what_a_path_names_is_looked_for_however_its_absence_is_told() {
    for body in ["", "{}", r#"{"error":{"message":"No such batch."}}"#, "<html>Not Found</html>"] {
        for path in ["/v1/batches/batch_1", "/v1/skills/skill_1", "/v1/videos/video_1"] {
            let world = world("fill-first");
            let sent = world
                .play(&send(&world, "GET", path, &json!({})), &[("a", Fate::Says(404, &[], body))]);
            assert_eq!((sent.to.as_str(), sent.changes), ("a b", vec![]), "{path} {body}");
            assert_eq!(get(&world, path), is("b", Outcome::Pinned));
        }
    }
}

#[test]
fn a_body_that_may_refer_to_state_is_read_whole() {
    let world = world("fill-first");
    let need = |path: &str, beta: &str| {
        let list = [
            (":method", "POST"),
            (":path", path),
            ("x-claude-code-session-id", "0199a213-81c0-7800-8aa1-bbab2a035a53"),
            ("content-type", "application/json"),
            ("anthropic-beta", beta),
        ];
        let headers: Headers = list.into_iter().collect();
        world.router.needs_body(&headers, false, &world.shared)
    };
    let gemini = "/v1beta/models/gemini-3:generateContent";
    let threads = need("/v1/messages", "x,message-threads-2026-08-12");
    assert_eq!(threads, BodyNeed::WholeForState);
    for (path, usual) in [
        ("/v1/messages", BodyNeed::Beginning),
        ("/v1/responses", BodyNeed::Beginning),
        (gemini, BodyNeed::None),
    ] {
        assert_eq!(need(path, ""), usual, "nothing was created yet");
    }
    create(&world, "/v1/responses", r#"{"id":"resp_1"}"#);
    assert_eq!(need("/v1/responses", ""), BodyNeed::WholeForState);
    assert_eq!(need("/v1/messages", ""), BodyNeed::Beginning);
    create(&world, "/v1beta/cachedContents", r#"{"name":"cachedContents/x"}"#);
    assert_eq!(need(gemini, ""), BodyNeed::Whole);
}

#[test]
fn a_session_is_the_same_however_much_of_its_body_is_read() {
    let world = world("round-robin");
    let headers: Headers = [(":method", "POST"), (":path", "/v1/responses"), ("session-id", "1")]
        .into_iter()
        .collect();
    let outcome = |need: BodyNeed| {
        let body = world.router.read(br#"{"model":"m"}"#, need);
        let decision = world.router.route(&Request::new(&headers, body), &world.shared, world.now);
        serve(&world, &decision, "{}");
        decision.outcome()
    };
    assert_eq!(outcome(BodyNeed::Beginning), Outcome::Miss);
    assert_eq!(outcome(BodyNeed::WholeForState), Outcome::Hit);
}

#[test]
fn a_client_gets_the_first_response_only_where_that_is_the_truth() {
    let kept = |sent: &world::Sent| sent.plan.gives_first_response();
    let world = world("fill-first");
    let unknown = json!({"model": "m", "previous_response_id": "x"});
    let play = |fates: &[(&str, Fate<'_>)]| {
        let world = self::world("fill-first");
        world.play(&send(&world, "POST", "/v1/responses", &unknown), fates)
    };
    let limited = Fate::Says(429, &[("retry-after", "9")], "");
    let sent = play(&[("a", NOT_HERE), ("b", NOT_HERE), ("c", limited)]);
    assert_eq!((sent.to.as_str(), kept(&sent)), ("a b c", false), "its owner may be at its limit");
    assert!(!kept(&play(&[("a", NOT_HERE)])), "it was served");
    let sent = play(&[("a", NOT_HERE), ("b", NOT_HERE), ("c", NOT_HERE)]);
    assert!(kept(&sent), "all say so: {}", sent.to);

    let mut plan =
        world.router.plan(routed(&send(&world, "POST", "/v1/responses", &unknown)), world.now);
    world.attempt(&mut plan);
    world.end(&mut plan, Fate::Status(401));
    assert!(!plan.keeps_first_response(), "a dead key is nothing for clients");
}

#[test]
fn a_home_that_fails_speaks_for_its_ciphertext_too() {
    let world = world("fill-first");
    let body = json!({"model": "m", "input": [{"type": "reasoning", "encrypted_content": "x"}]});
    let turn = || in_session(&world, "1", "/v1/responses", &body);
    serve(&world, &turn(), "{}");
    world.play(
        &send(&world, "POST", "/v1/responses", &json!({"model": "m"})),
        &[("a", Fate::Status(500))],
    );
    let substitutes = ["b", "c", "d"].map(|id| (id, UNREADABLE));
    let sent = world.play(&turn(), &substitutes);
    let reply = world.router.wait_for_home(&sent.plan, &world.shared, world.now).unwrap();
    assert_eq!((reply.status, reply.retry_after.is_some()), (503, true), "{}", sent.to);
    let served = world.play(&turn(), &[]);
    assert!(world.router.wait_for_home(&served.plan, &world.shared, world.now).is_none());
}

#[test]
fn after_a_limit_ciphertext_stays_in_its_group() {
    let limited = Fate::Says(429, &[("retry-after", "60")], "");
    for (session, body, expected) in [
        ("1", json!({"model": "m"}), "a b"),
        ("2", json!({"model": "m", "input": [{"encrypted_content": "x"}]}), "a d"),
    ] {
        let config = json!({"routing": {"strategy": "fill-first"}, "pools": [pool_in_groups()]});
        let world = World::of(&config);
        serve(&world, &in_session(&world, session, "/v1/responses", &body), "{}");
        let turn = in_session(&world, session, "/v1/responses", &body);
        assert_eq!(world.play(&turn, &[("a", limited)]).to, expected);
    }
}

fn pool_in_groups() -> Value {
    let mut pool = pool("p", "a b c d", &[]);
    for (at, group) in ["x", "y", "y", "x"].iter().enumerate() {
        pool["credentials"][at]["group"] = json!(group);
    }
    pool
}
