//! When a provider says that it may be asked again.

use std::time::UNIX_EPOCH;

use crate::request::Headers;

/// How long the provider wants to be left alone, in milliseconds; `None` if it does not say. In
/// this order: `retry-after-ms`; `retry-after` in seconds or as an HTTP date; the resets of
/// Anthropic's unified limits that are exhausted; OpenAI's `x-ratelimit-reset-*` of what is used
/// up.
pub fn wait(headers: &Headers, now: u64) -> Option<u64> {
    let milliseconds =
        || headers.text("retry-after-ms").trim().parse::<f64>().ok().and_then(positive);
    milliseconds()
        .or_else(|| retry_after(headers, now))
        .or_else(|| unified(headers, now))
        .or_else(|| openai(headers))
}

/// Whether Anthropic says that a limit of the whole account is exhausted, not one of the model.
pub fn is_for_the_whole_credential(headers: &Headers) -> bool {
    ["5h", "7d"].iter().any(|window| headers.text(&unified_header(window, "status")) == "rejected")
}

fn retry_after(headers: &Headers, now: u64) -> Option<u64> {
    let text = headers.text("retry-after").trim();
    let seconds = || text.parse::<f64>().ok().and_then(|seconds| positive(seconds * 1000.0));
    let date = || {
        let time = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((time.as_millis() as u64).saturating_sub(now))
    };
    seconds().or_else(date)
}

/// The latest reset of an exhausted window; the resets are seconds since the epoch.
fn unified(headers: &Headers, now: u64) -> Option<u64> {
    let reset = |window: &str| {
        let seconds = headers.text(&unified_header(window, "reset")).trim().parse::<u64>().ok()?;
        Some(seconds.saturating_mul(1000).saturating_sub(now))
    };
    let is_rejected = |window: &&str| headers.text(&unified_header(window, "status")) == "rejected";
    ["5h", "7d", ""].into_iter().filter(is_rejected).filter_map(reset).max()
}

fn unified_header(window: &str, field: &str) -> String {
    let dash = if window.is_empty() { "" } else { "-" };
    format!("anthropic-ratelimit-unified{dash}{window}-{field}")
}

/// The latest reset of requests or tokens of which none are left; durations as Go writes them.
fn openai(headers: &Headers) -> Option<u64> {
    let reset = |what: &str| {
        let none_left = headers.text(&format!("x-ratelimit-remaining-{what}")).trim() == "0";
        let reset = headers.text(&format!("x-ratelimit-reset-{what}"));
        crate::duration::milliseconds(reset.trim()).filter(|_| none_left)
    };
    ["requests", "tokens"].into_iter().filter_map(reset).max()
}

fn positive(milliseconds: f64) -> Option<u64> {
    (milliseconds.is_finite() && milliseconds >= 0.0).then_some(milliseconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sat, 21 Nov 2026 12:00:00 GMT
    const NOON: u64 = 1_795_262_400_000;

    fn waits(list: &[(&str, &str)]) -> Option<u64> {
        wait(&list.iter().copied().collect(), NOON)
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
        let is_whole =
            |name, value| is_for_the_whole_credential(&[(name, value)].into_iter().collect());
        assert!(is_whole("anthropic-ratelimit-unified-7d-status", "rejected"));
        assert!(!is_whole("anthropic-ratelimit-unified-7d-status", "allowed_warning"));
        assert!(!is_whole("retry-after", "1"));
    }
}
