//! Subscriptions: windows of five hours and of a week, which every response tells.
//!
//! | what | how | why |
//! |---|---|---|
//! | a window of five hours | begins with the first request after the one before has ended | Anthropic's help pages on Claude's plans |
//! | a week | ends at a point in time of its own for every account | the same |
//! | sizes | 20, 5 and 1 | the names of the plans: Max 20x, Max 5x, Pro |
//! | what five hours allow | a tenth of a week: 3.36 times their share of it | assumed: providers publish neither |
//! | what a request takes | its tokens, cached ones a tenth | as in [`crate::provider`] |
//! | the end of a window | a request that begins before all is used is served, however large | assumed |
//! | headers | as recorded in `tests/recorded_headers.json` | |
//!
//! The first windows of an account, and its last week, are cut where the simulation begins or ends,
//! and allow as much less: so what all weeks allow is the same multiple of what is needed, whenever
//! they end.

use serde::Serialize;

use crate::scenario::Scenario;

const FIVE_HOURS: u64 = 5 * 3_600_000;

/// Five hours allow so many times their share of a week.
const BEYOND_SHARE: f64 = 3.36;

/// The accounts of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subscriptions {
    /// The size of each.
    pub sizes: Vec<u32>,
    /// Whether `weight` says how large they are.
    pub weighted: bool,
    /// The tokens of a week, for all together.
    pub week: f64,
    /// The same, in percent of what the sessions need.
    pub percent: u32,
}

/// One window of an account.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    ends: u64,
    limit: f64,
    used: f64,
}

impl Window {
    fn share(&self) -> f64 {
        (self.used / self.limit.max(1.0)).min(1.0)
    }
}

/// What became of the windows of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ended {
    /// The tokens that they allowed, and those that were used.
    pub allowed: f64,
    pub used: f64,
    pub windows: u32,
    /// Those of which nothing was left.
    pub used_up: u32,
}

impl Ended {
    fn add(&mut self, window: &Window) {
        self.allowed += window.limit;
        self.used += window.used.min(window.limit);
        self.windows += 1;
        self.used_up += u32::from(window.used >= window.limit);
    }

    /// The share that was used.
    pub fn share(&self) -> f64 {
        if self.allowed > 0.0 { self.used / self.allowed } else { 0.0 }
    }
}

/// One account.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The tokens of five hours, and of a week.
    five_hours_allow: f64,
    week_allows: f64,
    /// How long a week is: as long as sessions arrive.
    week: u64,
    five_hours: Option<Window>,
    weekly: Window,
    pub ended_five_hours: Ended,
    pub ended_weeks: Ended,
}

impl Subscription {
    /// The account of this number.
    pub fn new(scenario: &Scenario, all: &Subscriptions, number: usize) -> Self {
        let sizes: u32 = all.sizes.iter().sum();
        let size = all.sizes.get(number).copied().unwrap_or(1);
        let week_allows = all.week * f64::from(size) / f64::from(sizes.max(1));
        // In another order than that of sizes, so that the large ones do not end together.
        let place = (number * 3 + 1) % all.sizes.len().max(1);
        let part = (place as f64 + 0.5) / all.sizes.len().max(1) as f64;
        let week = (scenario.hours * 3_600_000.0) as u64;
        let five_hours_allow = week_allows * BEYOND_SHARE * FIVE_HOURS as f64 / week.max(1) as f64;
        let cut = |length: u64, allows: f64| Window {
            ends: (length as f64 * part) as u64,
            limit: allows * part,
            used: 0.0,
        };
        Self {
            five_hours_allow,
            week_allows,
            week,
            five_hours: Some(cut(FIVE_HOURS, five_hours_allow)),
            weekly: cut(week, week_allows),
            ended_five_hours: Ended::default(),
            ended_weeks: Ended::default(),
        }
    }

    /// Ends the windows that are over.
    pub fn advance(&mut self, now: u64) {
        if let Some(window) = self.five_hours.filter(|it| it.ends <= now) {
            if window.ends <= self.week {
                self.ended_five_hours.add(&window);
            }
            self.five_hours = None;
        }
        while self.weekly.ends <= now {
            let from = self.weekly.ends;
            if from <= self.week {
                self.ended_weeks.add(&self.weekly);
            }
            let is_last = from < self.week;
            let ends = if is_last { self.week } else { from + self.week };
            let part = (ends - from) as f64 / self.week.max(1) as f64;
            self.weekly = Window { ends, limit: self.week_allows * part, used: 0.0 };
        }
    }

    /// Takes what a request needs, or says how many seconds it has to wait.
    pub fn take(&mut self, tokens: f64, now: u64) -> Result<(), u64> {
        self.advance(now);
        let open = Window { ends: now + FIVE_HOURS, limit: self.five_hours_allow, used: 0.0 };
        let five_hours = self.five_hours.get_or_insert(open);
        let used_up = [*five_hours, self.weekly].into_iter().filter(|it| it.used >= it.limit);
        if let Some(ends) = used_up.map(|it| it.ends).max() {
            return Err((ends - now).div_ceil(1_000));
        }
        five_hours.used += tokens;
        self.weekly.used += tokens;
        Ok(())
    }

    /// The headers of a response at this time, where the epoch of the simulation is `begin`.
    pub fn headers(&mut self, now: u64, begin: u64) -> Vec<(String, String)> {
        self.advance(now);
        let windows = [("5h", self.five_hours), ("7d", Some(self.weekly))];
        let mut headers = Vec::new();
        let mut say = |name: String, value: String| {
            headers.push((format!("anthropic-ratelimit-unified-{name}"), value));
        };
        // Of several windows that are used up the one that ends last counts, else the fullest.
        let mut worst: Option<(&str, Window)> = None;
        for (name, window) in windows.iter().filter_map(|(name, it)| Some((*name, (*it)?))) {
            say(format!("{name}-utilization"), format!("{:.2}", window.share()));
            say(format!("{name}-reset"), ((begin + window.ends) / 1_000).to_string());
            say(format!("{name}-status"), status(&window).to_owned());
            let rank = |it: &Window| (it.share(), it.ends);
            if worst.is_none_or(|(_, other)| rank(&window) >= rank(&other)) {
                worst = Some((name, window));
            }
        }
        if let Some((name, window)) = worst {
            say("status".to_owned(), status(&window).to_owned());
            say("reset".to_owned(), ((begin + window.ends) / 1_000).to_string());
            let claim = if name == "5h" { "five_hour" } else { "seven_day" };
            say("representative-claim".to_owned(), claim.to_owned());
        }
        headers
    }
}

fn status(window: &Window) -> &'static str {
    match window.share() {
        1.0.. => "rejected",
        0.75.. => "allowed_warning",
        _ => "allowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn account() -> Subscription {
        let subscriptions =
            Subscriptions { sizes: vec![1, 1], weighted: true, week: 2_000.0, percent: 100 };
        let scenario = Scenario { hours: 168.0, ..Scenario::usual(1, 10) };
        Subscription::new(&scenario, &subscriptions, 1)
    }

    #[test]
    fn windows_are_told_and_hold_until_they_end() {
        // Its place is the first of two: a quarter of the first windows is left, and five hours allow
        // 100.
        let mut account = account();
        let told = |account: &mut Subscription, now, name: &str| {
            let name = format!("anthropic-ratelimit-unified-{name}");
            let headers = account.headers(now, 1_800_000_000_000);
            headers.into_iter().find(|(it, _)| *it == name).map(|(_, value)| value)
        };
        assert_eq!(account.take(20.0, 0), Ok(()));
        assert_eq!(told(&mut account, 0, "5h-utilization").as_deref(), Some("0.80"));
        assert_eq!(told(&mut account, 0, "status").as_deref(), Some("allowed_warning"));
        assert_eq!(account.take(20.0, HOUR), Ok(()), "what begins is served");
        assert_eq!(account.take(1.0, HOUR), Err(900));
        assert_eq!(told(&mut account, HOUR, "5h-status").as_deref(), Some("rejected"));
        assert_eq!(told(&mut account, HOUR, "5h-reset").as_deref(), Some("1800004500"));
        assert_eq!(told(&mut account, 2 * HOUR, "5h-utilization"), None, "none is open");
        assert_eq!(account.take(100.0, 2 * HOUR), Ok(()), "the next one is whole");
        assert_eq!(account.take(1.0, 6 * HOUR), Err(3_600));
        assert_eq!(account.take(110.0, 7 * HOUR), Ok(()));
        assert_eq!(account.take(1.0, 12 * HOUR), Err(30 * 3_600), "the week is used up");
        assert_eq!(
            told(&mut account, 12 * HOUR, "representative-claim").as_deref(),
            Some("seven_day")
        );
    }

    #[test]
    fn all_weeks_together_allow_what_was_said() {
        let mut account = account();
        account.advance(168 * HOUR);
        assert_eq!((account.ended_weeks.windows, account.ended_weeks.allowed), (2, 1_000.0));
    }
}
