//! Self-hosted replicas: one cluster, and a credential is one of its endpoints.

use anyhow::Result;
use envoy_harness::Mode;
use envoy_harness::gateway::Gateway;
use serde_json::json;
use simulated_providers::Fault;

use crate::relay::ClosedPort;
use crate::support::{
    FAILOVER, OUTCOME, Served, body, envoy, expect_counts, post, send, served, wait_for_counts,
};

async fn replicas() -> Result<Gateway> {
    Gateway::start_in(&envoy()?, Mode::Replicas, 1, Ok).await
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
    let mut credentials = Vec::new();
    for session in ["1", "2", "3"] {
        credentials.push(chat(&gateway, session).await?.credential);
    }
    assert_eq!(credentials, ["replica-a", "replica-b", "replica-c"]);
    for _ in 0..3 {
        for (session, account) in ["1", "2", "3"].iter().zip(&credentials) {
            assert_eq!(chat(&gateway, session).await?.credential, *account);
        }
    }
    expect_counts(&gateway, OUTCOME, [("hit", 9), ("miss", 3)]).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_replica_that_fails_is_followed_by_another_within_the_request() -> Result<()> {
    let unavailable = Fault::Status { status: 503, retry_after: Some(30) };
    for fault in [Fault::Drop, unavailable, Fault::rate_limit(60)] {
        let gateway = replicas().await?;
        assert_eq!(chat(&gateway, "1").await?.credential, "replica-a");
        // The first drop looks like a kept connection that the replica had closed.
        let times = if fault == Fault::Drop { 2 } else { 1 };
        gateway.providers.fault("replica-a", fault.clone(), Some(times))?;
        let substitute = chat(&gateway, "1").await?;
        assert_ne!(substitute.credential, "replica-a", "{fault:?}");
        let next = chat(&gateway, "1").await?;
        // Without an answer it is out for a second only, which a slow machine may take until here.
        if fault != Fault::Drop || next.outcome != "return" {
            assert_eq!(
                (next.outcome.as_str(), next.credential),
                ("substitute", substitute.credential),
                "{fault:?}"
            );
        }
        expect_counts(&gateway, FAILOVER, [("served", 1)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_replica_that_is_gone_costs_no_request() -> Result<()> {
    let port = ClosedPort::new()?;
    let closed = port.address()?.to_string();
    let gateway = Gateway::start_in(&envoy()?, Mode::Replicas, 1, |fixture| {
        fixture.edit_filter(|filter| {
            filter["pools"][0]["credentials"][0]["endpoint"] = json!(closed);
        })
    })
    .await?;
    for session in 0..6 {
        let served = chat(&gateway, &session.to_string()).await?;
        assert_ne!(served.credential, "replica-a");
        assert_eq!(
            chat(&gateway, &session.to_string()).await?.credential,
            served.credential,
            "the replica that served is its home"
        );
    }
    // One attempt, and then a cooldown, first of a second.
    wait_for_counts(&gateway, FAILOVER, |counted| {
        matches!(counted.as_slice(), [(end, count)] if end == "served" && (1..6).contains(count))
    })
    .await?;
    gateway.stop().await?;
    Ok(())
}
