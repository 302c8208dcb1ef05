//! More agents than accounts take requests at once.
//!
//! Five agents share two accounts. Each account takes two requests at once, and answers a third with
//! a 429 that names no end. An agent sends its next turn when the one before has ended and a tool
//! has run; what is refused is not sent again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};
use session_affinity::{Plan, Timestamp};

use crate::herd::{BEGIN, Gateway};
use crate::random::Random;

const AGENTS: usize = 5;
const TURNS: u32 = 20;
const AT_ONCE: u32 = 2;

/// Crowds of 100 turns that results are the mean of.
const CROWDS: u64 = 50;

/// How long an error takes, in milliseconds.
const ERROR: u64 = 300;

/// What came of the turns, for a hundred of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// By the first account that was asked.
    pub at_once: f64,
    /// By any.
    pub served: f64,
    /// By another one than the turn before.
    pub moved: f64,
}

/// One configuration that is compared.
struct Row {
    name: &'static str,
    strategy: &'static str,
    max_concurrent: bool,
    disable_cooling: bool,
}

const ROWS: [Row; 5] = [
    Row {
        name: "`round-robin`",
        strategy: "round-robin",
        max_concurrent: false,
        disable_cooling: false,
    },
    Row {
        name: "`round-robin`, `disable_cooling`",
        strategy: "round-robin",
        max_concurrent: false,
        disable_cooling: true,
    },
    Row {
        name: "`round-robin`, `max_concurrent: 2`",
        strategy: "round-robin",
        max_concurrent: true,
        disable_cooling: false,
    },
    Row {
        name: "`headroom`, which finds it out",
        strategy: "headroom",
        max_concurrent: false,
        disable_cooling: false,
    },
    Row {
        name: "`headroom`, `max_concurrent: 2`",
        strategy: "headroom",
        max_concurrent: true,
        disable_cooling: false,
    },
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Turn,
    /// The account has answered with an error.
    Refused,
    /// The response has ended.
    Over,
}

#[derive(Default)]
struct Agent {
    turns: u32,
    last: Option<usize>,
    plan: Option<Plan>,
    ticket: u32,
    at: usize,
    is_first: bool,
    random: Option<Random>,
}

struct Crowd {
    gateway: Gateway,
    agents: Vec<Agent>,
    under_way: [u32; 2],
    events: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    scheduled: u64,
    counts: [u32; 3],
    /// Whether each turn is a session of its own, as those of sub-agents are.
    are_own: bool,
    now: u64,
}

impl Crowd {
    fn time(&self) -> Timestamp {
        Timestamp::from_millis(BEGIN + self.now)
    }

    fn schedule(&mut self, after: u64, agent: usize, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + after, self.scheduled, agent, event)));
    }

    fn run(mut self) -> [u32; 3] {
        while let Some(Reverse((at, _, agent, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Turn => self.turn(agent),
                Event::Refused => self.refused(agent),
                Event::Over => self.over(agent),
            }
        }
        self.counts
    }

    fn turn(&mut self, number: usize) {
        let now = self.time();
        let session = match self.agents.get(number) {
            Some(agent) if self.are_own => format!("agent {number}, turn {}", agent.turns),
            _ => format!("agent {number}"),
        };
        let asked = self.gateway.ask(&session, now);
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.is_first = true;
        match asked {
            Some((plan, ticket)) => {
                (agent.plan, agent.ticket) = (Some(plan), ticket);
                self.send(number);
            }
            None => self.end(number),
        }
    }

    fn send(&mut self, number: usize) {
        let now = self.time();
        let Some(agent) = self.agents.get_mut(number) else { return };
        let Some(plan) = agent.plan.as_mut() else { return };
        let Some(id) = self.gateway.send(plan, agent.ticket, now) else { return self.end(number) };
        agent.at = usize::from(id == "b");
        let Some(under_way) = self.under_way.get_mut(agent.at) else { return };
        if *under_way >= AT_ONCE {
            return self.schedule(ERROR, number, Event::Refused);
        }
        *under_way += 1;
        let response = agent.random.as_mut().map_or(0.0, |it| it.log_normal(7_000.0, 0.7));
        let moved = agent.last.is_some_and(|last| last != agent.at);
        agent.last = Some(agent.at);
        let served = [agent.is_first, true, moved];
        for (count, is) in self.counts.iter_mut().zip(served) {
            *count += u32::from(is);
        }
        self.gateway.answer(plan, &(200, Vec::new()), now);
        self.schedule(response as u64, number, Event::Over);
    }

    fn refused(&mut self, number: usize) {
        let now = self.time();
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.is_first = false;
        let Some(plan) = agent.plan.as_mut() else { return };
        match self.gateway.answer(plan, &(429, Vec::new()), now) {
            true => self.send(number),
            false => self.end(number),
        }
    }

    fn over(&mut self, number: usize) {
        let at = self.agents.get(number).map_or(0, |agent| agent.at);
        if let Some(under_way) = self.under_way.get_mut(at) {
            *under_way -= 1;
        }
        self.end(number);
    }

    /// A turn is over: the next one comes after a pause.
    fn end(&mut self, number: usize) {
        let now = self.time();
        let Some(agent) = self.agents.get_mut(number) else { return };
        self.gateway.instance.end_flight(std::mem::take(&mut agent.ticket), now);
        agent.plan = None;
        agent.turns += 1;
        let pause = agent.random.as_mut().map_or(0.0, |it| it.log_normal(2_000.0, 1.3));
        if agent.turns < TURNS {
            self.schedule(pause as u64, number, Event::Turn);
        }
    }
}

fn row(row: &Row, are_own: bool, seed: u64) -> Result<Served> {
    let credential = |id| match row.max_concurrent {
        true => json!({"id": id, "cluster": id, "max_concurrent": AT_ONCE}),
        false => json!({"id": id, "cluster": id}),
    };
    let routing = json!({"strategy": row.strategy});
    let more = if row.disable_cooling { json!({"disable_cooling": true}) } else { Value::Null };
    let credentials = json!([credential("a"), credential("b")]);
    let mut all = [0; 3];
    for number in 0..CROWDS {
        let mut crowd = Crowd {
            gateway: Gateway::new(&routing, &credentials, &more, seed)?,
            agents: Vec::new(),
            under_way: [0; 2],
            events: BinaryHeap::new(),
            scheduled: 0,
            counts: [0; 3],
            are_own,
            now: 0,
        };
        for agent in 0..AGENTS {
            let mut random = Random::of(&[seed, 9, number, agent as u64]);
            let first = random.unit() * 10_000.0;
            crowd.agents.push(Agent { random: Some(random), ..Agent::default() });
            crowd.schedule(first as u64, agent, Event::Turn);
        }
        for (sum, count) in all.iter_mut().zip(crowd.run()) {
            *sum += count;
        }
    }
    let [at_once, served, moved] = all.map(|sum| f64::from(sum) / CROWDS as f64);
    Ok(Served { at_once, served, moved })
}

/// What came of each configuration: with agents whose turns are of one session, and with such whose
/// turns are sessions of their own.
///
/// # Errors
/// If one is refused.
pub fn rows(seed: u64) -> Result<Vec<(&'static str, [Served; 2])>> {
    ROWS.iter().map(|it| Ok((it.name, [row(it, false, seed)?, row(it, true, seed)?]))).collect()
}

/// The table.
///
/// # Errors
/// If a simulation fails.
pub fn markdown(seed: u64) -> Result<String> {
    let mut text = "## Five agents on two accounts that take two requests each at once\n\nOf 100 turns, the \
                    mean of 50 crowds: those that the first account served that was asked, and those that \
                    any served. A turn continues the session of its agent, or begins one, as those of \
                    sub-agents do.\n\n\
                    | | continues: first account | served | begins: first account | served |\n\
                    |---|--:|--:|--:|--:|\n"
        .to_owned();
    for (name, [bound, own]) in rows(seed)? {
        let (first, all) = (bound.at_once, bound.served);
        writeln!(
            text,
            "| {name} | {first:.1} | {all:.1} | {:.1} | {:.1} |",
            own.at_once, own.served
        )?;
    }
    Ok(text)
}
