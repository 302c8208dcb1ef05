//! What the e2e tests have in common: gateways, requests, decisions and counters.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Body, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Envoy, Fixture};
use serde_json::{Value, json};

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

pub(crate) fn body(value: &Value) -> Body {
    client::whole(value.to_string())
}

pub(crate) async fn send(gateway: &Gateway, request: hyper::Request<Body>) -> Result<Response> {
    client::send(gateway.envoy.address(), Protocol::Http1, request).await
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

/// How often each outcome was counted, without those that were not.
pub(crate) async fn outcomes(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    count_by(gateway, "outcome").await
}

/// How often each class of responses was counted, without those that were not.
pub(crate) async fn responses(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    count_by(gateway, "answer").await
}

/// How often each end of a failover was counted, without those that were not.
pub(crate) async fn failovers(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    count_by(gateway, "failover").await
}

/// The counters of the filter with this label. Envoy 1.36 puts those of a VM under
/// `cluster.<name>.` if the filter of a cluster started it.
async fn count_by(gateway: &Gateway, label: &str) -> Result<Vec<(String, u64)>> {
    let prefix = format!("wasmcustom.session_affinity.{label}.");
    let stats = gateway.envoy.stats("").await?;
    let mut counted = Vec::new();
    for (name, count) in stats.into_iter().filter(|(_, count)| *count > 0) {
        let rest = name.split_once(&prefix).map(|(_, rest)| rest);
        if let Some((value, _)) = rest.and_then(|rest| rest.split_once('.')) {
            counted.push((value.to_owned(), count));
        }
    }
    counted.sort();
    Ok(counted)
}

/// Words and numbers, in the order in which they are given.
pub(crate) fn pairs<N, const LENGTH: usize>(pairs: [(&str, N); LENGTH]) -> Vec<(String, N)> {
    pairs.into_iter().map(|(word, number)| (word.to_owned(), number)).collect()
}
