//! The configurations that are shipped, one for each mode: each serves, and sends nothing of its
//! own upstream.

use anyhow::Result;
use envoy_harness::Mode;
use envoy_harness::gateway::Gateway;
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{body, decision, envoy, post, send, served};

fn chat() -> Value {
    json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_shipped_configuration_keeps_sessions_and_uses_the_right_key() -> Result<()> {
    let envoy = envoy()?;
    for mode in Mode::ALL.into_iter().filter(|mode| mode.runs_on(envoy.version)) {
        let gateway = Gateway::start_in(&envoy, mode, 1, Ok).await?;
        let (credentials, keys) = match mode {
            Mode::Replicas => (["replica-a", "replica-b"], ["Bearer a key of the client"; 2]),
            _ => (["openai-a", "openai-b"], ["Bearer sk-simulated-a", "Bearer sk-simulated-b"]),
        };
        for outcome in ["miss", "hit"] {
            for (session, credential) in ["1", "2"].into_iter().zip(credentials) {
                let request = post("/v1/chat/completions")
                    .header("x-session-id", session)
                    .header("authorization", "Bearer a key of the client")
                    .header("x-session-affinity-cluster", "gemini_a")
                    .body(body(&chat()))?;
                let served = served(&send(&gateway, request).await?)?;
                assert_eq!(
                    (served.credential.as_str(), served.outcome.as_str()),
                    (credential, outcome),
                    "{mode:?}"
                );
            }
        }
        for (request, key) in gateway.providers.requests().iter().zip(keys.into_iter().cycle()) {
            assert_eq!(request.headers["authorization"], key, "{mode:?}");
            let names = request.headers.keys().map(|name| name.as_str());
            let ours: Vec<_> = names
                .filter(|name| name.starts_with("x-session-affinity") || name.contains("retr"))
                .collect();
            assert!(ours.is_empty(), "{mode:?} {ours:?}");
        }
        let response = send(&gateway, post("/no/pool/serves/this").body(body(&json!({})))?).await?;
        assert_eq!(response.status, 404, "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_credential_that_fails_costs_a_request_in_one_mode_only() -> Result<()> {
    let envoy = envoy()?;
    for mode in Mode::ALL.into_iter().filter(|mode| mode.runs_on(envoy.version)) {
        let gateway = Gateway::start_in(&envoy, mode, 1, Ok).await?;
        let first = if mode == Mode::Replicas { "replica-a" } else { "openai-a" };
        gateway.providers.fault(
            first,
            Fault::Status { status: 503, retry_after: None },
            Some(1),
        )?;
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let request = post("/v1/chat/completions").header("x-session-id", "1");
            statuses.push(send(&gateway, request.body(body(&chat()))?).await?.status.as_u16());
        }
        let expected = if mode == Mode::NextRequest { [503, 200] } else { [200, 200] };
        assert_eq!(statuses, expected, "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_cluster_that_the_route_does_not_list_gets_no_request() -> Result<()> {
    let envoy = envoy()?;
    for mode in
        [Mode::Clusters, Mode::NextRequest].into_iter().filter(|mode| mode.runs_on(envoy.version))
    {
        let gateway = Gateway::start_in(&envoy, mode, 1, |fixture| {
            fixture.edit_filter(|filter| {
                filter["pools"][1]["credentials"] =
                    json!([{"id": "openai-a", "cluster": "elsewhere"}]);
            })
        });
        let gateway = gateway.await?;
        let response = send(&gateway, post("/v1/chat/completions").body(body(&chat()))?).await?;
        assert_eq!(response.status, 503, "{mode:?} {}", decision(&response)?);
        assert!(gateway.providers.requests().is_empty(), "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}
