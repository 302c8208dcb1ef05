//! Credentials as their providers see them: limits, outages, and how long prompts stay cached.
//!
//! Limits are token buckets that fill all the time, and cached tokens do not count against them, as
//! Anthropic documents its own; 4,000 requests and 2,000,000 tokens a minute are its highest
//! published tier. A window of five hours, as subscriptions have it, begins with the first request;
//! what plans allow in it is not published, so its size is assumed: credentials with even numbers
//! have half of what is said, the others one and a half times as much, as plans of two sizes have.
//! Outages are assumed: a
//! credential fails for a minute (median) every three hours on average, and apart from that one
//! request in 2,000 meets an overload.

use serde::Serialize;

use crate::random::Random;
use crate::subscription::Subscription;

const HOUR: f64 = 3_600_000.0;
const MINUTE: f64 = 60_000.0;
const FIVE_HOURS: u64 = 5 * 3_600_000;

/// Whose caches and API they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Five minutes after the last use.
    Anthropic,
    /// From GPT-5.6 at least half an hour after the last use; here not a moment longer.
    OpenAi,
}

impl Provider {
    /// How long a prompt stays cached after its last use, in milliseconds.
    pub fn lifetime(self) -> u64 {
        match self {
            Self::Anthropic => 5 * 60_000,
            Self::OpenAi => 30 * 60_000,
        }
    }

    /// The path of its requests and the beginning of their bodies.
    pub fn request(self) -> (&'static str, &'static [u8]) {
        match self {
            Self::Anthropic => ("/v1/messages", br#"{"model":"claude-opus-5","messages":[]}"#),
            Self::OpenAi => ("/v1/responses", br#"{"model":"gpt-5.6","input":[]}"#),
        }
    }
}

/// The limits of one credential.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub requests_a_minute: f64,
    /// Tokens a minute that were not cached.
    pub tokens_a_minute: f64,
    /// Tokens in a window of five hours, cached ones a tenth.
    pub tokens_in_five_hours: f64,
}

impl Limits {
    pub const NONE: Self = Self {
        requests_a_minute: f64::INFINITY,
        tokens_a_minute: f64::INFINITY,
        tokens_in_five_hours: f64::INFINITY,
    };

    /// A subscription: about two thirds of the credentials' windows would do, if the large ones could
    /// be used alike.
    pub const SUBSCRIPTION: Self = Self { tokens_in_five_hours: 240_000_000.0, ..Self::NONE };

    /// Anthropic's highest published tier.
    pub const HIGHEST_TIER: Self =
        Self { requests_a_minute: 4_000.0, tokens_a_minute: 2_000_000.0, ..Self::NONE };
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Served,
    /// 429, with the seconds to wait.
    Limited(u64),
    /// 529.
    Overloaded,
    /// 500.
    Failed,
    /// No connection.
    Refused,
}

/// A credential.
#[derive(Debug)]
pub struct Credential {
    limits: Limits,
    fails: bool,
    random: Random,
    requests: f64,
    tokens: f64,
    filled: u64,
    /// When the window of five hours began, and what was used in it.
    window: Option<(u64, f64)>,
    outage: (u64, u64, Answer),
    /// The subscription that it is of.
    pub subscription: Option<Subscription>,
    /// The turns that it has served.
    pub served: u64,
}

impl Credential {
    /// The credential of this number.
    pub fn new(seed: u64, number: u64, mut limits: Limits, fails: bool) -> Self {
        limits.tokens_in_five_hours *= if number.is_multiple_of(2) { 0.5 } else { 1.5 };
        let mut new = Self {
            limits,
            fails,
            random: Random::of(&[seed, 4, number]),
            requests: limits.requests_a_minute,
            tokens: limits.tokens_a_minute,
            filled: 0,
            window: None,
            outage: (0, 0, Answer::Failed),
            subscription: None,
            served: 0,
        };
        new.draw_outage();
        new
    }

    /// Answers a request that has so many tokens, and so many of them cached.
    pub fn answer(&mut self, tokens: u32, cached: u32, now: u64, random: &mut Random) -> Answer {
        let overloaded = random.chance(1.0 / 2_000.0);
        while self.fails && self.outage.1 <= now {
            self.draw_outage();
        }
        if self.fails && self.outage.0 <= now {
            return self.outage.2;
        }
        if self.fails && overloaded {
            return Answer::Overloaded;
        }
        if let Some(wait) = self.take(f64::from(tokens.saturating_sub(cached)), cached, now) {
            return Answer::Limited(wait);
        }
        self.served += 1;
        Answer::Served
    }

    /// Takes what a request needs from the limits, or says how many seconds it has to wait.
    fn take(&mut self, uncached: f64, cached: u32, now: u64) -> Option<u64> {
        if let Some(subscription) = &mut self.subscription {
            return subscription.take(uncached + f64::from(cached) / 10.0, now).err();
        }
        let limits = self.limits;
        let passed = (now - self.filled) as f64 / MINUTE;
        self.filled = now;
        let fill = |left: f64, limit: f64| (left + passed * limit).min(limit);
        self.requests = fill(self.requests, limits.requests_a_minute);
        self.tokens = fill(self.tokens, limits.tokens_a_minute);
        let open = self.window.filter(|(began, _)| now < began + FIVE_HOURS);
        let (began, used) = open.unwrap_or((now, 0.0));
        let weighted = uncached + f64::from(cached) / 10.0;
        if used + weighted > limits.tokens_in_five_hours {
            return Some((began + FIVE_HOURS - now).div_ceil(1_000));
        }
        let is_short = self.requests < 1.0 || self.tokens <= 0.0;
        if is_short {
            let requests = (1.0 - self.requests) / limits.requests_a_minute;
            let tokens = (1.0 - self.tokens) / limits.tokens_a_minute;
            return Some((60.0 * requests.max(tokens)).max(1.0).ceil() as u64);
        }
        self.requests -= 1.0;
        // What a request needs beyond the limit is lent: a prompt may be larger than what is left.
        self.tokens -= uncached;
        self.window = Some((began, used + weighted));
        None
    }

    fn draw_outage(&mut self) {
        let from = self.outage.1 + self.random.exponential(3.0 * HOUR) as u64;
        let length = self.random.log_normal(MINUTE, 1.0) as u64;
        let answers = [Answer::Overloaded, Answer::Failed, Answer::Refused];
        let answer = answers.get(self.random.below(3)).copied().unwrap_or(Answer::Failed);
        self.outage = (from, from + length, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_when_it_ends_and_holds_until_then() {
        let limits = Limits { requests_a_minute: 2.0, ..Limits::NONE };
        let mut credential = Credential::new(1, 1, limits, false);
        let random = &mut Random::of(&[5]);
        let mut ask = |now| credential.answer(100, 0, now, random);
        assert_eq!((ask(0), ask(0)), (Answer::Served, Answer::Served));
        assert_eq!(ask(0), Answer::Limited(30));
        assert_eq!(ask(29_000), Answer::Limited(1));
        assert_eq!(ask(30_000), Answer::Served);
    }

    #[test]
    fn what_is_cached_does_not_count_against_a_minute_and_a_tenth_in_a_window() {
        let limits =
            Limits { tokens_a_minute: 600.0, tokens_in_five_hours: 1_000.0, ..Limits::NONE };
        let mut credential = Credential::new(1, 1, limits, false);
        let random = &mut Random::of(&[5]);
        let mut ask = |cached, now| credential.answer(1_000, cached, now, random);
        assert_eq!(ask(1_000, 1_000), Answer::Served);
        assert_eq!(ask(0, 1_000), Answer::Served, "more than is left is lent");
        assert_eq!(ask(1_000, 2_000), Answer::Limited(40));
        assert_eq!(ask(1_000, 61_000), Answer::Served);
        assert_eq!(ask(0, 121_000), Answer::Limited(5 * 3_600 - 120), "the window is full");
        assert_eq!(ask(0, 1_000 + FIVE_HOURS), Answer::Served, "and opens with the next request");
    }

    #[test]
    fn a_credential_fails_about_as_often_as_is_said() {
        let mut credential = Credential::new(1, 1, Limits::NONE, true);
        let random = &mut Random::of(&[5]);
        let answers = (0..1_000_000).map(|second| credential.answer(1, 0, second * 1_000, random));
        let failed = answers.filter(|answer| *answer != Answer::Served).count();
        assert!((5_000..15_000).contains(&failed), "{failed}");
    }
}
