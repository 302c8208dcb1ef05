//! What the filter learns from responses, seen from outside.

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode};
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{
    CLASS, OUTCOME, body, envoy, expect_counts, message, post, send, served_in, status_in,
    wait_for_counts,
};

/// The mode in which the client sees every response, and the next request shows what the filter
/// learned from it.
async fn gateway_with(edit: impl FnOnce(Fixture) -> Result<Fixture>) -> Result<Gateway> {
    Gateway::start_in(&envoy()?, Mode::NextRequest, 1, edit).await
}

async fn gateway(edit: impl FnOnce(&mut Value)) -> Result<Gateway> {
    gateway_with(|fixture| fixture.edit_filter(edit)).await
}

async fn shipped() -> Result<Gateway> {
    gateway_with(Ok).await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_limited_credential_gets_no_requests_and_its_sessions_move_once() -> Result<()> {
    let gateway = shipped().await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_in(&gateway, "1").await?, 429, "this one the client sees");
    let moved = served_in(&gateway, "1").await?;
    assert_eq!((moved.outcome.as_str(), moved.credential.as_str()), ("substitute", "anthropic-c"));
    for session in 2..8 {
        assert_ne!(served_in(&gateway, &session.to_string()).await?.credential, "anthropic-a");
    }
    assert_eq!(
        served_in(&gateway, "1").await?.credential,
        "anthropic-c",
        "the substitute is sticky"
    );
    expect_counts(&gateway, CLASS, [("rate_limit", 1), ("success", 9)]).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_connection_that_breaks_counts_against_its_credential() -> Result<()> {
    let gateway = shipped().await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::Drop, None)?;
    assert_eq!(status_in(&gateway, "1").await?, 503);
    assert_ne!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    expect_counts(&gateway, CLASS, [("success", 2), ("transient", 1)]).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_exhausted_pool_says_in_every_api_when_to_retry() -> Result<()> {
    let gateway = shipped().await?;
    for credential in [
        "anthropic-a",
        "anthropic-b",
        "anthropic-c",
        "openai-a",
        "openai-b",
        "gemini-a",
        "gemini-b",
    ] {
        gateway.providers.fault(credential, Fault::rate_limit(1_000), None)?;
    }
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let text = "All credentials for model";
    for (path, sent, credentials, pointer) in [
        ("/v1/messages", message("hi"), 3, "/error/message"),
        ("/v1/chat/completions", chat, 2, "/error/message"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", contents, 2, "/error/message"),
    ] {
        for _ in 0..credentials {
            let from_upstream = send(&gateway, post(path).body(body(&sent))?).await?;
            assert_eq!(
                (from_upstream.status.as_u16(), from_upstream.header("retry-after")),
                (429, Some("1000"))
            );
        }
        let seen = gateway.providers.requests().len();
        let own = send(&gateway, post(path).body(body(&sent))?).await?;
        assert_eq!(own.status, 429, "{}", own.text());
        let seconds: u64 = own.header("retry-after").unwrap_or_default().parse()?;
        assert!((1..=1_000).contains(&seconds), "{seconds}");
        let document = own.json()?;
        assert!(
            document.pointer(pointer).unwrap().as_str().unwrap().starts_with(text),
            "{document}"
        );
        assert_eq!(gateway.providers.requests().len(), seen, "no upstream got a request");
    }
    let refused = |counted: &Vec<_>| counted.contains(&("model_cooldown".to_owned(), 3));
    wait_for_counts(&gateway, OUTCOME, refused).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_error_of_the_client_starts_no_cooldown() -> Result<()> {
    let gateway = shipped().await?;
    served_in(&gateway, "1").await?;
    for status in [400, 413, 422] {
        gateway.providers.fault(
            "anthropic-a",
            Fault::Status { status, retry_after: None },
            Some(1),
        )?;
        assert_eq!(status_in(&gateway, "1").await?, status);
    }
    let served = served_in(&gateway, "1").await?;
    assert_eq!((served.outcome.as_str(), served.credential.as_str()), ("hit", "anthropic-a"));
    expect_counts(&gateway, CLASS, [("request_fault", 3), ("success", 2)]).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_credential_that_recovers_gets_sessions_again() -> Result<()> {
    let gateway = gateway(|filter| filter["cooldown"] = json!({"max": "300ms"})).await?;
    served_in(&gateway, "1").await?;
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_in(&gateway, "1").await?, 429);
    // The test is about this time. A slow machine only makes it longer.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let mut credentials = Vec::new();
    for session in ["2", "3", "4"] {
        credentials.push(served_in(&gateway, session).await?.credential);
    }
    assert!(credentials.contains(&"anthropic-a".to_owned()), "{credentials:?}");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn workers_share_cooldowns_and_an_update_keeps_them() -> Result<()> {
    let gateway = gateway_with(|fixture| Ok(fixture.with_listeners_from_file())).await?;
    served_in(&gateway, "1").await?;
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_in(&gateway, "1").await?, 429);
    let changed = gateway.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        filter["pools"][0]["credentials"].as_array_mut().unwrap().reverse();
    })?;
    gateway.envoy.update_listener(&changed).await?;
    for session in 2..8 {
        assert_ne!(served_in(&gateway, &session.to_string()).await?.credential, "anthropic-a");
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_cluster_that_envoy_does_not_know_is_left_by_the_next_request() -> Result<()> {
    let gateway = gateway(|filter| {
        filter["pools"][0]["credentials"][0]["cluster"] = json!("no_such_cluster")
    })
    .await?;
    assert_eq!(status_in(&gateway, "1").await?, 503, "Envoy does not know the cluster");
    expect_counts(&gateway, CLASS, [("transient", 1)]).await?;
    assert_ne!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_strategy_consistent_survives_a_restart() -> Result<()> {
    let mut homes = Vec::new();
    for _ in 0..2 {
        let gateway = gateway(|filter| filter["routing"]["strategy"] = json!("consistent")).await?;
        let mut credentials = Vec::new();
        for session in 0..12 {
            credentials.push(served_in(&gateway, &session.to_string()).await?.credential);
        }
        homes.push(credentials);
        gateway.stop().await?;
    }
    assert_eq!(homes[0], homes[1], "after a restart every session has the same home");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn new_sessions_are_distributed_by_weight() -> Result<()> {
    let gateway =
        gateway(|filter| filter["pools"][0]["credentials"][0]["weight"] = json!(3)).await?;
    let mut credentials = Vec::new();
    for session in 0..10 {
        credentials.push(served_in(&gateway, &session.to_string()).await?.credential);
    }
    let sessions_of = ["anthropic-a", "anthropic-b", "anthropic-c"]
        .map(|name| credentials.iter().filter(|credential| *credential == name).count());
    assert_eq!(sessions_of, [6, 2, 2], "{credentials:?}");
    gateway.stop().await?;
    Ok(())
}
