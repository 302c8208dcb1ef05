//! How long a provider keeps a prompt cached after its last use: while it does, a session is
//! cheaper where it was.
//!
//! Sources are the providers' documentation. Anthropic (also on Bedrock) keeps it for five minutes,
//! or for an hour where a breakpoint of the request says `cache_control: {"ttl": "1h"}`. OpenAI
//! drops it after five to ten minutes, and after an hour at the latest; of others nothing better is
//! known.

mod breakpoint;

use std::time::Duration;

use crate::api::Api;
use crate::config::Pool;
use crate::request::Request;

const FIVE_MINUTES: Duration = Duration::from_mins(5);
const ONE_HOUR: Duration = Duration::from_hours(1);

/// For how long after its last use a prompt is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// So long it can be counted on.
    pub warm: Duration,
    /// After so long it is certainly gone.
    pub certain: Duration,
}

impl Lifetime {
    /// What no request of a pool asks to shorten: a session that was idle for less is certainly not
    /// cold.
    pub fn least(pool: &Pool) -> Duration {
        pool.cache_lifetime.unwrap_or(FIVE_MINUTES)
    }

    /// The lifetime that the prompt of a request has.
    pub fn of(pool: &Pool, api: Api, request: &Request<'_>) -> Self {
        let warm = if asks_for_an_hour(request) {
            Self::least(pool).max(ONE_HOUR)
        } else {
            Self::least(pool)
        };
        let is_documented =
            matches!(api, Api::Anthropic | Api::Bedrock) || pool.cache_lifetime.is_some();
        Self { warm, certain: if is_documented { warm } else { warm.max(ONE_HOUR) } }
    }
}

/// Whether a breakpoint of the prompt is to live for an hour. Where the body was not read, clients
/// that announce the feature in `anthropic-beta`, as Claude Code does, are taken at their word.
fn asks_for_an_hour(request: &Request<'_>) -> bool {
    let body = request.body.bytes();
    if body.is_empty() {
        return request
            .headers
            .all("anthropic-beta")
            .any(|value| String::from_utf8_lossy(value).contains("extended-cache-ttl"));
    }
    breakpoint::asks_for_an_hour(body, br#""cache_control""#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Body, Paths};
    use crate::request::Headers;

    fn asks(headers: &[(&str, &str)], body: &str) -> bool {
        let headers: Headers = headers.iter().copied().collect();
        let body = Body::read(&Paths::default(), body.as_bytes());
        asks_for_an_hour(&Request::new(&headers, body))
    }

    #[test]
    fn a_breakpoint_of_an_hour_is_found_wherever_it_stands() {
        assert!(asks(
            &[],
            r#"{"system":[{"text":"x","cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#
        ));
        assert!(asks(&[], "{\"cache_control\" : { \"ttl\" :\n \"1h\" , \"type\":\"ephemeral\"}}"));
        assert!(asks(
            &[],
            r#"{"a":{"cache_control":{"type":"ephemeral"}},"b":{"cache_control":{"ttl":"1h"}}}"#
        ));
    }

    #[test]
    fn nothing_else_asks_for_an_hour() {
        assert!(!asks(&[], r#"{"cache_control":{"type":"ephemeral","ttl":"5m"}}"#));
        assert!(!asks(&[], r#"{"cache_control":{"type":"ephemeral"},"ttl":"1h"}"#));
        assert!(
            !asks(&[], r#"{"text":"\"cache_control\":{\"ttl\":\"1h\"}"}"#),
            "a text is no breakpoint"
        );
        assert!(!asks(&[], r#"{"text":"cache_control","ttl":"1h"}"#));
        assert!(!asks(&[], r#"{"cache_control""#), "a body may be cut off");
        assert!(!asks(&[], ""));
    }

    #[test]
    fn without_a_body_the_announcement_counts() {
        let beta = [("anthropic-beta", "claude-code-20250219,extended-cache-ttl-2025-04-11")];
        assert!(asks(&beta, ""));
        assert!(!asks(&beta, r#"{"cache_control":{"type":"ephemeral"}}"#), "the body knows better");
        assert!(!asks(&[("anthropic-beta", "prompt-caching-2024-07-31")], ""));
    }
}
