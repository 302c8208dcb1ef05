//! The operator's page on a real Envoy: what it shows and does, and that only its own listener has
//! it.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Envoy, Mode};
use hyper::Request;
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{decision, envoy, post, send, send_in, served, served_in, start, word};

/// A mode that is shipped with the page, with two workers.
async fn with_page() -> Result<Gateway> {
    let Envoy { version, .. } = envoy()?;
    let mode = Mode::of_demo_on(version);
    start(mode, 2, Ok).await?.context("every Envoy has a mode of the demo")
}

async fn call(gateway: &Gateway, request: Request<client::Body>) -> Result<Response> {
    let operator = gateway.envoy.operator().context("there is no listener operator")?;
    client::send(operator, Protocol::Http1, request).await
}

pub(crate) async fn get(gateway: &Gateway, path: &str) -> Result<Response> {
    call(gateway, Request::get(path).body(client::empty())?).await
}

pub(crate) async fn act(gateway: &Gateway, path: &str, body: &Value) -> Result<Value> {
    let response = call(gateway, post(path).body(client::whole(body.to_string()))?).await?;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// What the page knows of a credential.
async fn credential(gateway: &Gateway, id: &str) -> Result<Value> {
    let state = get(gateway, "/state").await?.json()?;
    let credentials = state["credentials"].as_array().context("no credentials")?;
    Ok(credentials.iter().find(|it| it["id"] == id).context("no such credential")?.clone())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_operator_sees_and_changes_what_requests_meet() -> Result<()> {
    let gateway = with_page().await?;
    for session in ["1", "2"] {
        assert_eq!(served_in(&gateway, session).await?.credential, "anthropic-a");
    }
    let a = credential(&gateway, "anthropic-a").await?;
    assert_eq!((&a["state"], &a["sessions"]), (&json!("ready"), &json!(2)));

    gateway.providers.fault("anthropic-a", Fault::rate_limit(600), None)?;
    send_in(&gateway, "1").await?;
    gateway.providers.clear_faults();
    let a = credential(&gateway, "anthropic-a").await?;
    assert_eq!(a["blocks"][0]["class"], "rate_limit", "{a}");
    assert_eq!(served_in(&gateway, "3").await?.credential, "anthropic-b");
    let changes = get(&gateway, "/state").await?.json()?["changes"].clone();
    assert_eq!(
        (&changes[0]["credential"], &changes[0]["by"]),
        (&json!("anthropic-a"), &json!("provider"))
    );

    let cleared = act(&gateway, "/credentials/anthropic/anthropic-a/clear", &json!({})).await?;
    assert_eq!(cleared["changed"], 1);
    assert_eq!(served_in(&gateway, "4").await?.credential, "anthropic-a");
    act(&gateway, "/credentials/anthropic/anthropic-a/drain", &json!({"minutes": 5})).await?;
    assert_eq!(served_in(&gateway, "4").await?.credential, "anthropic-a", "it is bound");
    assert_eq!(served_in(&gateway, "5").await?.credential, "anthropic-b");

    act(&gateway, "/credentials/anthropic/anthropic-a/release", &json!({})).await?;
    let moved = send_in(&gateway, "4").await?;
    assert_eq!(served(&moved)?.credential, "anthropic-b");
    act(&gateway, "/credentials/anthropic/anthropic-a/activate", &json!({})).await?;
    let session = word(decision(&moved)?, "gen_ai.conversation.id=").context("no session")?;
    act(&gateway, "/sessions/forget", &json!({"session": session})).await?;
    assert_eq!(served_in(&gateway, "4").await?.outcome, "miss");
    act(&gateway, "/sessions/forget", &json!({"id": "4", "model": "claude-sonnet-4-5"})).await?;
    assert_eq!(served_in(&gateway, "4").await?.outcome, "miss");

    let log = gateway.stop().await?.join("\n");
    for done in [
        "what=drained pool=anthropic credential=anthropic-a minutes=5",
        "what=released",
        "what=forgotten",
    ] {
        assert!(log.contains(done), "{done} is not in the log");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_operators_page_is_on_its_own_listener_only_and_routes_nothing() -> Result<()> {
    let gateway = with_page().await?;
    let operator = gateway.envoy.operator().context("there is no listener operator")?;
    served_in(&gateway, "1").await?;

    // No path, host or header of a client reaches it.
    let state = |id: &str| format!("/credentials/anthropic/{id}/release");
    for path in ["/", "/state", "/page.js", "/sessions/forget", &state("anthropic-a")] {
        for host in ["localhost".to_owned(), operator.to_string()] {
            for method in ["GET", "POST"] {
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header("host", &host)
                    .header("origin", format!("http://{host}"))
                    .header("x-session-affinity-cluster", "operator")
                    .header("x-session-affinity-operator", "1")
                    .header("x-forwarded-for", "127.0.0.1")
                    .header("content-type", "application/json");
                let response = send(&gateway, request.body(client::whole("{}"))?).await?;
                assert_eq!(response.status, 404, "{method} {path} {host}: {}", response.text());
                assert!(!response.text().contains("credentials"), "{method} {path} {host}");
                assert_eq!(response.header("content-security-policy"), None);
            }
        }
    }
    assert_eq!(credential(&gateway, "anthropic-a").await?["state"], "ready");

    // And it routes nothing.
    let before = gateway.providers.requests().len();
    let message = json!({"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": []});
    for protocol in Protocol::ALL {
        let request = post("/v1/messages").header("x-session-affinity-cluster", "anthropic_a");
        let request = request.body(client::whole(message.to_string()))?;
        assert_eq!(client::send(operator, protocol, request).await?.status, 404);
        let long = post("/sessions/forget").body(client::whole("x".repeat(20_000)))?;
        assert_eq!(client::send(operator, protocol, long).await?.status, 413);
    }
    assert_eq!(gateway.providers.requests().len(), before);

    // A page of another origin, or of a name that leads here, gets nothing.
    let forged = Request::get("/state").header("host", "rebound.example").body(client::empty())?;
    assert_eq!(call(&gateway, forged).await?.status, 403);
    let forged = post(&state("anthropic-a")).header("origin", "http://evil.example");
    assert_eq!(call(&gateway, forged.body(client::whole("{}"))?).await?.status, 403);

    let page = get(&gateway, "/").await?;
    assert!(page.text().contains("<title>Session affinity</title>"));
    assert_eq!(page.header("content-encoding"), Some("gzip"));
    for (name, value) in session_affinity::operator::Reply::SECURITY {
        assert_eq!(page.header(name), Some(value));
    }
    gateway.stop().await?;
    Ok(())
}
