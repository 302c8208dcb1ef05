//! What the filter itself has counted: the tokens of prompts by decision, from Envoy's statistics.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use envoy_harness::Process;
use session_affinity::metrics::Metric;
use session_affinity::outcome::TokenType;

use super::replay::Totals;

/// The prompts of each outcome of a decision: their tokens, and how many came from caches.
pub type ByOutcome = BTreeMap<String, Prompts>;

/// The tokens of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// All.
    pub tokens: u64,
    /// Those from a provider's cache.
    pub cached: u64,
}

/// Waits until the filter has counted what clients saw in the responses; counts reach Envoy a
/// second late.
///
/// # Errors
/// If it counts something else.
pub(super) async fn measure(envoy: &Process, seen: Totals) -> Result<ByOutcome> {
    let seen = Prompts { tokens: seen.prompt_tokens, cached: seen.cached_tokens };
    let counted = envoy.wait_for_stats("", |stats| sum(&by_outcome(stats)) == seen).await;
    let stats = counted.with_context(|| format!("the filter should have counted {seen:?}"))?;
    Ok(by_outcome(&stats))
}

fn by_outcome(stats: &BTreeMap<String, u64>) -> ByOutcome {
    let mut counted = ByOutcome::new();
    let metric = Metric::Tokens.name();
    for (name, tokens) in
        stats.iter().filter(|(name, count)| **count > 0 && name.ends_with(&metric))
    {
        let (Some(outcome), Some(kind)) = (label(name, "outcome"), label(name, "type")) else {
            continue;
        };
        let prompts = counted.entry(outcome.to_owned()).or_default();
        if kind != TokenType::Output.as_str() {
            prompts.tokens += tokens;
        }
        if kind == TokenType::CacheRead.as_str() {
            prompts.cached += tokens;
        }
    }
    counted
}

/// The value of a label, as names of metrics have it: `outcome=.=hit;.;`.
fn label<'n>(name: &'n str, label: &str) -> Option<&'n str> {
    let (_, rest) = name.split_once(&format!("{label}=.="))?;
    rest.split_once(";.;").map(|(value, _)| value)
}

fn sum(counted: &ByOutcome) -> Prompts {
    counted.values().fold(Prompts::default(), |sum, it| Prompts {
        tokens: sum.tokens + it.tokens,
        cached: sum.cached + it.cached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_by_outcome_over_pools_and_prefixes() {
        let series = |pool, outcome, kind| Metric::Tokens.series(&[pool, outcome, kind]);
        let stats = [
            (format!("wasmcustom.{}", series("p", "hit", "input")), 1),
            (format!("cluster.a.wasmcustom.{}", series("q", "hit", "cache_read")), 20),
            (format!("wasmcustom.{}", series("q", "hit", "cache_write")), 300),
            (format!("wasmcustom.{}", series("p", "hit", "output")), 4_000),
            (format!("wasmcustom.{}", series("p", "miss", "input")), 5),
            (format!("wasmcustom.{}", series("p", "cold", "input")), 0),
            ("wasmcustom.other".to_owned(), 6),
        ];
        let expected = [
            ("hit".to_owned(), Prompts { tokens: 321, cached: 20 }),
            ("miss".to_owned(), Prompts { tokens: 5, cached: 0 }),
        ];
        assert_eq!(by_outcome(&stats.into()), expected.into());
    }
}
