//! What both acts have in common.

use anyhow::{Result, ensure};
use simulated_providers::Providers;

use super::replay::{Totals, Turn};

/// More than one, so that the demo also shows that workers share what they learn.
pub(super) const WORKERS: u32 = 2;

/// How much traffic there is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sessions; the clients take turns.
    pub sessions: usize,
    /// Turns of each.
    pub turns: usize,
}

/// Compares what clients saw in responses with what the providers recorded.
///
/// # Errors
/// The account for which they differ.
pub(super) fn check_totals<'a>(
    turns: impl Iterator<Item = &'a Turn> + Clone,
    providers: &Providers,
) -> Result<()> {
    for (account, totals) in providers.totals() {
        let recorded = Totals {
            requests: totals.requests,
            prompt_tokens: totals.prompt_tokens,
            cached_tokens: totals.cached_tokens,
        };
        let attempts = turns.clone().flat_map(Turn::attempted).filter(|name| **name == account);
        let served = Totals::of(turns.clone().filter(|turn| turn.credential == account));
        let seen = Totals { requests: attempts.count() as u64, ..served };
        ensure!(
            seen == recorded,
            "{account} recorded {recorded:?}, but clients saw {seen:?} in the responses"
        );
    }
    Ok(())
}
