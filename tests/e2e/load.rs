//! Many requests at little cost, for tests with large numbers.
//!
//! The filter decides and binds as always, but Envoy responds in place of an upstream: a million
//! requests take about a minute. Only a request with a simulated fault (`x-simulate`) reaches a
//! provider.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, Result};
use envoy_harness::client::{Body, Connection, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Process};
use hyper::Request;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{OUTCOME, decision, wait_for_counts, word};

/// Concurrent connections: enough that the kernel gives some to each of four workers.
pub(crate) const CONNECTIONS: usize = 64;

/// What was decided, without what differs from session to session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decided {
    pub(crate) outcome: String,
    /// None if the filter sent a local reply.
    pub(crate) credential: Option<String>,
}

/// How often each decision was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<Decided, u64>);

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        other
            .0
            .into_iter()
            .for_each(|(decided, count)| *self.0.entry(decided).or_default() += count);
    }

    /// How often a decision had this outcome, whatever the credential.
    pub(crate) fn outcome(&self, outcome: &str) -> u64 {
        self.outcomes().get(outcome).copied().unwrap_or_default()
    }

    pub(crate) fn outcomes(&self) -> BTreeMap<String, u64> {
        self.sum_by(|decided| Some(decided.outcome.clone()))
    }

    /// How often each credential was chosen, whatever the outcome.
    pub(crate) fn credentials(&self) -> BTreeMap<String, u64> {
        self.sum_by(|decided| decided.credential.clone())
    }

    /// How often each credential was chosen for a binding. A request without one (`contended`) may
    /// go anywhere.
    pub(crate) fn bound(&self) -> BTreeMap<String, u64> {
        self.sum_by(|decided| decided.credential.clone().filter(|_| decided.outcome != "contended"))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0.values().sum()
    }

    fn sum_by(&self, part: impl Fn(&Decided) -> Option<String>) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (decided, count) in &self.0 {
            if let Some(part) = part(decided) {
                *sums.entry(part).or_default() += count;
            }
        }
        sums
    }
}

/// Lets Envoy respond to what the filter has routed, and keep no access log.
pub(crate) fn without_upstream(fixture: Fixture) -> Fixture {
    fixture.edit(|document| {
        let manager =
            &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
        let manager = &mut manager["typed_config"];
        manager["access_log"] = json!([]);
        let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
        let routed = json!({"name": "x-session-affinity-cluster", "present_match": true});
        let no_fault = json!({"name": "x-simulate", "present_match": true, "invert_match": true});
        let matches = json!({"prefix": "/", "headers": [routed, no_fault]});
        routes.insert(0, json!({"match": matches, "direct_response": {"status": 200}}));
    })
}

/// Sends the requests of these numbers over [`CONNECTIONS`], and counts the decisions.
pub(crate) async fn send_all(
    gateway: &Gateway,
    numbers: Range<u64>,
    request: impl Fn(u64) -> Result<Request<Body>> + Clone + Send + 'static,
) -> Result<Tally> {
    send_over(CONNECTIONS, gateway.envoy.address(), numbers, request).await
}

/// Sends the requests of these numbers over this many connections, and counts the decisions.
pub(crate) async fn send_over(
    connections: usize,
    address: SocketAddr,
    numbers: Range<u64>,
    request: impl Fn(u64) -> Result<Request<Body>> + Clone + Send + 'static,
) -> Result<Tally> {
    let mut tasks = JoinSet::new();
    for first in numbers.clone().take(connections) {
        let mut connection = Connection::open(address, Protocol::Http1).await?;
        let (numbers, request) = ((first..numbers.end).step_by(connections), request.clone());
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for number in numbers {
                let response = connection.send(request(number)?).await?;
                *tally.0.entry(decided(&response)?).or_default() += 1;
            }
            anyhow::Ok(tally)
        });
    }
    let mut total = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        total.add(tally??);
    }
    Ok(total)
}

fn decided(response: &Response) -> Result<Decided> {
    let decision = decision(response).with_context(|| response.status)?;
    let outcome = word(decision, "outcome=").context("no outcome")?;
    Ok(Decided { outcome, credential: word(decision, "credential=") })
}

/// Checks that Envoy counted every request, each under the outcome that its client saw.
pub(crate) async fn check_counters(gateway: &Gateway, tally: &Tally) -> Result<()> {
    let expected: Vec<_> = tally.outcomes().into_iter().collect();
    wait_for_counts(gateway, OUTCOME, |counted| *counted == expected)
        .await
        .with_context(|| format!("expected {expected:?}"))
}

/// Checks that each of this many workers had a part of the connections.
pub(crate) async fn check_workers(envoy: &Process, workers: u32) -> Result<()> {
    let stats = envoy.stats("listener.").await?;
    for worker in 0..workers {
        let name = format!(".worker_{worker}.downstream_cx_total");
        let connections: u64 =
            stats.iter().filter(|(stat, _)| stat.ends_with(&name)).map(|(_, count)| count).sum();
        assert!(connections > 0, "worker {worker} has no connection: {stats:?}");
    }
    Ok(())
}
