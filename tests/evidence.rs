//! Evidence before blame: what a failure proves, which cooldown follows, and when a credential is
//! tried in spite of one. Requests are sent as Envoy sends them, attempt after attempt.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::config::Config;
use session_affinity::outcome::{Failover, Outcome};
use session_affinity::reply::LocalReply;
use session_affinity::request::Headers;
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, NextStep, Plan, Refusal};
use session_affinity::shared::Cas;
use session_affinity::shared::SharedData;
use session_affinity::time::Timestamp;
use world::{Fate, HOUR, MINUTE, SECOND, World, is, out, routed, said};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);

/// A key that is dead, as OpenAI says it: proof.
const DEAD_KEY: Fate<'_> =
    Fate::Says(401, &[], r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key"}}"#);
const OVERLOADED_EVENT: Fate<'_> =
    Fate::Event(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);

const fn limited<'a>(retry_after: &'a [(&'a str, &'a str)]) -> Fate<'a> {
    Fate::Says(429, retry_after, "")
}

/// Two credentials that are chosen by id, and these sections; `credentials` and `pool` go into the
/// pool.
fn config(sections: Value) -> Value {
    let mut config = json!({
        "routing": {"strategy": "fill-first"},
        "pools": [{"name": "p", "provider": "claude", "credentials": [
            {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}
        ]}]
    });
    for (name, section) in sections.as_object().unwrap() {
        match name.as_str() {
            "credentials" => config["pools"][0]["credentials"] = section.clone(),
            "pool" => {
                let pool = config["pools"][0].as_object_mut().unwrap();
                pool.extend(section.as_object().unwrap().clone());
            }
            _ => config[name] = section.clone(),
        }
    }
    config
}

fn world(sections: Value) -> World {
    World::of(&config(sections))
}

/// So many credentials, each on a cluster of its own: `a`, `b`, `c`, …
fn clusters(count: u8) -> Value {
    let ids = (b'a'..b'a' + count).map(|id| char::from(id).to_string());
    ids.map(|id| json!({"id": id, "cluster": id})).collect()
}

fn alone() -> World {
    world(json!({"credentials": clusters(1)}))
}

/// Credentials that share a cluster: the filter injects their keys.
fn keys() -> Value {
    let header = |id: &str| json!([{"name": "x-api-key", "header": format!("x-key-{id}")}]);
    ["a", "b"].map(|id| json!({"id": id, "cluster": "shared", "headers": header(id)})).into()
}

impl World {
    /// A request for a generation, as its credentials respond: where it went.
    fn goes(&self, session: &str, fates: &[(&str, Fate<'_>)]) -> String {
        self.play(&self.ask(session, "m"), fates).to
    }

    /// What is out for a request that no session has sent.
    fn out(&self) -> String {
        self.out_for("m")
    }

    /// What a request on another path meets.
    fn on(&self, path: &str, session: &str) -> Decision<'_> {
        let headers = [(":method", "POST"), (":path", path), ("x-session-id", session)];
        self.decide(&headers, &json!({"model": "m"}))
    }
}

fn refusal(decision: &Decision<'_>) -> LocalReply {
    match decision {
        Decision::Reply(Refusal { reply, .. }) => reply.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_attempt_belongs_to_the_cluster_on_which_it_runs() {
    let world = world(json!({"credentials": clusters(3)}));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let step = world.router.attempt(&mut plan, "b", &world.shared, world.now);
    let Some(NextStep::Send { credential, .. }) = step else { panic!("{step:?}") };
    assert_eq!(credential.id, "b", "though the plan names a");
    world.end(&mut plan, limited(&[("retry-after", "60")]));
    assert_eq!(world.out(), "b:rate_limit:60s", "a was never sent anything");
    assert_eq!(world.attempt(&mut plan), "c", "b is not tried again");
    world.end(&mut plan, Fate::Status(200));
    assert_eq!(
        said(&world.ask("1", "m")),
        is("c", Outcome::Hit),
        "it is bound where it was served"
    );
    world.goes("3", &[("a", limited(&[("retry-after", "60")]))]);
    assert_eq!(world.out(), "a:rate_limit:60s,b:rate_limit:60s");
}

#[test]
fn on_a_cluster_that_the_plan_does_not_know_nothing_is_recorded_and_no_request_goes_without_a_key()
{
    let world = world(json!({}));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    assert!(world.router.attempt(&mut plan, "z", &world.shared, world.now).is_none());

    let world = World::of(&config(json!({"credentials": keys()})));
    let plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let unknown = session_affinity::config::CredentialId(7);
    for (mut plan, cluster) in [
        (plan.clone(), "z"),
        (Plan { next: Some(unknown), rest: vec![], ..plan.clone() }, "shared"),
        (Plan { pool: session_affinity::config::PoolId(7), ..plan.clone() }, "shared"),
    ] {
        match world.router.attempt(&mut plan, cluster, &world.shared, world.now) {
            Some(NextStep::Reply(reply)) => {
                assert_eq!((reply.status, reply.retry_after), (503, Some(1)), "{cluster}");
            }
            other => panic!("{cluster}: {other:?}"),
        }
    }
}

#[test]
fn what_a_replica_does_that_is_removed_is_not_blamed_on_the_last_one() {
    let replica = |id: &str, port: u16| json!({"id": id, "cluster": "shared", "endpoint": format!("10.0.0.1:{port}")});
    let two = json!({"credentials": [replica("a", 8001), replica("b", 8002)]});
    let world = World::of(&config(two));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let world = world.reconfigured(&config(json!({"credentials": [replica("b", 8002)]})));
    let step = world.router.attempt(&mut plan, "shared", &world.shared, world.now);
    assert!(step.is_none(), "it goes to a: {step:?}");
}

#[test]
fn no_replica_gets_the_key_of_another_one() {
    let replica = |id: &str, port: u16| {
        let headers = json!([{"name": "authorization", "header": format!("x-key-{id}")}]);
        json!({"id": id, "cluster": "shared", "endpoint": format!("10.0.0.1:{port}"), "headers": headers})
    };
    let two = json!({"credentials": [replica("a", 8001), replica("b", 8002)]});
    let is_refused = |step: Option<NextStep<'_>>| matches!(step, Some(NextStep::Reply(reply)) if reply.status == 503);
    let world = World::of(&config(two));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    let mut other = plan.clone();
    assert_eq!(world.attempt(&mut plan), "a");
    let step = world.router.without_key(&mut plan, "shared", &world.shared, world.now);
    assert!(is_refused(step), "it goes to a, which has no key yet");
    let world = world.reconfigured(&config(json!({"credentials": [replica("b", 8002)]})));
    let step = world.router.attempt(&mut other, "shared", &world.shared, world.now);
    assert!(is_refused(step), "it goes to a, which is removed");
}

#[test]
fn a_credential_whose_key_is_not_there_is_passed_over_and_not_blamed() {
    let world = World::of(&config(json!({"credentials": keys()})));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    assert_eq!(world.attempt(&mut plan), "a");
    let mut without = || world.router.without_key(&mut plan, "shared", &world.shared, world.now);
    let Some(NextStep::Send { credential, .. }) = without() else { panic!("b has its key") };
    assert_eq!(credential.id, "b");
    let Some(NextStep::Reply(reply)) = without() else { panic!("neither has") };
    assert_eq!((reply.status, reply.retry_after), (503, Some(1)));
    assert_eq!((plan.current, plan.attempts), (None, 0), "nothing was sent");
    assert_eq!(world.out(), "");

    let mut plan = world.router.plan(routed(&world.ask("2", "m")), world.now);
    world.attempt(&mut plan);
    world.router.without_key(&mut plan, "shared", &world.shared, world.now);
    world.end(&mut plan, Fate::Status(200));
    assert_eq!((world.out(), plan.attempts), (String::new(), 1));
    assert_eq!(said(&world.ask("2", "m")), is("b", Outcome::Hit), "b has served it");
}

#[test]
fn where_the_only_other_credential_has_no_key_the_client_hears_of_the_failure() {
    for (fate, status, retry_after, out) in [
        (limited(&[("retry-after", "600")]), 429, 600, "a:rate_limit:10m"),
        (Fate::Status(500), 503, 1, "a:transient:1s"),
    ] {
        let world = World::of(&config(json!({"credentials": keys()})));
        let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
        world.attempt(&mut plan);
        world.end(&mut plan, fate);
        assert_eq!(world.attempt(&mut plan), "b");
        let step = world.router.without_key(&mut plan, "shared", &world.shared, world.now);
        let Some(NextStep::Reply(reply)) = step else { panic!("{step:?}") };
        assert_eq!((reply.status, reply.retry_after), (status, Some(retry_after)));
        assert_eq!(plan.end(), Some(Failover::Exhausted));
        world.router.abandon(&mut plan, &world.shared, world.now);
        assert_eq!(world.out(), out);
    }
}

#[test]
fn proof_counts_at_once() {
    for (fate, expected) in
        [(limited(&[("retry-after", "30")]), "a:rate_limit:30s"), (DEAD_KEY, "a:denied:30m")]
    {
        let world = world(json!({}));
        let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
        world.attempt(&mut plan);
        world.end(&mut plan, fate);
        assert_eq!(world.out(), expected, "the request itself is still under way");
    }
}

#[test]
fn what_was_sent_in_the_millisecond_of_a_limit_does_not_end_it() {
    let world = world(json!({}));
    let [mut early, mut late] =
        ["1", "2"].map(|session| world.router.plan(routed(&world.ask(session, "m")), world.now));
    world.attempt(&mut early);
    world.attempt(&mut late);
    world.end(&mut early, limited(&[("retry-after", "30")]));
    world.end(&mut late, Fate::Status(200));
    assert_eq!(world.out(), "a:rate_limit:30s");
}

#[test]
fn what_a_provider_announces_outlives_a_longer_guess() {
    let mut world = world(json!({}));
    let mut early = world.router.plan(routed(&world.ask("early", "m")), world.now);
    let mut limited_too = world.router.plan(routed(&world.ask("limited", "m")), world.now);
    world.attempt(&mut early);
    world.attempt(&mut limited_too);
    for (session, pause) in [("1", 2), ("2", 3), ("3", 0)] {
        world.goes(session, &[("a", Fate::Status(500))]);
        world.now += SECOND * pause;
    }
    assert_eq!(world.out(), "a:transient:4s");
    world.end(&mut limited_too, limited(&[("retry-after", "2")]));
    assert_eq!(world.out(), "a:rate_limit:2s");
    world.end(&mut early, Fate::Status(200));
    assert_eq!(world.out(), "a:rate_limit:2s", "what was sent before proves nothing");
    world.now += SECOND * 2;
    assert_eq!(world.out(), "");
}

#[test]
fn a_suspicion_counts_when_another_credential_has_served_the_same_request() {
    let missing = r#"{"error":{"code":"model_not_found","message":"The model m does not exist"}}"#;
    for (fate, expected) in [
        (Fate::Status(500), "a:transient:1s"),
        (Fate::Status(408), "a:transient:1s"),
        (Fate::Status(529), "a:overloaded:1s"),
        (Fate::Status(429), "a:rate_limit:1s"),
        (Fate::Status(401), "a:denied:60s"),
        (Fate::Status(402), "a:denied:60s"),
        (Fate::Status(403), "a:denied:60s"),
        (Fate::Says(404, &[], missing), "a:not_found:12h"),
        (Fate::Says(503, &[("retry-after", "20")], ""), "a:transient:20s"),
        (Fate::Says(503, &[("retry-after", "86400")], ""), "a:transient:60s"),
        (Fate::Failed(Failure::Connect), "a:transient:1s"),
        (Fate::Failed(Failure::Reset), "a:transient:1s"),
        (Fate::Failed(Failure::Timeout), "a:transient:1s"),
        (Fate::Failed(Failure::Tls), "a:transient:1s"),
        (Fate::Failed(Failure::NoHost), "a:transient:15s"),
        (OVERLOADED_EVENT, "a:overloaded:1s"),
    ] {
        let world = world(json!({}));
        let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
        world.attempt(&mut plan);
        world.end(&mut plan, fate);
        assert_eq!(world.out(), "", "{fate:?}: nothing is known yet");
        assert_eq!(world.attempt(&mut plan), "b");
        world.end(&mut plan, Fate::Status(200));
        assert_eq!(world.out(), expected, "{fate:?}");
        assert_eq!(plan.end(), Some(Failover::Served));
    }
}

#[test]
fn what_every_credential_refuses_alike_blames_none() {
    let model = r#"{"error":{"code":"model_not_found","message":"The project has no access"}}"#;
    for (fate, longest) in [
        (Fate::Status(401), Duration::ZERO),
        (Fate::Status(402), Duration::ZERO),
        (Fate::Status(403), Duration::ZERO),
        (Fate::Says(403, &[], "<html>Attention Required!</html>"), Duration::ZERO),
        (Fate::Says(403, &[], model), Duration::ZERO),
        (Fate::Status(408), Duration::ZERO),
        (Fate::Status(500), Duration::ZERO),
        (Fate::Says(503, &[("retry-after", "86400")], ""), Duration::ZERO),
        (Fate::Failed(Failure::Reset), Duration::ZERO),
        (Fate::Failed(Failure::Connect), Duration::ZERO),
        (Fate::Status(429), 2 * SECOND),
        (Fate::Status(529), 2 * SECOND),
        (OVERLOADED_EVENT, 2 * SECOND),
    ] {
        for max_attempts in [2, 3] {
            let failover = json!({"max_attempts": max_attempts});
            let sections = json!({"credentials": clusters(3), "failover": failover});
            let mut world = world(sections);
            for session in 0..20 {
                let fates = ["a", "b", "c"].map(|id| (id, fate));
                let sent = world.play(&world.ask(&session.to_string(), "m"), &fates);
                let everywhere = if max_attempts == 2 { "a b" } else { "a b c" };
                assert_eq!(sent.to, everywhere, "{fate:?}");
                assert_eq!(sent.plan.end(), Some(Failover::Exhausted));
                for (id, block) in world.blocks("m") {
                    assert!(block.until() <= Some(world.now + longest), "{fate:?}: {id} {block:?}");
                }
                world.now += 2 * SECOND;
                assert_eq!(world.out(), "", "{fate:?}");
            }
            let sent = world.goes("other", &[("a", fate)]);
            assert_eq!(sent, "a b");
            for (id, block) in world.blocks("m") {
                let most = world.now + MINUTE;
                assert!(block.until() <= Some(most), "no doubling was saved up: {id} {block:?}");
            }
        }
    }
}

#[test]
fn an_overload_everywhere_does_not_add_up() {
    let mut world = world(json!({}));
    for session in 0..30 {
        let fates = [("a", Fate::Status(429)), ("b", Fate::Status(429))];
        world.goes(&session.to_string(), &fates);
        world.now += SECOND;
    }
    assert_eq!(world.goes("x", &[("a", Fate::Status(429))]), "a b");
    assert!(["a:rate_limit:1s", "a:rate_limit:2s"].contains(&world.out().as_str()));
}

#[test]
fn failures_that_differ_count_as_without_a_second_opinion() {
    let world = world(json!({}));
    world.goes("1", &[("a", Fate::Status(403)), ("b", Fate::Status(500))]);
    let decision = world.ask("2", "m");
    assert_eq!(out(&decision), "a:denied:1s,b:transient:1s");
    assert_eq!(decision.outcome(), Outcome::Probe);
}

#[test]
fn a_success_of_any_session_ends_a_guess_and_leaves_proof_that_is_newer() {
    let mut world = alone();
    let early = world.router.plan(routed(&world.ask("1", "m")), world.now);
    world.now += MS;
    world.goes("2", &[("a", Fate::Status(500))]);
    assert_eq!(world.out(), "a:transient:1s");
    let mut plan = early.clone();
    world.attempt(&mut plan);
    plan.sent = early.sent;
    let verdict = world.end(&mut plan, Fate::Status(200));
    assert_eq!(verdict.changes.len(), 1, "the end of a cooldown is reported");
    assert_eq!(world.out(), "");

    world.goes("4", &[("a", DEAD_KEY)]);
    let mut plan = early.clone();
    world.attempt(&mut plan);
    plan.sent = early.sent;
    world.end(&mut plan, Fate::Status(200));
    assert_eq!(world.out(), "a:denied:30m", "it was sent before the key died");
    world.now += MS;
    world.goes("6", &[]);
    assert_eq!(world.out(), "", "a later request was served");
}

#[test]
fn a_slow_upload_is_the_clients_until_another_request_fails_so() {
    let mut world = alone();
    world.goes("1", &[("a", Fate::Status(408))]);
    assert_eq!(world.out(), "");
    world.now += SECOND;
    world.goes("2", &[("a", Fate::Status(408))]);
    assert_eq!(world.out(), "a:transient:2s");
}

#[test]
fn an_announced_limit_holds_to_its_end_and_is_probed_by_one_request_at_a_time() {
    let mut world = alone();
    let three_days = (3 * 86_400).to_string();
    let hint = [("retry-after", three_days.as_str())];
    world.goes("1", &[("a", limited(&hint))]);
    let end = world.now + 3 * DAY;
    let mut probes = 0;
    while world.now < end {
        let reply = refusal(&world.ask("2", "m"));
        let wait = (world.now + 30 * MINUTE).min(end).since(world.now);
        assert_eq!((reply.status, reply.retry_after), (429, Some(wait.as_secs())));
        world.now += wait - MS;
        assert_eq!(world.ask("3", "m").outcome(), Outcome::ModelCooldown);
        world.now += MS;
        if world.now < end {
            let probe = world.ask("4", "m");
            assert_eq!(said(&probe).0, "a");
            let others = ["5", "6"].map(|session| world.ask(session, "m").outcome());
            assert_eq!(others, [Outcome::ModelCooldown; 2], "one request probes");
            let left = (end.since(world.now).as_secs()).to_string();
            world.play(&probe, &[("a", limited(&[("retry-after", &left)]))]);
            probes += 1;
        }
    }
    assert_eq!(probes, 3 * 48 - 1);
    assert_eq!(world.out(), "", "it is over when the provider said");
}

#[test]
fn a_probe_that_is_served_lifts_an_announced_limit() {
    let mut world = alone();
    world.goes("1", &[("a", limited(&[("retry-after", "86400")]))]);
    world.now += 30 * MINUTE;
    let probe = world.ask("2", "m");
    assert_eq!(world.play(&probe, &[]).changes, ["-a:rate_limit"]);
    assert_eq!(world.out(), "");
}

#[test]
fn an_announced_limit_is_cut_off_at_max_told() {
    for (max_told, expected) in [(None, 7 * DAY), (Some("2h"), 2 * HOUR)] {
        let cooldown = max_told.map_or(json!({}), |max_told| json!({"max_told": max_told}));
        let world = world(json!({"credentials": clusters(1), "cooldown": cooldown}));
        world.goes("1", &[("a", limited(&[("retry-after", "99999999")]))]);
        let Decision::Reply(Refusal { blocked, .. }) = world.ask("2", "m") else { panic!() };
        assert_eq!(blocked[0].1.until(), Some(world.now + expected));
    }
}

#[test]
fn a_guess_does_not_prolong_an_announced_limit() {
    let mut world = world(json!({}));
    let missing = r#"{"error":{"code":"model_not_found","message":"The model m does not exist"}}"#;
    assert_eq!(world.goes("1", &[("a", Fate::Says(404, &[], missing))]), "a b");
    let unified = [
        ("retry-after", "30"),
        ("anthropic-ratelimit-unified-5h-status", "rejected"),
        ("anthropic-ratelimit-unified-5h-reset", "1"),
    ];
    let fates = [("a", limited(&unified)), ("b", limited(&unified))];
    assert_eq!(world.play(&world.ask("2", "other"), &fates).to, "a b");
    let reply = refusal(&world.ask("3", "m"));
    assert_eq!((reply.status, reply.retry_after), (429, Some(30)));
    world.now += 30 * SECOND;
    assert_eq!(said(&world.ask("3", "m")).0, "b");
}

#[test]
fn where_no_credential_is_ready_one_request_probes_and_the_others_follow_the_strategy() {
    let sections = |strategy| {
        let failover = json!({"max_attempts": 1});
        let routing = json!({"strategy": strategy});
        json!({"routing": routing, "credentials": clusters(3), "failover": failover})
    };
    let world = world(sections("fill-first"));
    for (id, wait) in [("a", "3"), ("b", "2"), ("c", "1")] {
        let fate = Fate::Says(503, &[("retry-after", wait)], "");
        assert_eq!(world.goes(id, &[(id, fate)]), id);
    }
    let mut world = world.reconfigured(&config(sections("round-robin")));
    let requests: Vec<_> =
        ["1", "2", "3", "4"].iter().map(|session| said(&world.ask(session, "m"))).collect();
    assert_eq!(requests[0], is("c", Outcome::Probe), "its cooldown ends first");
    let mut others: Vec<_> = requests[1..].iter().map(|(id, _)| id.as_str()).collect();
    others.sort_unstable();
    assert_eq!(others, ["a", "b", "c"], "by turns");
    assert!(requests.iter().all(|(_, outcome)| *outcome == Outcome::Probe));
    world.now += SECOND;
    assert_eq!(said(&world.ask("5", "m")), is("c", Outcome::Miss), "it is over");
}

#[test]
fn within_a_request_a_credential_that_only_failed_is_the_last_resort() {
    let world = world(json!({"credentials": clusters(3)}));
    world.goes("1", &[("b", Fate::Status(500)), ("a", Fate::Status(500))]);
    assert_eq!(world.out(), "a:transient:1s,b:transient:1s");
    assert_eq!(world.goes("2", &[("c", limited(&[("retry-after", "60")]))]), "c a");
    let hint = [("retry-after", "60")];
    world.goes("3", &[("a", limited(&hint))]);
    assert_eq!(world.goes("4", &[("b", Fate::Status(500))]), "b", "the others wait for their ends");
}

#[test]
fn disabled_and_draining_pools_refuse_and_say_that_waiting_is_useless() {
    for state in ["disabled", "drain"] {
        let credentials = json!([{"id": "a", "cluster": "a", "state": state}]);
        let world = world(json!({"credentials": credentials}));
        let decision = world.ask("1", "m");
        assert_eq!(decision.outcome(), Outcome::AuthUnavailable, "{state}");
        let reply = refusal(&decision);
        assert_eq!((reply.status, reply.retry_after), (503, None), "{state}");
        assert!(reply.retry_is_useless, "{state}");
        assert!(reply.body.contains("auth_unavailable: no auth available"), "{}", reply.body);
    }
    let credentials = json!([
        {"id": "a", "cluster": "a", "state": "drain"}, {"id": "b", "cluster": "b"}
    ]);
    let world = world(json!({"credentials": credentials}));
    world.goes("1", &[("b", limited(&[("retry-after", "30")]))]);
    let reply = refusal(&world.ask("2", "m"));
    assert_eq!((reply.status, reply.retry_after), (429, Some(30)), "b alone may take it");
}

#[test]
fn a_strict_session_probes_a_home_that_failed_and_waits_for_one_that_announced_its_end() {
    let mut world = world(json!({"session": {"strict": true}}));
    assert_eq!(world.goes("1", &[]), "a");
    for fate in [Fate::Status(500), Fate::Status(401), Fate::Failed(Failure::Connect), DEAD_KEY] {
        assert_eq!(world.goes("1", &[("a", fate)]), "a", "{fate:?}: never elsewhere");
        assert_eq!(said(&world.ask("1", "m")), is("a", Outcome::Probe), "{fate:?}");
        world.now += MS;
        assert_eq!(world.goes("1", &[]), "a");
    }
    world.goes("1", &[("a", limited(&[("retry-after", "90")]))]);
    let reply = refusal(&world.ask("1", "m"));
    assert_eq!((reply.status, reply.retry_after), (429, Some(90)));
    assert_eq!(said(&world.ask("2", "m")), is("b", Outcome::Miss), "others have no home yet");
}

#[test]
fn a_rate_limit_while_others_are_served_is_concurrency_and_never_doubles() {
    let mut world = world(json!({"routing": {"strategy": "round-robin"}}));
    for step in 0..600 {
        let session = (step % 5).to_string();
        // Each credential serves one request in three.
        let fates: &[_] = match step % 3 {
            0 => &[],
            1 => &[("a", Fate::Status(429))],
            _ => &[("a", Fate::Status(429)), ("b", Fate::Status(429))],
        };
        world.goes(&session, fates);
        for (id, block) in world.blocks("m") {
            assert!(block.until() <= Some(world.now + SECOND), "step {step}: {id} {block:?}");
        }
        world.now += 300 * MS;
    }
}

#[test]
fn concurrency_leaves_no_doubling_behind() {
    let mut world = alone();
    world.goes("0", &[]);
    for session in 1..10 {
        world.goes(&session.to_string(), &[("a", Fate::Status(429))]);
        assert_eq!(world.out(), "a:rate_limit:1s");
        world.now += SECOND;
    }
    world.now += SECOND;
    world.goes("10", &[("a", Fate::Status(429))]);
    let out = world.out();
    assert!(["a:rate_limit:1s", "a:rate_limit:2s"].contains(&out.as_str()), "{out}");
}

#[test]
fn a_stale_connection_is_repeated_once_on_the_same_credential_and_costs_nothing() {
    let world = world(json!({}));
    let stale = Fate::Failed(Failure::Stale);
    assert_eq!(world.goes("1", &[("a", stale), ("a", Fate::Status(200))]), "a a");
    assert_eq!(world.out(), "");
    assert_eq!(world.goes("2", &[("a", stale)]), "a a b", "once");
    assert_eq!(world.out(), "");
    let all = [("a", stale), ("b", stale)];
    let sent = world.play(&world.ask("3", "m"), &all);
    assert_eq!((sent.to.as_str(), world.out()), ("a a b", String::new()));
    assert_eq!(world.goes("1", &[]), "a", "the session stays at home");
}

#[test]
fn a_stale_connection_does_not_use_up_the_attempts() {
    let world = world(json!({"credentials": clusters(4)}));
    let stale = Fate::Failed(Failure::Stale);
    let fates = [
        ("a", stale),
        ("a", Fate::Status(500)),
        ("b", Fate::Status(500)),
        ("c", Fate::Status(500)),
        ("d", Fate::Status(500)),
    ];
    assert_eq!(world.goes("1", &fates), "a a b c", "max_attempts is 3");
}

#[test]
fn what_fails_below_credentials_that_share_an_endpoint_blames_none_of_them() {
    for failure in Failure::ALL {
        let world = world(json!({"credentials": keys()}));
        let fates = ["a", "b"].map(|id| (id, Fate::Failed(failure)));
        for session in 0..5 {
            let sent = world.play(&world.ask(&session.to_string(), "m"), &fates);
            assert!(sent.to.starts_with("a a") || sent.to.starts_with("a b"), "{}", sent.to);
            assert_eq!((world.out(), sent.changes), (String::new(), vec![]), "{failure:?}");
        }
        assert_eq!(world.goes("1", &[]), "a", "{failure:?}: it is back at once");
    }
    // A failure of the credential itself counts as ever, and so does silence at one of them.
    for (fate, expected) in
        [(Fate::Status(401), "a:denied:60s"), (Fate::Failed(Failure::Timeout), "a:transient:1s")]
    {
        let world = world(json!({"credentials": keys()}));
        assert_eq!(world.goes("1", &[("a", fate)]), "a b");
        assert_eq!(world.out(), expected);
    }
}

#[test]
fn a_cluster_without_a_host_adds_up_whatever_the_session() {
    let mut world = alone();
    for seconds in [15, 30, 60, 60] {
        world.goes("1", &[("a", Fate::Failed(Failure::NoHost))]);
        assert_eq!(world.out(), format!("a:transient:{seconds}s"));
        world.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_session_that_its_home_refuses_moves_to_the_credential_that_serves_it() {
    for status in [401, 402, 403] {
        let mut world = world(json!({}));
        assert_eq!(world.goes("1", &[]), "a");
        world.now += SECOND;
        assert_eq!(world.goes("1", &[("a", Fate::Status(status))]), "a b", "{status}");
        world.now += 2 * MINUTE;
        assert_eq!(world.out(), "", "{status}");
        assert_eq!(said(&world.ask("1", "m")), is("b", Outcome::Hit), "{status}: for good");
    }
}

#[test]
fn a_session_whose_home_fails_it_twice_in_a_row_moves() {
    let mut world = world(json!({}));
    world.goes("1", &[]);
    for expected in ["a b", "a b"] {
        world.now += 2 * SECOND;
        assert_eq!(world.goes("1", &[("a", Fate::Status(500))]), expected);
    }
    world.now += 10 * SECOND;
    assert_eq!(world.goes("1", &[]), "b");

    let mut world = self::world(json!({}));
    world.goes("1", &[]);
    for fates in [&[("a", Fate::Status(500))][..], &[], &[("a", Fate::Status(500))], &[]] {
        world.now += 2 * SECOND;
        world.goes("1", fates);
    }
    world.now += 10 * SECOND;
    assert_eq!(world.goes("1", &[]), "a", "it was served at home in between");
}

#[test]
fn a_session_whose_client_gets_errors_from_its_home_avoids_it_and_moves() {
    let mut world = world(json!({"failover": {"max_attempts": 1}}));
    assert_eq!(world.goes("1", &[]), "a");
    assert_eq!(world.goes("1", &[("a", Fate::Status(500))]), "a");
    world.now += 5 * SECOND;
    assert_eq!(said(&world.ask("1", "m")), is("b", Outcome::Substitute), "a has only failed it");
    assert_eq!(said(&world.ask("2", "m")).0, "a", "and is ready for all others");
    world.goes("1", &[]);
    world.now += MINUTE;
    assert_eq!(said(&world.ask("1", "m")), is("a", Outcome::Return), "after one failure");

    world.goes("1", &[("a", Fate::Status(401))]);
    world.now += 5 * SECOND;
    assert_eq!(world.goes("1", &[]), "b");
    world.now += 2 * MINUTE;
    assert_eq!(said(&world.ask("1", "m")).0, "b", "a refusal is enough");
}

#[test]
fn a_limit_is_no_reason_to_leave_a_home_for_good() {
    let mut world = world(json!({}));
    world.goes("1", &[]);
    for _ in 0..5 {
        world.now += SECOND;
        assert_eq!(world.goes("1", &[("a", limited(&[("retry-after", "20")]))]), "a b");
        world.now += 20 * SECOND;
        assert_eq!(said(&world.ask("1", "m")), is("a", Outcome::Return));
    }
}

#[test]
fn a_stream_that_its_home_cuts_off_again_and_again_moves_its_session() {
    let mut world = world(json!({}));
    for cut in 0..2 {
        let sent = world.play(&world.ask("1", "m"), &[]);
        assert_eq!(sent.to, "a", "cut {cut}");
        world.router.observe_cut(&sent.plan, &world.shared, world.now);
        world.now += 5 * SECOND;
    }
    assert_eq!(world.goes("1", &[]), "b");
    assert_eq!(world.out(), "", "it proves nothing about a");

    let mut world = self::world(json!({}));
    for _ in 0..5 {
        let sent = world.play(&world.ask("1", "m"), &[]);
        assert_eq!(sent.to, "a");
        world.router.observe_cut(&sent.plan, &world.shared, world.now);
        world.now += HOUR - SECOND;
    }
}

#[test]
fn a_failure_that_comes_too_late_is_passed_on() {
    for (late, expected) in [(2 * MINUTE - MS, "a b"), (2 * MINUTE, "a")] {
        let mut world = world(json!({}));
        let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
        world.attempt(&mut plan);
        world.now += late;
        let next = world.end(&mut plan, Fate::Status(500)).next.map(|next| next.id.clone());
        let to = next.map_or("a".to_owned(), |next| format!("a {next}"));
        assert_eq!(to, expected);
    }
    let mut world = world(json!({"failover": {"give_up_after": "10s"}}));
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    world.attempt(&mut plan);
    world.now += 10 * SECOND;
    assert!(world.end(&mut plan, Fate::Status(429)).next.is_none());
    assert_eq!(plan.end(), Some(Failover::Exhausted));
}

#[test]
fn what_may_have_been_carried_out_is_repeated_only_where_it_creates_nothing() {
    let hint = [("retry-after", "9")];
    for (fate, repeats_a_creation) in [
        (Fate::Status(401), true),
        (Fate::Status(403), true),
        (limited(&hint), true),
        (Fate::Failed(Failure::Connect), true),
        (Fate::Failed(Failure::Tls), true),
        (Fate::Failed(Failure::NoHost), true),
        (Fate::Status(521), true),
        (Fate::Status(525), true),
        (Fate::Status(520), false),
        (Fate::Status(522), false),
        (Fate::Status(408), false),
        (Fate::Status(500), false),
        (Fate::Status(503), false),
        (Fate::Status(529), false),
        (Fate::Failed(Failure::Reset), false),
        (Fate::Failed(Failure::Stale), false),
        (Fate::Failed(Failure::Timeout), false),
        (OVERLOADED_EVENT, false),
    ] {
        for (path, creates) in [
            ("/v1/messages/batches", true),
            ("/v1/files", true),
            ("/v1/messages", false),
            ("/v1/messages/count_tokens", false),
        ] {
            let world = world(json!({}));
            let to = world.play(&world.on(path, "1"), &[("a", fate)]).to;
            let expected = if creates && !repeats_a_creation { "a" } else { "a b" };
            assert_eq!(to.replace("a a", "a"), expected, "{path} {fate:?}");
        }
    }
}

#[test]
fn failures_to_count_tokens_do_not_touch_generations() {
    for fate in [
        Fate::Status(500),
        Fate::Status(404),
        Fate::Status(403),
        Fate::Status(429),
        Fate::Failed(Failure::Connect),
        Fate::Failed(Failure::Timeout),
    ] {
        for others in [&[][..], &[("b", fate)]] {
            let mut world = world(json!({}));
            assert_eq!(world.goes("1", &[]), "a");
            for _ in 0..5 {
                let counting = world.on("/v1/messages/count_tokens", "1");
                world.play(&counting, &[&[("a", fate)][..], others].concat());
                assert_eq!(world.out(), "", "{fate:?}");
                let (to, outcome) = said(&world.ask("1", "m"));
                assert_eq!(to, "a", "{fate:?} {outcome:?}: the session keeps its home");
                world.now += SECOND;
            }
        }
    }
}

#[test]
fn a_changed_configuration_applies_to_cooldowns_that_exist() {
    let denied = Fate::Status(401);
    let hint = [("retry-after", "600")];
    for (fate, sections, expected) in [
        (denied, json!({}), "a:denied:60s"),
        (denied, json!({"cooldown": {"denied": "20s"}}), "a:denied:20s"),
        (denied, json!({"disable_cooling": true}), ""),
        (denied, json!({"cooldown": {"statuses": {"401": "elsewhere"}}}), ""),
        (denied, json!({"cooldown": {"statuses": {"402": "elsewhere"}}}), "a:denied:60s"),
        (limited(&hint), json!({}), "a:rate_limit:10m"),
        (limited(&hint), json!({"cooldown": {"max_told": "1m"}}), "a:rate_limit:60s"),
        (limited(&hint), json!({"cooldown": {"max": "1m"}}), "a:rate_limit:10m"),
        (limited(&hint), json!({"disable_cooling": true}), ""),
        (DEAD_KEY, json!({}), "a:denied:30m"),
        (DEAD_KEY, json!({"cooldown": {"denied": "90s"}}), "a:denied:90s"),
    ] {
        let world = world(json!({}));
        assert_eq!(world.goes("1", &[("a", fate)]), "a b");
        let world = world.reconfigured(&config(sections.clone()));
        assert_eq!(world.out(), expected, "{fate:?} {sections}");
    }
}

#[test]
fn a_changed_entry_of_a_credential_starts_without_cooldowns() {
    let key = |name: &str| json!([{"name": "x-api-key", "header": name}]);
    let endpoint = |id: &str| json!({"id": "a", "cluster": "a", "endpoint": id});
    let rest = json!({"id": "b", "cluster": "b"});
    for (before, after, expected) in [
        (json!({"id": "a", "cluster": "a"}), json!({"id": "a", "cluster": "new"}), ""),
        (endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80"), ""),
        (
            json!({"id": "a", "cluster": "a", "headers": key("x-one")}),
            json!({"id": "a", "cluster": "a", "headers": key("x-two")}),
            "",
        ),
        (
            json!({"id": "a", "cluster": "a"}),
            json!({"id": "a", "cluster": "a", "weight": 3, "priority": 1, "parent": "p"}),
            "a:denied:30m",
        ),
    ] {
        let world = world(json!({"credentials": [before, rest]}));
        assert_eq!(world.goes("1", &[("a", DEAD_KEY)]), "a b");
        let world = world.reconfigured(&config(json!({"credentials": [after, rest]})));
        assert_eq!(world.out(), expected, "{after}");
    }
}

#[test]
fn a_clock_that_is_set_back_ends_what_began_in_the_future() {
    for fate in [DEAD_KEY, limited(&[("retry-after", "86400")])] {
        for (back, is_out) in [(30 * SECOND, true), (2 * MINUTE, false), (HOUR, false)] {
            let mut world = alone();
            world.goes("1", &[("a", fate)]);
            world.now = Timestamp::EPOCH + world.now.since(Timestamp::EPOCH + back);
            let decision = world.ask("2", "m");
            assert_eq!(!out(&decision).is_empty(), is_out, "{fate:?} {back:?}: {decision}");
            if !is_out {
                world.goes("2", &[("a", Fate::Status(500))]);
                assert_eq!(world.out(), "a:transient:1s", "{back:?}: and learning goes on");
            }
        }
    }
}

#[test]
fn a_decision_names_what_is_out_and_for_how_long() {
    let credentials = json!([
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"},
        {"id": "d", "cluster": "d", "state": "disabled"}
    ]);
    let mut world = world(json!({"credentials": credentials}));
    assert!(!world.ask("1", "m").to_string().contains("out="));
    world.goes("1", &[("a", DEAD_KEY)]);
    world.now += 61 * SECOND;
    world.goes("2", &[("b", limited(&[("retry-after", "12")]))]);
    let words = world.ask("3", "m").to_string();
    assert!(words.contains(" credential=c "), "{words}");
    assert!(words.ends_with(" out=a:denied:29m,b:rate_limit:12s"), "{words}");
    world.goes("3", &[("c", limited(&[("retry-after", "259200")])), ("a", DEAD_KEY)]);
    let words = world.ask("4", "m").to_string();
    assert!(words.ends_with(" out=a:denied:30m,b:rate_limit:12s,c:rate_limit:3d"), "{words}");

    let world = alone();
    world.goes("1", &[("a", limited(&[("retry-after", "30")]))]);
    let words = world.ask("2", "m").to_string();
    let [before, behind] = [
        "outcome=model_cooldown source=header pool=p gen_ai.conversation.id=",
        " retry_after=30s out=a:rate_limit:30s",
    ];
    assert!(words.starts_with(before) && words.ends_with(behind), "{words}");
}

#[test]
fn a_cooldown_is_reported_when_it_begins_and_when_a_response_ends_it() {
    let mut world = world(json!({}));
    let sent = world.play(&world.ask("1", "m"), &[("a", Fate::Status(500))]);
    assert_eq!(sent.changes, ["+a:transient:1s"]);
    let sent = world.play(&world.ask("2", "m"), &[("b", DEAD_KEY), ("a", Fate::Status(200))]);
    assert_eq!(sent.changes, ["+b:denied:30m", "-a:transient"]);
    world.now += SECOND;
    let sent = world.play(&world.ask("3", "m"), &[("a", limited(&[("retry-after", "5")]))]);
    assert_eq!(sent.changes, ["+a:rate_limit:5s", "-b:denied"]);
    let sent = world.play(&world.ask("4", "m"), &[]);
    assert_eq!(sent.changes, [""; 0], "what goes on is not reported again");
}

#[test]
fn a_failover_that_envoy_did_not_carry_out_counts_as_without_a_second_opinion() {
    let world = world(json!({}));
    world.goes("1", &[]);
    let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
    world.attempt(&mut plan);
    assert!(world.end(&mut plan, Fate::Status(500)).next.is_some());
    assert_eq!(plan.end(), Some(Failover::Abandoned));
    assert_eq!(world.out(), "");
    let changes = world.router.abandon(&mut plan, &world.shared, world.now);
    assert_eq!(changes.len(), 1);
    assert_eq!(world.out(), "a:transient:1s");
    assert!(world.router.abandon(&mut plan, &world.shared, world.now).is_empty(), "once");
}

#[test]
fn where_no_cluster_runs_the_filter_the_last_response_counts() {
    let world = world(json!({}));
    let none = Headers::default();
    for (status, expected) in [(500, "a:transient:1s"), (200, "")] {
        let mut plan = world.router.plan(routed(&world.ask("1", "m")), world.now);
        let response = Response::Received { status, headers: &none, body: b"" };
        let verdict = world.router.observe(&mut plan, &response, &world.shared, world.now);
        assert!(verdict.next.is_none(), "there is nothing that could retry");
        assert_eq!(world.out(), expected);
        let back = world.router.plan(routed(&world.ask("new", "m")), world.now);
        assert_eq!(back.attempts, 0);
        if status == 500 {
            world.goes("other", &[("b", Fate::Status(200))]);
            let key = &world.router.config().pools[0].credentials[0].cooldown_key;
            world.shared.set(key, b"", Cas(0)).unwrap();
        }
    }
}

#[test]
fn an_earlier_recovery_replaces_only_a_wait_that_is_a_good_deal_longer() {
    for (waits, expected) in [
        (["700", "20"], None),
        (["20", "700"], Some(20)),
        (["30", "61"], Some(30)),
        (["31", "61"], None),
        (["30", "60"], None),
        (["5", "34"], None),
        (["4", "34"], Some(4)),
        (["600", "601"], None),
    ] {
        let world = world(json!({}));
        let hints = waits.map(|wait| [("retry-after", wait)]);
        let fates = [("a", limited(&hints[0])), ("b", limited(&hints[1]))];
        let plan = world.play(&world.ask("1", "m"), &fates).plan;
        let earlier = world.router.earlier_recovery(&plan, &world.shared, world.now);
        assert_eq!(earlier, expected.map(Duration::from_secs), "{waits:?}");
    }
    for sections in [json!({"session": {"strict": true}}), json!({"credentials": clusters(3)})] {
        let world = world(sections);
        let hints = [[("retry-after", "20")], [("retry-after", "700")]];
        let fates =
            [("a", limited(&hints[0])), ("b", limited(&hints[1])), ("c", Fate::Status(500))];
        let plan = world.play(&world.ask("1", "m"), &fates).plan;
        let earlier = world.router.earlier_recovery(&plan, &world.shared, world.now);
        assert_eq!(earlier, None, "strict, or another credential only failed");
    }
}

#[test]
fn a_client_hears_of_a_limit_rather_than_of_a_dead_key() {
    let hint = [("retry-after", "50")];
    let limit = limited(&hint);
    for (a, b, expected) in [
        (limit, Fate::Status(401), Some(50)),
        (limit, Fate::Status(402), Some(50)),
        (limit, Fate::Status(403), None),
        (limit, Fate::Status(400), None),
        (limit, Fate::Status(500), None),
        (limited(&[]), Fate::Status(401), None),
        (Fate::Status(401), limit, None),
        (Fate::Status(401), Fate::Status(401), None),
        (limit, Fate::Status(200), None),
    ] {
        let world = world(json!({}));
        let plan = world.play(&world.ask("1", "m"), &[("a", a), ("b", b)]).plan;
        let reply = world.router.wait_for_limit(&plan, &world.shared, world.now);
        let told = reply.map(|reply| (reply.status, reply.retry_after));
        assert_eq!(told, expected.map(|seconds| (429, Some(seconds))), "{a:?} {b:?}");
    }
    for (is_strict, expected) in [(false, true), (true, false)] {
        let world = world(json!({"session": {"strict": is_strict}}));
        assert_eq!(world.goes("1", &[]), "a");
        // The home is dead, and the other one limited by another session.
        let mut other = world.router.plan(routed(&world.ask("2", "m")), world.now);
        world.router.attempt(&mut other, "b", &world.shared, world.now);
        world.end(&mut other, limit);
        let plan = world.play(&world.ask("1", "m"), &[("a", Fate::Status(401))]).plan;
        let reply = world.router.wait_for_limit(&plan, &world.shared, world.now);
        assert_eq!(reply.is_some(), expected, "strict: {is_strict}");
        // What only the home has, no other one will serve.
        let mut pinned = plan.clone();
        pinned.state.is_pinned = true;
        assert!(world.router.wait_for_limit(&pinned, &world.shared, world.now).is_none());
    }
}

#[test]
fn a_client_hears_of_no_limit_while_a_credential_is_ready_that_was_not_asked() {
    for (count, expected) in [(3, Some(50)), (4, None)] {
        let sections = json!({"credentials": clusters(count), "failover": {"max_attempts": 3}});
        let world = world(sections);
        let hint = [("retry-after", "50")];
        let fates = [("a", limited(&hint)), ("b", Fate::Status(401)), ("c", Fate::Status(401))];
        let sent = world.play(&world.ask("1", "m"), &fates);
        assert_eq!(sent.to, "a b c");
        let reply = world.router.wait_for_limit(&sent.plan, &world.shared, world.now);
        assert_eq!(reply.map(|reply| reply.retry_after), expected.map(Some), "{count}");
    }
}

#[test]
fn rules_of_the_operator_say_what_a_response_means() {
    let code = r#"{"error":{"code":"quota_gone","type":"billing","message":"Come Back Later"}}"#;
    let proven = r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key provided"}}"#;
    let header = [("x-edge", "blocked")];
    let rule = |members: Value| {
        let mut rule = json!({"class": "denied", "wait": "40s"});
        rule.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        rule
    };
    for (rule, status, headers, body, expected) in [
        (rule(json!({"status": 418})), 418, &[][..], "", "a:denied:40s"),
        (rule(json!({"status": 418})), 419, &[], "", ""),
        (rule(json!({"code": "quota_gone"})), 400, &[], code, "a:denied:40s"),
        (rule(json!({"code": "billing"})), 400, &[], code, "a:denied:40s"),
        (rule(json!({"code": "quota_gone", "status": 402})), 400, &[], code, ""),
        (rule(json!({"contains": "come BACK"})), 400, &[], code, "a:denied:40s"),
        (rule(json!({"contains": "quota_gone"})), 400, &[], code, ""),
        (rule(json!({"header": "X-Edge"})), 400, &header, "", "a:denied:40s"),
        (rule(json!({"header": "x-edge", "value": "blocked"})), 400, &header, "", "a:denied:40s"),
        (rule(json!({"header": "x-edge", "value": "open"})), 400, &header, "", ""),
        (rule(json!({"provider": "claude", "status": 400})), 400, &[], "", "a:denied:40s"),
        (rule(json!({"provider": "other", "status": 400})), 400, &[], "", ""),
        // Before the tables: proof becomes a reason to try another credential and no more.
        (json!({"status": 401, "class": "elsewhere"}), 401, &[], proven, ""),
        (
            json!({"code": "invalid_api_key", "class": "rate_limit", "scope": "model", "wait": "7s"}),
            401,
            &[],
            proven,
            "a:rate_limit:7s",
        ),
        // Without a wait it is a guess.
        (json!({"status": 401, "class": "transient"}), 401, &[], proven, "a:transient:1s"),
    ] {
        let world = world(json!({"cooldown": {"rules": [rule]}}));
        let fate = Fate::Says(status, headers, body);
        let sent = world.play(&world.ask("1", "m"), &[("a", fate)]);
        assert_eq!(world.out(), expected, "{rule} {status}");
        let is_elsewhere = rule["class"] == "elsewhere";
        let to = if expected.is_empty() && !is_elsewhere { "a" } else { "a b" };
        assert_eq!(sent.to, to, "{rule} {status}");
    }
}

#[test]
fn rules_outrank_statuses_and_an_earlier_rule_a_later_one() {
    let rules = json!([
        {"status": 400, "contains": "busy", "class": "overloaded", "wait": "9s"},
        {"status": 400, "class": "elsewhere"},
    ]);
    let cooldown = json!({"rules": rules, "statuses": {"400": "denied", "409": "transient"}});
    for (status, body, expected) in [
        (400, r#"{"error":{"message":"Too busy"}}"#, "a:overloaded:9s"),
        (400, r#"{"error":{"message":"wrong"}}"#, ""),
        (409, "", "a:transient:1s"),
    ] {
        let world = world(json!({"cooldown": cooldown}));
        assert_eq!(world.goes("1", &[("a", Fate::Says(status, &[], body))]), "a b", "{status}");
        assert_eq!(world.out(), expected, "{status} {body}");
    }
}

#[test]
fn a_rule_may_cover_a_model_or_the_credential() {
    for (scope, other_model) in [("model", ""), ("credential", "a:denied:40s")] {
        let rule = json!({"status": 418, "class": "denied", "scope": scope, "wait": "40s"});
        let world = world(json!({"cooldown": {"rules": [rule]}}));
        world.goes("1", &[("a", Fate::Status(418))]);
        assert_eq!(world.out(), "a:denied:40s");
        assert_eq!(out(&world.ask("2", "other")), other_model, "{scope}");
    }
}

#[test]
fn problems_of_rules_have_their_paths() {
    let rules = json!([
        {"class": "denied"},
        {"status": 400},
        {"status": 99, "class": "denied"},
        {"code": "x", "contains": "y", "class": "denied"},
        {"status": 400, "value": "y", "class": "denied"},
        {"header": "not a name", "class": "denied"},
        {"status": 400, "class": "refused", "scope": "family", "wait": "soon", "colour": 1},
        7,
        {"status": 429, "class": "rate_limit", "wait": "2h"},
    ]);
    let config = config(json!({"cooldown": {"rules": rules}}));
    let problems = Config::parse(config.to_string().as_bytes()).unwrap_err();
    let lines = problems.lines();
    let signs = "expected `status`, and at most one of `code`, `header` and `contains`";
    let rule = |at: usize, rest: &str| format!("cooldown.rules[{at}]{rest}");
    for expected in [
        rule(0, &format!(": {signs}")),
        rule(1, ".class: required"),
        rule(2, ".status: expected 100 to 599, found 99"),
        rule(3, &format!(": {signs}")),
        rule(4, ".value: expected `header` beside it"),
        rule(5, ".header: expected the name of a request header"),
        rule(6, ".scope: expected one of credential, model, found \"family\""),
        rule(6, ".wait: expected a duration such as 1h, 90s or 1h30m, found \"soon\""),
        rule(6, ".colour: unknown key"),
        rule(7, ": expected an object, found 7"),
    ] {
        assert!(lines.contains(&expected), "{expected}\nis not in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with(&rule(6, ".class: expected one of"))));
    assert!(!lines.iter().any(|line| line.starts_with(&rule(8, ""))), "{lines:#?}");
}
