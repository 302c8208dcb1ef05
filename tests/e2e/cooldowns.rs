//! What answers teach, seen from outside.

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode};
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{answers, body, counted, envoy, message, post, say, send, status_of};

/// The set-up in which every client sees its own credential's answer, and the next request shows
/// what was learnt.
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
async fn a_limited_credential_is_left_alone_and_its_sessions_move_once() -> Result<()> {
    let gateway = shipped().await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_of(&gateway, "1").await?, 429, "this one the client sees");
    let moved = say(&gateway, "1").await?;
    assert_eq!((moved.outcome.as_str(), moved.account.as_str()), ("substitute", "anthropic-c"));
    for session in 2..8 {
        assert_ne!(say(&gateway, &session.to_string()).await?.account, "anthropic-a");
    }
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-c", "the substitute is sticky");
    assert_eq!(answers(&gateway).await?, [("rate_limit".to_owned(), 1), ("success".to_owned(), 9)]);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_connection_that_breaks_counts_against_its_credential() -> Result<()> {
    let gateway = shipped().await?;
    assert_eq!(say(&gateway, "1").await?.account, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::Drop, None)?;
    assert_eq!(status_of(&gateway, "1").await?, 503);
    assert_ne!(say(&gateway, "1").await?.account, "anthropic-a");
    assert_eq!(answers(&gateway).await?, [("success".to_owned(), 2), ("transient".to_owned(), 1)]);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_exhausted_pool_tells_every_client_when_to_come_back() -> Result<()> {
    let gateway = shipped().await?;
    for account in [
        "anthropic-a",
        "anthropic-b",
        "anthropic-c",
        "openai-a",
        "openai-b",
        "gemini-a",
        "gemini-b",
    ] {
        gateway.providers.fault(account, Fault::rate_limit(1_000), None)?;
    }
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let text = "All credentials for model";
    for (path, sent, credentials, pointer) in [
        ("/v1/messages", message("hi"), 3, "/error/message"),
        ("/v1/chat/completions", chat, 2, "/error/message"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", contents, 2, "/error/message"),
    ] {
        let ask = async || send(&gateway, post(path).body(body(&sent))?).await;
        for _ in 0..credentials {
            let from_upstream = ask().await?;
            assert_eq!(
                (from_upstream.status.as_u16(), from_upstream.header("retry-after")),
                (429, Some("1000"))
            );
        }
        let seen = gateway.providers.requests().len();
        let own = ask().await?;
        assert_eq!(own.status, 429, "{}", own.text());
        let seconds: u64 = own.header("retry-after").unwrap_or_default().parse()?;
        assert!((1..=1_000).contains(&seconds), "{seconds}");
        let document = own.json()?;
        assert!(
            document.pointer(pointer).unwrap().as_str().unwrap().starts_with(text),
            "{document}"
        );
        assert_eq!(gateway.providers.requests().len(), seen, "no upstream was asked");
    }
    assert!(counted(&gateway).await?.contains(&("model_cooldown".to_owned(), 3)));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_faulty_request_blocks_nothing() -> Result<()> {
    let gateway = shipped().await?;
    say(&gateway, "1").await?;
    for status in [400, 413, 422] {
        gateway.providers.fault(
            "anthropic-a",
            Fault::Status { status, retry_after: None },
            Some(1),
        )?;
        assert_eq!(status_of(&gateway, "1").await?, status);
    }
    let served = say(&gateway, "1").await?;
    assert_eq!((served.outcome.as_str(), served.account.as_str()), ("hit", "anthropic-a"));
    assert_eq!(
        answers(&gateway).await?,
        [("request_fault".to_owned(), 3), ("success".to_owned(), 2)]
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_credential_that_recovers_takes_sessions_again() -> Result<()> {
    let gateway = gateway(|filter| filter["cooldown"] = json!({"max": "300ms"})).await?;
    say(&gateway, "1").await?;
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_of(&gateway, "1").await?, 429);
    // The wait is the story. A slow machine only makes it longer.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let mut accounts = Vec::new();
    for session in ["2", "3", "4"] {
        accounts.push(say(&gateway, session).await?.account);
    }
    assert!(accounts.contains(&"anthropic-a".to_owned()), "{accounts:?}");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_one_worker_learns_all_know_and_an_update_does_not_forget_it() -> Result<()> {
    let gateway = gateway_with(|fixture| Ok(fixture.with_listeners_from_file())).await?;
    say(&gateway, "1").await?;
    gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), Some(1))?;
    assert_eq!(status_of(&gateway, "1").await?, 429);
    let changed = gateway.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        filter["pools"][0]["credentials"].as_array_mut().unwrap().reverse();
    })?;
    gateway.envoy.update_listener(&changed).await?;
    for session in 2..8 {
        assert_ne!(say(&gateway, &session.to_string()).await?.account, "anthropic-a");
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
    assert_eq!(status_of(&gateway, "1").await?, 503, "Envoy does not know the cluster");
    assert_eq!(answers(&gateway).await?, [("transient".to_owned(), 1)]);
    assert_ne!(say(&gateway, "1").await?.account, "anthropic-a");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_strategy_consistent_needs_no_memory() -> Result<()> {
    let mut homes = Vec::new();
    for _ in 0..2 {
        let gateway = gateway(|filter| filter["routing"]["strategy"] = json!("consistent")).await?;
        let mut accounts = Vec::new();
        for session in 0..12 {
            accounts.push(say(&gateway, &session.to_string()).await?.account);
        }
        homes.push(accounts);
        gateway.stop().await?;
    }
    assert_eq!(homes[0], homes[1], "after a restart every session finds its home");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn weights_share_out_new_sessions() -> Result<()> {
    let gateway =
        gateway(|filter| filter["pools"][0]["credentials"][0]["weight"] = json!(3)).await?;
    let mut accounts = Vec::new();
    for session in 0..10 {
        accounts.push(say(&gateway, &session.to_string()).await?.account);
    }
    let of = |account: &str| accounts.iter().filter(|other| *other == account).count();
    assert_eq!(
        (of("anthropic-a"), of("anthropic-b"), of("anthropic-c")),
        (6, 2, 2),
        "{accounts:?}"
    );
    gateway.stop().await?;
    Ok(())
}
