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
use session_affinity::router::{Decision, Plan, Router};
use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};
use session_affinity::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const MS: Duration = Duration::from_millis(1);

/// More writes than any request makes.
const STEPS: u32 = 6;

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
    let headers: Headers = [("x-session-id", session)].into_iter().collect();
    let request = Request::new(&headers, Default::default());
    match router.route(&request, shared, NOW) {
        Decision::Route(route) => route.credential.id.clone(),
        other => panic!("{other:?}"),
    }
}

fn plan(router: &Router, shared: &impl SharedData, session: &str) -> Plan {
    let headers: Headers = [("x-session-id", session)].into_iter().collect();
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
            let headers: Headers = [("x-session-id", "1")].into_iter().collect();
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
        let headers: Headers = [("x-session-id", "1")].into_iter().collect();
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
