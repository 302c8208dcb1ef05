//! One contender in one round: its Envoy, and what is measured of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use envoy_harness::{Envoy, Process, wait_until};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

use crate::contender::Contender;
use crate::load::{Requests, SESSIONS};
use crate::setup;
use crate::upstream::Upstream;

/// What requests look like, and how many are under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    /// Bytes of the body.
    pub size: usize,
    pub connections: u16,
}

/// How long one cell of one contender is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Before the measurement of CPU time begins.
    pub lead: Duration,
    pub measured: Duration,
}

/// What was measured in one cell of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Microseconds of CPU time of all threads of Envoy, for one request; without a proxy, none.
    pub cpu: Option<f64>,
    pub requests_per_second: f64,
    /// Microseconds until a response was there.
    pub p50: f64,
    pub p99: f64,
    /// Bytes of memory that Envoy occupied afterwards.
    pub resident: Option<u64>,
}

/// A contender that serves. Its processes end with this value.
pub(crate) struct Lane {
    pub contender: Contender,
    envoy: Option<Process>,
    upstream: SocketAddr,
}

impl Lane {
    /// Starts a contender on this core and sends it every session once.
    ///
    /// # Errors
    /// If Envoy does not start, or a request fails.
    pub(crate) async fn start(
        contender: Contender,
        envoy: &Envoy,
        core: usize,
        noop: &Path,
        upstream: &Upstream,
        requests: &Requests,
    ) -> Result<Self> {
        let first = *upstream.addresses.first().context("the upstream has no address")?;
        let envoy = match setup::fixture(contender, &upstream.addresses, noop)? {
            Some(fixture) => Some(Process::start(envoy, &fixture.on_core(core), 1, &[]).await?),
            None => None,
        };
        let lane = Self { contender, envoy, upstream: first };
        lane.warm_up(requests).await?;
        Ok(lane)
    }

    /// Afterwards all sessions are bound, and V8 has compiled what runs often.
    async fn warm_up(&self, requests: &Requests) -> Result<()> {
        let Some(envoy) = &self.envoy else {
            return Ok(());
        };
        const SIZE: usize = crate::SIZES[0];
        let load = requests.send(envoy.address(), self.contender.identity(), SIZE, 16)?;
        let served = wait_until("waiting for the first requests", async || {
            Ok((completed(envoy).await? > 2 * SESSIONS).then_some(()))
        })
        .await;
        if served.is_err() {
            // What `wrk` says about it is closer to the cause.
            load.stop().await?;
        }
        served
    }

    /// Measures one cell. CPU time and the requests that it went into are those between two moments
    /// at which the load runs, so what begins and ends with it does not count. Latency and
    /// throughput are those of the whole load.
    ///
    /// # Errors
    /// If a request fails.
    pub(crate) async fn measure(
        &self,
        cell: Cell,
        span: Span,
        requests: &Requests,
    ) -> Result<Sample> {
        let address = self.envoy.as_ref().map_or(self.upstream, Process::address);
        let identity = self.contender.identity();
        let load = requests.send(address, identity, cell.size, cell.connections)?;
        tokio::time::sleep(span.lead).await;
        let cpu = match &self.envoy {
            None => {
                tokio::time::sleep(span.measured).await;
                None
            }
            Some(envoy) => {
                let before = Moment::of(envoy).await?;
                tokio::time::sleep(span.measured).await;
                Some(Moment::of(envoy).await?.cpu_per_request_since(&before))
            }
        };
        let seen = load.stop().await?;
        let envoy = self.envoy.as_ref();
        Ok(Sample {
            cpu: cpu.transpose()?,
            requests_per_second: seen.requests as f64 * 1e6 / seen.microseconds as f64,
            p50: seen.p50 as f64,
            p99: seen.p99 as f64,
            resident: envoy.map(Process::resident_memory).transpose()?,
        })
    }

    /// Ends it, and makes sure that it did what it was measured for.
    ///
    /// # Errors
    /// If it did not.
    pub(crate) async fn finish(self) -> Result<()> {
        let Some(envoy) = self.envoy else {
            return Ok(());
        };
        let checked = check(self.contender, &envoy).await;
        envoy.stop().await?;
        checked.with_context(|| format!("{} did not do its work", self.contender.as_str()))
    }
}

/// Ours bound all sessions and found them again; Envoy's own filter found the field in all bodies.
async fn check(contender: Contender, envoy: &Process) -> Result<()> {
    let served = completed(envoy).await?;
    let found = if contender.is_ours() {
        // Counts come once a second.
        let stats = envoy.wait_for_stats("", |stats| hits(stats) + 2 * SESSIONS >= served).await?;
        hits(&stats) + 2 * SESSIONS
    } else if contender == Contender::Stock {
        count(envoy, "json_to_metadata.rq.success").await?
    } else {
        served
    };
    ensure!(found >= served, "of {served} requests only {found} were recognized");
    Ok(())
}

/// How many requests of known sessions the filter has counted.
fn hits(stats: &BTreeMap<String, u64>) -> u64 {
    let is_hit = |name: &str| {
        name.contains("outcome=.=hit;.;") && name.ends_with("session_affinity_requests_total")
    };
    stats.iter().filter(|(name, _)| is_hit(name)).map(|(_, count)| count).sum()
}

async fn completed(envoy: &Process) -> Result<u64> {
    count(envoy, "http.llm.downstream_rq_completed").await
}

async fn count(envoy: &Process, name: &str) -> Result<u64> {
    let filter = name.replace('.', "\\.");
    let text = envoy.get_admin(&format!("/stats?filter=^{filter}$")).await?;
    let value = text.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
    // One that never counted is not there.
    value.map_or(Ok(0), |value| value.parse().context("a counter that is no number"))
}

/// How much CPU time Envoy had used, and how many requests it had completed.
struct Moment {
    cpu: Duration,
    completed: u64,
    at: Instant,
}

impl Moment {
    /// To ask Envoy takes time in which it serves; the middle of that time is the moment.
    async fn of(envoy: &Process) -> Result<Self> {
        let (before, began) = (cpu_time(envoy)?, Instant::now());
        let completed = completed(envoy).await?;
        let cpu = before + (cpu_time(envoy)?.saturating_sub(before)) / 2;
        Ok(Self { cpu, completed, at: began + began.elapsed() / 2 })
    }

    fn cpu_per_request_since(&self, before: &Self) -> Result<f64> {
        let requests = self.completed.saturating_sub(before.completed);
        ensure!(requests > 0, "no request in {} ms", (self.at - before.at).as_millis());
        Ok((self.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e6 / requests as f64)
    }
}

/// The kernel's own account of all threads of Envoy, also of those that have ended.
fn cpu_time(envoy: &Process) -> Result<Duration> {
    let id =
        Pid::from_raw(i32::try_from(envoy.id()?).context("a process id of more than 31 bits")?);
    let clock = clock_getcpuclockid(id).context("Envoy has no clock of CPU time")?;
    Ok(clock_gettime(clock).context("cannot read the CPU time of Envoy")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_request_is_what_was_used_meanwhile() {
        let at = Instant::now();
        let before = Moment { cpu: Duration::from_millis(10), completed: 100, at };
        let after = Moment { cpu: Duration::from_millis(70), completed: 1100, at };
        assert_eq!(after.cpu_per_request_since(&before).unwrap(), 60.0);
        assert!(before.cpu_per_request_since(&before).is_err());
    }
}
