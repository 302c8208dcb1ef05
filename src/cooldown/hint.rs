//! When a provider says that it may be asked again.

use std::time::{Duration, UNIX_EPOCH};

use crate::request::Headers;
use crate::time::Timestamp;

/// How long the provider wants to be left alone; `None` if it does not say. In this order:
/// `retry-after-ms`; `retry-after` in seconds or as an HTTP date; the resets of Anthropic's unified
/// limits that are exhausted; OpenAI's `x-ratelimit-reset-*` of what is used up.
pub fn wait(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let milliseconds = headers.text("retry-after-ms").trim().parse::<f64>().ok().and_then(positive);
    milliseconds
        .or_else(|| retry_after(headers, now))
        .or_else(|| unified(headers, now))
        .or_else(|| openai(headers))
}

/// Whether Anthropic says that a limit of the whole account is exhausted, not one of the model.
pub fn is_for_the_whole_credential(headers: &Headers) -> bool {
    ["5h", "7d"].iter().any(|window| headers.text(&unified_header(window, "status")) == "rejected")
}

fn retry_after(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let text = headers.text("retry-after").trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return positive(seconds * 1000.0);
    }
    let time = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((Timestamp::EPOCH + time).since(now))
}

/// The latest reset of an exhausted window; the resets are seconds since the epoch.
fn unified(headers: &Headers, now: Timestamp) -> Option<Duration> {
    ["5h", "7d", ""]
        .into_iter()
        .filter(|window| headers.text(&unified_header(window, "status")) == "rejected")
        .filter_map(|window| headers.text(&unified_header(window, "reset")).trim().parse().ok())
        .map(|seconds| Timestamp::from_secs(seconds).since(now))
        .max()
}

fn unified_header(window: &str, field: &str) -> String {
    let dash = if window.is_empty() { "" } else { "-" };
    format!("anthropic-ratelimit-unified{dash}{window}-{field}")
}

/// The latest reset of requests or tokens of which none are left; durations as Go writes them.
fn openai(headers: &Headers) -> Option<Duration> {
    ["requests", "tokens"]
        .into_iter()
        .filter(|what| headers.text(&format!("x-ratelimit-remaining-{what}")).trim() == "0")
        .filter_map(|what| {
            crate::duration::parse(headers.text(&format!("x-ratelimit-reset-{what}")).trim())
        })
        .max()
}

fn positive(milliseconds: f64) -> Option<Duration> {
    (milliseconds.is_finite() && milliseconds >= 0.0)
        .then_some(Duration::from_millis(milliseconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(name: &str, value: &str) -> bool {
        is_for_the_whole_credential(&[(name, value)].into_iter().collect())
    }

    /// Sat, 21 Nov 2026 12:00:00 GMT
    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn waits(list: &[(&str, &str)]) -> Option<u128> {
        wait(&list.iter().copied().collect(), NOON).map(|wait| wait.as_millis())
    }

    #[test]
    fn every_way_to_say_it_is_understood() {
        for (list, expected) in [
            (&[("retry-after", "17")][..], Some(17_000)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "1.5")], Some(1_500)),
            (&[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")], Some(30_000)),
            (&[("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT")], Some(0)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "2"), ("retry-after-ms", "1500")], Some(1_500)),
            (
                &[
                    ("anthropic-ratelimit-unified-5h-status", "rejected"),
                    ("anthropic-ratelimit-unified-5h-reset", "1795266000"),
                    ("anthropic-ratelimit-unified-7d-status", "allowed"),
                    ("anthropic-ratelimit-unified-7d-reset", "1795362400"),
                ],
                Some(3_600_000),
            ),
            (
                &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")],
                Some(360_000),
            ),
            (&[("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-reset-tokens", "6m0s")], None),
            (&[], None),
        ] {
            assert_eq!(waits(list), expected, "{list:?}");
        }
    }

    #[test]
    fn the_limits_of_an_account_are_told_from_those_of_a_model() {
        assert!(is_whole("anthropic-ratelimit-unified-7d-status", "rejected"));
        assert!(!is_whole("anthropic-ratelimit-unified-7d-status", "allowed_warning"));
        assert!(!is_whole("retry-after", "1"));
    }
}
