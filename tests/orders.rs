//! Requests at several workers, in every order of their reads and writes.
//!
//! The workers of an Envoy share nothing but the map of shared data. Each scenario is two or three
//! requests that meet there; after every order it has to hold that
//!
//! - no cooldown is lost that a provider announced;
//! - a session is bound to credentials that served it, and to those of no other session;
//! - a pin that was made is there;
//! - nothing is stored that does not decode;
//! - a request is sent in spite of a cooldown once at most.
//!
//! And if the host wrote unconditionally, most scenarios would have to notice it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod baton;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use baton::{Worker, Writes, every_order};
use serde_json::json;
use session_affinity::binding::Binding;
use session_affinity::config::Config;
use session_affinity::cooldown::{Basis, Record};
use session_affinity::hash::{KeyHash, Seed};
use session_affinity::outcome::{Observed, Outcome};
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, NextStep, Plan, Router};
use session_affinity::shared::{InMemory, SharedData, update};
use session_affinity::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
/// When answers come: later than a binding is written again.
const LATER: Timestamp = Timestamp::from_secs(1_000_006);

/// More orders than any scenario has.
const MOST: u64 = 60_000;

/// How a credential answers: its status, and the seconds after which it wants to be asked again.
type Answer = (&'static str, u16, Option<u64>);

/// What a worker does.
#[derive(Clone, Debug)]
enum Job {
    /// Decides a request of a session, and hears nothing yet.
    Decide(&'static str),
    /// A request of a session from its decision to its end.
    Send(&'static str, &'static [Answer]),
    /// The same, but the decision was made before.
    Hear(&'static str, &'static [Answer]),
    /// Creates a response with this id in a session.
    Create(&'static str, &'static str),
    /// Refers to a response in a session.
    Refer(&'static str, &'static str, &'static [Answer]),
}

/// What a worker saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    session: &'static str,
    key: Option<KeyHash>,
    outcome: Option<Outcome>,
    /// The credential that was chosen.
    first: Option<&'static str>,
    is_probe: bool,
    /// The credentials that it was sent to, and their answers.
    sent: Vec<Answer>,
    contended: bool,
    created: Option<&'static str>,
}

impl Seen {
    /// The credential that served it.
    fn served(&self) -> Option<&'static str> {
        self.sent.last().filter(|(_, status, _)| *status == 200).map(|(id, ..)| *id)
    }
}

struct Scenario {
    name: &'static str,
    strategy: &'static str,
    /// What happened before, one after the other.
    before: &'static [Job],
    jobs: &'static [Job],
    /// Whether unconditional writes would break something.
    needs_compare: bool,
    /// What has to hold beside the rules for all.
    holds: fn(&[Seen], Option<Binding>) -> bool,
}

fn router(strategy: &str) -> Router {
    let ids = ["a", "b", "c"];
    let config = json!({
        "routing": {"strategy": strategy},
        // One row for all of them: every write meets every other.
        "session": {"max_bindings": 16},
        "pins": {"max": 16},
        "pools": [{"name": "p", "credentials": ids.map(|id| json!({"id": id, "cluster": id}))}]
    });
    let config = Config::parse(config.to_string().as_bytes()).unwrap();
    Router::new(config, Seed::agree(&InMemory::default(), [7; 16]))
}

fn known(id: &str) -> &'static str {
    ["a", "b", "c"].into_iter().find(|known| *known == id).unwrap()
}

fn decide<'c>(
    router: &'c Router,
    shared: &impl SharedData,
    job: &Job,
) -> (Seen, Option<(Plan, Decision<'c>)>) {
    let (session, body) = match job {
        Job::Decide(session) | Job::Send(session, _) | Job::Hear(session, _) => {
            (*session, json!({"model": "m"}))
        }
        Job::Create(session, _) => (*session, json!({"model": "m", "input": "x"})),
        Job::Refer(session, id, _) => (*session, json!({"model": "m", "previous_response_id": id})),
    };
    let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", session)];
    let headers: Headers = headers.into_iter().collect();
    let body = body.to_string();
    let request = Request::new(&headers, router.read_body(body.as_bytes()));
    let decision = router.route(&request, shared, NOW);
    let outcome = decision.outcome();
    let mut seen = Seen { session, outcome: Some(outcome), ..Seen::default() };
    seen.contended = outcome == Outcome::Contended;
    let Decision::Route(route) = &decision else { return (seen, None) };
    seen.key = route.session.map(|(_, key)| key);
    seen.is_probe = route.is_probe;
    seen.first = Some(known(&route.credential.id));
    (seen, Some((router.plan(route, NOW), decision)))
}

/// Sends a request as Envoy does, and lets the filter hear what became of it.
fn send(
    router: &Router,
    shared: &impl SharedData,
    job: &Job,
    (plan, at): (&mut Plan, Timestamp),
    seen: &mut Seen,
) {
    let (answers, created) = match job {
        Job::Decide(_) => return,
        Job::Send(_, answers) | Job::Hear(_, answers) | Job::Refer(_, _, answers) => {
            (*answers, None)
        }
        Job::Create(_, id) => (&[][..], Some(*id)),
    };
    let pool = &router.config().pools[0];
    loop {
        let cluster = &pool.credential(plan.next.unwrap()).unwrap().cluster;
        let Some(NextStep::Send { credential, .. }) = router.attempt(plan, cluster, shared, NOW)
        else {
            panic!("nothing to send")
        };
        let id = known(&credential.id);
        let answer = answers.iter().find(|(name, ..)| *name == id);
        let (_, status, wait) = *answer.unwrap_or(&(id, 200, None));
        seen.sent.push((id, status, wait));
        let wait = wait.map(|wait| wait.to_string());
        let headers: Headers = wait.iter().map(|wait| ("retry-after", wait.as_str())).collect();
        let body = match (status, created) {
            (404, _) => r#"{"error":{"code":"previous_response_not_found"}}"#.to_owned(),
            (_, created) => json!({"id": created}).to_string(),
        };
        let status = if status == 404 { 400 } else { status };
        let response = Response::Received { status, headers: &headers, body: body.as_bytes() };
        let verdict = router.observe(plan, &response, shared, at);
        seen.contended |= verdict.observed == Observed::Contended;
        if verdict.next.is_none() {
            seen.created = created.filter(|_| seen.served().is_some());
            return;
        }
    }
}

fn run(router: &Router, shared: &impl SharedData, job: &Job, at: Timestamp) -> Seen {
    let (mut seen, routed) = decide(router, shared, job);
    if let Some((mut plan, _)) = routed {
        send(router, shared, job, (&mut plan, at), &mut seen);
    }
    seen
}

/// What holds after every order.
fn check(router: &Router, shared: &InMemory, before: &[Seen], seen: &[Seen]) {
    let all = || before.iter().chain(seen);
    assert!(all().all(|seen| !seen.contended), "three workers do not use up all tries");
    for key in shared.keys() {
        let value = shared.get(&key).value;
        let entry = if key.contains("/binding/") { 64 } else { 40 };
        if key.contains("/binding/") || key.contains("/pin/") {
            assert_eq!((value[0], value.len() % entry), (2, 1), "{key}");
        }
    }
    let pool = &router.config().pools[0];
    let name = |id| known(&pool.credential(id).unwrap().id);
    for Seen { session, key, .. } in seen.iter().filter(|seen| !seen.sent.is_empty()) {
        let served: Vec<_> =
            all().filter(|it| it.session == *session).filter_map(Seen::served).collect();
        let binding = key.and_then(|key| router.bindings().peek(shared, key, LATER));
        assert_eq!(
            binding.is_some_and(|it| it.is_confirmed()),
            !served.is_empty(),
            "session {session} was served at {served:?}, and is bound {binding:?}"
        );
        for bound in binding.iter().flat_map(|it| [Some(it.home), it.substitute]).flatten() {
            let id = name(bound.credential);
            assert!(bound.served.is_none() || served.contains(&id), "{session}: {id} {served:?}");
        }
    }
    for credential in &pool.credentials {
        let value = shared.get(&credential.cooldown_key).value;
        let record = Record::decode(&value, credential.entry);
        assert!(value.is_empty() || record.encode(credential.entry) == value, "{}", credential.id);
        let told = all().flat_map(|seen| &seen.sent);
        let told = told.filter(|(id, status, _)| *id == credential.id && *status == 429);
        if let Some(longest) = told.filter_map(|(_, _, wait)| *wait).max() {
            let end = LATER + Duration::from_secs(longest);
            let mut announced = record.iter().filter(|it| it.basis != Basis::Guessed);
            assert!(announced.any(|it| it.until >= end), "{}: {longest} s are lost", credential.id);
        }
    }
    for created in all().filter(|it| it.created.is_some()) {
        let id = created.created.unwrap();
        let (seen, _) = decide(router, shared, &Job::Refer("another", id, &[]));
        let expected = [Outcome::Pinned, Outcome::Substitute, Outcome::ModelCooldown];
        assert!(expected.contains(&seen.outcome.unwrap()), "{id}: {seen:?}");
    }
}

/// Plays every order of a scenario; how many there were, and how many writes were refused.
fn play(scenario: &Scenario, writes: Writes) -> (u64, u64) {
    let (router, shared) = (router(scenario.strategy), InMemory::default());
    let before: Vec<_> =
        scenario.before.iter().map(|job| run(&router, &shared, job, NOW)).collect();
    let prepared: Vec<_> = scenario.jobs.iter().map(|job| prepare(&router, &shared, job)).collect();
    let requests: Vec<_> = prepared.iter().map(|request| &**request).collect();
    let orders = every_order(&shared, &requests, writes, MOST, |shared, seen| {
        check(&router, shared, &before, &seen);
        let key = seen.first().and_then(|seen| seen.key);
        let bound = key.and_then(|key| router.bindings().peek(shared, key, LATER));
        assert!((scenario.holds)(&seen, bound), "{}: {bound:?} {seen:#?}", scenario.name);
    });
    (orders.played, orders.refused)
}

type Prepared<'r> = Box<dyn Fn(&Worker<'_>) -> Seen + Sync + 'r>;

fn prepare<'r>(router: &'r Router, shared: &InMemory, job: &'r Job) -> Prepared<'r> {
    if !matches!(job, Job::Hear(..)) {
        return Box::new(move |worker| run(router, worker, job, LATER));
    }
    let (seen, routed) = decide(router, shared, job);
    let plan = routed.unwrap().0;
    Box::new(move |worker| {
        let (mut plan, mut seen) = (plan.clone(), seen.clone());
        send(router, worker, job, (&mut plan, LATER), &mut seen);
        seen
    })
}

fn together(seen: &[Seen], _: Option<Binding>) -> bool {
    seen.iter().all(|it| it.served() == seen[0].served())
}

fn apart(seen: &[Seen], _: Option<Binding>) -> bool {
    let mut served: Vec<_> = seen.iter().filter_map(Seen::served).collect();
    served.sort_unstable();
    served.dedup();
    served.len() == seen.len()
}

fn anything(_: &[Seen], _: Option<Binding>) -> bool {
    true
}

/// Of those that come while no credential is ready, one probes the one that is ready first.
fn one_probe(seen: &[Seen], _: Option<Binding>) -> bool {
    let to = |id| seen.iter().filter(|it| it.is_probe && it.first == Some(id)).count();
    to("c") == 1 && to("a") == seen.len() - 1
}

/// A home and a substitute that served at once are both kept.
fn both_are_kept(seen: &[Seen], bound: Option<Binding>) -> bool {
    let bound = bound.unwrap();
    let kept = [bound.home.served, bound.substitute.unwrap().served];
    seen[0].served() == Some("b") && seen[1].served() == Some("a") && kept == [Some(LATER); 2]
}

/// Both failures of the home count: the session stays away from it.
fn both_failures_count(seen: &[Seen], bound: Option<Binding>) -> bool {
    let bound = bound.unwrap();
    seen.iter().all(|it| it.sent.len() == 2) && bound.failures == 2 && bound.avoid_until > LATER
}

const LIMITED: Answer = ("a", 429, Some(60));
const LONGER: Answer = ("a", 429, Some(3_600));

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "two new sessions",
        strategy: "round-robin",
        before: &[],
        jobs: &[Job::Send("1", &[]), Job::Send("2", &[])],
        needs_compare: true,
        holds: apart,
    },
    Scenario {
        name: "one new session twice",
        strategy: "round-robin",
        before: &[],
        jobs: &[Job::Send("1", &[]), Job::Send("1", &[])],
        needs_compare: true,
        holds: together,
    },
    Scenario {
        name: "one new session twice, with a common home",
        strategy: "consistent",
        before: &[],
        jobs: &[Job::Send("1", &[]), Job::Send("1", &[])],
        needs_compare: false,
        holds: together,
    },
    Scenario {
        name: "three answers for three sessions",
        strategy: "round-robin",
        before: &[],
        jobs: &[Job::Hear("1", &[]), Job::Hear("2", &[]), Job::Hear("3", &[])],
        needs_compare: true,
        holds: apart,
    },
    Scenario {
        name: "three new sessions are decided",
        strategy: "fill-first",
        before: &[],
        jobs: &[Job::Decide("1"), Job::Decide("2"), Job::Decide("1")],
        needs_compare: false,
        holds: anything,
    },
    Scenario {
        name: "two limits",
        strategy: "fill-first",
        before: &[],
        jobs: &[Job::Hear("1", &[LIMITED]), Job::Hear("2", &[LONGER])],
        needs_compare: true,
        holds: anything,
    },
    Scenario {
        name: "a limit and a success",
        strategy: "fill-first",
        before: &[],
        jobs: &[Job::Hear("1", &[LIMITED]), Job::Hear("2", &[])],
        needs_compare: true,
        holds: anything,
    },
    Scenario {
        name: "a limit while a session is decided",
        strategy: "fill-first",
        before: &[Job::Send("1", &[])],
        jobs: &[Job::Hear("2", &[LIMITED]), Job::Send("1", &[])],
        needs_compare: true,
        holds: anything,
    },
    Scenario {
        name: "one session fails over while another request of it is served",
        strategy: "fill-first",
        before: &[],
        jobs: &[Job::Hear("1", &[("a", 403, None)]), Job::Hear("1", &[])],
        needs_compare: false,
        holds: anything,
    },
    Scenario {
        name: "a home and its substitute serve at once",
        strategy: "fill-first",
        before: &[Job::Send("1", &[])],
        jobs: &[Job::Hear("1", &[LIMITED]), Job::Hear("1", &[])],
        needs_compare: true,
        holds: both_are_kept,
    },
    Scenario {
        name: "a common home fails two requests of a session",
        strategy: "consistent",
        before: &[],
        // The home of this session is `a`.
        jobs: &[Job::Hear("1", &[("a", 500, None)]), Job::Hear("1", &[("a", 500, None)])],
        needs_compare: true,
        holds: both_failures_count,
    },
    Scenario {
        name: "a session fails everywhere, and is served elsewhere",
        strategy: "fill-first",
        before: &[],
        jobs: &[
            Job::Hear("1", &[("a", 500, None), ("b", 503, None), ("c", 500, None)]),
            Job::Hear("1", &[("a", 500, None)]),
        ],
        needs_compare: true,
        holds: anything,
    },
    Scenario {
        name: "two come while no credential is ready",
        strategy: "fill-first",
        before: &[Job::Send("x", &[("a", 503, Some(9)), ("b", 503, Some(8)), ("c", 529, Some(7))])],
        jobs: &[Job::Decide("1"), Job::Decide("2")],
        needs_compare: true,
        holds: one_probe,
    },
    Scenario {
        name: "two responses are created",
        strategy: "fill-first",
        before: &[],
        jobs: &[Job::Create("1", "resp_1"), Job::Create("2", "resp_2")],
        needs_compare: true,
        holds: anything,
    },
    Scenario {
        name: "a response is created while another one is found to be gone",
        strategy: "fill-first",
        before: &[Job::Create("1", "resp_1")],
        jobs: &[Job::Create("2", "resp_2"), Job::Refer("1", "resp_0", &[("a", 404, None)])],
        needs_compare: true,
        holds: anything,
    },
];

#[test]
fn every_order_of_two_and_three_requests_is_sound() {
    let (mut orders, mut refused) = (0, 0);
    for scenario in SCENARIOS {
        let (played, lost) = play(scenario, Writes::Compared);
        println!("{}: {played} orders, {lost} writes refused", scenario.name);
        assert!(played > 1, "{}: they have to meet", scenario.name);
        (orders, refused) = (orders + played, refused + lost);
    }
    println!("{orders} orders, {refused} writes refused");
    assert!(refused > orders / 2, "{refused} writes were refused in {orders} orders");
}

#[test]
fn a_host_that_writes_unconditionally_is_noticed() {
    let noticed =
        |scenario| catch_unwind(AssertUnwindSafe(|| play(scenario, Writes::Unconditional)));
    let missed: Vec<_> = SCENARIOS
        .iter()
        .filter(|scenario| noticed(scenario).is_err() != scenario.needs_compare)
        .map(|scenario| scenario.name)
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The player itself. Three reads and three writes of one key can follow each other in 90 ways, of
/// which 36 differ by more than by reads that change places.
#[test]
fn orders_are_told_apart_by_what_meets() {
    let add = |key: &'static str| {
        move |worker: &Worker<'_>| {
            let one_more = |value: &[u8]| (Some(vec![value.first().map_or(1, |it| it + 1)]), ());
            assert!(update(worker, key, one_more).written);
        }
    };
    for (keys, writes, orders, sums) in [
        (["x", "y", "z"], Writes::Compared, 1, &[3][..]),
        (["x", "x", "y"], Writes::Compared, 4, &[3]),
        // Whoever reads before another one has written loses what that one wrote.
        (["x", "x", "y"], Writes::Unconditional, 4, &[2, 3]),
        (["x", "x", "x"], Writes::Unconditional, 36, &[1, 2, 3]),
    ] {
        let requests = keys.map(add);
        let requests = [0, 1, 2].map(|at| &requests[at] as &(dyn Fn(&Worker<'_>) + Sync));
        let mut seen = BTreeSet::new();
        let played = every_order(&InMemory::default(), &requests, writes, MOST, |shared, _| {
            let keys = shared.keys();
            seen.insert(keys.iter().map(|key| u64::from(shared.get(key).value[0])).sum::<u64>());
        });
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), sums, "{keys:?} {writes:?}");
        assert_eq!(played.played, orders, "{keys:?} {writes:?}");
    }
}

/// Whose writes are always refused has a name for it, and leaves everything as it was.
#[test]
fn a_write_that_is_given_up_is_an_outcome_with_a_name() {
    for job in [Job::Send("1", &[]), Job::Send("1", &[LIMITED]), Job::Create("1", "resp_1")] {
        let (router, shared) = (router("fill-first"), InMemory::default());
        let loses = |worker: &Worker<'_>| {
            worker.lose_every_write();
            run(&router, worker, &job, LATER)
        };
        every_order(&shared, &[&loses], Writes::Compared, 1, |shared, seen| {
            assert_eq!(seen[0].outcome, Some(Outcome::Contended), "{job:?}");
            assert!(seen[0].contended && seen[0].served().is_some(), "{job:?}: {seen:?}");
            assert!(shared.keys().is_empty(), "{job:?}");
        });
    }
}
