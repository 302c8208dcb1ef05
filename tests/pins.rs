//! State that providers keep: who has it is learned, and followed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use serde_json::{Value, json};
use session_affinity::outcome::{Failover, Outcome};
use session_affinity::response::Failure;
use session_affinity::router::Decision;
use world::{Fate, HOUR, MINUTE, SECOND, Sent, World, is, routed, said};

const NOT_HERE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"previous_response_not_found","message":"x"}}"#);

const UNREADABLE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"invalid_encrypted_content","message":"x"}}"#);

const LIMIT: Fate<'_> = Fate::Says(429, &[("retry-after", "600")], "");

/// Four credentials, the first of which is chosen; sections of the configuration replace the usual ones.
fn config(sections: Value) -> Value {
    let mut config = json!({
        "routing": {"strategy": "fill-first"},
        "pools": [{"name": "p", "credentials": [
            {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"},
            {"id": "c", "cluster": "c"}, {"id": "d", "cluster": "d"},
        ]}]
    });
    for (name, section) in sections.as_object().unwrap() {
        match name.as_str() {
            "groups" => {
                for (id, group) in section.as_object().unwrap() {
                    let at = "abcd".find(id.as_str()).unwrap();
                    config["pools"][0]["credentials"][at]["group"] = group.clone();
                }
            }
            "strict" => config["pools"][0]["session"] = json!({"strict": section}),
            _ => config[name] = section.clone(),
        }
    }
    config
}

impl World {
    fn new(sections: Value) -> Self {
        Self::of(&config(sections))
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Decision<'_> {
        self.decide(&[(":method", method), (":path", path)], body)
    }

    /// Creates something; returns the credential that did.
    fn create(&self, path: &str, body: &Value, response: &str) -> String {
        let decision = self.send("POST", path, body);
        let fates = ["a", "b", "c", "d"].map(|id| (id, Fate::Says(200, &[], response)));
        self.play(&decision, &fates).to
    }

    fn response(&self, session: &str, id: &str) -> Decision<'_> {
        let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", session)];
        self.decide(&headers, &json!({"model": "m", "previous_response_id": id}))
    }

    /// Creates the response `resp_1` on `a`.
    fn with_response(sections: Value) -> Self {
        let world = Self::new(sections);
        let owner = world.create("/v1/responses", &json!({"model": "m"}), r#"{"id":"resp_1"}"#);
        assert_eq!(owner, "a");
        world
    }

    fn block(&self, id: &str, fate: Fate<'_>) {
        let mut config =
            json!({"pools": [{"name": "p", "credentials": [{"id": id, "cluster": id}]}]});
        config["failover"] = json!({"max_attempts": 1});
        let shared = world::copy_of(&self.shared);
        let alone = World::of(&config);
        let alone = World { shared, now: self.now, ..alone };
        alone.play(&alone.send("POST", "/v1/responses", &json!({"model": "m"})), &[(id, fate)]);
        let key = "session_affinity/credential/";
        for name in alone.shared.keys().into_iter().filter(|name| name.starts_with(key)) {
            use session_affinity::shared::{Cas, SharedData};
            self.shared.set(&name, &alone.shared.get(&name).value, Cas(0)).unwrap();
        }
    }
}

fn by_path(world: &World, method: &str, path: &str) -> (String, Outcome) {
    said(&world.send(method, path, &json!({})))
}

#[test]
fn what_a_response_creates_is_found_where_it_is() {
    let no_body = json!({});
    let thread = json!({"thread": {"type": "create"}});
    for (creation, body, response, followed, with) in [
        ("/v1/responses", &no_body, r#"{"id":"r1"}"#, "/v1/responses/r1", json!({})),
        (
            "/v1/responses",
            &no_body,
            "event: response.created\ndata: {\"response\":{\"id\":\"r1\"}}\n\n",
            "/v1/responses",
            json!({"previous_response_id": "r1"}),
        ),
        (
            "/v1/responses",
            &no_body,
            r#"{"id":"r1","conversation":{"id":"c1"}}"#,
            "/v1/responses",
            json!({"conversation": "c1"}),
        ),
        ("/v1/conversations", &no_body, r#"{"id":"c1"}"#, "/v1/conversations/c1/items", json!({})),
        (
            "/v1/conversations",
            &no_body,
            r#"{"id":"c1"}"#,
            "/v1/responses",
            json!({"conversation": {"id": "c1"}}),
        ),
        ("/v1/files", &no_body, r#"{"id":"file-1"}"#, "/v1/files/file-1/content", json!({})),
        (
            "/v1/files",
            &no_body,
            r#"{"id":"file-1"}"#,
            "/v1/responses",
            json!({"input": [{"file_id": "file-1"}]}),
        ),
        ("/v1/batches", &no_body, r#"{"id":"batch_1"}"#, "/v1/batches/batch_1/cancel", json!({})),
        (
            "/v1/containers",
            &no_body,
            r#"{"id":"cntr_1"}"#,
            "/v1/responses",
            json!({"tools": [{"container": "cntr_1"}]}),
        ),
        (
            "/v1/vector_stores",
            &no_body,
            r#"{"id":"vs_1"}"#,
            "/v1/responses",
            json!({"tools": [{"vector_store_ids": ["vs_1"]}]}),
        ),
        (
            "/v1/messages",
            &thread,
            r#"{"id":"msg_1"}"#,
            "/v1/messages",
            json!({"thread": {"type": "continue", "previous_message_id": "msg_1"}}),
        ),
        (
            "/v1/messages/batches",
            &no_body,
            r#"{"id":"msgbatch_1"}"#,
            "/v1/messages/batches/msgbatch_1/results",
            json!({}),
        ),
        (
            "/v1beta/cachedContents",
            &no_body,
            r#"{"name":"cachedContents/x1"}"#,
            "/v1beta/models/gemini:generateContent",
            json!({"cachedContent": "cachedContents/x1"}),
        ),
        (
            "/upload/v1beta/files",
            &no_body,
            r#"{"file":{"name":"files/x1"}}"#,
            "/v1beta/models/gemini:generateContent",
            json!({"contents": [{"fileUri": "https://g/v1beta/files/x1"}]}),
        ),
        (
            "/v1beta/interactions",
            &no_body,
            r#"{"id":"v1_x"}"#,
            "/v1beta/interactions/v1_x",
            json!({}),
        ),
        (
            "/v1beta/interactions",
            &no_body,
            "data: {\"interaction\":{\"id\":\"v1_x\"}}\n\n",
            "/v1beta/interactions",
            json!({"previous_interaction_id": "v1_x"}),
        ),
    ] {
        let world = World::new(json!({}));
        assert_eq!(world.create(creation, body, response), "a");
        let decision = world.send("POST", followed, &with);
        assert_eq!(said(&decision), is("a", Outcome::Pinned), "{followed} {with}");
        assert!(decision.to_string().contains(" state="), "{decision}");
        assert!(!decision.to_string().contains("_1"), "no id is shown: {decision}");
    }
}

#[test]
fn nothing_is_learned_of_what_is_not_kept() {
    let world = World::new(json!({}));
    world.create("/v1/responses", &json!({"store": false}), r#"{"id":"resp_1"}"#);
    world.create("/v1/messages", &json!({}), r#"{"id":"msg_1"}"#);
    world.create("/v1/chat/completions", &json!({}), r#"{"id":"resp_1"}"#);
    assert_ne!(by_path(&world, "GET", "/v1/responses/resp_1").1, Outcome::Pinned);
    let world = World::with_response(json!({"pins": {"kinds": ["files"]}}));
    assert_ne!(by_path(&world, "GET", "/v1/responses/resp_1").1, Outcome::Pinned);
    let world = World::with_response(json!({"pins": {"max": 0}}));
    assert_ne!(by_path(&world, "GET", "/v1/responses/resp_1").1, Outcome::Pinned);
}

#[test]
fn an_id_outranks_the_session() {
    let world = World::with_response(json!({"routing": {"strategy": "round-robin"}}));
    let headers = [(":path", "/v1/responses"), ("x-session-id", "1")];
    world.play(&world.decide(&headers, &json!({"model": "m"})), &[]);
    assert_eq!(said(&world.response("1", "resp_1")), is("a", Outcome::Pinned));
    assert_eq!(said(&world.response("1", "resp_2")), is("b", Outcome::Hit), "it is unknown");
}

#[test]
fn a_pin_ends_with_its_state_and_lives_on_with_its_use() {
    let thread = json!({"thread": {"type": "continue", "previous_message_id": "msg_1"}});
    let mut world = World::new(json!({}));
    world.create("/v1/messages", &json!({"thread": {"type": "create"}}), r#"{"id":"msg_1"}"#);
    world.now += 50 * MINUTE;
    let decision = world.send("POST", "/v1/messages", &thread);
    assert_eq!(said(&decision), is("a", Outcome::Pinned));
    world.play(&decision, &[]);
    world.now += 50 * MINUTE;
    assert_eq!(said(&world.send("POST", "/v1/messages", &thread)).1, Outcome::Pinned);
    world.now += 11 * MINUTE;
    assert_ne!(said(&world.send("POST", "/v1/messages", &thread)).1, Outcome::Pinned);
}

#[test]
fn while_the_owner_is_blocked_the_client_waits_or_goes_elsewhere() {
    let world = World::with_response(json!({}));
    world.block("a", LIMIT);
    assert_eq!(said(&world.response("1", "resp_1")), is("429", Outcome::ModelCooldown));
    let Decision::Reply(refusal) = world.response("1", "resp_1") else { panic!() };
    assert_eq!(refusal.reply.retry_after, Some(600));

    let world = World::with_response(json!({}));
    world.block("a", Fate::Status(500));
    assert_eq!(said(&world.response("1", "resp_1")), is("a", Outcome::Probe), "it may serve");

    let world = World::with_response(json!({"pins": {"when_blocked": "elsewhere"}}));
    world.block("a", LIMIT);
    assert_eq!(said(&world.response("1", "resp_1")), is("b", Outcome::Miss));
}

#[test]
fn a_sibling_of_the_owner_has_the_state_too() {
    let groups = json!({"groups": {"a": "x", "c": "x"}});
    let world = World::with_response(groups.clone());
    world.block("a", Fate::Says(429, &[("retry-after", "600")], ""));
    assert_eq!(said(&world.response("1", "resp_1")), is("c", Outcome::Substitute));

    let world = World::with_response(groups);
    let sent = world.play(&world.response("1", "resp_1"), &[("a", Fate::Status(500))]);
    assert_eq!(sent.to, "a c", "and nobody else");
    let sent = world.play(&world.response("1", "resp_1"), &[("a", LIMIT), ("c", LIMIT)]);
    assert_eq!(sent.to, "c a", "that is only suspected to fail");
}

#[test]
fn an_unknown_id_is_looked_for_and_who_serves_it_is_its_owner() {
    let world = World::new(json!({}));
    let decision = world.response("1", "resp_1");
    let sent = world.play(&decision, &[("a", NOT_HERE), ("b", NOT_HERE)]);
    assert_eq!(sent.to, "a b c");
    assert_eq!(sent.plan.end(), Some(Failover::Served));
    assert_eq!(sent.changes, [""; 0], "nothing is wrong with the others");
    assert_eq!(said(&world.response("2", "resp_1")), is("c", Outcome::Pinned));

    let nowhere = ["a", "b", "c", "d"].map(|id| (id, NOT_HERE));
    let sent = world.play(&world.response("3", "resp_2"), &nowhere);
    assert_eq!(sent.to.split(' ').count(), 3, "no more than failover.max_attempts");
    assert_eq!(sent.plan.end(), Some(Failover::Exhausted));
    assert!(sent.plan.state.was_not_here);
}

#[test]
fn groups_are_asked_once() {
    let world = World::new(json!({"groups": {"a": "x", "b": "x", "c": "y", "d": "y"}}));
    let sent = world.play(&world.response("1", "resp_1"), &[("a", NOT_HERE)]);
    assert!(["a c", "a d"].contains(&sent.to.as_str()), "{}", sent.to);
}

#[test]
fn a_session_keeps_its_home_when_an_id_was_not_there() {
    let world = World::new(json!({}));
    let turn = |world: &World| {
        said(&world.decide(&[(":path", "/v1/x"), ("x-session-id", "1")], &json!({})))
    };
    world.play(&world.decide(&[(":path", "/v1/x"), ("x-session-id", "1")], &json!({})), &[]);
    assert_eq!(turn(&world), is("a", Outcome::Hit));
    let everywhere = ["a", "b", "c", "d"].map(|id| (id, NOT_HERE));
    let Sent { plan, .. } = world.play(&world.response("1", "resp_9"), &everywhere);
    assert_eq!(plan.failures, []);
    assert_eq!(turn(&world), is("a", Outcome::Hit));
}

#[test]
fn an_owner_that_has_it_no_more_is_asked_alone_and_forgotten() {
    let world = World::with_response(json!({}));
    let sent = world.play(&world.response("1", "resp_1"), &[("a", NOT_HERE)]);
    assert_eq!((sent.to.as_str(), sent.plan.end()), ("a", None), "its client can begin anew");
    assert_ne!(said(&world.response("1", "resp_1")).1, Outcome::Pinned);
}

#[test]
fn what_may_have_been_carried_out_is_not_repeated() {
    let page = include_str!("../docs/server-side-state.md");
    let table = page.split("## What is repeated").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 15);
    for row in rows {
        let [request, refused, unsent, unknown] = row[..] else { panic!("{row:?}") };
        let mut words = request.trim_matches('`').splitn(3, ' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body: Value = serde_json::from_str(words.next().unwrap_or("{}")).unwrap();
        let fates = [
            (refused, Fate::Status(401)),
            (unsent, Fate::Failed(Failure::Connect)),
            (unknown, Fate::Status(500)),
            (unknown, Fate::Failed(Failure::Reset)),
            (unknown, Fate::Failed(Failure::Timeout)),
        ];
        for (cell, fate) in fates {
            let world = World::new(json!({}));
            let sent = world.play(&world.send(method, path, &body), &[("a", fate)]);
            let expected = if cell == "yes" { "a b" } else { "a" };
            assert_eq!(sent.to, expected, "{request} {fate:?}");
        }
    }
}

#[test]
fn a_request_for_state_alone_needs_no_model() {
    let mut config = config(json!({}));
    let other = json!({"name": "q", "match": {"models": ["gpt-*"]},
        "credentials": [{"id": "e", "cluster": "e"}, {"id": "f", "cluster": "f"}]});
    config["pools"][0]["match"] = json!({"models": ["claude-*"]});
    config["pools"].as_array_mut().unwrap().push(other);
    let world = World::of(&config);
    world.create("/v1/responses", &json!({"model": "gpt-5"}), r#"{"id":"resp_1"}"#);
    let decision = world.send("GET", "/v1/responses/resp_1", &json!({}));
    assert_eq!(said(&decision), is("a", Outcome::None), "nothing was learned");
    let decision = world.send("POST", "/v1/responses", &json!({"model": "gpt-5"}));
    world.play(
        &decision,
        &[
            ("e", Fate::Says(200, &[], r#"{"id":"resp_2"}"#)),
            ("f", Fate::Says(200, &[], r#"{"id":"resp_2"}"#)),
        ],
    );
    let owner = routed(&decision).credential.id.clone();
    assert_eq!(by_path(&world, "GET", "/v1/responses/resp_2"), is(&owner, Outcome::Pinned));
    assert_eq!(by_path(&world, "POST", "/v1/files"), is("a", Outcome::None), "the first pool");
    assert_eq!(by_path(&world, "GET", "/v1/models"), is("pass", Outcome::Unmatched));
}

fn turn<'w>(world: &'w World, session: &str, ciphertext: bool) -> Decision<'w> {
    let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", session)];
    let mut body = json!({"model": "m", "store": false});
    if ciphertext {
        body["input"] = json!([{"type": "reasoning", "encrypted_content": "x"}]);
    }
    world.decide(&headers, &body)
}

#[test]
fn ciphertext_stays_in_the_group_of_its_home_as_far_as_configured() {
    for (way, groups, ciphertext, expected) in [
        ("prefer_group", json!({"a": "x", "d": "x"}), true, "d"),
        ("prefer_group", json!({}), true, "b"),
        ("same_group", json!({"a": "x", "d": "x"}), true, "d"),
        ("same_group", json!({"a": "x"}), true, "a"),
        ("same_group", json!({"a": "x"}), false, "b"),
        ("any", json!({"a": "x", "d": "x"}), true, "b"),
    ] {
        let world = World::new(json!({"failover": {"ciphertext": way}, "groups": groups}));
        world.play(&turn(&world, "1", false), &[]);
        world.block("a", Fate::Status(500));
        let decision = turn(&world, "1", ciphertext);
        assert_eq!(said(&decision).0, expected, "{way} {groups} {ciphertext}");
    }
    let world = World::new(json!({"failover": {"ciphertext": "same_group"}}));
    world.play(&turn(&world, "1", false), &[]);
    let sent = world.play(&turn(&world, "1", true), &[("a", LIMIT)]);
    assert_eq!(sent.to, "a", "it has no group");
    assert_eq!(said(&turn(&world, "1", true)), is("429", Outcome::ModelCooldown));
}

#[test]
fn it_is_told_when_ciphertext_leaves_its_group() {
    for (groups, expected) in [(json!({}), true), (json!({"a": "x", "b": "x"}), false)] {
        let world = World::new(json!({"groups": groups}));
        world.play(&turn(&world, "1", true), &[]);
        let decision = turn(&world, "1", true);
        let mut plan = world.router.plan(routed(&decision), world.now);
        world.attempt(&mut plan);
        assert!(!world.end(&mut plan, Fate::Status(500)).has_left_group);
        assert_eq!(world.attempt(&mut plan), "b");
        assert_eq!(world.end(&mut plan, Fate::Status(200)).has_left_group, expected);
    }
}

#[test]
fn who_cannot_read_the_ciphertext_is_not_kept_and_the_client_waits_for_its_home() {
    let world = World::new(json!({}));
    world.play(&turn(&world, "1", false), &[]);
    world.block("a", LIMIT);
    let unreadable = ["b", "c", "d"].map(|id| (id, UNREADABLE));
    let sent = world.play(&turn(&world, "1", true), &unreadable);
    assert_eq!(sent.to, "b c d");
    let reply = world.router.wait_for_home(&sent.plan, &world.shared, world.now).unwrap();
    assert_eq!((reply.status, reply.retry_after), (429, Some(600)));
    let mut world = world;
    world.now += 601 * SECOND;
    assert_eq!(said(&turn(&world, "1", true)), is("a", Outcome::Hit), "no substitute was kept");
}

#[test]
fn groups_are_learned_from_responses_and_siblings_come_first_but_after_a_limit() {
    fn named(workspace: &str) -> [(&str, &str); 2] {
        [("anthropic-organization-id", "o"), ("anthropic-workspace-id", workspace)]
    }
    let world = World::new(json!({"routing": {"strategy": "round-robin"}}));
    for (id, workspace) in [("a", "x"), ("b", "y"), ("c", "y"), ("d", "x")] {
        let headers = named(workspace);
        let fates = [(id, Fate::Says(200, &headers, ""))];
        assert_eq!(world.play(&world.send("POST", "/v1/messages", &json!({})), &fates).to, id);
    }
    for (fate, expected) in [(Fate::Status(500), "a d b c"), (LIMIT, "a b d c"), (NOT_HERE, "a b")]
    {
        let shared = world::copy_of(&world.shared);
        let world = World { shared, ..World::new(json!({"failover": {"max_attempts": 4}})) };
        let fates = ["a", "b", "c", "d"].map(|id| (id, fate));
        let sent = world.play(&world.response("1", "resp_1"), &fates);
        assert_eq!(sent.to, expected);
    }
}

#[test]
fn a_removed_owner_has_nothing_any_more() {
    let world = World::with_response(json!({}));
    let mut config = config(json!({}));
    config["pools"][0]["credentials"].as_array_mut().unwrap().remove(0);
    let world = world.reconfigured(&config);
    assert_ne!(said(&world.response("1", "resp_1")).1, Outcome::Pinned);
}

#[test]
fn tenants_share_no_pin() {
    let scope = json!({"session": {"scope": [{"header": "x-tenant"}]}});
    let world = World::new(scope);
    let ask = |tenant: &str, body: &Value| {
        let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-tenant", tenant)];
        world.decide(&headers, body)
    };
    world.play(&ask("t", &json!({})), &[("a", Fate::Says(200, &[], r#"{"id":"resp_1"}"#))]);
    let body = json!({"previous_response_id": "resp_1"});
    assert_eq!(ask("t", &body).outcome(), Outcome::Pinned);
    assert_ne!(ask("u", &body).outcome(), Outcome::Pinned);
}

#[test]
fn the_reference_knows_no_pins() {
    let world = World::with_response(json!({"profile": "reference"}));
    assert_ne!(said(&world.response("1", "resp_1")).1, Outcome::Pinned);
    world.play(&world.response("1", "resp_1"), &[("b", NOT_HERE)]);
}

#[test]
fn a_month_later_a_response_is_still_followed_if_it_was_used() {
    let mut world = World::with_response(json!({}));
    for _ in 0..3 {
        world.now += 25 * 24 * HOUR;
        let decision = world.response("1", "resp_1");
        assert_eq!(decision.outcome(), Outcome::Pinned);
        world.play(&decision, &[]);
    }
}
