//! What the stories are told with.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Body, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Envoy, Fixture, Mode};
use serde_json::{Value, json};

use crate::oracle;

/// What became of a request: the account that served it and the words of the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) account: String,
    pub(crate) outcome: String,
    pub(crate) source: Option<String>,
}

pub(crate) fn envoy() -> Result<Envoy> {
    envoy_harness::find(None)
}

/// The shipped set-up with so many workers, the filter's configuration edited.
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

/// A chat request in a new session, with a body of about this many bytes.
pub(crate) fn chat(bytes: usize, stream: bool) -> Result<hyper::Request<Body>> {
    let text = "x".repeat(bytes);
    let value = json!({"model": "gpt-5.4", "stream": stream, "messages": [{"role": "user", "content": text}]});
    Ok(post("/v1/chat/completions").body(body(&value))?)
}

/// The accounts that requests came to, in order, and what became of them; 0 without a response.
pub(crate) fn asked(gateway: &Gateway) -> Vec<(String, u16)> {
    let records = gateway.providers.requests().into_iter();
    records.map(|record| (record.account.unwrap_or_default(), record.status.unwrap_or(0))).collect()
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

/// The smallest request that the Messages API takes.
pub(crate) fn message(text: &str) -> Value {
    json!({"model": "claude-sonnet-4-5", "max_tokens": 32, "messages": [{"role": "user", "content": text}]})
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

/// Sends a message in a session named by `X-Session-ID`.
pub(crate) async fn ask(gateway: &Gateway, session: &str) -> Result<Response> {
    let request =
        post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
    send(gateway, request).await
}

/// As [`ask`], and it must be served.
pub(crate) async fn say(gateway: &Gateway, session: &str) -> Result<Served> {
    served(&ask(gateway, session).await?)
}

/// As [`ask`], when only the status counts.
pub(crate) async fn status_of(gateway: &Gateway, session: &str) -> Result<u16> {
    Ok(ask(gateway, session).await?.status.as_u16())
}

/// Reads a response that must be a served one.
pub(crate) fn served(response: &Response) -> Result<Served> {
    assert_eq!(response.status, 200, "{}", response.text());
    let decision = decision(response)?;
    Ok(Served {
        account: response.header("x-simulated-account").context("no account")?.to_owned(),
        outcome: word(decision, "outcome=").context("no outcome")?,
        source: word(decision, "source="),
    })
}

/// What a decision says under a name, which ends with its `=`.
pub(crate) fn word(decision: &str, name: &str) -> Option<String> {
    decision.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned)
}

/// What the filter says it decided.
pub(crate) fn decision(response: &Response) -> Result<&str> {
    response.header("x-session-affinity-decision").context("the response tells no decision")
}

/// How often each outcome was counted, without those that were not.
pub(crate) async fn counted(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    counted_as(gateway, "outcome").await
}

/// How often each class of answers was counted, without those that were not.
pub(crate) async fn answers(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    counted_as(gateway, "answer").await
}

/// How often failovers ended each way, without the ways they did not.
pub(crate) async fn ends(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    counted_as(gateway, "failover").await
}

/// Envoy 1.36 puts the counters of a VM under `cluster.<name>.` if it was a cluster's filter that
/// started it.
async fn counted_as(gateway: &Gateway, what: &str) -> Result<Vec<(String, u64)>> {
    let names = format!("wasmcustom.session_affinity.{what}.");
    let word =
        |name: &str| name.split_once(&names)?.1.split_once('.').map(|(word, _)| word.to_owned());
    let stats = gateway.envoy.stats("").await?;
    let counted = stats.iter().filter(|(_, count)| **count > 0);
    let mut counted: Vec<_> =
        counted.filter_map(|(name, count)| Some((word(name)?, *count))).collect();
    counted.sort();
    Ok(counted)
}

/// Words and numbers, in the order in which they were named.
pub(crate) fn pairs<N, const LENGTH: usize>(pairs: [(&str, N); LENGTH]) -> Vec<(String, N)> {
    pairs.into_iter().map(|(word, number)| (word.to_owned(), number)).collect()
}
