//! What the stories are told with.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Body, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Envoy, Fixture};
use serde_json::{Value, json};

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

pub(crate) async fn send(gateway: &Gateway, request: hyper::Request<Body>) -> Result<Response> {
    client::send(gateway.envoy.address(), Protocol::Http1, request).await
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
