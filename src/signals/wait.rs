//! When a provider says that it may be asked again, in every form that is in use.

pub(super) mod moment;

use std::time::Duration;

use super::report::{Report, member};
use super::{Class, Scope, families};
use crate::json::Value;
use crate::request::Headers;
use crate::time::Timestamp;

/// A wait that a provider asked for.
pub(super) struct Request {
    pub(super) wait: Duration,
    /// Whether only prose says so.
    pub(super) is_prose: bool,
}

/// A refusal for want of money that says less than this means the usual advice of an SDK, not that
/// there will be money.
const SHORTEST_DENIAL: Duration = Duration::from_secs(60);

/// Headers of a response that are read for limits: they are looked up among each other.
const MOST_HEADERS: usize = 128;

/// The headers of Anthropic's subscriptions, and of Codex's.
const UNIFIED: &str = "anthropic-ratelimit-unified-";
const CODEX: &str = "x-codex";

/// How long the provider wants to be left alone. Fields of the body come first: they are about this
/// limit, while a header may be about any.
pub(super) fn requested(
    class: Class,
    headers: &Headers,
    report: &Report<'_>,
    model: &str,
    now: Timestamp,
) -> Option<Request> {
    let field = match class {
        Class::RateLimit => codex_body(report, now)
            .or_else(|| google(report, now))
            .or_else(|| openrouter(report, now))
            .or_else(|| retry_after(headers, now).max(unified(headers, model, now)))
            .or_else(|| codex(headers, now))
            .or_else(|| exhausted(headers, now)),
        Class::Denied => {
            retry_after(headers, now).or_else(|| codex_body(report, now)).filter(is_a_denial)
        }
        Class::Transient | Class::Overloaded => {
            google(report, now).or_else(|| retry_after(headers, now))
        }
        _ => return None,
    };
    if let Some(wait) = field {
        return Some(Request { wait, is_prose: false });
    }
    let prose = match class {
        Class::RateLimit => moment::in_prose(&report.message, now),
        Class::Denied => moment::in_prose(&report.message, now).filter(is_a_denial),
        _ => None,
    };
    prose.map(|wait| Request { wait, is_prose: true })
}

fn is_a_denial(wait: &Duration) -> bool {
    *wait >= SHORTEST_DENIAL
}

/// What a limit covers, as far as headers say: the account, a family of models, or the one model.
pub(super) fn scope(headers: &Headers, model: &str) -> Option<Scope> {
    rejected(headers, model).map(|rejected| rejected.scope).or_else(|| {
        // Codex has limits of their own for some models; `codex` and `premium` are the account's.
        let limit = headers.text("x-codex-active-limit").trim();
        (!matches!(limit, "" | "codex" | "premium")).then_some(Scope::Model)
    })
}

/// `retry-after-ms`, `x-ms-retry-after-ms`, `retry-after`.
fn retry_after(headers: &Headers, now: Timestamp) -> Option<Duration> {
    ["retry-after-ms", "x-ms-retry-after-ms"]
        .into_iter()
        .find_map(|name| moment::milliseconds(headers.text(name)))
        .or_else(|| moment::of(headers.text("retry-after").as_bytes(), now))
}

/// Codex's `resets_in_seconds` and `resets_at`. The first comes first: it needs no common clock.
fn codex_body(report: &Report<'_>, now: Timestamp) -> Option<Duration> {
    let error = report.error?;
    ["resets_in_seconds", "resets_at"]
        .into_iter()
        .find_map(|name| moment::of(&member(error, name)?.text(), now))
        .filter(|wait| !wait.is_zero())
}

/// Google's `QuotaFailure` (a quota per day is back at midnight in California, whatever the delay
/// beside it says), `RetryInfo`, and what Code Assist writes into `ErrorInfo`.
fn google(report: &Report<'_>, now: Timestamp) -> Option<Duration> {
    let is_per_day = report
        .details()
        .filter_map(|detail| member(detail, "violations"))
        .flat_map(Value::elements)
        .filter_map(|violation| member(violation, "quotaId"))
        .any(|id| id.text().windows(6).any(|part| part == b"PerDay"));
    if is_per_day {
        return Some(moment::until_midnight_in_california(now));
    }
    report.details().find_map(|detail| {
        let metadata = member(detail, "metadata");
        [
            member(detail, "retryDelay"),
            metadata.and_then(|metadata| member(metadata, "quotaResetDelay")),
            metadata.and_then(|metadata| member(metadata, "quotaResetTimeStamp")),
        ]
        .into_iter()
        .flatten()
        .find_map(|value| moment::of(&value.text(), now))
    })
}

/// OpenRouter repeats its headers in the body.
fn openrouter(report: &Report<'_>, now: Timestamp) -> Option<Duration> {
    let headers = member(member(report.error?, "metadata")?, "headers")?;
    moment::of(&member(headers, "X-RateLimit-Reset")?.text(), now)
}

/// A window of an Anthropic subscription that is used up.
struct Rejected {
    scope: Scope,
    wait: Option<Duration>,
}

fn unified(headers: &Headers, model: &str, now: Timestamp) -> Option<Duration> {
    rejected_at(headers, model, Some(now))?.wait
}

fn rejected(headers: &Headers, model: &str) -> Option<Rejected> {
    rejected_at(headers, model, None)
}

/// The limit of a subscription that is used up. A window of the account counts before one of the
/// model's family, and of several the one that ends last; where only the sum of them is rejected,
/// the claim behind it says which it is, and otherwise it is a limit of the one model.
fn rejected_at(headers: &Headers, model: &str, now: Option<Timestamp>) -> Option<Rejected> {
    let mut found: Option<(u8, Rejected)> = None;
    for (name, value) in headers.iter().take(MOST_HEADERS) {
        let window = name.strip_prefix(UNIFIED).and_then(|rest| rest.strip_suffix("status"));
        let Some(window) = window.filter(|_| value.trim_ascii() == b"rejected") else { continue };
        let window = window.trim_end_matches('-');
        let claim = match window {
            "" => headers.text("anthropic-ratelimit-unified-representative-claim").trim(),
            // Money beyond the plan; the plan's own windows say what is used up.
            "overage" => continue,
            window => window,
        };
        let family = families::of_window(claim);
        let is_of_another =
            family.is_some() && families::of(model).is_some_and(|f| Some(f) != family);
        let (rank, scope) = match (claim, family) {
            ("5h" | "7d" | "five_hour" | "seven_day", _) => (3, Scope::Credential),
            (_, Some(family)) if !is_of_another => (2, Scope::Family(family)),
            _ => (1, Scope::Model),
        };
        let dash = if window.is_empty() { "" } else { "-" };
        let reset = headers.text(&format!("{UNIFIED}{window}{dash}reset")).as_bytes();
        let wait = now.and_then(|now| moment::of(reset, now)).filter(|wait| !wait.is_zero());
        found = match found {
            Some((best, rejected)) if best > rank => Some((best, rejected)),
            Some((best, rejected)) if best == rank => {
                Some((best, Rejected { scope, wait: wait.max(rejected.wait) }))
            }
            _ => Some((rank, Rejected { scope, wait })),
        };
    }
    found.map(|(_, rejected)| rejected)
}

/// Codex's windows that are used up, also those of further limits (`x-codex-bengalfox-primary-…`);
/// of several the one that ends last.
fn codex(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let used_up = headers.iter().take(MOST_HEADERS).filter_map(|(name, value)| {
        let window = name.strip_suffix("used-percent").filter(|name| name.starts_with(CODEX))?;
        let percent: f64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
        (percent >= 100.0).then_some(window)
    });
    used_up
        .filter_map(|window| {
            ["reset-after-seconds", "reset-at"]
                .into_iter()
                .find_map(|field| {
                    moment::of(headers.text(&format!("{window}{field}")).as_bytes(), now)
                })
                .filter(|wait| !wait.is_zero())
        })
        .max()
}

/// Limits of which nothing remains: `anthropic-ratelimit-tokens-{remaining,reset}`,
/// `x-ratelimit-{remaining,reset}-tokens` and whatever else is named so; the latest reset.
fn exhausted(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let resets = headers.iter().take(MOST_HEADERS).filter_map(|(name, value)| {
        let is_a_limit = ["x-ratelimit-", "ratelimit-", "anthropic-ratelimit-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let (before, after) = name.split_once("reset").filter(|_| is_a_limit)?;
        let remaining = headers.text(&format!("{before}remaining{after}")).trim();
        let is_used_up = matches!(remaining.parse::<f64>(), Ok(left) if left == 0.0);
        moment::of(value, now).filter(|_| is_used_up)
    });
    resets.max()
}
