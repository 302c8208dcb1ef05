//! Workers that get in each other's way, at every step at which they can.
//!
//! A worker is stopped before each of its writes in turn, another one does its work in between, and
//! the first one goes on: its write is refused, as by the host. Whatever the step, the outcome must
//! be one that some order would have given.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use serde_json::json;
use session_affinity::binding::BoundCredential;
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, NextStep, Plan, Router};
use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};
use session_affinity::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const MS: Duration = Duration::from_millis(1);

/// More writes than any request makes.
const STEPS: u32 = 12;

/// Shared data that runs another worker just before the write of a given number.
struct Interrupted<'a> {
    inner: &'a InMemory,
    writes_before: Cell<u32>,
    other: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl<'a> Interrupted<'a> {
    fn new(inner: &'a InMemory, writes_before: u32, other: impl FnOnce() + 'a) -> Self {
        Self {
            inner,
            writes_before: writes_before.into(),
            other: RefCell::new(Some(Box::new(other))),
        }
    }

    fn was_interrupted(&self) -> bool {
        self.other.borrow().is_none()
    }
}

impl SharedData for Interrupted<'_> {
    fn get(&self, key: &str) -> Stored {
        self.inner.get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        match self.writes_before.get() {
            0 => {
                let other = self.other.borrow_mut().take();
                other.into_iter().for_each(|other| other());
            }
            left => self.writes_before.set(left - 1),
        }
        self.inner.set(key, value, cas)
    }
}

fn served(headers: &Headers) -> Response<'_> {
    Response::Received { status: 200, headers, body: b"" }
}

fn router(strategy: &str, weight: u32) -> Router {
    let config = json!({
        "routing": {"strategy": strategy},
        "session": {"max_bindings": 16},
        "pools": [{"name": "p", "credentials": [
            {"id": "a", "cluster": "a", "weight": weight}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
        ]}]
    });
    Router::new(
        Config::parse(config.to_string().as_bytes()).unwrap(),
        Seed::agree(&InMemory::default(), [7; 16]),
    )
}

fn serves(router: &Router, shared: &impl SharedData, session: &str) -> String {
    let headers: Headers =
        [(":path", "/v1/messages"), ("x-session-id", session)].into_iter().collect();
    let request = Request::new(&headers, Default::default());
    match router.route(&request, shared, NOW) {
        Decision::Route(route) => route.credential.id.clone(),
        other => panic!("{other:?}"),
    }
}

fn plan(router: &Router, shared: &impl SharedData, session: &str) -> Plan {
    let headers: Headers =
        [(":path", "/v1/messages"), ("x-session-id", session)].into_iter().collect();
    let request = Request::new(&headers, Default::default());
    match router.route(&request, shared, NOW) {
        Decision::Route(route) => router.plan(&route, NOW),
        other => panic!("{other:?}"),
    }
}

/// An answer, a moment after the request.
fn hear(
    router: &Router,
    shared: &impl SharedData,
    plan: &mut Plan,
    status: u16,
    retry_after: &str,
) {
    let headers: Headers = [("retry-after", retry_after)].into_iter().collect();
    router.observe(
        plan,
        &Response::Received { status, headers: &headers, body: b"" },
        shared,
        NOW + MS,
    );
}

/// A request of a session, and its answer.
fn answer(
    router: &Router,
    shared: &impl SharedData,
    session: &str,
    status: u16,
    retry_after: &str,
) {
    hear(router, shared, &mut plan(router, shared, session), status, retry_after);
}

/// Sends a request as Envoy does: the statuses by which credentials respond, 200 where none is
/// given, and 429 with an announced end; returns where it went.
fn send(
    router: &Router,
    shared: &impl SharedData,
    mut plan: Plan,
    responses: &[(&str, u16)],
    now: Timestamp,
) -> String {
    let pool = &router.config().pools[0];
    let mut sent = Vec::new();
    loop {
        let cluster = &pool.credential(plan.next.unwrap()).unwrap().cluster;
        let id = match router.attempt(&mut plan, cluster, shared, now) {
            Some(NextStep::Send { credential, .. }) => credential.id.as_str(),
            other => panic!("{other:?}"),
        };
        sent.push(id);
        let status = responses.iter().find(|(name, _)| *name == id).map_or(200, |(_, it)| *it);
        let hint = (status == 429).then_some(("retry-after", "60"));
        let headers: Headers = hint.into_iter().collect();
        let response = Response::Received { status, headers: &headers, body: b"" };
        if router.observe(&mut plan, &response, shared, now).next.is_none() {
            return sent.join(" ");
        }
    }
}

/// A whole request of a session.
fn request(
    router: &Router,
    shared: &impl SharedData,
    session: &str,
    responses: &[(&str, u16)],
) -> String {
    send(router, shared, plan(router, shared, session), responses, NOW + MS)
}

fn decide<'c>(
    router: &'c Router,
    shared: &impl SharedData,
    session: &str,
    now: Timestamp,
) -> Decision<'c> {
    let headers: Headers =
        [(":path", "/v1/messages"), ("x-session-id", session)].into_iter().collect();
    router.route(&Request::new(&headers, Default::default()), shared, now)
}

/// What is out for a request that no session has sent.
fn out(router: &Router, shared: &impl SharedData) -> String {
    let headers: Headers = [(":path", "/v1/messages")].into_iter().collect();
    let request = Request::new(&headers, Default::default());
    let words = router.route(&request, shared, NOW + MS).to_string();
    words.split_once(" out=").map_or(String::new(), |(_, out)| out.to_owned())
}

#[test]
fn two_workers_that_bind_one_session_at_once_agree() {
    for (strategy, weight) in
        [("round-robin", 1), ("round-robin", 5), ("fill-first", 1), ("consistent", 1)]
    {
        for step in 0..STEPS {
            let (router, shared) = (router(strategy, weight), InMemory::default());
            let theirs = RefCell::new(String::new());
            let interrupted = Interrupted::new(&shared, step, || {
                *theirs.borrow_mut() = serves(&router, &shared, "1")
            });
            let ours = serves(&router, &interrupted, "1");
            let later = serves(&router, &shared, "1");
            assert_eq!(ours, later, "{strategy} step {step}: the answer is what is bound");
            if interrupted.was_interrupted() {
                assert_eq!(*theirs.borrow(), later, "{strategy} step {step}: and both have it");
            }
        }
    }
}

#[test]
fn no_turn_is_lost_or_taken_twice() {
    for step in 0..STEPS {
        let (router, shared) = (router("round-robin", 1), InMemory::default());
        let theirs = RefCell::new(String::new());
        let interrupted = Interrupted::new(&shared, step, || {
            *theirs.borrow_mut() = serves(&router, &shared, "2")
        });
        let ours = serves(&router, &interrupted, "1");
        if !interrupted.was_interrupted() {
            *theirs.borrow_mut() = serves(&router, &shared, "2");
        }
        let mut all = [ours, theirs.borrow().clone(), serves(&router, &shared, "3")];
        all.sort();
        assert_eq!(all, ["a", "b", "c"], "step {step}");
    }
}

#[test]
fn bindings_of_one_row_do_not_push_each_other_out() {
    for step in 0..STEPS {
        let (router, shared) = (router("round-robin", 1), InMemory::default());
        let theirs = RefCell::new(String::new());
        let interrupted = Interrupted::new(&shared, step, || {
            *theirs.borrow_mut() = serves(&router, &shared, "2")
        });
        let ours = serves(&router, &interrupted, "1");
        assert_eq!(serves(&router, &shared, "1"), ours, "step {step}");
        if interrupted.was_interrupted() {
            assert_eq!(serves(&router, &shared, "2"), *theirs.borrow(), "step {step}");
        }
    }
}

#[test]
fn no_cooldown_is_lost() {
    for step in 0..STEPS {
        // Both sessions are on `a`. Ours is limited for a minute; theirs, answered in between, for
        // an hour or not at all.
        for status in [429, 200] {
            let (router, shared) = (router("fill-first", 1), InMemory::default());
            let [mut ours, mut theirs] = ["1", "2"].map(|session| plan(&router, &shared, session));
            let interrupted = Interrupted::new(&shared, step, || {
                hear(&router, &shared, &mut theirs, status, "3600")
            });
            hear(&router, &interrupted, &mut ours, 429, "60");
            assert_eq!(serves(&router, &shared, "3"), "b", "step {step}, they got {status}");
            assert_eq!(serves(&router, &shared, "1"), "b", "step {step}, they got {status}");
        }
    }
}

#[test]
fn a_session_that_was_served_has_a_home_whatever_else_fails() {
    for step in 0..STEPS {
        for status in [200, 400, 429, 503] {
            let (router, shared) = (router("round-robin", 1), InMemory::default());
            let interrupted =
                Interrupted::new(&shared, step, || answer(&router, &shared, "1", status, "60"));
            answer(&router, &interrupted, "1", 200, "");
            let headers: Headers =
                [(":path", "/v1/messages"), ("x-session-id", "1")].into_iter().collect();
            let request = Request::new(&headers, Default::default());
            let outcome = router.route(&request, &shared, NOW).outcome();
            let expected = [Outcome::Hit, Outcome::Substitute, Outcome::Return];
            assert!(expected.contains(&outcome), "step {step}, they got {status}: {outcome:?}");
        }
    }
}

#[test]
fn a_home_and_a_substitute_that_serve_at_once_are_both_kept() {
    for step in 0..STEPS {
        let (router, shared) = (router("fill-first", 1), InMemory::default());
        answer(&router, &shared, "1", 200, "");
        let headers: Headers =
            [(":path", "/v1/messages"), ("x-session-id", "1")].into_iter().collect();
        let request = Request::new(&headers, Default::default());
        let Decision::Route(at_home) = router.route(&request, &shared, NOW) else {
            panic!("not served")
        };
        answer(&router, &shared, "2", 429, "60");
        let Decision::Route(away) = router.route(&request, &shared, NOW + MS) else {
            panic!("not served")
        };
        assert_eq!((at_home.credential.id.as_str(), away.credential.id.as_str()), ("a", "b"));

        let none = Headers::default();
        let [mut theirs, mut ours] = [&at_home, &away].map(|route| router.plan(route, NOW + MS));
        let mut hear_theirs = || {
            router.observe(&mut theirs, &served(&none), &shared, NOW + 2 * MS);
        };
        let interrupted = Interrupted::new(&shared, step, &mut hear_theirs);
        router.observe(&mut ours, &served(&none), &interrupted, NOW + 3 * MS);
        if !interrupted.was_interrupted() {
            drop(interrupted);
            hear_theirs();
        }
        let key = at_home.session.unwrap().1;
        let binding = router.bindings().peek(&shared, key, NOW + 3 * MS).unwrap();
        assert_eq!(
            binding.home,
            BoundCredential {
                credential: at_home.credential.fingerprint,
                served: Some(NOW + 2 * MS)
            },
            "{step}"
        );
        let substitute =
            BoundCredential { credential: away.credential.fingerprint, served: Some(NOW + 3 * MS) };
        assert_eq!(binding.substitute, Some(substitute), "{step}");
    }
}

#[test]
fn a_session_never_stays_on_a_credential_that_was_just_blocked() {
    for step in 0..STEPS {
        let (router, shared) = (router("fill-first", 1), InMemory::default());
        assert_eq!(serves(&router, &shared, "1"), "a");
        let interrupted =
            Interrupted::new(&shared, step, || answer(&router, &shared, "2", 429, "60"));
        serves(&router, &interrupted, "1");
        assert_eq!(
            serves(&router, &shared, "1"),
            if interrupted.was_interrupted() { "b" } else { "a" },
            "step {step}"
        );
    }
}

#[test]
fn a_second_opinion_is_written_whatever_other_workers_write() {
    for step in 0..STEPS {
        for theirs in [
            &[][..],
            &[("a", 500)],
            &[("a", 429)],
            &[("b", 429)],
            &[("a", 429), ("b", 500)],
            &[("a", 500), ("b", 500), ("c", 500)],
        ] {
            let (router, shared) = (router("fill-first", 1), InMemory::default());
            let went = RefCell::new(String::new());
            let interrupted = Interrupted::new(&shared, step, || {
                *went.borrow_mut() = request(&router, &shared, "2", theirs);
            });
            let sent = request(&router, &interrupted, "1", &[("a", 500)]);
            drop(interrupted);
            let (went, out) = (went.into_inner(), out(&router, &shared));
            let met = |id: &str, status| went.contains(id) && theirs.contains(&(id, status));
            let case = format!("step {step}: ours {sent}, theirs {went} {theirs:?}: {out}");
            if met("a", 429) {
                assert!(out.contains("a:rate_limit:60s"), "{case}");
            } else if went == "a" && sent.starts_with('a') {
                // It was served there before or after ours failed.
                assert!(["a:transient:1s", ""].contains(&out.as_str()), "{case}");
            } else {
                assert!(out.contains("a:transient:1s"), "{case}");
            }
            assert_eq!(out.contains("b:rate_limit:60s"), met("b", 429), "{case}");
            let served = sent.rsplit(' ').next().unwrap();
            let decision = decide(&router, &shared, "1", NOW + MS).to_string();
            assert!(
                decision.contains(&format!(" credential={served} "))
                    || theirs.iter().any(|(id, _)| *id == served),
                "{case}: {decision}"
            );
        }
    }
}

#[test]
fn of_requests_that_come_together_one_claims_the_probe_of_a_guess() {
    for step in 0..STEPS {
        let (router, shared) = (router("fill-first", 1), InMemory::default());
        // All have failed; `c` is ready again first.
        for (id, wait) in [("a", "3"), ("b", "2"), ("c", "1")] {
            let mut plan = plan(&router, &shared, id);
            let headers: Headers = [("retry-after", wait)].into_iter().collect();
            let response = Response::Received { status: 503, headers: &headers, body: b"" };
            router.observe(&mut plan, &response, &shared, NOW);
        }
        let theirs = RefCell::new(String::new());
        let interrupted = Interrupted::new(&shared, step, || {
            *theirs.borrow_mut() = serves(&router, &shared, "2");
        });
        let ours = serves(&router, &interrupted, "1");
        if !interrupted.was_interrupted() {
            *theirs.borrow_mut() = serves(&router, &shared, "2");
        }
        let mut both = [ours, theirs.borrow().clone()];
        both.sort();
        assert_eq!(both, ["a", "c"], "step {step}: one probes, the other follows the strategy");
    }
}

#[test]
fn an_announced_limit_is_probed_by_no_more_requests_than_saw_it_due() {
    let due = NOW + Duration::from_mins(30);
    for step in 0..STEPS {
        let (router, shared) = (router("fill-first", 1), InMemory::default());
        for session in ["1", "2", "3"] {
            answer(&router, &shared, session, 429, "86400");
        }
        let theirs = RefCell::new(false);
        let interrupted = Interrupted::new(&shared, step, || {
            let decision = decide(&router, &shared, "5", due + MS);
            *theirs.borrow_mut() = matches!(decision, Decision::Route(_));
        });
        let ours = matches!(decide(&router, &interrupted, "4", due + MS), Decision::Route(_));
        assert!(ours, "step {step}");
        // Three credentials are due, and each is probed once more.
        let mut probes = usize::from(ours) + usize::from(*theirs.borrow());
        drop(interrupted);
        while matches!(decide(&router, &shared, "6", due + MS), Decision::Route(_)) {
            probes += 1;
            assert!(probes <= 4, "step {step}");
        }
        assert!(probes >= 3, "step {step}");
    }
}

#[test]
fn a_success_that_ends_a_guess_loses_no_announced_limit() {
    for step in 0..STEPS {
        for (theirs, expected) in
            [(500, &["", "a:transient:1s"][..]), (429, &["a:rate_limit:60s"]), (200, &[""])]
        {
            let (router, shared) = (router("fill-first", 1), InMemory::default());
            let [mut ours, failing, mut other] =
                ["1", "2", "3"].map(|session| plan(&router, &shared, session));
            router.observe(
                &mut failing.clone(),
                &Response::Received { status: 500, headers: &Headers::default(), body: b"" },
                &shared,
                NOW,
            );
            assert_eq!(out(&router, &shared), "a:transient:1s");
            let interrupted = Interrupted::new(&shared, step, || {
                let wait = if theirs == 429 { "60" } else { "" };
                hear(&router, &shared, &mut other, theirs, wait);
            });
            hear(&router, &interrupted, &mut ours, 200, "");
            let expected = if interrupted.was_interrupted() { expected } else { &[""] };
            drop(interrupted);
            let out = out(&router, &shared);
            assert!(expected.contains(&out.as_str()), "step {step}, they got {theirs}: {out}");
        }
    }
}

#[test]
fn a_session_that_fails_over_is_bound_to_a_credential_that_served_it() {
    for step in 0..STEPS {
        for had_a_home in [false, true] {
            for theirs in [
                &[][..],
                &[("a", 401)],
                &[("a", 429)],
                &[("a", 500), ("b", 500)],
                &[("a", 500), ("b", 500), ("c", 500)],
                &[("a", 400)],
            ] {
                let (router, shared) = (router("fill-first", 1), InMemory::default());
                let mut served = vec!["b"];
                if had_a_home {
                    assert_eq!(request(&router, &shared, "1", &[]), "a");
                    served.push("a");
                }
                let went = RefCell::new(String::new());
                let ours = plan(&router, &shared, "1");
                let interrupted = Interrupted::new(&shared, step, || {
                    *went.borrow_mut() = request(&router, &shared, "1", theirs);
                });
                send(&router, &interrupted, ours, &[("a", 403)], NOW + MS);
                drop(interrupted);
                let went = went.into_inner();
                let last = went.rsplit(' ').next().unwrap_or_default();
                if !theirs.iter().any(|(id, _)| *id == last) {
                    served.push(last);
                }
                // Once every cooldown is over, the session is where it was served.
                let later = NOW + Duration::from_mins(2);
                let Decision::Route(route) = decide(&router, &shared, "1", later) else {
                    panic!("step {step}")
                };
                assert!(
                    served.contains(&route.credential.id.as_str()),
                    "step {step}: {theirs:?}: {} is none of {served:?}",
                    route.credential.id
                );
                let new = [Outcome::Miss, Outcome::Cold, Outcome::None];
                assert!(!new.contains(&route.outcome), "step {step}: {theirs:?}");
            }
        }
    }
}

#[test]
fn a_failure_that_the_client_sees_takes_no_home_away() {
    for step in 0..STEPS {
        for (ours, theirs) in [(500, 200), (500, 500), (401, 200), (200, 500), (200, 401)] {
            let (router, shared) = (router("fill-first", 1), InMemory::default());
            answer(&router, &shared, "1", 200, "");
            let mut other = plan(&router, &shared, "1");
            let mut own = plan(&router, &shared, "1");
            let interrupted = Interrupted::new(&shared, step, || {
                hear(&router, &shared, &mut other, theirs, "");
            });
            hear(&router, &interrupted, &mut own, ours, "");
            let key = own.binding.unwrap();
            let binding = router.bindings().peek(&shared, key, NOW + MS).unwrap();
            let home = &router.config().pools[0].credentials[0];
            assert_eq!(binding.home.credential, home.fingerprint, "step {step}: {ours} {theirs}");
            assert!(binding.home.served.is_some(), "step {step}: {ours} {theirs}");
        }
    }
}
