//! One request survives a credential that fails: what the client sees, and what the providers saw.
//!
//! Told for each way of switching that the Envoy at hand offers: a cluster for each credential, and one cluster whose
//! requests carry another key in each attempt.

use anyhow::Result;
use hyper::Request;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use xtask::envoy::Fixture;
use xtask::envoy::client::{self, Body, Connection, Protocol, Response};
use xtask::gateway::{Gateway, Shipped};
use xtask::provider::{Fault, RequestRecord};

use crate::support::{answers, body, counted_as, decision, envoy, message, post, say, send, served};

/// Every shipped way to switch within a request that runs here, started with the configuration edited.
async fn ways(edit: impl Fn(Fixture) -> Result<Fixture>) -> Result<Vec<(Shipped, Gateway)>> {
    let envoy = envoy()?;
    let mut gateways = Vec::new();
    for shipped in [Shipped::Clusters, Shipped::Keys] {
        if shipped.runs_on(envoy.version) {
            gateways.push((shipped, Gateway::start_shipped(&envoy, shipped, 1, &edit).await?));
        }
    }
    Ok(gateways)
}

async fn as_shipped() -> Result<Vec<(Shipped, Gateway)>> {
    ways(Ok).await
}

/// A chat request with a body of about so many bytes.
fn chat(bytes: usize, stream: bool) -> Result<Request<Body>> {
    let text = "x".repeat(bytes);
    let value = json!({"model": "gpt-5.4", "stream": stream, "messages": [{"role": "user", "content": text}]});
    Ok(post("/v1/chat/completions").body(body(&value))?)
}

/// Who was asked, and what came of it.
fn asked(gateway: &Gateway) -> Vec<(String, Option<u16>)> {
    let words = |record: RequestRecord| (record.account.unwrap_or_default(), record.status);
    gateway.providers.requests().into_iter().map(words).collect()
}

/// How failovers ended.
async fn ends(gateway: &Gateway) -> Result<Vec<(String, u64)>> {
    counted_as(gateway, "failover").await
}

fn once(word: &str) -> Vec<(String, u64)> {
    vec![(word.to_owned(), 1)]
}

async fn ask_messages(gateway: &Gateway, session: &str) -> Result<Response> {
    let request = post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
    send(gateway, request).await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn whatever_its_size_and_its_answer_a_request_survives_a_limit() -> Result<()> {
    for (way, gateway) in as_shipped().await? {
        for (bytes, stream) in [(4_000, false), (4_000, true), (1_500_000, false), (1_500_000, true)] {
            gateway.providers.clear_requests();
            let account = "openai-a";
            gateway.providers.fault(account, Fault::rate_limit(1), Some(1))?;
            // A credential that is left alone after a limit would not meet the next one.
            let mut response = send(&gateway, chat(bytes, stream)?).await?;
            while asked(&gateway).len() < 2 {
                response = send(&gateway, chat(bytes, stream)?).await?;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                if asked(&gateway).iter().all(|(name, _)| name != account) {
                    gateway.providers.clear_requests();
                }
            }
            assert_eq!(response.status, 200, "{way:?} {bytes} {stream}: {}", response.text());
            assert_eq!(response.header("x-simulated-account"), Some("openai-b"));
            let is_stream = response.header("content-type").is_some_and(|it| it.starts_with("text/event-stream"));
            assert_eq!(is_stream, stream);
            let records = gateway.providers.requests();
            assert!(records.iter().all(|record| record.body_length >= bytes), "each attempt had the whole body");
            assert_eq!(response.header("x-session-affinity-retry"), None);
        }
        gateway.stop().await?;
    }
    Ok(())
}
