//! When the filter waits for a body and when it does not; nothing that a client sends breaks it.

use anyhow::Result;
use envoy_harness::client::{self, Protocol, WebSocket};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use serde_json::json;

use crate::support::{body, decision, gateway, message, post, send, served, served_in, shipped};

/// A Messages request of this many bytes with the session at its end.
fn long_message(bytes: usize, session: &str) -> String {
    let mut request = message("");
    request["messages"][0]["content"] = json!("x".repeat(bytes));
    request["metadata"] = json!({"user_id": format!("user_0_account__session_{session}")});
    request.to_string()
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_request_without_a_body_is_decided_by_its_headers() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["pools"][2]["match"] = json!({"path_prefixes": ["/v1/models"], "methods": ["GET"]});
    })
    .await?;
    for expected in ["miss", "hit"] {
        let request =
            hyper::Request::get("/v1/models").header("x-session-id", "1").body(client::empty())?;
        assert_eq!(served(&send(&gateway, request).await?)?.outcome, expected);
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_upgrade_is_decided_by_its_headers_and_keeps_its_connection() -> Result<()> {
    let gateway = shipped().await?;
    let mut credentials = Vec::new();
    for _ in 0..2 {
        let headers =
            HeaderMap::from_iter([("x-session-id".parse()?, HeaderValue::from_static("ws-1"))]);
        let mut socket = WebSocket::open(gateway.envoy.address(), "/v1/responses", headers).await?;
        socket
            .send(
                &json!({"type": "response.create", "model": "gpt-5.4", "input": "Hi."}).to_string(),
            )
            .await?;
        let event = socket.next().await?.expect("the upstream responds to the first frame");
        assert!(event.contains("response.created"), "{event}");
        socket.close().await?;
        let handshake =
            gateway.providers.requests().into_iter().rev().find(|request| request.method == "GET");
        credentials.push(handshake.unwrap().account);
    }
    assert!(credentials[0].is_some());
    assert_eq!(credentials[0], credentials[1]);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_filter_does_not_wait_for_a_body_that_is_not_json() -> Result<()> {
    let gateway = shipped().await?;
    let form = hyper::Request::post("/v1/messages")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("x-session-id", "1")
        .body(client::whole("--x--"))?;
    let response = send(&gateway, form).await?;
    assert_eq!(response.status, 400, "the response of the upstream: {}", response.text());
    assert!(
        decision(&response)?.starts_with("outcome=miss source=header"),
        "{:?}",
        decision(&response)
    );

    let claimed = post("/v1/messages").body(client::whole("this is not JSON at all"))?;
    let response = send(&gateway, claimed).await?;
    assert_eq!(response.status, 400, "the response of the upstream: {}", response.text());
    assert!(decision(&response)?.starts_with("outcome=none"), "{:?}", decision(&response));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_compressed_body_passes_and_headers_decide() -> Result<()> {
    let gateway = shipped().await?;
    let request = post("/v1/messages")
        .header("content-encoding", "zstd")
        .header("x-session-id", "1")
        .body(client::whole([0x28, 0xb5, 0x2f, 0xfd, 0, 1, 2, 3].as_slice()))?;
    let response = send(&gateway, request).await?;
    assert!(
        decision(&response)?.starts_with("outcome=miss source=header"),
        "{:?}",
        decision(&response)
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_that_ends_with_trailers_is_read_whole() -> Result<()> {
    let gateway = shipped().await?;
    for expected in ["miss", "hit"] {
        let sent = long_message(100_000, "ab-cd");
        let (start, end) = sent.as_bytes().split_at(50_000);
        let trailers =
            HeaderMap::from_iter([("x-checksum".parse()?, HeaderValue::from_static("7"))]);
        let chunks = client::chunks_and_trailers([start.to_vec(), end.to_vec()], trailers);
        let response = client::send(
            gateway.envoy.address(),
            Protocol::Http2,
            post("/v1/messages").body(chunks)?,
        )
        .await?;
        let served = served(&response)?;
        assert_eq!((served.outcome.as_str(), served.source.as_deref()), (expected, Some("claude")));
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_of_two_megabytes_is_read_to_its_end_over_both_protocols() -> Result<()> {
    let gateway = shipped().await?;
    for (protocol, expected) in Protocol::ALL.into_iter().zip(["miss", "hit"]) {
        let request = post("/v1/messages").body(client::whole(long_message(2 << 20, "ab-cd")))?;
        let response = client::send(gateway.envoy.address(), protocol, request).await?;
        let served = served(&response)?;
        assert_eq!(
            (served.outcome.as_str(), served.source.as_deref()),
            (expected, Some("claude")),
            "{protocol:?}"
        );
    }
    assert!(gateway.providers.requests().iter().all(|request| request.body_length > 2 << 20));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_that_outgrows_the_limit_is_decided_by_its_beginning_and_arrives_whole() -> Result<()>
{
    let gateway = gateway(1, |filter| filter["body"]["max_bytes"] = json!(100_000)).await?;
    let long = long_message(3 << 20, "ab-cd");
    let request = post("/v1/messages").body(client::whole(long.clone()))?;
    let by_beginning = served(&send(&gateway, request).await?)?;
    assert_eq!(by_beginning.source.as_deref(), Some("msg"), "the id at its end is not seen");
    let request = post("/v1/messages").header("x-session-id", "1").body(client::whole(long))?;
    let by_header = served(&send(&gateway, request).await?)?;
    assert_eq!((by_header.outcome.as_str(), by_header.source.as_deref()), ("miss", Some("header")));
    assert!(
        gateway.providers.requests().iter().all(|request| request.body_length > 3 << 20),
        "it arrives whole"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn header_values_that_are_not_utf8_do_no_harm() -> Result<()> {
    let gateway = shipped().await?;
    for (name, expected) in
        [("x-anything", "none"), ("x-session-id", "miss"), ("x-session-id", "hit")]
    {
        let value = HeaderValue::from_bytes(b"caf\xe9 \xff\xfe")?;
        let unknown = json!({"model": "claude-sonnet-4-5", "max_tokens": 8, "messages": []});
        let request = post("/v1/messages").header(name, value).body(body(&unknown))?;
        let response = send(&gateway, request).await?;
        assert!(
            decision(&response)?.contains(&format!("outcome={expected}")),
            "{name}: {:?}",
            decision(&response)
        );
    }
    assert_eq!(
        served_in(&gateway, "after").await?.outcome,
        "miss",
        "the VM of the worker is alive"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_header_with_an_underscore_arrives() -> Result<()> {
    let gateway = shipped().await?;
    let request = post("/v1/messages").header("session_id", "1").body(body(&message("hi")))?;
    served(&send(&gateway, request).await?)?;
    let seen = gateway.providers.requests().pop().unwrap();
    assert_eq!(seen.headers["session_id"], "1");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_request_that_no_pool_serves_gets_a_clear_error() -> Result<()> {
    let gateway = shipped().await?;
    let response = send(&gateway, post("/v2/unknown").body(body(&json!({})))?).await?;
    assert_eq!(response.status, 404);
    assert_eq!(decision(&response)?, "outcome=unmatched");
    assert_eq!(response.json()?["error"]["type"], "not_found_error");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_pool_without_a_ready_credential_gets_a_local_reply() -> Result<()> {
    let gateway = gateway(1, |filter| {
        for credential in filter["pools"][0]["credentials"].as_array_mut().unwrap() {
            credential["state"] = json!("disabled");
        }
    })
    .await?;
    let request = post("/v1/messages").header("x-session-id", "1").body(body(&message("hi")))?;
    let response = send(&gateway, request).await?;
    assert_eq!(response.status, 503);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()?["error"]["type"], "api_error");
    assert!(gateway.providers.requests().is_empty(), "no upstream got it");
    gateway.stop().await?;
    Ok(())
}
