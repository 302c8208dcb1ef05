//! The simulation: events in the order of their time.
//!
//! A turn reaches an Envoy, whose core decides it; each attempt ends with an answer, which the core
//! observes, as the filter does. A response counts when it begins. The client sends its next turn
//! when the response has ended and its pause is over; after a refusal, not before the time that the
//! refusal names, up to a minute. Clients do not repeat what was refused: the next turn comes with a
//! longer prompt.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use anyhow::{Result, ensure};
use session_affinity::availability::Unready;
use session_affinity::config::CredentialId;
use session_affinity::router::BodyNeed;
use session_affinity::shared::Note;
use session_affinity::{Decision, Failure, Headers, NextStep, Plan, Request, Response, Timestamp};

use crate::fleet::{Fleet, Instance};
use crate::provider::{Answer, Credential};
use crate::random::Random;
use crate::scenario::{Restarts, Scenario, Spread};
use crate::session::{Session, Turn};
use crate::slab::Slab;
use crate::subscription::Subscription;
use crate::tally::{End, Results, Room, Tally};

/// When the simulation begins: any time will do, but not the epoch, which means "never".
const BEGIN: u64 = 1_800_000_000_000;

const HOUR: f64 = 3_600_000.0;

/// A connection without use is closed after so long.
const IDLE: u64 = 60_000;

/// The longest that a client waits because it was refused.
const LONGEST_WAIT: u64 = 60_000;

/// How long an error takes, and a connection that is refused.
const ERROR: u64 = 300;
const REFUSED: u64 = 2;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Turn {
        session: usize,
        is_side: bool,
    },
    Answer {
        flight: usize,
    },
    /// A response has ended, with the number of its request.
    Over {
        over: usize,
    },
    Replace {
        envoy: usize,
    },
    /// Sessions arrive no longer: what Envoys hold now is what they hold at any time.
    Measure,
}

/// A request at a credential.
struct Flight {
    session: usize,
    is_side: bool,
    turn: Turn,
    instance: Rc<Instance>,
    plan: Plan,
    /// Its number among the requests under way of its Envoy; 0 if they are not counted.
    ticket: u32,
    credential: u16,
    answer: Answer,
    tokens: u32,
    cached: u32,
    cachable: u32,
}

struct World<'s> {
    scenario: &'s Scenario,
    fleet: Fleet,
    /// The path and the beginning of the body of every request.
    request: (&'static str, &'static [u8]),
    lifetime: u64,
    credentials: Vec<Credential>,
    fingerprints: Vec<CredentialId>,
    sessions: Slab<Session>,
    flights: Slab<Flight>,
    /// Responses that go on, with the Envoy and the number of the request.
    responses: Slab<(Rc<Instance>, u32)>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    arrivals: Random,
    restarts: Random,
    tally: Tally,
    /// The bytes and bindings of the Envoy that has most.
    held: (u64, u64),
    now: u64,
}

/// Runs a scenario.
///
/// # Errors
/// If its configuration is refused, or a turn did not end in exactly one way.
pub fn run(scenario: &Scenario) -> Result<Results> {
    let mut world = World::new(scenario)?;
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        match event {
            Event::Arrival => world.arrive(),
            Event::Turn { session, is_side } => world.turn(session, is_side),
            Event::Answer { flight } => world.answer(flight),
            Event::Over { over } => world.over(over),
            Event::Replace { envoy } => world.replace(envoy)?,
            Event::Measure => world.held = world.fleet.largest(world.time()),
        }
    }
    ensure!(world.flights.is_empty() && world.sessions.is_empty(), "something is left over");
    ensure!(world.tally.ended() == world.tally.turns, "a turn did not end in exactly one way");
    let served: Vec<_> = world.credentials.iter().map(|credential| credential.served).collect();
    let end = (scenario.hours * HOUR) as u64;
    world
        .credentials
        .iter_mut()
        .filter_map(|it| it.subscription.as_mut())
        .for_each(|it| it.advance(end));
    let accounts: Vec<_> =
        world.credentials.iter().filter_map(|it| it.subscription.as_ref()).collect();
    let room = (!accounts.is_empty()).then(|| Room::new(&world.tally, &accounts));
    Ok(Results { room, ..Results::new(world.tally, &served, world.held) })
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario) -> Result<Self> {
        let fleet = Fleet::new(scenario)?;
        let (seed, limits) = (scenario.seed, scenario.limits);
        let credentials = 0..scenario.credentials as u64;
        let pools = fleet.get(0).map(|it| it.router.config().pools.as_slice()).unwrap_or_default();
        let of_pools = pools.iter().flat_map(|pool| &pool.credentials);
        let fingerprints = of_pools.map(|credential| credential.fingerprint).collect();
        let mut world = Self {
            scenario,
            fleet,
            request: scenario.provider.request(),
            lifetime: scenario.provider.lifetime(),
            credentials: credentials
                .map(|number| Credential::new(seed, number, limits, scenario.fails))
                .collect(),
            fingerprints,
            sessions: Slab::default(),
            flights: Slab::default(),
            responses: Slab::default(),
            events: BinaryHeap::new(),
            scheduled: 0,
            arrivals: Random::of(&[seed, 6]),
            restarts: Random::of(&[seed, 7]),
            tally: Tally::default(),
            held: (0, 0),
            now: 0,
        };
        if let Some(all) = &scenario.subscriptions {
            for (number, credential) in world.credentials.iter_mut().enumerate() {
                credential.subscription = Some(Subscription::new(scenario, all, number));
            }
        }
        world.schedule(0, Event::Arrival);
        world.schedule((scenario.hours * HOUR) as u64, Event::Measure);
        for envoy in 0..scenario.envoys {
            let first = world.next_restart(envoy, true);
            world.schedule_restart(envoy, first);
        }
        Ok(world)
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(BEGIN + self.now)
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + after, self.scheduled, event)));
    }

    /// The next session arrives, and the one after it is scheduled.
    fn arrive(&mut self) {
        if self.tally.sessions >= self.scenario.sessions {
            return;
        }
        let session = Session::new(self.scenario.seed, self.tally.sessions, self.scenario.agents);
        self.tally.sessions += 1;
        let session = self.sessions.insert(session);
        self.schedule(0, Event::Turn { session, is_side: false });
        let mean = self.scenario.hours * HOUR / self.scenario.sessions as f64;
        let swing = self.scenario.swing(self.now);
        let next = self.arrivals.exponential(mean / swing);
        self.schedule(next as u64, Event::Arrival);
    }

    fn turn(&mut self, at: usize, is_side: bool) {
        let (seed, now, lifetime) = (self.scenario.seed, self.now, self.lifetime);
        let Some(session) = self.sessions.get_mut(at) else { return };
        self.tally.turns += 1;
        let turn = session.turn(seed, is_side);
        // Those that accompany another were counted with it.
        session.open += turn.others + u32::from(!is_side);
        let (number, tokens) = (session.number, session.prompt(is_side));
        let cachable = session.cached_anywhere(now, lifetime).min(tokens);
        for _ in 0..turn.others {
            self.schedule(0, Event::Turn { session: at, is_side: true });
        }
        let Some(instance) = self.reached_envoy(at, turn.envoy) else { return };
        match self.decide(&instance, number) {
            Ok((plan, ticket)) => {
                let flight = Flight {
                    session: at,
                    is_side,
                    turn,
                    instance,
                    plan,
                    ticket,
                    credential: 0,
                    answer: Answer::Served,
                    tokens,
                    cached: 0,
                    cachable,
                };
                self.send(flight);
            }
            Err((end, wait)) => self.end(at, is_side, end, wait),
        }
    }

    /// The Envoy that a request of a session reaches.
    fn reached_envoy(&mut self, session: usize, drawn: u64) -> Option<Rc<Instance>> {
        let session = self.sessions.get_mut(session)?;
        let any = ((u128::from(drawn) * self.fleet.size() as u128) >> 64) as usize;
        let open = session.connection.filter(|(envoy, instance, used)| {
            let is_same = self.fleet.get(*envoy).is_some_and(|it| it.number == *instance);
            match self.scenario.spread {
                Spread::Requests => false,
                Spread::Connections => is_same && self.now < used + IDLE,
                Spread::Sticky => is_same,
            }
        });
        let envoy = open.map_or(any, |(envoy, ..)| envoy);
        let instance = self.fleet.get(envoy)?;
        session.connection = Some((envoy, instance.number, self.now));
        Some(Rc::clone(instance))
    }

    /// What the filter of an Envoy decides; an error says how it ends, and the wait that it names.
    fn decide(&mut self, instance: &Instance, session: u64) -> Result<(Plan, u32), (End, u64)> {
        let now = self.time();
        let id = format!("{session:032x}");
        let (path, body) = self.request;
        let headers: Headers = [
            (":method", "POST"),
            (":path", path),
            (":authority", "gateway"),
            ("content-type", "application/json"),
            ("x-session-id", id.as_str()),
        ]
        .into_iter()
        .collect();
        let body = instance.router.read(body, BodyNeed::Beginning);
        let decision = instance.router.route(&Request::new(&headers, body), &*instance.shared, now);
        *self.tally.outcomes.entry(decision.outcome().as_str()).or_default() += 1;
        self.take_notes(instance);
        match decision {
            Decision::Route(route) => {
                let plan = instance.router.plan(&route, now);
                Ok((plan, instance.begin_flight(route.pool, route.credential, now)))
            }
            Decision::Reply(refusal) => {
                let end = match refusal.unready {
                    Unready::RateLimited(_) => End::Refused,
                    Unready::NotFound | Unready::Unavailable(_) => End::Unavailable,
                };
                let wait = refusal.reply.retry_after.unwrap_or_default();
                Err((end, wait * 1_000))
            }
            Decision::Pass => Err((End::Unavailable, 0)),
        }
    }

    /// Sends a request to the credential that its plan names.
    fn send(&mut self, mut flight: Flight) {
        let (now, instance) = (self.time(), Rc::clone(&flight.instance));
        let step = instance.router.attempt(&mut flight.plan, "", &*instance.shared, now);
        let Some(NextStep::Send { credential, .. }) = step else {
            instance.end_flight(flight.ticket, now);
            return self.end(flight.session, flight.is_side, End::Failed, 0);
        };
        instance.move_flight(flight.ticket, credential, now);
        let number = self.fingerprints.iter().position(|it| *it == credential.fingerprint);
        let number = number.unwrap_or_default();
        let session = self.sessions.get_mut(flight.session);
        let cached = session.map_or(0, |it| it.cached(number as u16, self.now, self.lifetime));
        flight.credential = number as u16;
        flight.cached = cached.min(flight.tokens);
        self.tally.attempts += 1;
        if let Some(credential) = self.credentials.get_mut(number) {
            let random = &mut flight.turn.random;
            flight.answer = credential.answer(flight.tokens, flight.cached, self.now, random);
        }
        let after = match flight.answer {
            Answer::Served => flight.turn.first_byte,
            Answer::Limited(_) | Answer::Overloaded | Answer::Failed => ERROR,
            Answer::Refused => REFUSED,
        };
        let flight = self.flights.insert(flight);
        self.schedule(after, Event::Answer { flight });
    }

    /// A response has begun, or there will be none.
    fn answer(&mut self, at: usize) {
        // What was under way on an Envoy that has crashed is gone.
        let Some(mut flight) = self.flights.remove(at) else { return };
        let (now, instance) = (self.time(), Rc::clone(&flight.instance));
        let wait = match flight.answer {
            Answer::Limited(seconds) => seconds,
            _ => 0,
        };
        let headers = self.headers(&flight);
        let received = |status| Response::Received { status, headers: &headers, body: b"" };
        let response = match flight.answer {
            Answer::Served => received(200),
            Answer::Limited(_) => received(429),
            Answer::Overloaded => received(529),
            Answer::Failed => received(500),
            Answer::Refused => Response::Failed(Failure::Connect),
        };
        let (router, shared) = (&instance.router, &*instance.shared);
        let has_next = router.observe(&mut flight.plan, &response, shared, now).next.is_some();
        self.take_notes(&instance);
        if flight.answer == Answer::Served {
            return self.serve(&flight);
        }
        self.tally.failed_attempts += 1;
        if has_next {
            return self.send(flight);
        }
        instance.end_flight(flight.ticket, now);
        let end = if wait > 0 { End::Limited } else { End::Failed };
        self.end(flight.session, flight.is_side, end, wait * 1_000);
    }

    /// The headers of a response: an account tells its windows with every one, and says with them
    /// how long to wait.
    fn headers(&mut self, flight: &Flight) -> Headers {
        let credential = self.credentials.get_mut(usize::from(flight.credential));
        if let Some(subscription) = credential.and_then(|it| it.subscription.as_mut()) {
            let headers = subscription.headers(self.now, BEGIN);
            return headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        }
        match flight.answer {
            Answer::Limited(seconds) => {
                let seconds = seconds.to_string();
                [("retry-after", seconds.as_str())].into_iter().collect()
            }
            _ => Headers::default(),
        }
    }

    /// A response has ended.
    fn over(&mut self, at: usize) {
        if let Some((instance, ticket)) = self.responses.remove(at) {
            instance.end_flight(ticket, self.time());
        }
    }

    fn serve(&mut self, flight: &Flight) {
        let tally = &mut self.tally;
        tally.tokens += u64::from(flight.tokens);
        tally.cached += u64::from(flight.cached);
        // A request beside it may have warmed a cache after this one was sent.
        let cachable = flight.cachable.max(flight.cached);
        tally.cachable += u64::from(cachable);
        tally.warmable += u64::from(cachable > 0);
        tally.warm += u64::from(flight.cached > 0);
        if let Some(session) = self.sessions.get_mut(flight.session) {
            tally.followups += u64::from(session.last.is_some());
            tally.moves += u64::from(session.last.is_some_and(|last| last != flight.credential));
            session.serve(flight.credential, flight.tokens, self.now, self.lifetime);
        }
        let rest = flight.turn.response - flight.turn.first_byte;
        if flight.ticket != 0 {
            let over = self.responses.insert((Rc::clone(&flight.instance), flight.ticket));
            self.schedule(rest, Event::Over { over });
        }
        self.end_after(flight.session, flight.is_side, End::Served, rest);
    }

    fn end(&mut self, session: usize, is_side: bool, end: End, wait: u64) {
        self.end_after(session, is_side, end, wait.min(LONGEST_WAIT));
    }

    /// A turn has ended: the next one of its session comes when this time and a pause are over.
    fn end_after(&mut self, at: usize, is_side: bool, end: End, wait: u64) {
        self.tally.end(end);
        let seed = self.scenario.seed;
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.open -= 1;
        if end != End::Served && !std::mem::replace(&mut session.is_refused, true) {
            self.tally.refused_sessions += 1;
        }
        let pause = if is_side { None } else { session.pause(seed) };
        session.is_over |= !is_side && pause.is_none();
        let is_gone = session.is_over && session.open == 0;
        if let Some(pause) = pause {
            self.schedule(wait + pause, Event::Turn { session: at, is_side: false });
        }
        if is_gone {
            self.sessions.remove(at);
        }
    }

    fn take_notes(&mut self, instance: &Instance) {
        for note in instance.shared.take_notes() {
            match note {
                Note::Evicted(_) => self.tally.evicted += 1,
                Note::Contended => self.tally.contended += 1,
                Note::Pinned => {}
            }
        }
    }

    fn replace(&mut self, envoy: usize) -> Result<()> {
        let old = self.fleet.replace(envoy)?;
        if self.scenario.restarts == Restarts::Crashes
            && let Some(old) = old
        {
            let lost = self.flights.remove_all(|flight| Rc::ptr_eq(&flight.instance, &old));
            for flight in lost {
                self.end(flight.session, flight.is_side, End::Lost, 0);
            }
        }
        let next = self.next_restart(envoy, false);
        self.schedule_restart(envoy, next);
        Ok(())
    }

    fn next_restart(&mut self, envoy: usize, is_first: bool) -> Option<u64> {
        let place = envoy as f64 / self.scenario.envoys as f64;
        match self.scenario.restarts {
            Restarts::Never => None,
            Restarts::Rolling if is_first => Some(((0.5 + place / 6.0) * HOUR) as u64),
            Restarts::Rolling => Some((2.0 * HOUR) as u64),
            Restarts::Crashes => Some(self.restarts.exponential(4.0 * HOUR) as u64),
        }
    }

    /// Schedules a restart, if sessions still arrive then: the simulation has to end.
    fn schedule_restart(&mut self, envoy: usize, after: Option<u64>) {
        let end = (self.scenario.hours * HOUR) as u64;
        if let Some(after) = after.filter(|after| self.now + after < end) {
            self.schedule(after, Event::Replace { envoy });
        }
    }
}
