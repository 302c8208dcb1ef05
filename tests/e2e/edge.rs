//! What a hostile client can send: paths, headers and bodies that are meant for others than itself.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use envoy_harness::client::{self, Protocol};
use envoy_harness::{Mode, wait_until};
use hyper::Request;
use serde_json::{Value, json};
use simulated_providers::Fault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load::send_all;
use crate::support::{
    CLASS, body, count_by, decision, expect_no_failover, gateway, manager, message, modes, post,
    send, send_by, served, served_in, start, status_in, wait_for_counts,
};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn nothing_but_the_apis_of_the_pools_reaches_a_provider_with_a_key() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for (method, path) in [
            ("TRACE", "/v1/messages"),
            ("GET", "/v1/messages/batches"),
            ("DELETE", "/v1/models/ft:gpt-5:org"),
            ("PUT", "/v1/messages"),
            ("POST", "/v1/messages/../organizations/api_keys"),
            ("POST", "/v1/messages/%2e%2e/organizations"),
            ("POST", "/v1/messages/..%2forganizations"),
            ("POST", "/v1/messages/..%5corganizations"),
            ("POST", "/v1/messages%2f..%2forganizations"),
            ("POST", "/v1/messagesX"),
            ("POST", "/v1/messages;x"),
            ("POST", "//v1/organizations/api_keys"),
            ("POST", "/v1/chat/completions/../../fine_tuning/jobs"),
        ] {
            let request = Request::builder().method(method).uri(path).body(client::empty())?;
            let status = send(&gateway, request).await?.status;
            assert!(status.is_client_error(), "{mode:?} {method} {path}: {status}");
        }
        assert!(gateway.providers.requests().is_empty(), "{mode:?}");
        let merged = post("//v1//messages").body(body(&message("hi")))?;
        served(&send(&gateway, merged).await?)?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn headers_of_a_client_steer_no_retry_no_timeout_no_statistics_and_no_log() -> Result<()> {
    let trusting = |document: &mut Value| {
        // Envoy believes the control headers of internal addresses.
        let local = json!({"address_prefix": "127.0.0.0", "prefix_len": 8});
        manager(document)["internal_address_config"] = json!({"cidr_ranges": [local]});
    };
    for (mode, gateway) in modes(|fixture| Ok(fixture.edit(trusting))).await? {
        gateway.providers.fault(
            "anthropic-a",
            Fault::SlowFirstByte(Duration::from_millis(300)),
            None,
        )?;
        let mut request = post("/v1/messages").header("x-session-id", "1");
        for (name, value) in [
            ("x-envoy-retry-on", "retriable-status-codes,retriable-headers,5xx"),
            ("x-envoy-retriable-status-codes", "200"),
            ("x-envoy-retriable-header-names", "content-type"),
            ("x-envoy-retry-grpc-on", "internal"),
            ("x-envoy-max-retries", "5"),
            ("x-envoy-upstream-rq-timeout-ms", "50"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "50"),
            ("x-envoy-upstream-stream-duration-ms", "50"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
            ("x-envoy-upstream-alt-stat-name", "chosen_by_client"),
            ("x-envoy-original-path", "/chosen/by/client"),
            ("x-envoy-decorator-operation", "chosen_by_client"),
            ("x-session-affinity-retry", "1"),
        ] {
            request = request.header(name, value);
        }
        let response = send(&gateway, request.body(body(&message("hi")))?).await?;
        assert_eq!(served(&response)?.credential, "anthropic-a", "{mode:?}");
        let requests = gateway.providers.requests();
        assert_eq!(requests.len(), 1, "{mode:?}");
        let mut names = requests[0].headers.keys().map(|name| name.as_str());
        let ours = names.find(|name| name.starts_with("x-session-affinity-"));
        assert_eq!(ours, None, "{mode:?}");
        let shown = format!("{:?}", requests[0].headers);
        assert!(!shown.contains("chosen"), "{mode:?} {shown}");
        let stats = gateway.envoy.stats("").await?;
        assert!(!stats.keys().any(|name| name.contains("chosen_by_client")), "{mode:?}");
        assert!(!gateway.stop().await?.join("\n").contains("chosen"), "{mode:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn unfinished_uploads_do_not_make_another_client_wait() -> Result<()> {
    const UPLOADS: usize = 1_100;
    let gateway = start(Mode::Keys, 2, Ok).await?.context("every Envoy has this mode")?;
    let mut uploads = Vec::new();
    for number in 0..UPLOADS {
        let mut upload = TcpStream::connect(gateway.envoy.address()).await?;
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-claude-code-session-id: {number}\r\n\
             content-type: application/json\r\ncontent-length: 100000\r\n\r\n\
             {{\"model\":\"claude-sonnet-4-5\","
        );
        upload.write_all(head.as_bytes()).await?;
        uploads.push(upload);
        // Envoy lets only some requests wait for connections: a burst would be refused.
        if uploads.len().is_multiple_of(50) {
            wait_until("the uploads at the provider", async || {
                Ok((gateway.providers.requests().len() >= uploads.len()).then_some(()))
            })
            .await?;
        }
    }
    assert!(uploads.len() > 1_024, "more than Envoy's circuit breakers allow by default");
    for session in 0..20 {
        served_in(&gateway, &format!("another {session}")).await?;
    }
    drop(uploads);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_reply_of_the_filter_arrives_whole_over_both_protocols_while_the_client_sends()
-> Result<()> {
    let gateway = gateway(2, |filter| {
        for credential in filter["pools"][0]["credentials"].as_array_mut().unwrap() {
            credential["state"] = json!("disabled");
        }
    });
    let gateway = gateway.await?;
    let long = Bytes::from(message(&"x".repeat(1 << 20)).to_string());
    for number in 0..40 {
        for protocol in Protocol::ALL {
            let mut request = post("/v1/messages");
            if number % 2 == 0 {
                request = request.header("x-session-id", "1");
            }
            let request = request.body(client::whole(long.clone()))?;
            let response = send_by(&gateway, protocol, request).await?;
            assert_eq!(response.status, 503, "{protocol:?}");
            assert_eq!(response.json()?["error"]["type"], "api_error", "{protocol:?}");
        }
    }
    gateway.stop().await?;
    Ok(())
}

/// A body whose second model lies this many bytes behind the first.
fn two_models(first: &str, second: &str, between: usize) -> Bytes {
    let text = "x".repeat(between);
    format!(
        r#"{{"model":"{first}","max_tokens":8,"messages":[{{"role":"user","content":"{text}"}}],"model":"{second}"}}"#
    )
    .into()
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_second_model_behind_what_was_read_ends_the_request_and_blames_no_credential()
-> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        gateway.providers.fault_of_model(
            "anthropic-a",
            "claude-opus-4-5",
            Fault::rate_limit(600),
            None,
        )?;
        for between in [4_000, 400_000, 3_000_000] {
            for (protocol, is_chunked) in
                [(Protocol::Http1, false), (Protocol::Http1, true), (Protocol::Http2, true)]
            {
                let whole = two_models("claude-sonnet-4-5", "claude-opus-4-5", between);
                let sent = if is_chunked {
                    client::chunks(whole.chunks(10_000).map(<[u8]>::to_vec).collect::<Vec<_>>())
                } else {
                    client::whole(whole)
                };
                // This header settles the session: the request is not held.
                let request = post("/v1/messages").header("x-claude-code-session-id", "1");
                let request = request.body(sent)?;
                let response = client::send(gateway.envoy.address(), protocol, request).await?;
                assert_eq!(response.status, 400, "{mode:?} {between} {protocol:?}");
                assert_eq!(response.json()?["error"]["type"], "invalid_request_error");
                assert!(decision(&response)?.ends_with(" refused=second_model"));
            }
        }
        expect_no_failover(&gateway).await?;
        let counted = count_by(&gateway.envoy.stats("").await?, CLASS);
        assert_eq!(counted, [], "{mode:?}: nothing was learned");
        let first = served_in(&gateway, "2").await?;
        assert_eq!(first.credential, "anthropic-a", "{mode:?}");
        // What is called model elsewhere is no second one.
        let mut other = message(&"x".repeat(400_000));
        other["tools"] = json!([{"name": "t", "input_schema": {"properties": {"model": {}}}}]);
        let request = post("/v1/messages").header("x-claude-code-session-id", "2");
        served(&send(&gateway, request.body(body(&other))?).await?)?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_pool_that_is_restricted_to_models_serves_no_other_one() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["pools"][0]["match"][0]["models"] = json!(["claude-haiku-*"]);
        filter["body"]["max_bytes"] = json!(100_000);
    });
    let gateway = gateway.await?;
    let haiku = "claude-haiku-4-5";
    for (first, second, between, expected) in [
        ("claude-opus-4-5", haiku, 10, 404),
        (haiku, "claude-opus-4-5", 10, 404),
        (haiku, "claude-opus-4-5", 4_000, 404),
        (haiku, "claude-opus-4-5", 3_000_000, 400),
    ] {
        for session in [None, Some("1")] {
            let mut request = post("/v1/messages");
            if let Some(session) = session {
                request = request.header("x-claude-code-session-id", session);
            }
            let request = request.body(client::whole(two_models(first, second, between)))?;
            let response = send(&gateway, request).await?;
            assert_eq!(response.status, expected, "{second} after {between}, session {session:?}");
        }
    }
    assert!(gateway.providers.requests().iter().all(|request| request.status != Some(200)));
    let mut honest = message(&"x".repeat(3_000_000));
    honest["model"] = json!(haiku);
    let request = post("/v1/messages").header("x-session-id", "1").body(body(&honest))?;
    served(&send(&gateway, request).await?)?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_local_reply_to_a_grpc_request_is_no_success() -> Result<()> {
    let gateway = start(Mode::NextRequest, 1, |fixture| {
        Ok(fixture.edit(|document| {
            let clusters = document["static_resources"]["clusters"].as_array_mut().unwrap();
            let dead = clusters.iter_mut().find(|it| it["name"] == "anthropic_a").unwrap();
            // Nothing listens here.
            dead["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
        }))
    });
    let gateway = gateway.await?.context("every Envoy has this mode")?;
    let request = Request::post("/v1/messages")
        .header("content-type", "application/grpc")
        .header("x-session-id", "1")
        .body(client::whole(b"\0\0\0\0\x02hi".as_slice()))?;
    client::send(gateway.envoy.address(), Protocol::Http2, request).await?;
    wait_for_counts(&gateway, CLASS, |observed| {
        !observed.is_empty() && observed.iter().all(|(class, _)| class != "success")
    })
    .await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn sessions_that_are_refused_leave_the_homes_of_others_alone() -> Result<()> {
    let gateway = gateway(2, |filter| filter["session"]["max_bindings"] = json!(1_024)).await?;
    for home in 0..100 {
        served_in(&gateway, &format!("home {home}")).await?;
    }
    // Without `max_tokens` the provider refuses it.
    let refused = json!({"model": "claude-sonnet-4-5", "messages": []});
    let tally = send_all(&gateway, 0..4_096, move |number| {
        let request = post("/v1/messages").header("x-session-id", format!("made up {number}"));
        Ok(request.body(body(&refused))?)
    });
    assert_eq!(tally.await?.outcome("miss"), 4_096);
    assert_eq!(status_in(&gateway, "home 0").await?, 200);
    let mut kept = 0;
    for home in 0..100 {
        kept += u32::from(served_in(&gateway, &format!("home {home}")).await?.outcome == "hit");
    }
    assert!(kept >= 99, "{kept} of 100 homes are left");
    gateway.stop().await?;
    Ok(())
}
