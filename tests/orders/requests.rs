//! Requests that meet: what a worker does with one, and what has to hold when all have ended.

use std::env;

use serde_json::{Value, json};
use session_affinity::binding::Binding;
use session_affinity::config::{Config, Credential};
use session_affinity::hash::{KeyHash, Seed};
use session_affinity::headroom::Flights;
use session_affinity::outcome::{Observed, Outcome};
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, NextStep, Plan, Router};
use session_affinity::shared::{Cas, InMemory, SharedData};
use session_affinity::time::Timestamp;

use crate::explorer::{Explorer, Job, Orders, Search, Writes, every_order};
use crate::rules::check;
use crate::worker::{Forgets, Worker};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_000_000);
/// When answers come: later than a binding is written again.
pub(crate) const LATER: Timestamp = Timestamp::from_secs(1_000_006);

/// When a limit that was announced is probed.
const DUE: Timestamp = Timestamp::from_secs(1_000_006 + 30 * 60 + 1);

/// Orders that are drawn at random where not all are played.
const SAMPLE: u64 = 100;

/// The VM of what happened before.
const ANOTHER_VM: u32 = 100;

/// How a credential answers: its status, and the seconds after which it wants to be asked again.
pub(crate) type Answer = (&'static str, u16, Option<u64>);

/// What a worker does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Decides a request of a session, and hears nothing yet.
    Decide(&'static str),
    /// The same, half an hour later.
    Due(&'static str),
    /// A request of a session from its decision to its end.
    Send(&'static str, &'static [Answer]),
    /// The same, but the decision was made before.
    Hear(&'static str, &'static [Answer]),
    /// Hears of a success with these headers.
    Told(&'static str, &'static [(&'static str, &'static str)]),
    /// Creates a response with this id in a session.
    Create(&'static str, &'static str),
    /// Refers to a response in a session.
    Refer(&'static str, &'static str, &'static [Answer]),
}

/// What a worker saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) session: &'static str,
    pub(crate) key: Option<KeyHash>,
    pub(crate) outcome: Option<Outcome>,
    /// The credential that was chosen.
    pub(crate) first: Option<&'static str>,
    pub(crate) is_probe: bool,
    /// The credentials that it was sent to, and their answers.
    pub(crate) sent: Vec<Answer>,
    pub(crate) contended: bool,
    pub(crate) created: Option<&'static str>,
}

impl Seen {
    /// The credential that served it.
    pub(crate) fn served(&self) -> Option<&'static str> {
        self.sent.last().filter(|(_, status, _)| *status == 200).map(|(id, ..)| *id)
    }
}

/// How an order has ended.
pub(crate) struct After<'a> {
    pub(crate) router: &'a Router,
    pub(crate) shared: &'a InMemory,
    pub(crate) seen: &'a [Seen],
    /// The binding of the first session.
    pub(crate) bound: Option<Binding>,
}

impl After<'_> {
    pub(crate) fn credential(&self, id: &str) -> &Credential {
        self.router.config().pools[0].credentials.iter().find(|it| it.id == id).unwrap()
    }
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) strategy: &'static str,
    /// What `a`, `b` and `c` have beside their names, as JSON.
    pub(crate) credentials: [&'static str; 3],
    /// What happened before, one after the other.
    pub(crate) before: &'static [Work],
    pub(crate) work: &'static [Work],
    /// How often workers interrupt each other at most; `None`: as often as they can.
    pub(crate) interruptions: Option<u32>,
    /// Whether unconditional writes would break something.
    pub(crate) needs_compare: bool,
    /// What has to hold beside the rules for all.
    pub(crate) holds: fn(&After<'_>) -> bool,
}

const IDS: [&str; 3] = ["a", "b", "c"];

pub(crate) fn router(strategy: &str, more: [&str; 3]) -> Router {
    let credentials = [0, 1, 2].map(|at| {
        let mut credential: Value = serde_json::from_str(more[at]).unwrap();
        credential["id"] = IDS[at].into();
        credential["cluster"] = IDS[at].into();
        credential
    });
    let config = json!({
        "routing": {"strategy": strategy},
        // One row for all of them: every write meets every other.
        "session": {"max_bindings": 16},
        "pins": {"max": 16},
        "pools": [{"name": "p", "credentials": credentials}]
    });
    let config = Config::parse(config.to_string().as_bytes()).unwrap();
    Router::new(config, Seed::agree(&InMemory::default(), [7; 16]))
}

pub(crate) fn known(id: &str) -> &'static str {
    IDS.into_iter().find(|known| *known == id).unwrap()
}

/// A request that was decided, on its way.
struct Sent {
    plan: Plan,
    /// The requests of its worker, where they are counted.
    flights: Option<Flights>,
    seen: Seen,
}

/// A worker with its VM's name.
struct At<'r> {
    router: &'r Router,
    vm: u32,
    /// When its answers come.
    answered: Timestamp,
}

impl At<'_> {
    fn decide(&self, shared: &impl Forgets, work: &Work) -> Result<Sent, Seen> {
        let (session, body) = match work {
            Work::Decide(session)
            | Work::Due(session)
            | Work::Send(session, _)
            | Work::Hear(session, _)
            | Work::Told(session, _) => (*session, json!({"model": "m"})),
            Work::Create(session, _) => (*session, json!({"model": "m", "input": "x"})),
            Work::Refer(session, id, _) => {
                (*session, json!({"model": "m", "previous_response_id": id}))
            }
        };
        let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", session)];
        let headers: Headers = headers.into_iter().collect();
        let body = body.to_string();
        let request = Request::new(&headers, self.router.read_body(body.as_bytes()));
        let now = if matches!(work, Work::Due(_)) { DUE } else { NOW };
        let decision = self.router.route(&request, shared, now);
        let outcome = decision.outcome();
        let mut seen = Seen { session, outcome: Some(outcome), ..Seen::default() };
        seen.contended = outcome == Outcome::Contended;
        let Decision::Route(route) = &decision else { return Err(seen) };
        seen.key = route.session.map(|(_, key)| key);
        seen.is_probe = route.is_probe;
        seen.first = Some(known(&route.credential.id));
        let mut plan = self.router.plan(route, NOW);
        let mut flights = self.router.counts_flights(route.pool).then(|| Flights::new(self.vm));
        if let Some(flights) = &mut flights {
            plan.ticket = flights.begin(&route.credential.flights_key, shared, NOW);
        }
        Ok(Sent { plan, flights, seen })
    }

    /// Sends a request as Envoy does, and lets the filter hear what became of it.
    fn send(&self, shared: &impl Forgets, work: &Work, sent: Sent) -> Seen {
        let Sent { mut plan, mut flights, mut seen } = sent;
        let (answers, created, told) = match work {
            Work::Decide(_) | Work::Due(_) => return seen,
            Work::Send(_, answers) | Work::Hear(_, answers) | Work::Refer(_, _, answers) => {
                (*answers, None, &[][..])
            }
            Work::Told(_, headers) => (&[][..], None, *headers),
            Work::Create(_, id) => (&[][..], Some(*id), &[][..]),
        };
        let pool = &self.router.config().pools[0];
        loop {
            shared.knows_only(&(&plan, &flights, &seen));
            let cluster = &pool.credential(plan.next.unwrap()).unwrap().cluster;
            let next = self.router.attempt(&mut plan, cluster, shared, NOW);
            let Some(NextStep::Send { credential, .. }) = next else { panic!("nothing to send") };
            if let Some(flights) = &mut flights {
                flights.go_on(plan.ticket, &credential.flights_key, shared, NOW);
            }
            let id = known(&credential.id);
            let answer = answers.iter().find(|(name, ..)| *name == id);
            let (_, status, wait) = *answer.unwrap_or(&(id, 200, None));
            seen.sent.push((id, status, wait));
            let wait = wait.map(|wait| wait.to_string());
            let wait = wait.iter().map(|wait| ("retry-after", wait.as_str()));
            let headers: Headers = wait.chain(told.iter().copied()).collect();
            let body = match (status, created) {
                (404, _) => r#"{"error":{"code":"previous_response_not_found"}}"#.to_owned(),
                (_, created) => json!({"id": created}).to_string(),
            };
            let status = if status == 404 { 400 } else { status };
            let response = Response::Received { status, headers: &headers, body: body.as_bytes() };
            let verdict = self.router.observe(&mut plan, &response, shared, self.answered);
            seen.contended |= verdict.observed == Observed::Contended;
            if verdict.next.is_none() {
                if let Some(flights) = &mut flights {
                    flights.end(plan.ticket, shared, self.answered);
                }
                seen.created = created.filter(|_| seen.served().is_some());
                return seen;
            }
        }
    }

    pub(crate) fn run(&self, shared: &impl Forgets, work: &Work) -> Seen {
        match self.decide(shared, work) {
            Ok(sent) => self.send(shared, work, sent),
            Err(seen) => seen,
        }
    }
}

/// What one worker does alone, and before all others.
pub(crate) fn alone(router: &Router, shared: &impl Forgets, work: &Work) -> Seen {
    At { router, vm: ANOTHER_VM, answered: NOW }.run(shared, work)
}

/// Work as a function of what is read.
type Prepared<'r> = Box<dyn Fn(&Worker<'_>) -> Seen + 'r>;

fn prepare<'r>(
    router: &'r Router,
    shared: &InMemory,
    (vm, work): (usize, &'r Work),
) -> Prepared<'r> {
    let at = At { router, vm: vm as u32, answered: LATER };
    if !matches!(work, Work::Hear(..) | Work::Told(..)) {
        return Box::new(move |worker| at.run(worker, work));
    }
    let Sent { plan, seen, flights } = at.decide(shared, work).unwrap();
    Box::new(move |worker| {
        // What its VM counts is as it was after the decision.
        let flights = flights.is_some().then(|| {
            let mut flights = Flights::new(at.vm);
            let pool = &router.config().pools[0];
            let key = &pool.credential(plan.next.unwrap()).unwrap().flights_key;
            assert_eq!(flights.begin(key, &InMemory::default(), NOW), plan.ticket);
            flights
        });
        at.send(worker, work, Sent { plan: plan.clone(), seen: seen.clone(), flights })
    })
}

impl Scenario {
    /// Plays every order.
    pub(crate) fn play(&self, writes: Writes) -> Orders {
        let (router, shared) = (router(self.strategy, self.credentials), InMemory::default());
        let before: Vec<_> = self.before.iter().map(|work| alone(&router, &shared, work)).collect();
        let prepared = self.prepared(&router, &shared);
        let jobs: Vec<Job<'_, Seen>> = prepared.iter().map(|job| &**job).collect();
        let more = env::var("INTERRUPTIONS").ok().map(|number| number.parse().unwrap());
        let search = match self.interruptions {
            Some(interruptions) => {
                let interruptions = more.unwrap_or(interruptions);
                Search::Bounded { interruptions, sample: SAMPLE }
            }
            None => Search::Short,
        };
        every_order(&shared, &jobs, writes, search, |shared, seen| {
            check(&router, shared, &before, &seen);
            let key = seen.first().and_then(|seen| seen.key);
            let bound = key.and_then(|key| router.bindings().peek(shared, key, LATER));
            let after = After { router: &router, shared, seen: &seen, bound };
            assert!((self.holds)(&after), "{}: {bound:?} {seen:#?}", self.name);
        })
    }

    fn prepared<'r>(&'r self, router: &'r Router, shared: &InMemory) -> Vec<Prepared<'r>> {
        let work = self.work.iter().enumerate();
        work.map(|work| prepare(router, shared, work)).collect()
    }

    /// Plays every order in each of these ways; whether all end alike, and how many orders there are.
    pub(crate) fn compare(&self, ways: &[Search]) -> (bool, Vec<Orders>) {
        let (router, shared) = (router(self.strategy, self.credentials), InMemory::default());
        self.before.iter().for_each(|work| drop(alone(&router, &shared, work)));
        let prepared = self.prepared(&router, &shared);
        let jobs: Vec<Job<'_, Seen>> = prepared.iter().map(|job| &**job).collect();
        let mut explorer = Explorer::new(&shared, &jobs, Writes::Compared);
        let (orders, ends): (Vec<_>, Vec<_>) =
            ways.iter().map(|way| explorer.explore(*way)).unzip();
        (ends.windows(2).all(|ends| ends[0] == ends[1]), orders)
    }
}

/// What would be decided now.
pub(crate) fn alone_on_a_copy(router: &Router, shared: &InMemory, work: &Work) -> Seen {
    let at = At { router, vm: ANOTHER_VM, answered: NOW };
    at.decide(&copy_of(shared), work).map_or_else(|seen| seen, |sent| sent.seen)
}

/// Shared data with the same values.
fn copy_of(shared: &InMemory) -> InMemory {
    let copy = InMemory::default();
    for key in shared.keys() {
        copy.set(&key, &shared.get(&key).value, Cas(0)).unwrap();
    }
    copy
}
