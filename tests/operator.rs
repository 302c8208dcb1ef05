//! The operator's page: who may call it, what it shows, and what an operator can do. Requests in,
//! replies out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::cell::RefCell;

use serde_json::{Value, json};
use session_affinity::operator::{MOST_BYTES, Reply, changes};
use session_affinity::outcome::Outcome;
use session_affinity::request::Headers;
use session_affinity::shared::SharedData;
use world::{Fate, HOUR, MINUTE, SECOND, World, is, said};

const LIMIT: Fate<'_> = Fate::Says(429, &[("retry-after", "600")], "");

/// Three credentials, tried by id.
fn config() -> Value {
    json!({
        "routing": {"strategy": "fill-first"},
        "pools": [{
            "name": "p/q", "provider": "claude",
            "match": {"models": ["claude-opus-5", "m*", "n"]},
            "credentials": [
                {"id": "a", "cluster": "a", "group": "organization"},
                {"id": "b", "cluster": "b"},
                {"id": "c", "cluster": "c", "state": "drain"},
            ],
        }],
    })
}

fn world() -> World {
    World::of(&config())
}

impl World {
    fn call(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers: Headers = headers.iter().copied().collect();
        self.router.operate(&headers, body.as_bytes(), &self.shared, &counted, self.now)
    }

    fn get(&self, path: &str) -> Reply {
        self.call(&[(":method", "GET"), (":path", path), (":authority", "127.0.0.1:9902")], "")
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        let headers = [
            (":method", "POST"),
            (":path", path),
            (":authority", "localhost:9902"),
            ("content-type", "application/json"),
            ("origin", "http://localhost:9902"),
        ];
        self.call(&headers, body)
    }

    /// Does something to a credential; gives the number of changes.
    fn act(&self, credential: &str, action: &str, body: &str) -> u64 {
        let reply = self.post(&format!("/credentials/p%2Fq/{credential}/{action}"), body);
        assert_eq!(reply.status, 200, "{}", text(&reply));
        json_of(&reply)["changed"].as_u64().unwrap()
    }

    fn state(&self) -> Value {
        json_of(&self.get("/state"))
    }

    fn credential(&self, at: usize) -> Value {
        self.state()["credentials"][at].clone()
    }

    fn serves(&self, session: &str) -> (String, Outcome) {
        let decision = self.ask(session, "m");
        if decision.outcome() != Outcome::AuthUnavailable {
            self.play(&decision, &[]);
        }
        said(&decision)
    }

    /// The whole of shared data.
    fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let mut keys = self.shared.keys();
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), self.shared.get(&key).value)).collect()
    }
}

/// What Envoy has counted.
fn counted(name: &str) -> u64 {
    match name {
        "pool=.=p/q;.;outcome=.=hit;.;type=.=input;.;session_affinity_tokens_total" => 100,
        "pool=.=p/q;.;outcome=.=hit;.;type=.=cache_write;.;session_affinity_tokens_total" => 200,
        "pool=.=p/q;.;outcome=.=hit;.;type=.=cache_read;.;session_affinity_tokens_total" => 700,
        "pool=.=p/q;.;outcome=.=hit;.;type=.=output;.;session_affinity_tokens_total" => 5_000,
        "pool=.=p/q;.;outcome=.=miss;.;type=.=input;.;session_affinity_tokens_total" => 50,
        _ => 0,
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {}", text(reply)))
}

#[test]
fn a_drained_credential_keeps_its_sessions_and_takes_no_new_one() {
    let mut world = world();
    assert_eq!(world.serves("1"), is("a", Outcome::Miss));
    assert_eq!(world.act("a", "drain", r#"{"minutes":30}"#), 1);
    assert_eq!(world.act("a", "drain", r#"{"minutes":30}"#), 0, "nothing changes");
    assert_eq!(world.credential(0)["state"], "draining");
    assert_eq!(world.serves("1"), is("a", Outcome::Hit));
    assert_eq!(world.serves("2"), is("b", Outcome::Miss));
    assert_eq!(world.out_for("m"), "a:drain");
    world.now += 30 * MINUTE;
    assert_eq!(world.credential(0)["state"], "ready", "it ends by itself");
    assert_eq!(world.serves("3"), is("a", Outcome::Miss));
}

#[test]
fn a_released_credential_gets_no_request_and_its_sessions_new_homes() {
    let world = world();
    world.serves("1");
    assert_eq!(world.act("a", "release", "{}"), 1);
    assert_eq!(world.credential(0)["state"], "disabled");
    assert_eq!(world.serves("1"), is("b", Outcome::Rebind));
    assert_eq!(world.act("b", "release", "{}"), 1);
    assert_eq!(world.serves("1"), is("503", Outcome::AuthUnavailable));
    assert_eq!(world.act("a", "activate", "{}"), 1);
    assert_eq!(world.act("b", "activate", "{}"), 1);
    assert_eq!(world.serves("1"), is("b", Outcome::Hit), "the session has moved for good");
}

#[test]
fn nothing_fails_over_to_a_credential_that_an_operator_took_away() {
    for action in ["drain", "release"] {
        let world = World::of(&json!({
            "routing": {"strategy": "fill-first"},
            "pools": [{"name": "p/q", "provider": "claude", "credentials": [
                {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"},
            ]}],
        }));
        world.act("b", action, "{}");
        assert_eq!(world.play(&world.ask("1", "m"), &[("a", LIMIT)]).to, "a c", "{action}");
    }
}

#[test]
fn an_operator_cannot_add_what_the_configuration_takes_away() {
    let world = world();
    assert_eq!(world.credential(2)["state"], "draining");
    assert_eq!(world.act("c", "activate", "{}"), 0);
    assert_eq!(world.credential(2)["state"], "draining");
    assert_eq!(world.credential(2)["configured"], "drain");
}

#[test]
fn what_an_operator_wants_outlives_cooldowns_and_successes() {
    let mut world = world();
    world.serves("1");
    world.now += SECOND;
    world.act("a", "drain", "{}");
    world.play(&world.ask("1", "m"), &[("a", Fate::Says(429, &[("retry-after", "60")], ""))]);
    assert_eq!(world.credential(0)["blocks"][0]["reason"], "announced");
    world.now += 2 * MINUTE;
    assert_eq!(world.serves("1"), is("a", Outcome::Return));
    assert_eq!(world.credential(0)["state"], "draining");
}

#[test]
fn blocks_are_shown_with_their_reason_and_can_be_cleared() {
    let mut config = config();
    let credentials = config["pools"][0]["credentials"].as_array_mut().unwrap();
    credentials.push(json!({"id": "d", "cluster": "d"}));
    let mut world = World::of(&config);
    world.play(&world.ask("1", "m"), &[("a", Fate::Status(401))]);
    let opus = || world.ask("2", "claude-opus-5");
    let family = [
        ("anthropic-ratelimit-unified-representative-claim", "7d_opus"),
        ("anthropic-ratelimit-unified-reset", "1000600"),
        ("anthropic-ratelimit-unified-status", "rejected"),
    ];
    world.play(&opus(), &[("b", Fate::Says(429, &family, ""))]);
    let a = world.credential(0);
    assert_eq!(a["state"], "blocked");
    let block = &a["blocks"][0];
    assert_eq!(
        [&block["scope"], &block["class"], &block["reason"], &block["status"]],
        [&json!("credential"), &json!("denied"), &json!("guessed"), &json!(401)]
    );
    assert_eq!(block["since"], world.now.as_millis());
    assert_eq!(block["until"], (world.now + MINUTE).as_millis());
    let b = world.credential(1);
    assert_eq!(b["state"], "partly_blocked", "only some models are blocked: {b}");
    assert_eq!(b["blocks"][0]["model"], "opus");
    let id = block["id"].as_str().unwrap();
    assert_eq!(world.act("b", "clear", &format!(r#"{{"block":"{id}"}}"#)), 0, "it has another");
    assert_eq!(world.act("a", "clear", &format!(r#"{{"block":"{id}"}}"#)), 1);
    assert_eq!(world.credential(0)["state"], "ready");
    assert_eq!(world.act("b", "clear", "{}"), 1);
    assert_eq!(world.credential(1)["blocks"], json!([]));
    world.now += SECOND;
    assert_eq!(world.out_for("m"), "");
}

#[test]
fn a_block_of_a_model_is_named_where_the_configuration_names_the_model() {
    let world = world();
    for (model, shown) in [("n", Some("n")), ("m5", None)] {
        let error =
            json!({"error": {"type": "not_found_error", "message": format!("model: {model}")}});
        let missing = Fate::Says(404, &[], &error.to_string());
        world.play(&world.ask(model, model), &[("a", missing)]);
        let blocks = world.credential(0)["blocks"].clone();
        let block = blocks.as_array().unwrap().last().unwrap();
        assert_eq!(block["scope"], "model", "{blocks}");
        assert_eq!(
            block["model"].as_str().unwrap(),
            shown.unwrap_or(block["id"].as_str().unwrap())
        );
    }
}

#[test]
fn sessions_and_tables_are_counted() {
    let mut world = world();
    for session in ["1", "2", "3"] {
        world.serves(session);
    }
    world.play(&world.ask("4", "m"), &[("a", LIMIT)]);
    let state = world.state();
    assert_eq!(state["credentials"][0]["sessions"], 3);
    assert_eq!(state["credentials"][1]["sessions"], 1);
    assert_eq!(state["credentials"][1]["group"], Value::Null);
    assert_eq!(state["credentials"][0]["group"].as_str().unwrap().len(), 8);
    assert_eq!(state["tables"]["sessions"], json!({"slots": 65_536, "live": 4}));
    assert_eq!(state["tables"]["pins"]["live"], 0);
    world.now += 2 * HOUR;
    assert_eq!(world.state()["tables"]["sessions"]["live"], 0, "they have ended");
}

#[test]
fn a_large_table_is_estimated() {
    let mut config = config();
    config["session"] = json!({"max_bindings": 1 << 20});
    let world = World::of(&config);
    for session in 0..4_000 {
        world.serves(&session.to_string());
    }
    let sessions = world.state()["tables"]["sessions"].clone();
    assert_eq!(sessions["estimated"], 1);
    let live = sessions["live"].as_u64().unwrap();
    assert!((2_000..6_000).contains(&live), "{live}");
}

#[test]
fn a_session_is_forgotten_by_its_digits_or_its_id() {
    let world = world();
    for forget in [0, 1] {
        let decision = world.ask("my-session", "m");
        world.play(&decision, &[]);
        let words = decision.to_string();
        let digits = words
            .split_once("gen_ai.conversation.id=")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        let body = [json!({"session": digits}), json!({"id": "my-session", "model": "m"})];
        let reply = world.post("/sessions/forget", &body[forget].to_string());
        assert_eq!((reply.status, json_of(&reply)["changed"].as_u64()), (200, Some(1)));
        let done = reply.done.unwrap();
        assert_eq!(done, format!("operator: what=forgotten session={digits}"));
        assert_eq!(said(&world.ask("my-session", "m")), is("a", Outcome::Miss));
        world.post("/sessions/forget", &body[forget].to_string());
        let again = world.post("/sessions/forget", &body[forget].to_string());
        assert_eq!(again.status, 404, "it is gone");
    }
}

#[test]
fn the_cached_share_of_prompts_is_shown_by_decision() {
    let pools = json!([{"name": "p/q", "decisions": [
        {"outcome": "hit", "prompt_tokens": 1_000, "cached_tokens": 700},
        {"outcome": "miss", "prompt_tokens": 50, "cached_tokens": 0},
    ]}]);
    assert_eq!(world().state()["pools"], pools);
}

#[test]
fn changes_are_shown_the_newest_first() {
    let world = world();
    let decision = world.ask("1", "m");
    let mut plan = world.router.plan(world::routed(&decision), world.now);
    world.attempt(&mut plan);
    let verdict = world.end(&mut plan, Fate::Says(429, &[("retry-after", "60")], ""));
    changes::note_cooldowns(&world.shared, plan.pool, &verdict.changes, world.now);
    world.act("b", "drain", r#"{"minutes":1}"#);
    let until = (world.now + MINUTE).as_millis();
    let at = world.now.as_millis();
    assert_eq!(
        world.state()["changes"],
        json!([
            {"at": at, "what": "drained", "by": "operator", "pool": "p/q", "credential": "b",
             "until": until, "times": 1},
            {"at": at, "what": "model_blocked", "by": "provider", "pool": "p/q", "credential": "a",
             "class": "rate_limit", "status": 429, "until": until, "times": 1},
        ])
    );
}

#[test]
fn no_key_and_no_whole_id_is_shown() {
    let mut config = config();
    config["pools"][0]["credentials"][0]["headers"] =
        json!([{"name": "x-api-key", "header": "x-secret-of-a"}]);
    let world = World::of(&config);
    let decision = world.ask("a-session-of-a-client", "m-of-a-client");
    world.play(&decision, &[("a", Fate::Status(401))]);
    let state = text(&world.get("/state"));
    for secret in ["x-secret-of-a", "a-session-of-a-client", "m-of-a-client", "organization"] {
        assert!(!state.contains(secret), "{secret} is in {state}");
    }
}

#[test]
fn only_names_of_the_loopback_interface_and_configured_ones_are_hosts() {
    let mut config = config();
    config["operator"] = json!({"hosts": ["Operator.Example"]});
    let world = World::of(&config);
    for (host, status) in [
        ("localhost", 200),
        ("localhost:9902", 200),
        ("127.0.0.1:9902", 200),
        ("127.9.9.9", 200),
        ("[::1]:9902", 200),
        ("operator.example:80", 200),
        ("OPERATOR.example", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:9902", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("", 403),
    ] {
        for path in ["/", "/state", "/nothing"] {
            let headers = [(":method", "GET"), (":path", path), (":authority", host)];
            let found = world.call(&headers, "").status;
            let expected = if status == 200 && path == "/nothing" { 404 } else { status };
            assert_eq!(found, expected, "{host} {path}");
        }
    }
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let world = world();
    let forged = |content_type: &str, origin: Option<&str>| {
        let mut headers = vec![
            (":method", "POST"),
            (":path", "/credentials/p%2Fq/a/release"),
            (":authority", "localhost:9902"),
            ("content-type", content_type),
        ];
        headers.extend(origin.map(|origin| ("origin", origin)));
        world.call(&headers, "{}").status
    };
    let before = world.everything();
    for origin in [
        "http://evil.example",
        "null",
        "",
        "http://localhost",
        "http://localhost:9903",
        "http://localhost:9902.evil.example",
        "localhost:9902",
        "file://localhost:9902",
    ] {
        assert_eq!(forged("application/json", Some(origin)), 403, "{origin:?}");
    }
    for content_type in
        ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
    {
        assert_eq!(forged(content_type, None), 415, "{content_type:?}");
    }
    assert_eq!(world.everything(), before);
    assert_eq!(
        forged(
            "application/json; charset=utf-8",
            Some("HTTP://localhost:9902".to_lowercase().as_str())
        ),
        200
    );
    assert_eq!(forged("application/json", None), 200);
}

/// It cannot read the reply, but each costs a worker milliseconds.
#[test]
fn a_page_of_another_origin_cannot_even_ask_for_the_state() {
    let world = world();
    let status = |site, path| {
        let host = (":authority", "127.0.0.1:9902");
        let headers = [(":method", "GET"), (":path", path), host, ("sec-fetch-site", site)];
        world.call(&headers, "").status
    };
    for (site, expected) in
        [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
    {
        assert_eq!(status(site, "/state"), expected, "{site}");
        assert_eq!(status(site, "/"), 200, "a link may lead to the page");
    }
}

/// What is asked for is known to Envoy from then on, as a series for Prometheus.
#[test]
fn no_counter_is_asked_for_that_cannot_have_counted() {
    let world = world();
    let asked = RefCell::new(Vec::new());
    let counted = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        0
    };
    let headers = [(":method", "GET"), (":path", "/state"), (":authority", "localhost")];
    let headers: Headers = headers.into_iter().collect();
    world.router.operate(&headers, b"", &world.shared, &counted, world.now);
    let is_of = |word: &str| asked.borrow().iter().any(|name| name.contains(word));
    assert!(is_of("=hit;") && is_of("=none;"));
    for outcome in ["unmatched", "model_cooldown", "auth_unavailable", "unauthorized"] {
        assert!(!is_of(outcome), "{outcome}");
    }
}

#[test]
fn what_is_not_there_and_what_is_wrong_gets_an_error_in_json() {
    let world = world();
    let before = world.everything();
    let too_long = format!(r#"{{"id":"{}"}}"#, "x".repeat(MOST_BYTES));
    for (method, path, body, status) in [
        ("GET", "/nothing", "", 404),
        ("GET", "/v1/messages", "", 404),
        ("GET", "//state", "", 404),
        ("POST", "/credentials/p%2Fq/z/drain", "{}", 404),
        ("POST", "/credentials/p/a/drain", "{}", 404),
        ("POST", "/credentials/p%2Fq/a/explode", "{}", 404),
        ("POST", "/credentials/p%2/a/drain", "{}", 404),
        ("POST", "/credentials/p%zzq/a/drain", "{}", 404),
        ("POST", "/credentials/%C3/a/drain", "{}", 404),
        ("POST", "/", "{}", 405),
        ("POST", "/state", "{}", 405),
        ("HEAD", "/state", "", 405),
        ("GET", "/sessions/forget", "", 405),
        ("GET", "/credentials/p%2Fq/a/drain", "", 405),
        ("DELETE", "/credentials/p%2Fq/a/drain", "", 405),
        ("POST", "/credentials/p%2Fq/a/drain", "", 400),
        ("POST", "/credentials/p%2Fq/a/drain", "[]", 400),
        ("POST", "/credentials/p%2Fq/a/drain", r#"{"minutes":0}"#, 400),
        ("POST", "/credentials/p%2Fq/a/drain", r#"{"minutes":1441}"#, 400),
        ("POST", "/credentials/p%2Fq/a/drain", r#"{"minutes":"5"}"#, 400),
        ("POST", "/credentials/p%2Fq/a/drain", r#"{"hours":1}"#, 400),
        ("POST", "/credentials/p%2Fq/a/clear", r#"{"block":"xyz"}"#, 400),
        ("POST", "/credentials/p%2Fq/a/clear", r#"{"block":"+1234567"}"#, 400),
        ("POST", "/sessions/forget", "{}", 400),
        ("POST", "/sessions/forget", r#"{"session":"00000000","id":"x"}"#, 400),
        ("POST", "/sessions/forget", r#"{"id":""}"#, 400),
        ("POST", "/sessions/forget", r#"{"session":"00000000"}"#, 404),
        ("POST", "/sessions/forget", &too_long, 413),
    ] {
        let headers = [
            (":method", method),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/json"),
        ];
        let reply = world.call(&headers, body);
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", text(&reply));
        assert!(json_of(&reply)["error"].is_string());
        assert!(reply.headers.contains(&("content-type", "application/json")));
        let allowed = reply.headers.iter().find(|(name, _)| *name == "allow");
        assert_eq!(allowed.is_some(), status == 405, "{method} {path}");
    }
    assert_eq!(world.everything(), before);
}

#[test]
fn get_changes_nothing() {
    let world = world();
    world.play(&world.ask("1", "m"), &[("a", LIMIT)]);
    let before = world.everything();
    for path in ["/", "/page.css", "/page.js", "/state", "/state?x=1"] {
        assert_eq!(world.get(path).status, 200, "{path}");
    }
    assert_eq!(world.everything(), before);
}

#[test]
fn only_known_keys_of_shared_data_are_written() {
    let world = world();
    world.serves("1");
    for action in ["drain", "release", "activate", "clear"] {
        world.act("a", action, "{}");
    }
    world.post("/sessions/forget", r#"{"id":"1","model":"m"}"#);
    let known: Vec<_> = world.router.shared_keys().collect();
    assert!(world.shared.keys().iter().all(|key| known.contains(key)));
}

#[test]
fn the_page_is_small_and_needs_nothing_from_elsewhere() {
    let world = world();
    let mut size = 0;
    for (path, file) in [("/", "page.html"), ("/page.css", "page.css"), ("/page.js", "page.js")] {
        let plain = world.get(path);
        let source = std::fs::read(format!("src/operator/page/{file}")).unwrap();
        assert_eq!(plain.body, source, "{path}");
        let source = String::from_utf8(source).unwrap();
        assert!(!source.contains("//") || file == "page.js", "{file} names another host");
        for elsewhere in ["http:", "https:", "@import", "url(", "innerHTML", "eval", "style="] {
            assert!(!source.contains(elsewhere), "{file} has {elsewhere}");
        }
        let headers = [
            (":method", "GET"),
            (":path", path),
            (":authority", "localhost"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
        ];
        let compressed = world.call(&headers, "");
        assert!(compressed.headers.contains(&("content-encoding", "gzip")));
        assert!(
            compressed.body.starts_with(b"\x1f\x8b") && compressed.body.len() < plain.body.len()
        );
        size += plain.body.len();
    }
    assert!(size <= 13 << 10, "{size} bytes");
    let policy = Reply::SECURITY.iter().find(|(name, _)| *name == "content-security-policy");
    let policy = policy.unwrap().1;
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
}

#[test]
fn in_the_profile_reference_the_page_only_shows() {
    let mut config = config();
    config["profile"] = json!("reference");
    config["routing"]["session_affinity"] = json!(true);
    let world = World::of(&config);
    world.answer(&world.ask("1", "m"), 429, &[], "");
    let reply = world.post("/credentials/p%2Fq/a/drain", "{}");
    assert_eq!(reply.status, 409);
    let state = world.state();
    assert_eq!(state["profile"], "reference");
    assert_eq!(state["credentials"][0]["state"], "blocked");
    assert_eq!(state["credentials"][0]["blocks"][0]["class"], "rate_limit");
}
