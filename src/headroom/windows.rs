//! The windows of limits that providers tell with every response, as data.
//!
//! Sources: S, the newest official SDK; C, the source of a client or gateway; D, the provider's
//! documentation; T, a probe, a test or an issue of somebody else. Gemini, Vertex, Bedrock and
//! DeepSeek tell nothing.

use std::time::Duration;

use crate::hash::Seed;
use crate::request::Headers;
use crate::signals::{families, wait_of};
use crate::target::canonical;
use crate::time::Timestamp;

/// Windows of one credential that are kept.
pub const WINDOWS: usize = 16;

/// What is used of a whole window, in thousandths.
pub(super) const WHOLE: u16 = 1000;

/// The highest pace, in thousandths: a window that is about to end does not draw every session.
pub(super) const FASTEST: u32 = 4000;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The model of Codex that has a limit of its own.
const SPARK: &str = "gpt-5.3-codex-spark";

/// In minutes.
const FIVE_HOURS: u16 = 5 * 60;
const WEEK: u16 = 7 * 24 * 60;

/// One window that a provider tells.
struct Row {
    /// Its name, as gauges and the operator's page show it.
    name: &'static str,
    used: Used,
    /// The headers that say when it ends; the first one counts.
    resets: &'static [&'static str],
    /// When it ends where no header says so.
    length: Duration,
    /// How long it is from its beginning, in minutes, and the header that says so; 0 if that is not
    /// known, or of no use.
    minutes: (u16, &'static str),
    refill: Refill,
    covers: Covers,
}

/// How a provider says what is used.
enum Used {
    /// A share, 0 to 1; and a header that says `rejected` where nothing is left.
    Share(&'static str, &'static str),
    /// Percent.
    Percent(&'static str),
    /// How much there is, and how much is left of it.
    Left { limit: &'static str, remaining: &'static str },
}

/// How what is used comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refill {
    /// All at once, at the end of the window.
    AtTheEnd,
    /// Little by little until then: a token bucket.
    Steadily,
}

/// What a window is of.
#[derive(Clone, Copy)]
enum Covers {
    Everything,
    /// The models of a family, or the one that is called so.
    Family(&'static str),
    /// The model of the request.
    Model,
}

/// A window of a subscription to Claude.
const fn unified(
    name: &'static str,
    share: &'static str,
    status: &'static str,
    resets: &'static [&'static str],
    minutes: u16,
    covers: Covers,
) -> Row {
    let used = Used::Share(share, status);
    let minutes = (minutes, "");
    Row { name, used, resets, length: DAY, minutes, refill: Refill::AtTheEnd, covers }
}

/// A window of Codex.
const fn codex(
    name: &'static str,
    percent: &'static str,
    resets: &'static [&'static str],
    minutes: &'static str,
    covers: Covers,
) -> Row {
    let (used, minutes) = (Used::Percent(percent), (0, minutes));
    Row { name, used, resets, length: DAY, minutes, refill: Refill::AtTheEnd, covers }
}

/// A limit of an API, told by what is left.
const fn bucket(
    name: &'static str,
    limit: &'static str,
    remaining: &'static str,
    resets: &'static [&'static str],
    length: Duration,
) -> Row {
    let used = Used::Left { limit, remaining };
    let (minutes, covers) = ((0, ""), Covers::Model);
    Row { name, used, resets, length, minutes, refill: Refill::Steadily, covers }
}

/// The rows, each by its number in records: they may only grow at the end.
static ROWS: [Row; 21] = [
    // Subscriptions to Claude. Shares from 0 to 1, ends in seconds since the epoch. T
    unified(
        "5h",
        "anthropic-ratelimit-unified-5h-utilization",
        "anthropic-ratelimit-unified-5h-status",
        &["anthropic-ratelimit-unified-5h-reset"],
        FIVE_HOURS,
        Covers::Everything,
    ),
    unified(
        "7d",
        "anthropic-ratelimit-unified-7d-utilization",
        "anthropic-ratelimit-unified-7d-status",
        &["anthropic-ratelimit-unified-7d-reset"],
        WEEK,
        Covers::Everything,
    ),
    unified(
        "7d_opus",
        "anthropic-ratelimit-unified-7d_opus-utilization",
        "anthropic-ratelimit-unified-7d_opus-status",
        &["anthropic-ratelimit-unified-7d_opus-reset"],
        WEEK,
        Covers::Family("opus"),
    ),
    unified(
        "7d_sonnet",
        "anthropic-ratelimit-unified-7d_sonnet-utilization",
        "anthropic-ratelimit-unified-7d_sonnet-status",
        &["anthropic-ratelimit-unified-7d_sonnet-reset"],
        WEEK,
        Covers::Family("sonnet"),
    ),
    unified(
        "7d_oi",
        "anthropic-ratelimit-unified-7d_oi-utilization",
        "anthropic-ratelimit-unified-7d_oi-status",
        &["anthropic-ratelimit-unified-7d_oi-reset"],
        WEEK,
        Covers::Family("fable"),
    ),
    // Codex on a ChatGPT plan. Percent; ends in seconds since the epoch, earlier in seconds. C
    codex(
        "primary",
        "x-codex-primary-used-percent",
        &["x-codex-primary-reset-at", "x-codex-primary-reset-after-seconds"],
        "x-codex-primary-window-minutes",
        Covers::Everything,
    ),
    codex(
        "secondary",
        "x-codex-secondary-used-percent",
        &["x-codex-secondary-reset-at", "x-codex-secondary-reset-after-seconds"],
        "x-codex-secondary-window-minutes",
        Covers::Everything,
    ),
    // Anthropic's API. Counts; ends in RFC 3339, when all of it is back. D
    bucket(
        "requests",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        &["anthropic-ratelimit-requests-reset"],
        MINUTE,
    ),
    bucket(
        "input_tokens",
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        &["anthropic-ratelimit-input-tokens-reset"],
        MINUTE,
    ),
    bucket(
        "output_tokens",
        "anthropic-ratelimit-output-tokens-limit",
        "anthropic-ratelimit-output-tokens-remaining",
        &["anthropic-ratelimit-output-tokens-reset"],
        MINUTE,
    ),
    // OpenAI: counts, ends as Go durations. Azure: ends in seconds. Groq: requests of a day, tokens
    // of a minute. xAI: no ends. S, D, T
    bucket(
        "requests",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        &["x-ratelimit-reset-requests"],
        MINUTE,
    ),
    bucket(
        "tokens",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        &["x-ratelimit-reset-tokens"],
        MINUTE,
    ),
    bucket(
        "project_tokens",
        "x-ratelimit-limit-project-tokens",
        "x-ratelimit-remaining-project-tokens",
        &["x-ratelimit-reset-project-tokens"],
        MINUTE,
    ),
    // Mistral: counts of a minute and of a month, without ends. T
    bucket(
        "requests",
        "x-ratelimit-limit-req-minute",
        "x-ratelimit-remaining-req-minute",
        &[],
        MINUTE,
    ),
    bucket(
        "tokens",
        "x-ratelimit-limit-tokens-minute",
        "x-ratelimit-remaining-tokens-minute",
        &[],
        MINUTE,
    ),
    bucket(
        "tokens_month",
        "x-ratelimit-limit-tokens-month",
        "x-ratelimit-remaining-tokens-month",
        &[],
        DAY,
    ),
    // OpenRouter, mainly on free models. Ends in milliseconds since the epoch. T
    bucket(
        "requests",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        &["x-ratelimit-reset"],
        MINUTE,
    ),
    // What may be spent beyond a subscription to Claude, or by one without windows; it says nothing
    // of requests that the windows cover. `overage-status` is `rejected` wherever nobody has allowed
    // that, and `overage-in-use` also after a request in fast mode: neither is of use. T
    unified(
        "overage",
        "anthropic-ratelimit-unified-overage-utilization",
        "",
        &["anthropic-ratelimit-unified-overage-reset"],
        0,
        Covers::Everything,
    ),
    // Anthropic's API: of the limits in effect the one with the least left, also a workspace's. D
    bucket(
        "tokens",
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        &["anthropic-ratelimit-tokens-reset"],
        MINUTE,
    ),
    // Codex: the limit of the one model that has its own beside the account's, told with every
    // response of the account; `-limit-name` says `GPT-5.3-Codex-Spark`. T
    codex(
        "model_primary",
        "x-codex-bengalfox-primary-used-percent",
        &["x-codex-bengalfox-primary-reset-at", "x-codex-bengalfox-primary-reset-after-seconds"],
        "x-codex-bengalfox-primary-window-minutes",
        Covers::Family(SPARK),
    ),
    codex(
        "model_secondary",
        "x-codex-bengalfox-secondary-used-percent",
        &[
            "x-codex-bengalfox-secondary-reset-at",
            "x-codex-bengalfox-secondary-reset-after-seconds",
        ],
        "x-codex-bengalfox-secondary-window-minutes",
        Covers::Family(SPARK),
    ),
];

/// The first rows are the windows of a subscription to Claude.
const OF_CLAUDE: u8 = 5;

/// The row of what is spent beyond them.
const OVERAGE: u8 = 17;

/// What is spent beyond a subscription counts where no window of it is known. An account that uses
/// its windows up keeps them until they end, whatever it tells meanwhile.
pub(super) fn drop_overage(windows: &mut Vec<Window>) {
    if windows.iter().any(|window| window.row < OF_CLAUDE) {
        windows.retain(|window| window.row != OVERAGE);
    }
}

/// The names of all windows, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    let is_first = |at: usize, name| ROWS.iter().take(at).all(|other| other.name != name);
    ROWS.iter()
        .enumerate()
        .filter(move |(at, row)| is_first(*at, row.name))
        .map(|(_, row)| row.name)
}

/// What every header begins with that tells a window. A provider tells them by one kind; others that
/// begin so may tell something else.
const PREFIXES: [&str; 4] =
    ["anthropic-ratelimit-unified-", "anthropic-ratelimit-", "x-codex-", "x-ratelimit-"];

/// What a provider has told of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub(super) row: u8,
    /// Which models it is of; 0 for all.
    pub(super) models: u32,
    /// What was used of it, in thousandths.
    pub(super) used: u16,
    /// How long it is from its beginning, in minutes; 0: not known.
    pub(super) minutes: u16,
    /// When that was told.
    pub(super) seen: Timestamp,
    /// When all of it is back.
    pub(super) reset: Timestamp,
}

impl Window {
    /// Its name; `None` of a row that this version does not know.
    pub fn name(&self) -> Option<&'static str> {
        Some(ROWS.get(usize::from(self.row))?.name)
    }

    /// What is used of it now, in thousandths.
    pub fn used_at(&self, now: Timestamp) -> u16 {
        let steadily = ROWS.get(usize::from(self.row)).map(|row| row.refill == Refill::Steadily);
        if now >= self.reset {
            return 0;
        }
        let length = self.reset.since(self.seen).as_millis().max(1);
        match steadily {
            Some(false) => self.used,
            Some(true) => {
                let left = self.reset.since(now).as_millis().min(length);
                (u128::from(self.used) * left / length) as u16
            }
            None => 0,
        }
    }

    /// How much faster than evenly what is left may be used until the window ends, in thousandths.
    /// Where its length is not known: what is left.
    pub(super) fn pace(&self, now: Timestamp) -> u32 {
        let room = u64::from(WHOLE.saturating_sub(self.used_at(now)));
        let length = 60_000 * u64::from(self.minutes);
        let left = (self.reset.since(now).as_millis() as u64).min(length).max(1);
        let pace = if length == 0 { room } else { room * length / left };
        pace.min(u64::from(FASTEST)) as u32
    }

    /// Whether it fills on its way.
    pub(super) fn is_bucket(&self) -> bool {
        ROWS.get(usize::from(self.row)).is_none_or(|row| row.refill == Refill::Steadily)
    }

    /// When all of it is back.
    pub fn reset(&self) -> Timestamp {
        self.reset
    }

    /// Whether it is of this model.
    pub(super) fn covers(&self, models: &Models) -> bool {
        self.models == 0 || self.models == models.model || Some(self.models) == models.family
    }
}

/// The model of a request, as windows know it.
pub(super) struct Models {
    seed: Seed,
    model: u32,
    family: Option<u32>,
}

impl Models {
    pub(super) fn of(model: &str, seed: Seed) -> Self {
        let family = families::of(model).map(|family| tag(family, seed));
        Self { seed, model: tag(canonical(model), seed), family }
    }
}

/// A few digits of a model or a family; never 0.
fn tag(name: &str, seed: Seed) -> u32 {
    seed.hash(&[b"window", name.as_bytes()]).tag().max(1)
}

/// The windows that a response tells.
#[inline(never)]
pub(super) fn told(headers: &Headers, models: &Models, now: Timestamp) -> Vec<Window> {
    let prefixes = PREFIXES.into_iter().filter(|prefix| headers.any_begins_with(prefix));
    let mut told = prefixes.map(|prefix| told_by(prefix, headers, models, now));
    told.find(|windows| !windows.is_empty()).unwrap_or_default()
}

/// The windows that headers tell which begin so.
fn told_by(prefix: &str, headers: &Headers, models: &Models, now: Timestamp) -> Vec<Window> {
    let told = ROWS.iter().enumerate().filter_map(|(at, row)| {
        if !row.begins_with(prefix) {
            return None;
        }
        let used = row.used(headers)?;
        let wait = row.resets.iter().find_map(|name| wait_of(headers.first(name)?, now));
        let models = match row.covers {
            Covers::Everything => 0,
            Covers::Family(family) => tag(family, models.seed),
            Covers::Model => models.model,
        };
        let reset = now + wait.unwrap_or(row.length).min(super::LONGEST);
        let minutes = match row.minutes {
            // Without an end its length says nothing of the time that is left.
            _ if wait.is_none() => 0,
            (known, "") => known,
            (_, header) => number(headers, header).unwrap_or_default() as u16,
        };
        Some(Window { row: at as u8, models, used, minutes, seen: now, reset })
    });
    let mut windows = told.collect();
    drop_overage(&mut windows);
    windows
}

impl Row {
    fn begins_with(&self, prefix: &str) -> bool {
        let (Used::Share(name, _) | Used::Percent(name) | Used::Left { limit: name, .. }) =
            &self.used;
        name.starts_with(prefix)
    }

    fn used(&self, headers: &Headers) -> Option<u16> {
        let share = match self.used {
            Used::Share(share, status) => {
                if headers.text(status).eq_ignore_ascii_case("rejected") {
                    return Some(WHOLE);
                }
                number(headers, share)?
            }
            Used::Percent(percent) => number(headers, percent)? / 100.0,
            Used::Left { limit, remaining } => {
                let (limit, remaining) = (number(headers, limit)?, number(headers, remaining)?);
                // A plan without allowance tells a limit of 0; `-1` is how Azure tells none.
                if limit < 0.0 || remaining < 0.0 {
                    return None;
                }
                if limit == 0.0 { 1.0 } else { 1.0 - remaining / limit }
            }
        };
        Some((share.clamp(0.0, 1.0) * f64::from(WHOLE) + 0.5) as u16)
    }
}

/// The number that a header begins with; proxies let policies follow: `100, 100;w=60`.
fn number(headers: &Headers, name: &str) -> Option<f64> {
    let value = headers.first(name)?.split(|byte| matches!(byte, b',' | b';')).next()?;
    let number: f64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    number.is_finite().then_some(number)
}
