//! Keys and names of accounts: what clients send reaches no upstream and no log, and what providers
//! send reaches no client.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Protocol, WebSocket};
use envoy_harness::{Fixture, Mode};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::{body, decision, message, modes, post, send, served, start};

/// Logs everything that an operator could print of a request, and all that the filter says.
fn talkative(fixture: Fixture) -> Result<Fixture> {
    const FORMAT: &str = "access %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PATH(WQ:ORIG)% \
                          %REQ(SEC-WEBSOCKET-PROTOCOL)% %REQ(X_API_KEY)% %REQ(COOKIE)%\n";
    let fixture = fixture.edit(|document| {
        let manager = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
            [0]["typed_config"];
        manager["access_log"][0]["typed_config"]["log_format"]["text_format_source"]
            ["inline_string"] = json!(FORMAT);
    });
    Ok(fixture.with_component_log_level("wasm:debug"))
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn no_key_of_a_client_reaches_a_log_or_an_upstream_however_it_comes() -> Result<()> {
    for (mode, gateway) in modes(talkative).await? {
        let of_gemini = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        for parameter in ["key", "api_key", "k%65y"] {
            let path =
                format!("/v1beta/models/gemini-2.5-pro:generateContent?{parameter}=CLIENTKEY&x=1");
            served(&send(&gateway, post(&path).body(body(&of_gemini))?).await?)?;
        }
        for name in ["x-api-key", "authorization", "x_api_key", "x-goog_api-key", "cookie"] {
            let request = post("/v1/messages").header(name, "Bearer CLIENTKEY");
            served(&send(&gateway, request.body(body(&message("hi")))?).await?)?;
        }
        let mut headers = HeaderMap::new();
        let offered = "realtime, openai-insecure-api-key.CLIENTKEY, openai-organization.CLIENTKEY";
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(offered));
        headers.insert("session-id", HeaderValue::from_static("1"));
        let socket = WebSocket::open(gateway.envoy.address(), "/v1/responses", headers).await?;
        assert_eq!(socket.headers["sec-websocket-protocol"], "realtime", "{mode:?}");
        socket.close().await?;

        let requests = gateway.providers.requests();
        assert_eq!(requests.iter().filter(|request| request.status != Some(401)).count(), 9);
        for request in &requests {
            let shown = format!("{} {:?}", request.path, request.headers);
            assert!(!shown.contains("CLIENTKEY"), "{mode:?} {shown}");
        }
        let handshake = requests.last().context("no request")?;
        assert_eq!(handshake.headers["sec-websocket-protocol"], "realtime", "{mode:?}");
        let log = gateway.stop().await?.join("\n");
        assert!(log.contains("access /v1beta/models/gemini-2.5-pro:generateContent?x=1"), "{log}");
        let leak = log.lines().find(|line| line.contains("CLIENTKEY"));
        assert_eq!(leak, None, "{mode:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_response_does_not_name_the_account_and_decisions_are_shown_on_wish_only() -> Result<()> {
    const NAMES: [&str; 3] = ["anthropic-organization-id", "openai-organization", "set-cookie"];
    for shown in [true, false] {
        let gateway = start(Mode::Keys, 1, |fixture| {
            let fixture = fixture.edit(|document| name_account(document, &NAMES, shown));
            fixture.edit_filter(|filter| filter["privacy"]["hide_account_headers"] = json!(!shown))
        });
        let gateway = gateway.await?.context("every Envoy has this mode")?;
        let response = send(&gateway, post("/v1/messages").body(body(&message("hi")))?).await?;
        assert_eq!(response.status, 200);
        for name in NAMES {
            assert_eq!(response.headers.contains_key(name), shown, "{name}");
        }
        assert_eq!(decision(&response).is_ok(), shown);
        assert!(response.headers.keys().all(|name| {
            name != "x-session-affinity-cluster" && name != "x-session-affinity-retry"
        }));
        gateway.stop().await?;
    }
    Ok(())
}

/// Lets the cluster add the headers of a provider that names its account, by a filter between ours
/// and the upstream.
fn name_account(document: &mut Value, names: &[&str], shows_decision: bool) {
    let added: Vec<_> = names
        .iter()
        .map(|name| json!({"append": {"header": {"key": name, "value": "acct"}}}))
        .collect();
    let filter = json!({
        "name": "account",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"response_mutations": added},
        },
    });
    for cluster in document["static_resources"]["clusters"].as_array_mut().unwrap() {
        let Some(options) = cluster["typed_extension_protocol_options"].as_object_mut() else {
            continue;
        };
        for options in options.values_mut() {
            let Some(filters) = options["http_filters"].as_array_mut() else { continue };
            filters.insert(filters.len() - 1, filter.clone());
        }
    }
    if !shows_decision {
        let host = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
            [0]["typed_config"]["route_config"]["virtual_hosts"][0];
        host.as_object_mut().unwrap().remove("response_headers_to_add");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_upstream_that_asks_for_a_retry_gets_none() -> Result<()> {
    for (mode, gateway) in modes(|fixture| {
        Ok(fixture.edit(|document| name_account(document, &["x-session-affinity-retry"], true)))
    })
    .await?
    {
        let name = HeaderName::from_static("x-anything");
        let request = post("/v1/messages").header(name, "1").body(body(&message("hi")))?;
        let response = client::send(gateway.envoy.address(), Protocol::Http1, request).await?;
        assert_eq!(response.status, 200, "{mode:?}");
        assert!(!response.headers.contains_key("x-session-affinity-retry"), "{mode:?}");
        assert_eq!(gateway.providers.requests().len(), 1, "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}
