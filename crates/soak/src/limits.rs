//! What providers tell of their limits with every answer: a share that is used, which comes and goes
//! within seconds, and now and then nears its end at all credentials of a pool at once.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::history::{Name, SECOND, Time};
use crate::world;

/// For so long a share stays what it is.
const STEP: Time = 5 * SECOND;

/// From so many percent on the filter spares a credential, as the strategy `headroom` does by default.
pub(crate) const SPARED: u8 = 90;

/// The percent that are used of the limits of a credential.
pub(crate) fn used(credential: Name, now: Time) -> u8 {
    let step = now / STEP;
    let mut hasher = DefaultHasher::new();
    hasher.write(credential.as_bytes());
    hasher.write_u64(step);
    let share = (hasher.finish() % 100) as u8;
    if step % 3 == 2 { SPARED + 3 + share % 8 } else { share }
}

/// The headers that say so, as the providers of a pool write them. What Gemini has used it does not
/// tell.
pub(crate) fn headers(credential: Name, used: u8) -> String {
    let left = 100 - u32::from(used.min(100));
    let mut headers = String::new();
    match world::pool_of(credential).map(|pool| pool.api) {
        Some("openai") => {
            for (what, limit) in [("requests", 500), ("tokens", 200_000)] {
                let _ = write!(
                    headers,
                    "x-ratelimit-limit-{what}: {limit}\r\n\
                     x-ratelimit-remaining-{what}: {}\r\n\
                     x-ratelimit-reset-{what}: 1m0s\r\n",
                    limit * left / 100
                );
            }
        }
        Some("anthropic") => {
            let status = if left == 0 { "rejected" } else { "allowed" };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let reset = now.as_secs() + 3600;
            for (window, share) in [("5h", used), ("7d", used / 2)] {
                let _ = write!(
                    headers,
                    "anthropic-ratelimit-unified-{window}-status: {status}\r\n\
                     anthropic-ratelimit-unified-{window}-utilization: {:.2}\r\n\
                     anthropic-ratelimit-unified-{window}-reset: {reset}\r\n",
                    f64::from(share) / 100.0
                );
            }
        }
        _ => {}
    }
    headers
}

/// Whether the provider of a credential tells what is used.
pub(crate) fn are_told(credential: Name) -> bool {
    !headers(credential, 0).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_and_near_their_end_together() {
        let all = |now: Time| {
            let credentials = world::POOLS[0].credentials.iter();
            credentials.map(|credential| used(credential, now)).collect::<Vec<_>>()
        };
        assert!(all(2 * STEP).iter().all(|used| (SPARED..=100).contains(used)));
        let mut others = all(0);
        others.sort_unstable();
        others.dedup();
        assert!(others.len() > 1);
    }

    #[test]
    fn headers_are_those_of_the_provider() {
        let openai = headers("openai-a", 25);
        assert!(openai.contains("x-ratelimit-remaining-requests: 375\r\n"), "{openai}");
        assert!(openai.contains("x-ratelimit-limit-tokens: 200000\r\n"), "{openai}");
        let anthropic = headers("anthropic-a", 100);
        assert!(anthropic.contains("unified-5h-status: rejected\r\n"), "{anthropic}");
        assert!(anthropic.contains("unified-7d-utilization: 0.50\r\n"), "{anthropic}");
        assert!(are_told("replica-a"));
        assert!(!are_told("gemini-a"));
    }
}
