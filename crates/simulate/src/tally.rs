//! What is counted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::subscription::{Ended, Subscription};

/// How a turn ends: each does so in exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Served,
    /// The client got a 429 of a provider: all that were asked were at their limits.
    Limited,
    /// The client got a 429 of the filter: all wait for the end of a limit.
    Refused,
    /// The client got a 503 of the filter.
    Unavailable,
    /// The client got another error.
    Failed,
    /// The Envoy crashed.
    Lost,
}

/// Counts of one simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub sessions: u64,
    pub turns: u64,
    pub served: u64,
    pub limited: u64,
    pub refused: u64,
    pub unavailable: u64,
    pub failed: u64,
    pub lost: u64,
    /// Requests to credentials, and those that failed.
    pub attempts: u64,
    pub failed_attempts: u64,
    /// Turns that were served, though some credential had their prompt cached, and those that were
    /// served by such a one.
    pub warmable: u64,
    pub warm: u64,
    /// Tokens of the prompts that were served, those that any credential had cached, and those that
    /// the serving credential had.
    pub tokens: u64,
    pub cachable: u64,
    pub cached: u64,
    /// Turns that another credential served than the one before, and turns with one before.
    pub moves: u64,
    pub followups: u64,
    /// The decisions of the filter.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Bindings that had to give way though they had not ended.
    pub evicted: u64,
    pub contended: u64,
    /// Sessions of which a turn ended in an error.
    #[serde(skip)]
    pub refused_sessions: u64,
}

impl Tally {
    /// Counts the end of a turn.
    pub fn end(&mut self, end: End) {
        *match end {
            End::Served => &mut self.served,
            End::Limited => &mut self.limited,
            End::Refused => &mut self.refused,
            End::Unavailable => &mut self.unavailable,
            End::Failed => &mut self.failed,
            End::Lost => &mut self.lost,
        } += 1;
    }

    /// The turns that have ended.
    pub fn ended(&self) -> u64 {
        self.served + self.limited + self.refused + self.unavailable + self.failed + self.lost
    }
}

/// The results of one simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    pub tally: Tally,
    /// Of the turns whose prompt was cached somewhere, the share that met it, in percent.
    pub warm_share: f64,
    /// Of the tokens that were cached somewhere, the share that was read, in percent.
    pub token_share: f64,
    /// What the prompts cost, with cached tokens at a tenth and others at 1.25 times the price,
    /// compared with a gateway that always finds the cached ones: 1 is perfect.
    pub cost: f64,
    /// Moves per 1,000 turns of sessions that were served before.
    pub moves: f64,
    /// Failed attempts per 1,000 turns.
    pub failed_attempts: f64,
    /// Turns that ended in an error per 1,000.
    pub errors: f64,
    /// The turns of the busiest credential, compared with the mean.
    pub skew: f64,
    /// The largest shared data of an Envoy then, in bytes.
    pub bytes: u64,
    /// The most bindings of an Envoy that had not ended when the last sessions arrived.
    pub bindings: u64,
    /// What became of subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
}

/// What became of the windows of subscriptions that ended while sessions arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Room {
    /// Sessions of which a turn or more ended in an error, in percent.
    pub refused_sessions: f64,
    /// Of the tokens of all weeks, those that were left at their ends, in percent.
    pub void: f64,
    /// The share of its weeks that an account used: that of the fullest, compared with the mean.
    pub skew_of_weeks: f64,
    /// The same of windows of five hours.
    pub skew_of_five_hours: f64,
    /// Windows that were used up before their end: weeks, and five hours.
    pub used_up: (u32, u32),
    /// The share that each account used of its weeks, in percent.
    pub used: Vec<f64>,
}

impl Room {
    pub(crate) fn new(tally: &Tally, accounts: &[&Subscription]) -> Self {
        let shares = |of: fn(&Subscription) -> &Ended| -> Vec<f64> {
            accounts.iter().map(|account| of(account).share()).collect()
        };
        let skew = |shares: &[f64]| {
            let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
            let most = shares.iter().copied().fold(0.0, f64::max);
            if mean > 0.0 { rounded(most / mean) } else { 0.0 }
        };
        let (weeks, five_hours) = (shares(|it| &it.ended_weeks), shares(|it| &it.ended_five_hours));
        let allowed: f64 = accounts.iter().map(|it| it.ended_weeks.allowed).sum();
        let used: f64 = accounts.iter().map(|it| it.ended_weeks.used).sum();
        let refused = tally.refused_sessions as f64 / tally.sessions.max(1) as f64;
        Self {
            refused_sessions: rounded(100.0 * refused),
            void: rounded(100.0 * (1.0 - used / allowed.max(1.0))),
            skew_of_weeks: skew(&weeks),
            skew_of_five_hours: skew(&five_hours),
            used_up: (
                accounts.iter().map(|it| it.ended_weeks.used_up).sum(),
                accounts.iter().map(|it| it.ended_five_hours.used_up).sum(),
            ),
            used: weeks.iter().map(|share| rounded(100.0 * share)).collect(),
        }
    }
}

impl Results {
    pub(crate) fn new(tally: Tally, served: &[u64], (bytes, bindings): (u64, u64)) -> Self {
        let share = |part: u64, whole: u64| match whole {
            0 => 0.0,
            _ => part as f64 / whole as f64,
        };
        let price = |cached: u64| 0.1 * cached as f64 + 1.25 * (tally.tokens - cached) as f64;
        let mean = share(served.iter().sum(), served.len() as u64).max(f64::MIN_POSITIVE);
        let busiest = served.iter().copied().max().unwrap_or(0) as f64;
        Self {
            warm_share: rounded(100.0 * share(tally.warm, tally.warmable)),
            token_share: rounded(100.0 * share(tally.cached, tally.cachable)),
            cost: rounded(price(tally.cached) / price(tally.cachable).max(1.0)),
            moves: rounded(1000.0 * share(tally.moves, tally.followups)),
            failed_attempts: rounded(1000.0 * share(tally.failed_attempts, tally.turns)),
            errors: rounded(1000.0 * share(tally.turns - tally.served, tally.turns)),
            skew: rounded(busiest / mean),
            bytes,
            bindings,
            room: None,
            tally,
        }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
