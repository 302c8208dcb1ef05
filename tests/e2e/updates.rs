//! Listeners and clusters are not updated in the same moment, and requests are under way meanwhile.

use anyhow::{Context, Result};
use bytes::Bytes;
use envoy_harness::client::{self, Connection, Protocol};
use envoy_harness::{Mode, Update};
use serde_json::json;

use crate::support::{
    CLASS, OUTCOME, body, body_in_parts, count_by, decision, gateway_with, message, post, send_in,
    served, served_in, start, wait_for_counts,
};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_listener_ahead_of_its_clusters_sends_no_request_without_a_key() -> Result<()> {
    let gateway = start(Mode::Keys, 1, |fixture| Ok(fixture.with_listeners_from_file()));
    let gateway = gateway.await?.context("every Envoy has this mode")?;
    // In place of the credentials, one that the clusters do not know yet.
    let ahead = gateway.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        let credentials = filter["pools"][0]["credentials"].as_array_mut().unwrap();
        credentials.truncate(1);
        credentials[0]["id"] = json!("anthropic-new");
    })?;
    assert_eq!(gateway.envoy.update_listener(&ahead).await?, Update::Accepted);
    for session in ["1", "2"] {
        let response = send_in(&gateway, session).await?;
        assert_eq!(response.status, 503, "{}", response.text());
        assert_eq!(response.header("retry-after"), Some("1"));
        assert!(response.json()?["error"]["message"].is_string());
        assert!(!decision(&response)?.contains(" out="), "{}", decision(&response)?);
    }
    assert!(gateway.providers.requests().is_empty(), "no request went out");
    wait_for_counts(&gateway, OUTCOME, |counted| {
        counted.iter().map(|(_, count)| count).sum::<u64>() == 2
    })
    .await?;
    let learned = count_by(&gateway.envoy.stats("").await?, CLASS);
    assert_eq!(learned, [], "and nothing was learned");

    let back = gateway.fixture()?.with_listeners_from_file();
    assert_eq!(gateway.envoy.update_listener(&back).await?, Update::Accepted);
    served_in(&gateway, "1").await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_request_that_is_held_while_its_credential_is_removed_is_served_or_told_so() -> Result<()>
{
    // The old listener drains for as long as a slow machine may need.
    let gateway = gateway_with(|it| Ok(it.with_listeners_from_file().with_drain_time(60))).await?;
    let mut text = Bytes::from(message("held").to_string());
    let (sender, held) = body_in_parts();
    let request = post("/v1/messages").body(held)?;
    let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http2).await?;
    let response = tokio::spawn(async move { connection.send(request).await });
    sender.send(text.split_to(20)).await?;
    gateway
        .envoy
        .wait_for_stats("http.llm.downstream_rq_total", |stats| stats.values().sum::<u64>() == 1)
        .await?;
    let without = gateway.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        filter["pools"][0]["credentials"].as_array_mut().unwrap().remove(0);
    })?;
    assert_eq!(gateway.envoy.update_listener(&without).await?, Update::Accepted);
    sender.send(text).await?;
    drop(sender);
    let response = response.await??;
    if response.status != 200 {
        assert_eq!(response.json()?["error"]["type"], "api_error", "{}", response.text());
    }
    let after = client::send(
        gateway.envoy.address(),
        Protocol::Http1,
        post("/v1/messages").body(body(&message("new")))?,
    );
    assert_ne!(served(&after.await?)?.credential, "anthropic-a", "it is removed");
    gateway.stop().await?;
    Ok(())
}
