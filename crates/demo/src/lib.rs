//! `cargo xtask demo`, in two acts. In the first ([`compare`]) the same sessions go through a real
//! Envoy twice, with session affinity and without, and the report shows what that means for the
//! prompt caches of the providers. In the second ([`limit`]) a credential reaches its rate limit.
//!
//! Both runs of the first act send the same bytes in the same order ([`session`]; the simulated
//! models write the same response to a prompt, whatever the credential). Each run has its own Envoy
//! and its own providers, started for it.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

pub mod client;
mod comparison;
pub mod limit;
pub mod measured;
pub mod replay;
pub mod report;
pub mod session;
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
    /// A credential at its rate limit; `None` on an Envoy that cannot fail over within a request.
    pub limit: Option<Limit>,
}

/// Plays both acts and prints the report.
///
/// # Errors
/// If a request fails, a session moves despite affinity, or a client notices that a credential is
/// limited.
pub async fn demo(envoy: &Envoy, size: Size) -> Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let played = tokio::select! {
        played = play(envoy, size) => played?,
        // Envoy and the providers end with the future that holds them.
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
    /// Checks what affinity and failover promise.
    ///
    /// # Errors
    /// The promise that was broken, and for which sessions.
    pub fn check(&self) -> Result<()> {
        self.comparison.check()?;
        self.limit.as_ref().map_or(Ok(()), Limit::check)
    }
}
