//! The first act: the same sessions twice, with session affinity and without.

use anyhow::{Result, ensure};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Version};
use serde_json::json;

use super::measured::{self, ByOutcome};
use super::replay::{self, Run, Totals};
use super::session::Traffic;
use super::stage::{Size, WORKERS, check_totals};

/// The same traffic, twice.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The Envoy that both ran through.
    pub envoy: Version,
    /// With session affinity.
    pub with: Run,
    /// Without it: to the filter every request is a new session.
    pub without: Run,
    /// What the filter has counted, with affinity and without.
    pub measured: [ByOutcome; 2],
}

/// Plays both runs of the first act.
///
/// # Errors
/// If a request fails.
pub async fn compare(envoy: &Envoy, size: Size) -> Result<Comparison> {
    let traffic = Traffic::new(size.sessions, size.turns)?;
    let (with, counted) = run(envoy, "with affinity", true, traffic.clone()).await?;
    let (without, counted_without) = run(envoy, "without affinity", false, traffic).await?;
    let measured = [counted, counted_without];
    Ok(Comparison { envoy: envoy.version, with, without, measured })
}

async fn run(
    envoy: &Envoy,
    name: &str,
    affinity: bool,
    traffic: Traffic,
) -> Result<(Run, ByOutcome)> {
    let step = Step::of_parts(name, traffic.order.len() as u64);
    step.say("starting Envoy");
    let gateway = Gateway::start(envoy, WORKERS, |fixture| {
        fixture.edit_filter(|filter| filter["routing"]["session_affinity"] = json!(affinity))
    })
    .await?;
    match gateway.envoy.operator() {
        Some(page) => step.announce(&format!("http://{page}/ shows it")),
        None => step.say("requests"),
    }
    let run = replay::replay(gateway.envoy.address(), traffic, || step.advance()).await?;
    check_totals(run.turns(), &gateway.providers)?;
    let measured = measured::measure(&gateway.envoy, Totals::of(run.turns())).await?;
    gateway.stop().await?;
    step.done(&format!("{} sessions, {} requests", run.sessions.len(), run.turns().count()));
    Ok((run, measured))
}

impl Comparison {
    /// Checks that affinity kept every session on one credential.
    ///
    /// # Errors
    /// The sessions that it did not.
    pub fn check(&self) -> Result<()> {
        let moved = self.with.sessions.iter().filter(|track| track.credentials().len() != 1);
        let moved: Vec<_> = moved.map(|track| track.title.as_str()).collect();
        ensure!(
            moved.is_empty(),
            "not on one credential in spite of affinity: {}",
            moved.join(", ")
        );
        Ok(())
    }
}
