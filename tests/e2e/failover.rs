//! A request survives a credential that fails: what the client sees, and what the providers saw.
//!
//! In each mode with failover within a request that this Envoy has: a cluster for each credential,
//! and one cluster with another key for each attempt.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Connection, Protocol, Response, WebSocket};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode};
use serde_json::{Value, json};
use simulated_providers::Fault;
use tokio::task::JoinSet;

use crate::relay::ClosedPort;
use crate::support::{
    CLASS, FAILOVER, attempts, body, chat, count_by, decision, envoy, expect_counts,
    expect_no_failover, message, modes, pairs, post, send, send_by, send_in, served, served_in,
    set_idle_timeout, set_port, start, status_in, wait_for_counts,
};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_request_of_any_size_survives_a_limit_streamed_or_not() -> Result<()> {
    for (bytes, stream) in [(4_000, false), (4_000, true), (1_500_000, false), (1_500_000, true)] {
        for (mode, gateway) in modes(Ok).await? {
            gateway.providers.fault("openai-a", Fault::rate_limit(60), Some(1))?;
            let protocol = if stream { Protocol::Http2 } else { Protocol::Http1 };
            let response = send_by(&gateway, protocol, chat(bytes, stream)?).await?;
            assert_eq!(served(&response)?.credential, "openai-b", "{mode:?} {bytes} {stream}");
            assert_eq!(
                attempts(&gateway),
                pairs([("openai-a", 429), ("openai-b", 200)]),
                "{mode:?} {bytes} {stream}"
            );
            let is_stream = response
                .header("content-type")
                .is_some_and(|it| it.starts_with("text/event-stream"));
            assert_eq!(is_stream, stream);
            assert!(
                gateway.providers.requests().iter().all(|record| record.body_length >= bytes),
                "{mode:?} {bytes}"
            );
            let then = " then=openai-b(429,rate_limit,60s)";
            assert!(decision(&response)?.ends_with(then), "{}", decision(&response)?);
            expect_counts(&gateway, FAILOVER, [("served", 1)]).await?;
            expect_counts(&gateway, CLASS, [("rate_limit", 1), ("success", 1)]).await?;
            gateway.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_fails_without_an_answer_is_asked_elsewhere() -> Result<()> {
    for fault in [Fault::Drop, Fault::SlowFirstByte(std::time::Duration::from_secs(60))] {
        // Who is asked next needs time as well, on a slow machine.
        let edit = if fault == Fault::Drop { Ok } else { with_short_idle_timeout };
        for (mode, gateway) in modes(edit).await? {
            gateway.providers.fault("anthropic-a", fault.clone(), Some(1))?;
            assert_eq!(
                served_in(&gateway, "1").await?.credential,
                "anthropic-b",
                "{mode:?} {fault:?}"
            );
            expect_counts(&gateway, CLASS, [("success", 1), ("transient", 1)]).await?;
            expect_counts(&gateway, FAILOVER, [("served", 1)]).await?;
            gateway.stop().await?;
        }
    }
    Ok(())
}

fn with_short_idle_timeout(fixture: Fixture) -> Result<Fixture> {
    Ok(fixture.edit(|document| set_idle_timeout(document, "3s")))
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_connection_that_is_refused_is_tried_elsewhere() -> Result<()> {
    let port = ClosedPort::new()?;
    let closed = port.address()?.port();
    let gateway = start(Mode::Clusters, 2, |fixture| {
        Ok(fixture.edit(|document| set_port(document, "anthropic_a", closed)))
    });
    let Some(gateway) = gateway.await? else {
        return Ok(());
    };
    let sent = message(&"x".repeat(1_500_000));
    let response =
        send(&gateway, post("/v1/messages").header("x-session-id", "1").body(body(&sent))?).await?;
    assert_eq!(served(&response)?.credential, "anthropic-b");
    expect_counts(&gateway, CLASS, [("success", 1), ("transient", 1)]).await?;
    assert_eq!(
        served_in(&gateway, "1").await?.outcome,
        "hit",
        "the credential that served it is its home"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_response_that_breaks_off_is_not_retried() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        gateway.providers.fault("openai-a", Fault::CutAfter(3), None)?;
        let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
        let mut stream = connection.stream(chat(100, true)?).await?;
        assert_eq!(stream.status, 200, "{mode:?}");
        assert!(
            stream.next_event().await?.is_some(),
            "{mode:?}: the client has a part of the response"
        );
        assert!(stream.rest().await.is_err(), "{mode:?}: and sees that it broke off");
        assert_eq!(attempts(&gateway), pairs([("openai-a", 200)]), "{mode:?}");
        expect_no_failover(&gateway).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn many_concurrent_failovers_all_succeed() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        gateway.providers.fault("anthropic-a", Fault::rate_limit(60), None)?;
        let mut requests = JoinSet::new();
        for session in 0..30 {
            let request = post("/v1/messages").header("x-session-id", session.to_string());
            let request = request.body(body(&message("hello")))?;
            let address = gateway.envoy.address();
            requests.spawn(async move { client::send(address, Protocol::Http1, request).await });
        }
        let responses = requests.join_all().await.into_iter().collect::<Result<Vec<Response>>>()?;
        assert!(responses.iter().all(|response| response.status == 200), "{mode:?}");
        let refused = attempts(&gateway).iter().filter(|(_, status)| *status == 429).count();
        assert!(refused > 0, "{mode:?}");
        expect_counts(&gateway, FAILOVER, [("served", refused as u64)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_handshake_survives_a_limit_too() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        gateway.providers.fault("openai-a", Fault::rate_limit(60), Some(1))?;
        let headers = [("session-id".parse()?, "1".parse()?)].into_iter().collect();
        let socket = WebSocket::open(gateway.envoy.address(), "/v1/responses", headers).await?;
        assert_eq!(socket.headers["x-simulated-account"], "openai-b", "{mode:?}");
        assert_eq!(attempts(&gateway), pairs([("openai-a", 429), ("openai-b", 101)]), "{mode:?}");
        socket.close().await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_error_of_the_credential_is_retried_on_the_next() -> Result<()> {
    for (status, class) in [
        (401, "denied"),
        (403, "denied"),
        (408, "transient"),
        (503, "transient"),
        (529, "overloaded"),
    ] {
        for (mode, gateway) in modes(Ok).await? {
            gateway.providers.fault(
                "anthropic-a",
                Fault::Status { status, retry_after: None },
                Some(1),
            )?;
            assert_eq!(
                served_in(&gateway, "1").await?.credential,
                "anthropic-b",
                "{mode:?} {status}"
            );
            let counts = |counted: &Vec<_>| counted.contains(&(class.to_owned(), 1));
            wait_for_counts(&gateway, CLASS, counts).await?;
            gateway.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_account_without_the_model_is_told_by_the_body_of_its_answer() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let missing = Fault::response("anthropic-model-missing");
        gateway.providers.fault("anthropic-a", missing, Some(1))?;
        // Before 1.37 Envoy crashes if it is asked to retry an answer that was held until its body
        // was there.
        if envoy()?.version >= "1.37.0".parse()? {
            assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-b", "{mode:?}");
            expect_counts(&gateway, FAILOVER, [("served", 1)]).await?;
        } else {
            assert_eq!(status_in(&gateway, "1").await?, 404, "{mode:?}");
            // It is known, for a second: where the next one goes depends on the machine.
            let line = gateway.envoy.wait_for_log("cooldown begins:").await?;
            assert!(line.contains(" credential=anthropic-a class=not_found "), "{mode:?}: {line}");
            served_in(&gateway, "1").await?;
        }
        expect_counts(&gateway, CLASS, [("not_found", 1), ("success", 1)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_error_of_the_client_is_not_retried() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for (number, status) in [400, 404, 413, 422].into_iter().enumerate() {
            gateway.providers.fault(
                "anthropic-a",
                Fault::Status { status, retry_after: None },
                Some(1),
            )?;
            let response = send_in(&gateway, "1").await?;
            assert_eq!(response.status, status, "{mode:?}");
            assert!(
                response.text().contains(&format!("Simulated fault: status {status}")),
                "the response is whole"
            );
            assert_eq!(gateway.providers.requests().len(), number + 1, "{mode:?} {status}");
        }
        expect_counts(&gateway, CLASS, [("request_fault", 4)]).await?;
        expect_no_failover(&gateway).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_exhausted_pool_names_the_earliest_recovery() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for (account, seconds) in [("anthropic-a", 500), ("anthropic-b", 200), ("anthropic-c", 900)]
        {
            gateway.providers.fault(account, Fault::rate_limit(seconds), None)?;
        }
        for attempts in [3, 3] {
            let response = send_in(&gateway, "1").await?;
            assert_eq!(response.status, 429, "{mode:?}");
            let seconds: u64 = response.header("retry-after").unwrap_or_default().parse()?;
            assert!((190..=200).contains(&seconds), "{mode:?}: {seconds}");
            assert_eq!(
                response.json()?["error"]["type"],
                "rate_limit_error",
                "{mode:?}: in the dialect of the client"
            );
            assert_eq!(
                gateway.providers.requests().len(),
                attempts,
                "{mode:?}: one attempt for each credential"
            );
        }
        expect_counts(&gateway, FAILOVER, [("exhausted", 1)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn without_a_response_the_client_gets_an_error_in_its_own_dialect() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for account in ["openai-a", "openai-b"] {
            gateway.providers.fault(account, Fault::Drop, None)?;
        }
        let response = send(&gateway, chat(100, false)?).await?;
        assert_eq!(response.status, 503, "{mode:?}");
        assert_eq!(
            response.json()?["error"]["type"],
            "server_error",
            "{mode:?}: {}",
            response.text()
        );
        assert_eq!(gateway.providers.requests().len(), 2, "{mode:?}");
        expect_counts(&gateway, FAILOVER, [("exhausted", 1)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn attempts_are_as_many_as_configured() -> Result<()> {
    for max_attempts in [1, 2] {
        let modes = modes(|fixture| {
            fixture.edit_filter(|filter| filter["failover"]["max_attempts"] = json!(max_attempts))
        });
        for (mode, gateway) in modes.await? {
            for account in ["anthropic-a", "anthropic-b", "anthropic-c"] {
                gateway.providers.fault(
                    account,
                    Fault::Status { status: 500, retry_after: None },
                    None,
                )?;
            }
            assert_eq!(
                status_in(&gateway, "1").await?,
                500,
                "{mode:?}: the last response is passed on"
            );
            assert_eq!(gateway.providers.requests().len(), max_attempts, "{mode:?}");
            gateway.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_that_envoy_does_not_hold_is_sent_once_and_counted() -> Result<()> {
    for (mode, gateway) in modes(with_small_buffers).await? {
        gateway.providers.fault("openai-a", Fault::rate_limit(60), Some(1))?;
        let response = send(&gateway, chat(2_000_000, false)?).await?;
        assert_eq!(
            (response.status.as_u16(), response.header("retry-after")),
            (429, Some("60")),
            "{mode:?}"
        );
        assert_eq!(response.header("x-session-affinity-retry"), None, "{mode:?}");
        assert_eq!(attempts(&gateway), pairs([("openai-a", 429)]), "{mode:?}");
        expect_counts(&gateway, FAILOVER, [("abandoned", 1)]).await?;
        gateway.stop().await?;
    }
    Ok(())
}

fn with_small_buffers(fixture: Fixture) -> Result<Fixture> {
    let fixture = fixture.edit(|document| {
        let listener = &mut document["static_resources"]["listeners"][0];
        listener["per_connection_buffer_limit_bytes"] = json!(256 << 10);
        let host = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";
        listener.pointer_mut(host).unwrap()["request_body_buffer_limit"] = json!(256 << 10);
    });
    fixture.edit_filter(|filter| filter["body"] = json!({"max_bytes": 32 << 10}))
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_attempt_carries_one_key_the_right_one_and_nothing_of_ours() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
        gateway.providers.fault("anthropic-b", Fault::status(503), Some(1))?;
        let request = post("/v1/messages")
            .header("x-session-id", "1")
            .header("x-api-key", "a key of the client")
            .header("x-api-key", "another key")
            .header("authorization", "Bearer a key of the client")
            .header("x-envoy-max-retries", "0")
            .body(body(&message("hi")))?;
        assert_eq!(served(&send(&gateway, request).await?)?.credential, "anthropic-c", "{mode:?}");
        let requests = gateway.providers.requests();
        let keys = ["sk-ant-simulated-a", "sk-ant-simulated-b", "sk-ant-simulated-c"];
        assert_eq!(requests.len(), keys.len(), "{mode:?}");
        for (request, key) in requests.iter().zip(keys) {
            let names = ["x-api-key", "authorization", "x-goog-api-key"];
            let carried: Vec<_> =
                names.iter().flat_map(|name| request.headers.get_all(*name)).collect();
            assert_eq!(carried, [key], "{mode:?}");
            let mut names = request.headers.keys().map(|name| name.as_str());
            assert!(
                names.all(|name| !name.starts_with("x-session-affinity") && !name.contains("retr")),
                "{mode:?} {:?}",
                request.headers
            );
        }
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn no_key_reaches_a_log_or_a_dump() -> Result<()> {
    for (mode, gateway) in
        modes(|fixture| Ok(fixture.with_component_log_level("wasm:debug"))).await?
    {
        gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
        served_in(&gateway, "1").await?;
        let dump = gateway.envoy.get_admin("/config_dump").await?;
        let keys: Vec<_> =
            gateway.providers.accounts().iter().map(|account| account.key.clone()).collect();
        let log = gateway.stop().await?.join("\n");
        assert!(
            log.contains(" then=anthropic-b(429,rate_limit,60s) failover=served"),
            "{mode:?}: {log}"
        );
        for key in keys {
            assert!(!log.contains(&key), "{mode:?}: {key} in the log");
            assert!(!dump.contains(&key), "{mode:?}: {key} in the configuration dump");
        }
    }
    Ok(())
}

/// A pool in one cluster, where injectors put the keys of these credentials in front of the filter.
async fn with_injectors(letters: &'static [&'static str]) -> Result<Gateway> {
    let gateway = start(Mode::Keys, 2, |fixture| {
        let fixture = fixture.edit_filter(|filter| {
            for credential in filter["pools"][0]["credentials"].as_array_mut().unwrap() {
                let source = format!("x-key-of-{}", credential["id"].as_str().unwrap());
                credential["headers"] =
                    json!([{"name": "authorization", "prefix": "Bearer ", "header": source}]);
            }
        })?;
        Ok(fixture.edit(|document| inject(document, "anthropic", letters)))
    });
    gateway.await?.context("every Envoy has this mode")
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn keys_of_an_injector_in_front_are_used_for_each_attempt() -> Result<()> {
    let gateway = with_injectors(&["a", "b", "c"]).await?;
    gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
    let request =
        post("/v1/messages").header("x-session-id", "1").header("x-key-of-anthropic-b", "forged");
    let response = send(&gateway, request.body(body(&message("hi")))?).await?;
    assert_eq!(served(&response)?.credential, "anthropic-b");
    for (request, letter) in gateway.providers.requests().iter().zip(["a", "b"]) {
        assert_eq!(request.headers["authorization"], format!("Bearer sk-ant-simulated-{letter}"));
        assert!(
            !request.headers.keys().any(|name| name.as_str().starts_with("x-key-of-")),
            "{:?}",
            request.headers
        );
    }
    gateway.stop().await?;
    Ok(())
}

/// As while the filter has been updated and the cluster has not.
#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn nothing_is_sent_to_a_credential_whose_key_is_not_there_and_others_serve() -> Result<()> {
    let gateway = with_injectors(&["b"]).await?;
    for _ in 0..2 {
        let request = post("/v1/messages").header("x-session-id", "1");
        let response = send(&gateway, request.body(body(&message("hi")))?).await?;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let keys: Vec<_> =
        gateway.providers.requests().iter().map(|it| it.headers["authorization"].clone()).collect();
    assert_eq!(keys, ["Bearer sk-ant-simulated-b"; 2]);
    let learned = count_by(&gateway.envoy.stats("").await?, CLASS);
    assert!(learned.iter().all(|(class, _)| class == "success"), "nobody is blamed: {learned:?}");
    let warnings =
        gateway.envoy.log().iter().filter(|line| line.contains("has no key yet")).count();
    assert!(warnings > 0, "the operator hears of it");
    gateway.stop().await?;
    Ok(())
}

/// Puts injectors in front of the filter on a cluster, one for each credential.
fn inject(document: &mut Value, cluster: &str, letters: &[&str]) {
    let resources = &mut document["static_resources"];
    resources["secrets"] = letters.iter().map(|letter| secret(cluster, letter)).collect();
    let clusters = resources["clusters"].as_array_mut().unwrap();
    let known = clusters.iter_mut().find(|known| known["name"] == cluster).unwrap();
    let options = &mut known["typed_extension_protocol_options"];
    let filters =
        &mut options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["http_filters"];
    let behind = filters.as_array_mut().unwrap().drain(..).collect::<Vec<_>>();
    *filters = letters.iter().map(|letter| injector(cluster, letter)).chain(behind).collect();
}

fn injector(cluster: &str, letter: &str) -> Value {
    let types = "type.googleapis.com/envoy.extensions";
    json!({
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": format!("{types}.filters.http.credential_injector.v3.CredentialInjector"),
            "overwrite": true,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": format!("{types}.http.injected_credentials.generic.v3.Generic"),
                    "credential": {"name": format!("key_{letter}")},
                    "header": format!("x-key-of-{cluster}-{letter}"),
                },
            },
        },
    })
}

fn secret(cluster: &str, letter: &str) -> Value {
    let variable = format!("{}_{}_KEY", cluster.to_uppercase(), letter.to_uppercase());
    json!({
        "name": format!("key_{letter}"),
        "generic_secret": {"secret": {"environment_variable": variable}},
    })
}
