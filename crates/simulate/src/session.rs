//! Sessions: how many turns they have, what lies between them, and how their prompts grow.
//!
//! | what | distribution | why |
//! |---|---|---|
//! | model calls for one prompt of an agent | log-normal, median 4.5, σ 1.3 | with 10 s for a call and its tools, the median of the work on a prompt is 45 s, and its 99.9th percentile three quarters of an hour: Anthropic, "Measuring AI agent autonomy in practice", February 2026, on Claude Code |
//! | time of a person | log-normal, median 110 s, σ 2 | four of five follow-ups come within ten minutes: "KVCache Cache in the Wild" (USENIX ATC 2025), trace A |
//! | prompts of a chat | geometric, mean 2.5 | WildChat, 2024: a million chats, two and a half million turns |
//! | prompts of an agent's session | geometric, mean 6 | assumed |
//! | time of a tool | log-normal, median 2 s, σ 1.3 | assumed |
//! | time of a response | log-normal, median 7 s, σ 0.7 | assumed |
//! | tokens of a prompt | an agent begins with 20,000 (its system prompt and tools) and adds 900 (median) in each call; above 180,000 it compacts to 40,000 | assumed; as clients do it |
//! | sub-agents | one call in 20 is accompanied by one to three others of the same session, and every second first call by one | assumed; Claude Code does both |
//!
//! Sessions are 25 % agents, 50 % chats and 25 % single requests, which make 92 % of all turns those of
//! agents. They arrive at random, at a rate that swings
//! ([`crate::Scenario::swing`]).

use crate::random::Random;

/// What an agent begins with, and keeps when it compacts.
const SYSTEM_PROMPT: u32 = 20_000;

/// The tokens at which an agent compacts its context, and what it leaves.
const COMPACTION: (u32, u32) = (180_000, 40_000);

/// Who comes back later than this does not come back.
const LONGEST_PAUSE: f64 = 4.0 * 3600.0;

/// The most model calls for a prompt.
const MOST_CALLS: f64 = 400.0;

/// The kind of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Agent,
    Chat,
    Single,
}

/// A prompt that a credential has cached.
#[derive(Clone, Copy, Debug)]
struct Cached {
    credential: u16,
    /// In milliseconds.
    used: u64,
    tokens: u32,
}

/// A session under way.
#[derive(Debug)]
pub struct Session {
    pub number: u64,
    kind: Kind,
    /// The turns that it had.
    pub turns: u64,
    calls_left: u32,
    prompts_left: u32,
    /// The tokens of its prompt.
    pub context: u32,
    caches: Vec<Cached>,
    /// The credential that served it last.
    pub last: Option<u16>,
    /// The Envoy that its connection leads to, which instance of that, and when it was last used.
    pub connection: Option<(usize, u64, u64)>,
    /// Requests under way or about to be sent.
    pub open: u32,
    /// Whether it sends nothing more.
    pub is_over: bool,
    /// Whether a turn of it ended in an error.
    pub is_refused: bool,
}

/// What is drawn for one turn, whatever becomes of it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Where a new connection would go, as a number to be mapped to an Envoy.
    pub envoy: u64,
    /// The time until a response begins and until it ends, in milliseconds.
    pub first_byte: u64,
    pub response: u64,
    /// Requests of the same session that are sent at the same time.
    pub others: u32,
    /// What is left is for its attempts.
    pub random: Random,
}

impl Session {
    /// The session of this number, where so many of all are those of agents.
    pub fn new(seed: u64, number: u64, agents: f64) -> Self {
        let mut random = Random::of(&[seed, 1, number]);
        let others = (1.0 - agents) / 3.0;
        let kind = match random.unit() {
            drawn if drawn < agents => Kind::Agent,
            drawn if drawn < agents + 2.0 * others => Kind::Chat,
            _ => Kind::Single,
        };
        let (prompts, calls, context) = match kind {
            Kind::Agent => (random.geometric(6.0), calls(&mut random), SYSTEM_PROMPT + 2_000),
            Kind::Chat => (random.geometric(2.5), 1, random.log_normal(1_500.0, 0.8) as u32),
            Kind::Single => (1, 1, random.log_normal(3_000.0, 1.0) as u32),
        };
        Self {
            number,
            kind,
            turns: 0,
            calls_left: calls - 1,
            prompts_left: prompts - 1,
            context,
            caches: Vec::new(),
            last: None,
            connection: None,
            open: 0,
            is_over: false,
            is_refused: false,
        }
    }

    /// Begins the next turn; `is_side` if it accompanies another.
    pub fn turn(&mut self, seed: u64, is_side: bool) -> Turn {
        let mut random = Random::of(&[seed, 2, self.number, self.turns]);
        let is_first = self.turns == 0;
        self.turns += 1;
        let response = random.log_normal(7_000.0, 0.7);
        let first_byte = response * (0.1 + 0.2 * random.unit());
        let accompanied = random.chance(if is_first { 0.5 } else { 0.05 });
        let others = 1 + random.below(3) as u32;
        let is_agents = self.kind == Kind::Agent && !is_side;
        Turn {
            envoy: random.draw(),
            first_byte: first_byte as u64,
            response: response as u64,
            others: match (is_agents && accompanied, is_first) {
                (false, _) => 0,
                (true, true) => 1,
                (true, false) => others,
            },
            random,
        }
    }

    /// The tokens that a request asks for: a sub-agent shares the beginning of the prompt.
    pub fn prompt(&self, is_side: bool) -> u32 {
        if is_side { self.context.min(SYSTEM_PROMPT + 2_000) } else { self.context }
    }

    /// What becomes of the session after a turn: the pause until the next one, in milliseconds, or
    /// `None` if that was the last.
    pub fn pause(&mut self, seed: u64) -> Option<u64> {
        let mut random = Random::of(&[seed, 3, self.number, self.turns]);
        let seconds = if self.calls_left > 0 {
            self.calls_left -= 1;
            random.log_normal(2.0, 1.3)
        } else if self.prompts_left > 0 {
            self.prompts_left -= 1;
            self.calls_left = match self.kind {
                Kind::Agent => calls(&mut random) - 1,
                Kind::Chat | Kind::Single => 0,
            };
            random.log_normal(110.0, 2.0)
        } else {
            return None;
        };
        self.grow(&mut random);
        (seconds < LONGEST_PAUSE).then_some((seconds * 1_000.0) as u64)
    }

    fn grow(&mut self, random: &mut Random) {
        let median = if self.kind == Kind::Agent { 900.0 } else { 500.0 };
        self.context = self.context.saturating_add(random.log_normal(median, 1.0) as u32);
        let (limit, left) = COMPACTION;
        if self.context > limit {
            self.context = left;
            for cached in &mut self.caches {
                cached.tokens = cached.tokens.min(SYSTEM_PROMPT);
            }
        }
    }

    /// The tokens of its prompt that a credential has cached.
    pub fn cached(&self, credential: u16, now: u64, lifetime: u64) -> u32 {
        let warm = self.caches.iter().filter(|it| now < it.used + lifetime);
        warm.filter(|it| it.credential == credential).map(|it| it.tokens).max().unwrap_or(0)
    }

    /// The most tokens that any credential has cached.
    pub fn cached_anywhere(&self, now: u64, lifetime: u64) -> u32 {
        let warm = self.caches.iter().filter(|it| now < it.used + lifetime);
        warm.map(|it| it.tokens).max().unwrap_or(0)
    }

    /// A credential has begun to answer a prompt of so many tokens, which it now has cached.
    pub fn serve(&mut self, credential: u16, tokens: u32, now: u64, lifetime: u64) {
        self.last = Some(credential);
        self.caches.retain(|it| now < it.used + lifetime);
        match self.caches.iter_mut().find(|it| it.credential == credential) {
            Some(cached) => {
                cached.used = now;
                cached.tokens = cached.tokens.max(tokens).min(self.context);
            }
            None => self.caches.push(Cached { credential, used: now, tokens }),
        }
    }
}

fn calls(random: &mut Random) -> u32 {
    random.log_normal(4.5, 1.3).clamp(1.0, MOST_CALLS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_are_as_they_are_described() {
        let (mut turns, mut of_agents, mut pauses, mut short) = (0, 0, 0, 0);
        for number in 0..20_000 {
            let mut session = Session::new(9, number, 0.25);
            loop {
                turns += 1;
                of_agents += u32::from(session.kind == Kind::Agent);
                session.turn(9, false);
                let waits_for_a_person = session.calls_left == 0;
                let Some(pause) = session.pause(9) else { break };
                if waits_for_a_person {
                    pauses += 1;
                    short += u32::from(pause < 600_000);
                }
                assert!(session.context <= COMPACTION.0);
            }
        }
        let share = f64::from(of_agents) / f64::from(turns);
        assert!((0.90..0.94).contains(&share), "agents make {share} of {turns} turns");
        let share = f64::from(short) / f64::from(pauses);
        assert!((0.78..0.82).contains(&share), "{share} of the pauses of persons");
    }

    #[test]
    fn a_prompt_is_cached_where_and_as_long_as_it_was_served() {
        let mut session = Session::new(9, 3, 0.25);
        session.context = 5_000;
        session.serve(2, 4_000, 1_000, 300);
        assert_eq!(session.cached(2, 1_299, 300), 4_000);
        assert_eq!(session.cached(2, 1_300, 300), 0, "at the end of its lifetime it is gone");
        assert_eq!(session.cached(1, 1_100, 300), 0);
        session.serve(1, 5_000, 1_100, 300);
        assert_eq!(session.cached_anywhere(1_200, 300), 5_000);
        assert_eq!(session.cached(2, 1_200, 300), 4_000, "the other knows no more than it did");
    }
}
