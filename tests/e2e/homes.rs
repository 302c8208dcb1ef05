//! Where a session goes after its credential failed, on a real Envoy and in real time.
//!
//! Times are short, but a machine may stand still for seconds in between.

use std::time::Duration;

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{gateway, send_in, served_in, status_in};

/// The set-up in which a rate limit lasts this long, whatever the provider says.
async fn with_limits_of(duration: &str, edit: impl FnOnce(&mut Value)) -> Result<Gateway> {
    gateway(1, |filter| {
        filter["cooldown"] = json!({"max": duration});
        edit(filter);
    })
    .await
}

/// Rate limits the credential of a session once. With failover within a request the client does not
/// notice.
async fn rate_limit(gateway: &Gateway, credential: &str, session: &str) -> Result<()> {
    gateway.providers.fault(credential, Fault::rate_limit(3_600), Some(1))?;
    let status = status_in(gateway, session).await?;
    assert!(matches!(status, 200 | 429), "{status}");
    Ok(())
}

/// Sends until the outcome is no longer this one. The credential that served then, and the outcome.
async fn served_after(gateway: &Gateway, session: &str, outcome: &str) -> Result<(String, String)> {
    loop {
        let served = served_in(gateway, session).await?;
        if served.outcome != outcome {
            return Ok((served.credential, served.outcome));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is(credential: &str, outcome: &str) -> (String, String) {
    (credential.to_owned(), outcome.to_owned())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_returns_home_while_its_cache_is_warm() -> Result<()> {
    let gateway = with_limits_of("5s", |_| {}).await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    rate_limit(&gateway, "anthropic-a", "1").await?;
    let substitute = served_in(&gateway, "1").await?;
    assert_eq!(substitute.outcome, "substitute");
    assert_ne!(substitute.credential, "anthropic-a");
    assert_eq!(
        served_in(&gateway, "1").await?.credential,
        substitute.credential,
        "one substitute, not another each time"
    );
    assert_eq!(served_after(&gateway, "1", "substitute").await?, is("anthropic-a", "return"));
    assert_eq!(served_in(&gateway, "1").await?.outcome, "hit");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_stays_with_its_substitute_once_its_home_is_cold() -> Result<()> {
    let gateway = with_limits_of("9s", |filter| {
        filter["pools"][0]["cache_lifetime"] = json!("7s");
    })
    .await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    rate_limit(&gateway, "anthropic-a", "1").await?;
    let substitute = served_in(&gateway, "1").await?;
    assert_eq!(substitute.outcome, "substitute");
    assert_eq!(
        served_after(&gateway, "1", "substitute").await?,
        is(&substitute.credential, "rebind")
    );
    assert_eq!(served_in(&gateway, "1").await?.outcome, "hit", "the substitute is its home now");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_that_was_idle_until_all_is_cold_gets_a_new_home() -> Result<()> {
    let gateway =
        gateway(1, |filter| filter["pools"][0]["cache_lifetime"] = json!("300ms")).await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let anew = served_in(&gateway, "1").await?;
    assert_eq!(
        (anew.credential.as_str(), anew.outcome.as_str()),
        ("anthropic-b", "cold"),
        "it is the turn of b"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_strict_session_is_served_by_its_home_or_not_at_all() -> Result<()> {
    let gateway =
        gateway(1, |filter| filter["pools"][0]["session"] = json!({"strict": true})).await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
    let seen = gateway.providers.requests().len();
    for attempts in [1, 1] {
        let response = send_in(&gateway, "1").await?;
        assert_eq!(response.status, 429);
        let seconds: u64 = response.header("retry-after").unwrap_or_default().parse()?;
        assert!((50..=60).contains(&seconds), "{seconds}");
        assert_eq!(
            gateway.providers.requests().len(),
            seen + attempts,
            "one attempt, and no other"
        );
    }
    assert_ne!(
        served_in(&gateway, "2").await?.credential,
        "anthropic-a",
        "other sessions are served"
    );
    gateway.stop().await?;
    Ok(())
}
