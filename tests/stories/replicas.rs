//! Self-hosted replicas: one cluster, and a credential is one of its endpoints.

use anyhow::Result;
use serde_json::json;
use xtask::envoy::Way;
use xtask::gateway::Gateway;
use xtask::provider::Fault;

use crate::support::{Served, body, counted, ends, envoy, pairs, post, send, served};

async fn replicas() -> Result<Gateway> {
    Gateway::start_way(&envoy()?, Way::Replicas, 1, Ok).await
}

async fn chat(gateway: &Gateway, session: &str) -> Result<Served> {
    let sent = json!({"model": "llama", "messages": [{"role": "user", "content": "hi"}]});
    let request = post("/v1/chat/completions").header("x-session-id", session).body(body(&sent))?;
    served(&send(gateway, request).await?)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_session_keeps_its_replica_and_new_ones_spread() -> Result<()> {
    let gateway = replicas().await?;
    let mut accounts = Vec::new();
    for session in ["1", "2", "3"] {
        accounts.push(chat(&gateway, session).await?.account);
    }
    assert_eq!(accounts, ["replica-a", "replica-b", "replica-c"]);
    for _ in 0..3 {
        for (session, account) in ["1", "2", "3"].iter().zip(&accounts) {
            assert_eq!(chat(&gateway, session).await?.account, *account);
        }
    }
    assert_eq!(counted(&gateway).await?, pairs([("hit", 9), ("miss", 3)]));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_replica_that_fails_is_followed_by_another_within_the_request() -> Result<()> {
    for fault in [Fault::Drop, Fault::Status { status: 503, retry_after: None }, Fault::rate_limit(60)] {
        let gateway = replicas().await?;
        assert_eq!(chat(&gateway, "1").await?.account, "replica-a");
        gateway.providers.fault("replica-a", fault.clone(), Some(1))?;
        let substitute = chat(&gateway, "1").await?;
        assert_ne!(substitute.account, "replica-a", "{fault:?}");
        assert_eq!(ends(&gateway).await?, pairs([("served", 1)]), "{fault:?}");
        let next = chat(&gateway, "1").await?;
        assert_eq!((next.outcome.as_str(), next.account), ("substitute", substitute.account), "{fault:?}");
        gateway.stop().await?;
    }
    Ok(())
}
