//! Where a session is after its credential failed: on the real Envoy, and by its own clock.
//!
//! Times here are short, and a slow machine makes them longer: what is told holds all the same.

use std::time::Duration;

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{ask, gateway, say, status_of};

/// The set-up in which a limit blocks for so long, whatever the provider says.
async fn with_limits_of(block: &str, edit: impl FnOnce(&mut Value)) -> Result<Gateway> {
    let edit = |filter: &mut Value| {
        filter["cooldown"] = json!({"max": block});
        edit(filter);
    };
    gateway(1, edit).await
}

/// Makes the credential of a session meet a limit. Where there is failover within a request, the
/// client does not notice.
async fn meet_limit(gateway: &Gateway, account: &str, session: &str) -> Result<()> {
    gateway.providers.fault(account, Fault::rate_limit(3_600), Some(1))?;
    let status = status_of(gateway, session).await?;
    assert!(matches!(status, 200 | 429), "{status}");
    Ok(())
}

/// Sends until the outcome is no longer this one, and gives who served then, and why.
async fn say_until_it_is_not(
    gateway: &Gateway,
    session: &str,
    outcome: &str,
) -> Result<(String, String)> {
    loop {
        let served = say(gateway, session).await?;
        if served.outcome != outcome {
            return Ok((served.account, served.outcome));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is(account: &str, outcome: &str) -> (String, String) {
    (account.to_owned(), outcome.to_owned())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_comes_home_while_its_cache_is_warm() -> Result<()> {
    let gateway = with_limits_of("1s", |_| {}).await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    meet_limit(&gateway, "anthropic-a", "1").await?;
    let substitute = say(&gateway, "1").await?;
    assert_eq!(substitute.outcome, "substitute");
    assert_ne!(substitute.account, "anthropic-a");
    assert_eq!(
        say(&gateway, "1").await?.account,
        substitute.account,
        "one substitute, not another each time"
    );
    assert_eq!(
        say_until_it_is_not(&gateway, "1", "substitute").await?,
        is("anthropic-a", "return")
    );
    assert_eq!(say(&gateway, "1").await?.outcome, "hit");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_stays_away_once_its_home_is_cold() -> Result<()> {
    let short = |filter: &mut Value| filter["pools"][0]["cache_lifetime"] = json!("2s");
    let gateway = with_limits_of("3s", short).await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    meet_limit(&gateway, "anthropic-a", "1").await?;
    let substitute = say(&gateway, "1").await?;
    assert_eq!(substitute.outcome, "substitute");
    assert_eq!(
        say_until_it_is_not(&gateway, "1", "substitute").await?,
        is(&substitute.account, "rebind")
    );
    assert_eq!(say(&gateway, "1").await?.outcome, "hit", "the substitute is its home now");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_that_was_idle_until_all_is_cold_is_placed_anew() -> Result<()> {
    let gateway =
        gateway(1, |filter| filter["pools"][0]["cache_lifetime"] = json!("300ms")).await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let anew = say(&gateway, "1").await?;
    assert_eq!(
        (anew.account.as_str(), anew.outcome.as_str()),
        ("anthropic-b", "cold"),
        "it is the turn of b"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_strict_session_hears_from_its_home_or_from_nobody() -> Result<()> {
    let gateway =
        gateway(1, |filter| filter["pools"][0]["session"] = json!({"strict": true})).await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
    let seen = gateway.providers.requests().len();
    for attempts in [1, 1] {
        let response = ask(&gateway, "1").await?;
        assert_eq!(response.status, 429);
        let seconds: u64 = response.header("retry-after").unwrap_or_default().parse()?;
        assert!((50..=60).contains(&seconds), "{seconds}");
        assert_eq!(
            gateway.providers.requests().len(),
            seen + attempts,
            "nobody else is asked, and it not again"
        );
    }
    assert_ne!(say(&gateway, "2").await?.account, "anthropic-a", "others are served");
    gateway.stop().await?;
    Ok(())
}
