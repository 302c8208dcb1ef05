//! What the e2e tests have in common: gateways, requests, decisions and counters.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use envoy_harness::client::{self, Body, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Envoy, Fixture, Mode, Process, wait_until};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::oracle;

/// How a request was served: by which credential, and the words of the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) credential: String,
    pub(crate) outcome: String,
    pub(crate) source: Option<String>,
}

pub(crate) fn envoy() -> Result<Envoy> {
    envoy_harness::find(None)
}

/// The shipped set-up with this many workers, the configuration of the filter edited.
pub(crate) async fn gateway(workers: u32, edit: impl FnOnce(&mut Value)) -> Result<Gateway> {
    Gateway::start(&envoy()?, workers, |fixture| fixture.edit_filter(edit)).await
}

/// The shipped set-up as it is.
pub(crate) async fn shipped() -> Result<Gateway> {
    gateway(1, |_| {}).await
}

/// Every shipped mode that switches within a request and runs here, with the configuration edited.
pub(crate) async fn modes(
    edit: impl Fn(Fixture) -> Result<Fixture>,
) -> Result<Vec<(Mode, Gateway)>> {
    let mut gateways = Vec::new();
    for mode in [Mode::Clusters, Mode::Keys] {
        gateways.extend(start(mode, 2, &edit).await?.map(|gateway| (mode, gateway)));
    }
    Ok(gateways)
}

/// A mode with this many workers, if it runs here. Credentials are tried by id, so that a test can
/// name them.
pub(crate) async fn start(
    mode: Mode,
    workers: u32,
    edit: impl FnOnce(Fixture) -> Result<Fixture>,
) -> Result<Option<Gateway>> {
    let envoy = envoy()?;
    if !mode.runs_on(envoy.version) {
        return Ok(None);
    }
    let by_id = |filter: &mut Value| filter["routing"]["strategy"] = json!("fill-first");
    let edit = |fixture| edit(fixture)?.edit_filter(by_id);
    Ok(Some(Gateway::start_in(&envoy, mode, workers, edit).await?))
}

/// Lets an attempt fail after this much silence, instead of the minutes that are shipped.
pub(crate) fn set_idle_timeout(document: &mut Value, timeout: &str) {
    let routes = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
    let policy = document.pointer_mut(&format!("{routes}/0/route/retry_policy")).unwrap();
    assert!(policy["per_try_idle_timeout"].is_string());
    policy["per_try_idle_timeout"] = json!(timeout);
}

/// A chat request in a new session, with a body of about this many bytes.
pub(crate) fn chat(bytes: usize, stream: bool) -> Result<hyper::Request<Body>> {
    let text = "x".repeat(bytes);
    let value = json!({"model": "gpt-5.4", "stream": stream, "messages": [{"role": "user", "content": text}]});
    Ok(post("/v1/chat/completions").body(body(&value))?)
}

/// The accounts that requests came to, in order, and what became of them; 0 without a response.
pub(crate) fn attempts(gateway: &Gateway) -> Vec<(String, u16)> {
    let records = gateway.providers.requests().into_iter();
    records.map(|record| (record.account.unwrap_or_default(), record.status.unwrap_or(0))).collect()
}

/// How many requests have been sent to the clusters with this beginning, or wait for a connection.
pub(crate) async fn attempts_begun(gateway: &Gateway, cluster: &str) -> Result<u64> {
    let stats = gateway.envoy.stats(&format!("cluster.{cluster}")).await?;
    let begun = stats.iter().filter(|(name, _)| {
        name.ends_with(".upstream_rq_total") || name.ends_with(".upstream_rq_pending_total")
    });
    Ok(begun.map(|(_, count)| count).sum())
}

/// Waits until more have than [`attempts_begun`] said before.
pub(crate) async fn wait_for_attempt(gateway: &Gateway, cluster: &str, before: u64) -> Result<()> {
    wait_until("waiting for an attempt", async || {
        Ok((attempts_begun(gateway, cluster).await? > before).then_some(()))
    })
    .await
}

/// Waits until no request of a client is under way.
pub(crate) async fn wait_until_all_ended(gateway: &Gateway) -> Result<()> {
    wait_until_none(&gateway.envoy, "http.llm.downstream_rq_active").await
}

/// Waits until a gauge is zero.
pub(crate) async fn wait_until_none(envoy: &Process, gauge: &str) -> Result<()> {
    envoy.wait_for_stats(gauge, |stats| stats.values().sum::<u64>() == 0).await.map(drop)
}

/// Checks that the filter has logged no cooldown and no suspicion.
pub(crate) fn expect_no_blame(gateway: &Gateway, what: &str) {
    let blamed = gateway.envoy.log().into_iter().filter(|line| line.contains("class="));
    assert_eq!(blamed.collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
}

/// Lets a cluster of one endpoint look for it at this port.
pub(crate) fn set_port(document: &mut Value, cluster: &str, port: u16) {
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    *cluster_named(document, cluster).pointer_mut(&format!("{endpoint}/port_value")).unwrap() =
        json!(port);
}

/// A cluster of a configuration.
pub(crate) fn cluster_named<'a>(document: &'a mut Value, name: &str) -> &'a mut Value {
    let clusters = document["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.iter_mut().find(|cluster| cluster["name"] == name).unwrap()
}

/// The first connection manager of a configuration.
pub(crate) fn manager(document: &mut Value) -> &mut Value {
    &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Whether the Envoy at hand can retry a response that was held until its body was there.
pub(crate) fn retries_held_responses() -> Result<bool> {
    Ok(envoy()?.version >= "1.37.0".parse()?)
}

pub(crate) async fn gateway_with(edit: impl FnOnce(Fixture) -> Result<Fixture>) -> Result<Gateway> {
    Gateway::start(&envoy()?, 1, edit).await
}

pub(crate) fn post(path: &str) -> hyper::http::request::Builder {
    hyper::Request::post(path).header("content-type", "application/json")
}

/// The smallest request that the Messages API accepts.
pub(crate) fn message(text: &str) -> Value {
    json!({"model": "claude-sonnet-4-5", "max_tokens": 32, "messages": [{"role": "user", "content": text}]})
}

/// A body that arrives when the test sends it.
pub(crate) fn body_in_parts() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let part = receiver.recv().await?;
        Some((Ok(Frame::data(part)), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

pub(crate) fn body(value: &Value) -> Body {
    client::whole(value.to_string())
}

/// Sends a request, and lets the [`oracle`](crate::oracle) compare what became of it.
pub(crate) async fn send(gateway: &Gateway, request: hyper::Request<Body>) -> Result<Response> {
    send_by(gateway, Protocol::Http1, request).await
}

/// As [`send`], by this protocol.
pub(crate) async fn send_by(
    gateway: &Gateway,
    protocol: Protocol,
    mut request: hyper::Request<Body>,
) -> Result<Response> {
    let tag = oracle::tag(&mut request);
    let response = client::send(gateway.envoy.address(), protocol, request).await?;
    oracle::check(gateway, &tag, &response);
    Ok(response)
}

/// Sends a message in the session that `X-Session-ID` names.
pub(crate) async fn send_in(gateway: &Gateway, session: &str) -> Result<Response> {
    let request =
        post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
    send(gateway, request).await
}

/// As [`send_in`]; the request must be served.
pub(crate) async fn served_in(gateway: &Gateway, session: &str) -> Result<Served> {
    served(&send_in(gateway, session).await?)
}

/// As [`send_in`], when only the status counts.
pub(crate) async fn status_in(gateway: &Gateway, session: &str) -> Result<u16> {
    Ok(send_in(gateway, session).await?.status.as_u16())
}

/// Reads a response to a request that must have been served.
pub(crate) fn served(response: &Response) -> Result<Served> {
    assert_eq!(response.status, 200, "{}", response.text());
    let decision = decision(response)?;
    Ok(Served {
        credential: response.header("x-simulated-account").context("no account")?.to_owned(),
        outcome: word(decision, "outcome=").context("no outcome")?,
        source: word(decision, "source="),
    })
}

/// The value of a name in a decision; the name ends with its `=`.
pub(crate) fn word(decision: &str, name: &str) -> Option<String> {
    decision.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned)
}

/// The decision of the filter, as the response shows it.
pub(crate) fn decision(response: &Response) -> Result<&str> {
    response.header("x-session-affinity-decision").context("the response has no decision")
}

/// Labels of the filter's counters, by which tests count.
pub(crate) const OUTCOME: (&str, &str) = ("requests_total", "outcome");
pub(crate) const CLASS: (&str, &str) = ("attempts_total", "class");
pub(crate) const FAILOVER: (&str, &str) = ("failovers_total", "end");

/// Waits until the counters have these values by their label, and no others. A worker hands over
/// what it has counted once a second.
pub(crate) async fn expect_counts<const LENGTH: usize>(
    gateway: &Gateway,
    label: (&str, &str),
    expected: [(&str, u64); LENGTH],
) -> Result<()> {
    let mut expected = pairs(expected);
    expected.sort();
    wait_for_counts(gateway, label, |counted| *counted == expected)
        .await
        .with_context(|| format!("expected {expected:?}"))
}

/// Waits until the counters satisfy a condition.
pub(crate) async fn wait_for_counts(
    gateway: &Gateway,
    label: (&str, &str),
    condition: impl Fn(&Vec<(String, u64)>) -> bool,
) -> Result<()> {
    let seen = RefCell::new(Vec::new());
    let waited = gateway.envoy.wait_for_stats("", |stats| {
        let counted = count_by(stats, label);
        let is_met = condition(&counted);
        seen.replace(counted);
        is_met
    });
    waited.await.map(drop).with_context(|| format!("{label:?} counts {:?}", seen.take()))
}

/// Checks that no credential failed any request so far.
pub(crate) async fn expect_no_failover(gateway: &Gateway) -> Result<()> {
    let stats = gateway.envoy.wait_for_stats("", |stats| {
        // Both are counted by the filter in the listener.
        let decided: u64 = count_by(stats, OUTCOME).iter().map(|(_, count)| count).sum();
        stats.get("http.llm.downstream_rq_completed").is_some_and(|ended| decided >= *ended)
    });
    assert_eq!(count_by(&stats.await?, FAILOVER), []);
    Ok(())
}

/// The counters of the filter by a label, without those that count nothing. Envoy 1.36 puts those of
/// a VM under `cluster.<name>.` if the filter of a cluster started it.
pub(crate) fn count_by(
    stats: &BTreeMap<String, u64>,
    (name, label): (&str, &str),
) -> Vec<(String, u64)> {
    let (name, label) = (format!("session_affinity_{name}"), format!("{label}=.="));
    let mut counted = BTreeMap::new();
    for (series, count) in stats.iter().filter(|(_, count)| **count > 0) {
        let labels = series.strip_suffix(&name).and_then(|labels| labels.split_once(&label));
        if let Some((value, _)) = labels.and_then(|(_, rest)| rest.split_once(";.;")) {
            *counted.entry(value.to_owned()).or_default() += count;
        }
    }
    counted.into_iter().collect()
}

/// Words and numbers, in the order in which they are given.
pub(crate) fn pairs<N, const LENGTH: usize>(pairs: [(&str, N); LENGTH]) -> Vec<(String, N)> {
    pairs.into_iter().map(|(word, number)| (word.to_owned(), number)).collect()
}
