//! What a client may not do to others, and where nothing of a key, an id or a prompt may be: on the
//! core, data in and data out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::metrics::{Kind, Ledger, Sink};
use session_affinity::request::{Headers, Request};
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, NextStep, Router};
use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};
use session_affinity::time::Timestamp;
use world::{Fate, World, routed};

fn pool(ids: &[&str]) -> Value {
    let credentials: Vec<_> = ids.iter().map(|id| json!({"id": id, "cluster": id})).collect();
    json!([{"name": "p", "provider": "claude", "credentials": credentials}])
}

#[test]
fn what_a_client_gets_refused_everywhere_starts_no_cooldown_for_others() {
    for status in [400, 404, 405, 408, 409, 411, 413, 415, 422, 431] {
        let world = World::of(&json!({"pools": pool(&["a", "b", "c"])}));
        for attack in 0..200 {
            let model = if attack % 2 == 0 { "claude-opus-5" } else { "made up" };
            let decision = world.ask(&format!("{attack}"), model);
            world.play(&decision, &["a", "b", "c"].map(|id| (id, Fate::Status(status))));
        }
        assert_eq!(world.out_for("claude-opus-5"), "", "{status}");
        assert_eq!(world.out_for("claude-sonnet-5"), "", "{status}");
    }
}

#[test]
fn a_request_goes_to_no_more_credentials_than_max_attempts_whatever_fails() {
    const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let fates = [
        Fate::Status(500),
        Fate::Status(429),
        Fate::Status(401),
        Fate::Says(429, &[("retry-after", "0")], ""),
        Fate::Failed(Failure::Stale),
        Fate::Failed(Failure::Reset),
        Fate::Event(r#"{"error":{"type":"overloaded_error"}}"#),
        Fate::Status(529),
    ];
    for most in 1..=8 {
        for first in 0..fates.len() {
            let failover = json!({"max_attempts": most});
            let world = World::of(&json!({"failover": failover, "pools": pool(&IDS)}));
            for session in 0..4 {
                let decision = world.ask(&session.to_string(), "m");
                let Decision::Route(_) = &decision else { continue };
                let mut at = first + session;
                let each = IDS.map(|id| {
                    at += 1;
                    (id, fates[at % fates.len()])
                });
                let sent = world.play(&decision, &each).to;
                let mut times = BTreeMap::new();
                sent.split(' ').for_each(|id| *times.entry(id).or_insert(0) += 1);
                assert!(times.len() <= most, "{most}: {sent}");
                // Once more on the same credential, whose connection was stale.
                assert!(times.values().all(|times| *times <= 2), "{most}: {sent}");
                assert!(sent.split(' ').count() <= most + 1, "{most}: {sent}");
            }
        }
    }
}

/// Shared data that counts what is read of it.
struct Counted<'s>(&'s InMemory, Cell<usize>, Cell<usize>);

impl SharedData for Counted<'_> {
    fn get(&self, key: &str) -> Stored {
        let stored = self.0.get(key);
        self.1.set(self.1.get() + 1);
        self.2.set(self.2.get() + stored.value.len());
        stored
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        self.0.set(key, value, cas)
    }
}

/// Equal answers, and equal work: a client that names the id or the session of another tenant does
/// not learn whether there is one.
#[test]
fn what_another_tenant_has_is_answered_as_what_no_tenant_has() {
    let scope = json!([{"header": "x-tenant"}]);
    let world = World::of(&json!({
        "routing": {"strategy": "consistent"}, "session": {"scope": scope, "max_bindings": 16},
        "pins": {"max": 16}, "pools": pool(&["a", "b", "c"]),
    }));
    let ask = |tenant: &str, session: &str, id: &str| {
        let headers = [
            (":method", "POST"),
            (":path", "/v1/responses"),
            ("x-tenant", tenant),
            ("x-session-id", session),
        ];
        let headers: Headers = headers.into_iter().collect();
        let body = json!({"model": "m", "previous_response_id": id}).to_string();
        let body = world.router.read_body(body.as_bytes());
        let copy = world::copy_of(&world.shared);
        let counted = Counted(&copy, Cell::new(0), Cell::new(0));
        let decision = world.router.route(&Request::new(&headers, body), &counted, world.now);
        (decision.outcome(), counted.1.get())
    };
    let victim = |session: &str, id: &str| {
        let headers = [
            (":method", "POST"),
            (":path", "/v1/responses"),
            ("x-tenant", "victim"),
            ("x-session-id", session),
        ];
        let decision = world.decide(&headers, &json!({"model": "m"}));
        let created = json!({"id": id}).to_string();
        let created: &str = &created;
        world.play(&decision, &["a", "b", "c"].map(|it| (it, Fate::Says(200, &[], created))));
    };
    for at in 0..8 {
        victim(&format!("session {at}"), &format!("resp_{at}"));
    }
    for at in 0..8 {
        let (session, id) = (format!("session {at}"), format!("resp_{at}"));
        assert_ne!(
            ask("victim", &session, &id),
            ask("victim", "other", "resp_none"),
            "it is there"
        );
        let nothing = ask("attacker", "session none", "resp_none");
        assert_eq!(ask("attacker", &session, "resp_none"), nothing);
        assert_eq!(ask("attacker", "session none", &id), nothing);
        assert_eq!(ask("attacker", &session, &id), nothing);
    }
}

/// What the host gets of metrics.
#[derive(Default)]
struct Names(Vec<String>);

impl Sink for Names {
    fn define(&mut self, _: Kind, name: &str) -> Option<u32> {
        self.0.push(name.to_owned());
        Some(self.0.len() as u32)
    }

    fn write(&mut self, _: Kind, _: u32, _: u64) {}
}

/// A key, a session, a tenant, a prompt and an id, each of which can be found wherever it gets.
const SECRETS: [&str; 5] =
    ["sk-ant-THE-KEY", "THE-SESSION", "THE-TENANT", "THE PROMPT", "resp_THE_ID"];

#[test]
fn no_filter_state_error_metric_word_or_value_holds_a_key_an_id_or_a_prompt() {
    let keys = json!([{"name": "x-api-key", "environment": "KEY"}]);
    let credentials = ["a", "b"].map(|id| json!({"id": id, "cluster": "shared", "headers": keys}));
    let config = json!({
        "session": {"scope": [{"header": "x-tenant"}], "max_bindings": 16}, "pins": {"max": 16},
        "pools": [{"name": "p", "credentials": credentials}],
    });
    let key = |_: &str| Some(SECRETS[0].to_owned());
    let config = Config::parse_with(config.to_string().as_bytes(), &key).unwrap();
    let mut written = vec![format!("{config:?}")];
    let shared = InMemory::default();
    let router = Router::new(config, Seed::agree(&shared, [7; 16]));
    let mut now = Timestamp::from_secs(1_795_262_400);
    let headers = [
        (":method", "POST"),
        (":path", "/v1/responses"),
        ("x-session-id", SECRETS[1]),
        ("x-tenant", SECRETS[2]),
        ("authorization", SECRETS[0]),
    ];
    let headers: Headers = headers.into_iter().collect();
    let body = json!({"model": "m", "input": SECRETS[3], "previous_response_id": SECRETS[4]});
    let body = body.to_string();
    let request = Request::new(&headers, router.read_body(body.as_bytes()));
    let limit: Headers = [("retry-after", "600")].into_iter().collect();
    let quoted = SECRETS.join(" ");
    let mut keys_sent = 0;
    for (status, headers) in
        [(200, &Headers::default()), (500, &limit), (429, &limit), (429, &limit)]
    {
        let decision = router.route(&request, &shared, now);
        written.push(decision.words());
        match &decision {
            Decision::Reply(refusal) => written.push(refusal.reply.body.clone()),
            Decision::Pass => panic!("a pool serves it"),
            Decision::Route(_) => {
                let mut plan = router.plan(routed(&decision), now);
                loop {
                    match router.attempt(&mut plan, "shared", &shared, now) {
                        Some(NextStep::Send { credential, .. }) => {
                            keys_sent += credential.headers.len();
                        }
                        Some(NextStep::Reply(reply)) => written.push(reply.body),
                        None => break,
                    }
                    let response = Response::Received { status, headers, body: quoted.as_bytes() };
                    let verdict = router.observe(&mut plan, &response, &shared, now);
                    written.push(format!("{} {:?}", verdict.observed, verdict.changes));
                    written.push(plan.encode().escape_ascii().to_string());
                    if verdict.next.is_none() {
                        break;
                    }
                }
                let pool = router.pool_of(&plan).unwrap();
                written.push(router.no_response(&plan, pool, Failure::Reset).body);
                written.extend(router.two_models(&plan).map(|reply| reply.body));
            }
        }
        now += world::SECOND;
    }
    assert!(keys_sent > 0, "the filter has the keys");
    for key in shared.keys() {
        written.push(format!("{key} {}", shared.get(&key).value.escape_ascii()));
    }
    let (mut ledger, mut names) = (Ledger::default(), Names::default());
    router.set_gauges(&mut ledger, &shared, now);
    ledger.flush(&mut names);
    assert!(!names.0.is_empty());
    written.extend(names.0);
    let state = [(":method", "GET"), (":path", "/state"), (":authority", "localhost")];
    let reply = router.operate(&state.into_iter().collect(), b"", &shared, &|_| 0, now);
    assert_eq!(reply.status, 200);
    written.push(String::from_utf8(reply.body.into_owned()).unwrap());
    for text in &written {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
