//! Failover within a request, as Envoy's attempts drive it: data in, data out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::config::{CredentialId, PoolId};
use session_affinity::outcome::{Failover, Outcome};
use session_affinity::reply::LocalReply;
use session_affinity::request::Headers;
use session_affinity::response::Failure;
use session_affinity::router::Plan;
use world::{Fate, SECOND, World, received, routed, said};

impl World {
    fn new(sections: Value) -> Self {
        let mut config = json!({
            "routing": {"strategy": "fill-first"},
            "pools": [{"name": "p", "provider": "claude", "credentials": [
                {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"},
                {"id": "c", "cluster": "c"}, {"id": "d", "cluster": "d"},
            ]}]
        });
        for (name, section) in sections.as_object().unwrap() {
            match name.as_str() {
                "credentials" => config["pools"][0]["credentials"] = section.clone(),
                _ => config[name] = section.clone(),
            }
        }
        Self::of(&config)
    }

    fn plan(&self, session: &str) -> Plan {
        self.router.plan(routed(&self.ask(session, "m")), self.now)
    }

    /// The attempt is answered. Whom to ask next, if anybody.
    fn hear(
        &self,
        plan: &mut Plan,
        status: u16,
        headers: &[(&str, &str)],
        message: &str,
    ) -> Option<String> {
        let headers: Headers = headers.iter().copied().collect();
        let verdict =
            self.router.observe(plan, &received(status, &headers, message), &self.shared, self.now);
        verdict.next.map(|next| next.id.clone())
    }

    fn limit(&self, plan: &mut Plan, seconds: &str) -> Option<String> {
        self.hear(plan, 429, &[("retry-after", seconds)], "")
    }

    /// Who serves the session now.
    fn serves(&self, session: &str) -> (String, Outcome) {
        said(&self.ask(session, "m"))
    }
}

fn waits(reply: &LocalReply) -> (u16, Option<u64>) {
    (reply.status, reply.retry_after)
}

#[test]
fn an_exhausted_credential_is_followed_by_the_next_and_the_session_is_bound_to_who_served() {
    let world = World::new(json!({}));
    let mut plan = world.plan("1");
    assert_eq!(world.attempt(&mut plan), "a");
    assert_eq!(world.limit(&mut plan, "60"), Some("b".to_owned()));
    assert_eq!(world.attempt(&mut plan), "b");
    assert_eq!(world.hear(&mut plan, 200, &[], ""), None);
    assert_eq!(plan.end(), Some(Failover::Served));
    assert_eq!(world.serves("1"), ("b".to_owned(), Outcome::Hit), "it had never been served at a");
    assert_eq!(world.serves("2").0, "b", "and everybody knows about a");
}

#[test]
fn a_session_with_a_home_keeps_it_through_a_failover() {
    let mut world = World::new(json!({}));
    let mut plan = world.plan("1");
    world.attempt(&mut plan);
    world.hear(&mut plan, 200, &[], "");
    assert_eq!(plan.end(), None);

    world.now += SECOND;
    let mut plan = world.plan("1");
    world.attempt(&mut plan);
    world.limit(&mut plan, "60");
    assert_eq!(world.attempt(&mut plan), "b");
    world.hear(&mut plan, 200, &[], "");
    assert_eq!(world.serves("1"), ("b".to_owned(), Outcome::Substitute));
    world.now += 60 * SECOND;
    assert_eq!(world.serves("1"), ("a".to_owned(), Outcome::Return));
}

#[test]
fn a_connection_that_fails_is_followed_by_the_next_credential() {
    let world = World::new(json!({}));
    let mut plan = world.plan("1");
    assert_eq!(world.attempt(&mut plan), "a");
    world.end(&mut plan, Fate::Failed(Failure::Reset));
    assert_eq!(world.attempt(&mut plan), "b", "nothing came from a");
    assert_eq!(world.hear(&mut plan, 200, &[], ""), None);
    assert_eq!(world.serves("2").0, "b", "a is blocked");
}

#[test]
fn attempts_are_bounded_and_the_last_answer_stands() {
    for (most, expected) in [(1, vec!["a"]), (2, vec!["a", "b"]), (16, vec!["a", "b", "c", "d"])] {
        let world = World::new(json!({"failover": {"max_attempts": most}}));
        let mut plan = world.plan("1");
        assert_eq!(usize::from(plan.max_attempts), expected.len());
        let mut asked = Vec::new();
        loop {
            asked.push(world.attempt(&mut plan));
            if world.limit(&mut plan, "60").is_none() {
                break;
            }
        }
        assert_eq!(asked, expected);
        assert_eq!(plan.end(), Some(Failover::Exhausted));
    }
}

#[test]
fn who_is_not_ready_is_passed_over_also_if_it_was_when_the_plan_was_made() {
    let world = World::new(json!({}));
    let mut plan = world.plan("1");
    assert_eq!(world.attempt(&mut plan), "a");
    let mut other = world.plan("2");
    for expected in ["a", "b"] {
        assert_eq!(world.attempt(&mut other), expected);
        world.limit(&mut other, "60");
    }
    assert_eq!(
        world.limit(&mut plan, "60"),
        Some("c".to_owned()),
        "b was ready when the attempt began"
    );
    assert_eq!(world.attempt(&mut plan), "c");

    let mut late = world.plan("3");
    assert_eq!(world.attempt(&mut late), "c");
    assert_eq!(world.limit(&mut late, "60"), Some("d".to_owned()));
}

#[test]
fn the_faults_of_a_request_go_nowhere_else() {
    for (status, message) in [
        (400, "max_tokens is missing"),
        (404, "model: x"),
        (404, "no such path"),
        (413, ""),
        (422, "bad input"),
    ] {
        let world = World::new(json!({}));
        let mut plan = world.plan("1");
        world.attempt(&mut plan);
        assert_eq!(world.hear(&mut plan, status, &[], message), None, "{status} {message}");
        assert_eq!(plan.end(), None, "{status} {message}");
    }
}

#[test]
fn the_faults_of_a_credential_go_to_the_next() {
    for (status, message) in [
        (401, ""),
        (402, ""),
        (403, ""),
        (408, ""),
        (429, ""),
        (500, ""),
        (503, ""),
        (529, ""),
        (400, "The requested model is not supported."),
    ] {
        let world = World::new(json!({"disable_cooling": true}));
        let mut plan = world.plan("1");
        world.attempt(&mut plan);
        assert_eq!(
            world.hear(&mut plan, status, &[], message),
            Some("b".to_owned()),
            "{status} {message}"
        );
    }
}

#[test]
fn nobody_is_asked_twice_even_if_nothing_cools_down() {
    let world = World::new(json!({"disable_cooling": true, "failover": {"max_attempts": 16}}));
    let mut plan = world.plan("1");
    let asked: Vec<_> = (0..4)
        .map(|_| {
            let asked = world.attempt(&mut plan);
            world.hear(&mut plan, 500, &[], "");
            asked
        })
        .collect();
    assert_eq!(asked, ["a", "b", "c", "d"]);
    assert_eq!(world.attempt(&mut plan), "503", "should Envoy try once more");
}

#[test]
fn who_comes_last_hears_the_first_recovery() {
    let world = World::new(json!({"failover": {"max_attempts": 16}}));
    let mut plan = world.plan("1");
    for seconds in ["50", "20", "30", "700"] {
        world.attempt(&mut plan);
        world.limit(&mut plan, seconds);
    }
    let reply = world.router.earlier_recovery(&plan, &world.shared, world.now).unwrap();
    assert_eq!(reply, Duration::from_secs(20));

    let alone = World::new(json!({"credentials": [{"id": "a", "cluster": "a"}]}));
    let mut plan = alone.plan("1");
    alone.attempt(&mut plan);
    alone.limit(&mut plan, "86400");
    assert_eq!(
        alone.router.earlier_recovery(&plan, &alone.shared, alone.now),
        None,
        "the provider's own answer is as good"
    );
}

#[test]
fn a_request_without_a_response_names_the_cause_in_the_clients_dialect() {
    for (failure, status, cause) in [
        (Failure::Connect, 503, "the connection to the provider failed"),
        (Failure::Stale, 503, "the provider closed the connection before it sent a response"),
        (Failure::Reset, 503, "the provider closed the connection before it sent a response"),
        (Failure::Timeout, 504, "the provider sent no response in time"),
        (Failure::Tls, 503, "the TLS handshake with the provider failed"),
        (Failure::NoHost, 503, "the provider has no reachable address"),
    ] {
        for strict in [false, true] {
            let world = World::new(json!({"session": {"strict": strict}}));
            let sent = world.play(&world.ask("1", "m"), &[("a", Fate::Failed(failure)); 1]);
            assert!(sent.to.ends_with(" b"), "a session without a home moves");
            let fates = ["a", "b", "c", "d"].map(|id| (id, Fate::Failed(failure)));
            let plan = world.play(&world.ask("2", "m"), &fates).plan;
            assert_eq!(plan.end(), Some(Failover::Exhausted), "{failure:?}");
            let pool = world.router.pool_of(&plan).unwrap();
            let reply = world.router.no_response(&plan, pool, failure);
            assert_eq!(waits(&reply), (status, Some(1)), "{failure:?}");
            assert!(!reply.retry_is_useless);
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            let message = format!("upstream_unavailable: {cause} (providers=claude, model=m)");
            let error = json!({"type": "api_error", "message": message});
            assert_eq!(body, json!({"type": "error", "error": error}), "{failure:?}");
        }
    }
}

#[test]
fn an_attempt_that_envoy_did_not_make_is_told() {
    let world = World::new(json!({}));
    let mut plan = world.plan("1");
    world.attempt(&mut plan);
    world.limit(&mut plan, "60");
    assert_eq!(plan.end(), Some(Failover::Abandoned));
}

#[test]
fn what_only_the_listener_knows_yet_is_none_of_the_clusters() {
    let world = World::new(json!({}));
    for unknown in [
        Plan { next: Some(CredentialId(7)), ..world.plan("1") },
        Plan { pool: PoolId(7), ..world.plan("1") },
    ] {
        assert!(
            world.router.attempt(&mut unknown.clone(), "", &world.shared, world.now).is_none(),
            "{unknown:?}"
        );
    }
}

#[test]
fn a_plan_is_small_whatever_a_client_calls_its_model() {
    let world = World::new(json!({}));
    let decision = world.ask("1", &"ü".repeat(100_000));
    let plan = world.router.plan(routed(&decision), world.now);
    assert!(plan.encode().len() < 1_000);
    assert_eq!(plan.model, "ü".repeat(256));
}

#[test]
fn the_sessions_of_one_credential_spread_over_all_others() {
    let world = World::new(json!({"routing": {"strategy": "round-robin"}}));
    let mut seconds = std::collections::BTreeSet::new();
    for session in 0..40 {
        let plan = world.plan(&session.to_string());
        let first = plan.next.unwrap();
        assert_eq!(plan.rest.len(), 3);
        assert!(!plan.rest.contains(&first));
        seconds.insert((first, plan.rest[0]));
    }
    assert_eq!(seconds.len(), 12, "each of four is followed by each of three");
}

#[test]
fn the_order_follows_priority_websockets_and_accounts() {
    let world = World::new(json!({
        "routing": {"strategy": "fill-first"},
        "credentials": [
            {"id": "a", "cluster": "x", "priority": 2, "parent": "A"},
            {"id": "b", "cluster": "x", "priority": 1},
            {"id": "c", "cluster": "x", "priority": 2, "parent": "A"},
            {"id": "d", "cluster": "x", "priority": 2, "parent": "B"},
            {"id": "e", "cluster": "x", "state": "drain"},
            {"id": "f", "cluster": "x", "weight": 0},
        ]
    }));
    let decision = world.ask("1", "m");
    let route = routed(&decision);
    let order: Vec<_> = route.others.iter().map(|other| other.id.as_str()).collect();
    assert_eq!(
        (route.credential.id.as_str(), order),
        ("a", vec!["d", "c", "b"]),
        "the sibling after the stranger"
    );
}

#[test]
fn the_reference_binds_whom_it_picks_also_when_it_picks_again() {
    let world = World::new(json!({
        "profile": "reference",
        "routing": {"session_affinity": true, "strategy": "ff"},
        "disable_cooling": true
    }));
    let mut plan = world.plan("1");
    assert_eq!(world.attempt(&mut plan), "a");
    world.hear(&mut plan, 500, &[], "");
    assert_eq!(world.attempt(&mut plan), "b");
    world.hear(&mut plan, 500, &[], "");
    assert_eq!(world.serves("1"), ("b".to_owned(), Outcome::Hit));
}
