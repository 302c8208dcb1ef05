//! `cargo xtask demo`, in two acts. In the first the same conversations go through a real Envoy
//! twice, with session affinity and without, and it is seen what that means for the providers'
//! prompt caches. In the second ([`limit`]) a credential runs into its limit.
//!
//! Both runs of the first act send the same bytes in the same order ([`conversation`]; the
//! simulated models answer a prompt alike on every account). Each run has an Envoy and providers
//! that have just been started.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

pub mod client;
mod comparison;
pub mod conversation;
pub mod limit;
pub mod replay;
pub mod report;
mod stage;
mod table;
mod text;
mod wire;

use std::io::IsTerminal;

use anyhow::{Result, bail};
use envoy_harness::Envoy;
use envoy_harness::output::print;
use simulated_providers::Shutdown;

use self::limit::Limit;

pub use self::comparison::{Comparison, compare};
pub use self::stage::Size;
pub use self::wire::Api;

/// Both acts.
#[derive(Clone, Debug)]
pub struct Played {
    /// With affinity and without.
    pub comparison: Comparison,
    /// A credential runs into its limit; `None` on an Envoy that cannot ask another one within a
    /// request.
    pub limit: Option<Limit>,
}

/// Plays both acts and prints the report.
///
/// # Errors
/// If a request fails, a conversation moves although there is affinity, or a client notices that a
/// credential is limited.
pub async fn demo(envoy: &Envoy, size: Size) -> Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let played = tokio::select! {
        played = play(envoy, size) => played?,
        // What is running ends with the future that holds it.
        () = shutdown.requested() => bail!("interrupted before the end"),
    };
    let terminal = std::io::stdout().is_terminal();
    let report = report::render(&played.comparison, played.limit.as_ref(), terminal);
    let printed = print(&format!("\n{report}\n"));
    played.check()?;
    printed
}

async fn play(envoy: &Envoy, size: Size) -> Result<Played> {
    let comparison = compare(envoy, size).await?;
    let limit =
        if limit::is_possible(envoy) { Some(limit::play(envoy, size).await?) } else { None };
    Ok(Played { comparison, limit })
}

impl Played {
    /// Whether affinity and failover have kept their promises.
    ///
    /// # Errors
    /// Which promise was broken, and for whom.
    pub fn check(&self) -> Result<()> {
        self.comparison.check()?;
        self.limit.as_ref().map_or(Ok(()), Limit::check)
    }
}
