//! The first act: the same conversations twice, with session affinity and without.

use anyhow::{Result, ensure};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Version};
use serde_json::json;

use super::conversation::Traffic;
use super::replay::{self, Run};
use super::stage::{Size, WORKERS, check_books};

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
