//! `cargo xtask demo`, in two acts. In the first the same conversations go through a real Envoy
//! twice, with session affinity and without, and it is seen what that means for the providers'
//! prompt caches. In the second ([`limit`]) a credential runs into its limit.
//!
//! Both runs of the first act send the same bytes in the same order ([`conversation`]; the
//! simulated models answer a prompt alike on every account). Each run has an Envoy and providers
//! that have just been started.

pub mod client;
pub mod conversation;
pub mod limit;
pub mod replay;
pub mod report;
mod text;
mod wire;

use std::io::IsTerminal;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use self::conversation::Traffic;
use self::limit::Limit;
use self::replay::{Run, Turn, Work};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Version};
use simulated_providers::Providers;
use simulated_providers::signals;

pub use self::wire::Api;

/// Two, so that it is seen that workers share what they know.
const WORKERS: u32 = 2;

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Conversations, of all clients in turn.
    pub conversations: usize,
    /// Turns of each.
    pub turns: usize,
}

/// The same traffic, twice.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The Envoy that both ran through.
    pub envoy: Version,
    /// With session affinity.
    pub with: Run,
    /// Without it: every request is a new conversation to the filter.
    pub without: Run,
}

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
    let played = tokio::select! {
        played = play(envoy, size) => played?,
        // What is running ends with the future that holds it.
        ended = signals::asked_to_end() => {
            ended?;
            bail!("interrupted before the end");
        }
    };
    println!("\n{}", report::render(&played, std::io::stdout().is_terminal()));
    played.check()
}

async fn play(envoy: &Envoy, size: Size) -> Result<Played> {
    let comparison = compare(envoy, size).await?;
    let limit =
        if limit::is_possible(envoy) { Some(limit::play(envoy, size).await?) } else { None };
    Ok(Played { comparison, limit })
}

/// Plays both runs of the first act.
///
/// # Errors
/// If a request fails.
pub async fn compare(envoy: &Envoy, size: Size) -> Result<Comparison> {
    let traffic = Traffic::new(size.conversations, size.turns)?;
    Ok(Comparison {
        envoy: envoy.version,
        with: run(envoy, "with affinity", true, traffic.clone()).await?,
        without: run(envoy, "without affinity", false, traffic).await?,
    })
}

async fn run(envoy: &Envoy, name: &str, affinity: bool, traffic: Traffic) -> Result<Run> {
    let step = Step::of_parts(name, traffic.order.len() as u64);
    step.say("starting Envoy");
    let edit =
        |filter: &mut serde_json::Value| filter["routing"]["session_affinity"] = json!(affinity);
    let gateway = Gateway::start(envoy, WORKERS, |fixture| fixture.edit_filter(edit)).await?;
    step.say("requests");
    let run = replay::replay(gateway.envoy.address(), traffic, || step.advance()).await?;
    check_books(run.turns(), &gateway.providers)?;
    gateway.stop().await?;
    step.done(&format!(
        "{} conversations, {} requests",
        run.conversations.len(),
        run.turns().count()
    ));
    Ok(run)
}

/// What clients were told must add up to what the providers have written down.
fn check_books<'a>(
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

impl Comparison {
    /// Whether affinity has kept its promise.
    ///
    /// # Errors
    /// The conversations that were served by more than one credential although there was affinity.
    pub fn check(&self) -> Result<()> {
        let moved = self.with.conversations.iter().filter(|track| track.credentials().len() != 1);
        let moved: Vec<_> = moved.map(|track| track.title.as_str()).collect();
        ensure!(
            moved.is_empty(),
            "not on one credential, although affinity was on: {}",
            moved.join(", ")
        );
        Ok(())
    }
}
