//! What both acts have in common.

use anyhow::{Result, ensure};
use simulated_providers::Providers;

use super::replay::{Turn, Work};

/// Two, so that it is seen that workers share what they know.
pub(super) const WORKERS: u32 = 2;

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Conversations, of all clients in turn.
    pub conversations: usize,
    /// Turns of each.
    pub turns: usize,
}

/// What clients were told must add up to what the providers have written down.
pub(super) fn check_books<'a>(
    turns: impl Iterator<Item = &'a Turn> + Clone,
    providers: &Providers,
) -> Result<()> {
    for (account, totals) in providers.totals() {
        let (requests, prompt_tokens, cached_tokens) =
            (totals.requests, totals.prompt_tokens, totals.cached_tokens);
        let asked =
            turns.clone().flat_map(Turn::asked).filter(|name| **name == account).count() as u64;
        let served = Work::of(turns.clone().filter(|turn| turn.credential == account));
        let told = Work { requests: asked, ..served };
        let booked = Work { requests, prompt_tokens, cached_tokens };
        ensure!(told == booked, "{account} has booked {booked:?}, but clients were told {told:?}");
    }
    Ok(())
}
