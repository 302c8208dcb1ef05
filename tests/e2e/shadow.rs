//! In the mode `shadow` the filter changes nothing, and tells what it would have done.

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, client::Response};
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{attempts, body, decision, envoy, expect_counts, message, pairs, post};

const EXPECTED: (&str, &str) = ("shadow_requests_total", "outcome");
const ACTUAL: (&str, &str) = ("shadow_requests_total", "actual");
const CHOSEN: (&str, &str) = ("shadow_choices_total", "credential");

/// An Envoy that sends requests where the header `x-to` says, as if the filter were not there.
fn routed_by_hand(fixture: Fixture) -> Result<Fixture> {
    let fixture = fixture.edit(|document| {
        let listener = &mut document["static_resources"]["listeners"][0];
        listener["per_connection_buffer_limit_bytes"] = json!(1 << 20);
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let host = &mut manager["route_config"]["virtual_hosts"][0];
        let to = |cluster: &str| {
            let header = json!({"name": "x-to", "string_match": {"exact": cluster}});
            json!({"match": {"prefix": "/", "headers": [header]}, "route": {"cluster": cluster}})
        };
        host["request_body_buffer_limit"] = json!(1 << 20);
        host["routes"] = json!([to("anthropic_a"), to("anthropic_b")]);
    });
    fixture.edit_filter(|filter: &mut Value| {
        filter["mode"] = json!("shadow");
        filter["routing"]["strategy"] = json!("fill-first");
    })
}

async fn send_to(gateway: &Gateway, cluster: &str) -> Result<Response> {
    send(gateway, &[("x-to", cluster), ("x-session-id", "1")], "hello").await
}

async fn send(gateway: &Gateway, headers: &[(&str, &str)], text: &str) -> Result<Response> {
    let request = post("/v1/messages").header("x-session-affinity-cluster", "of-the-client");
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    envoy_harness::client::send(
        gateway.envoy.address(),
        envoy_harness::client::Protocol::Http1,
        request.body(body(&message(text)))?,
    )
    .await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_shadow_changes_nothing_and_tells_what_it_would_have_done() -> Result<()> {
    let gateway = Gateway::start_in(&envoy()?, Mode::NextRequest, 1, routed_by_hand).await?;
    for cluster in ["anthropic_b", "anthropic_b", "anthropic_a", "anthropic_b"] {
        assert_eq!(send_to(&gateway, cluster).await?.status, 200);
    }
    // What the provider says passes as it is, also where the filter would have responded itself.
    gateway.providers.fault("anthropic-b", Fault::rate_limit(60), Some(2))?;
    for _ in 0..2 {
        let limited = send_to(&gateway, "anthropic_b").await?;
        assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, Some("60")));
    }
    let expected = [
        ("anthropic-b", 200),
        ("anthropic-b", 200),
        ("anthropic-a", 200),
        ("anthropic-b", 200),
        ("anthropic-b", 429),
        ("anthropic-b", 429),
    ];
    assert_eq!(attempts(&gateway), pairs(expected));
    let arrived = gateway.providers.requests();
    let header = arrived[0].headers.get("x-session-affinity-cluster");
    assert_eq!(header.map(|it| it.as_bytes()), Some(&b"of-the-client"[..]), "untouched");
    assert!(!arrived[0].headers.contains_key("x-envoy-max-retries"));

    expect_counts(&gateway, EXPECTED, [("miss", 1), ("hit", 5)]).await?;
    let actual = [("new", 1), ("same", 1), ("moved", 2), ("failed", 2)];
    expect_counts(&gateway, ACTUAL, actual).await?;
    expect_counts(&gateway, CHOSEN, [("anthropic-a", 6)]).await?;
    let last = send_to(&gateway, "anthropic_b").await?;
    assert!(decision(&last)?.starts_with("outcome=hit "), "{}", decision(&last)?);
    // Only the body names its session, and it is longer than what Envoy holds.
    let long = send(&gateway, &[("x-to", "anthropic_b")], &"long ".repeat(400_000)).await?;
    assert_eq!(long.status, 200, "nothing is held");
    let log = gateway.stop().await?.join("\n");
    assert!(log.contains(" mode=shadow actual=anthropic-b,same"), "{log}");
    Ok(())
}
