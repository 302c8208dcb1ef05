//! The configurations that are shipped, one for each mode: each serves, and sends nothing of its
//! own upstream.

use anyhow::Result;
use envoy_config::EnvoyConfig;
use envoy_harness::client::{self, Protocol};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, Process, project_root};
use serde_json::{Value, json};
use simulated_providers::{Config, Fault, Providers, Replica, Vendor};

use crate::support::{body, decision, envoy, message, post, send, served};

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
                .filter(|name| {
                    // Replicas get what is known of the client.
                    let is_envoys =
                        name.starts_with("x-envoy-") && *name != "x-envoy-external-address";
                    is_envoys || name.starts_with("x-session-affinity")
                })
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
                filter["pools"][2]["credentials"] =
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

/// A pool of each kind: hosted keys, replicas without keys, and one that is not retried and has a
/// path of its own. Where clusters cannot change within a request, the first two have other modes.
fn pools_of_all_kinds(providers: &Providers, has_matcher: bool) -> Value {
    let upstream = |vendor| format!("http://{}", providers.address(vendor));
    let replicas = providers.replicas().iter().map(|replica| match has_matcher {
        true => json!({"id": replica.name, "upstream": format!("http://localhost:{}", replica.address.port())}),
        false => json!({"id": replica.name, "endpoint": replica.address}),
    });
    let [hosted, own] = if has_matcher { ["clusters"; 2] } else { ["keys", "replicas"] };
    json!([
        {
            "name": "hosted", "mode": hosted, "match": {"path_prefixes": ["/v1/messages"]},
            "upstream": upstream(Vendor::Anthropic), "key_header": "x-api-key",
            "credentials": [
                {"id": "anthropic-a", "key": "ANTHROPIC_A_KEY"}, {"id": "anthropic-b", "key": "ANTHROPIC_B_KEY"},
            ],
        },
        {
            "name": "own", "mode": own, "match": {"path_prefixes": ["/v1/chat/completions"]},
            "credentials": replicas.collect::<Vec<_>>(),
        },
        {
            "name": "elsewhere", "mode": "next-request", "match": {"path_prefixes": ["/v1/responses"]},
            "upstream": format!("{}/api/v1", upstream(Vendor::OpenAi)), "key_header": "authorization",
            "credentials": [{"id": "openai-a", "key": "OPENAI_A_AUTHORIZATION"}],
        },
    ])
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn pools_of_several_modes_share_a_gateway() -> Result<()> {
    let envoy = envoy()?;
    let replicas = Replica::demo().into_iter().map(Replica::on_free_port).collect();
    let providers = Providers::start(Config { replicas, ..Config::default() }).await?;
    let pools = pools_of_all_kinds(&providers, Mode::Clusters.runs_on(envoy.version));
    let input = json!({"show_decision": true, "filter": {"routing": {"strategy": "fill-first"}}, "pools": pools});
    let yaml = EnvoyConfig::parse(&input.to_string(), Mode::Clusters)?.yaml("")?;
    let fixture = Fixture::parse(&yaml, project_root())?.on_free_ports();
    let process = Process::start(&envoy, &fixture, 1, &Gateway::environment(&providers)).await?;
    let send = async |path: &str, value: &Value| {
        let request = post(path).header("authorization", "Bearer of the client");
        client::send(process.address(), Protocol::Http1, request.body(body(value))?).await
    };
    providers.fault("anthropic-a", Fault::rate_limit(60), None)?;
    providers.fault("replica-a", Fault::status(503), None)?;
    assert_eq!(served(&send("/v1/messages", &message("hi")).await?)?.credential, "anthropic-b");
    let chat = json!({"model": "llama", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(served(&send("/v1/chat/completions", &chat).await?)?.credential, "replica-b");
    send("/v1/responses?x=1", &json!({"model": "gpt-5.6", "input": "hi"})).await?;

    let requests = providers.requests();
    let paths: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
    let expected = [["/v1/messages"; 2], ["/v1/chat/completions"; 2]].concat();
    assert_eq!(paths[..4], expected);
    assert_eq!(paths[4..], ["/api/v1/responses?x=1"], "of its upstream, once");
    for (request, authorization) in requests.iter().zip([None, None, Some("Bearer of the client")])
    {
        let carried = request.headers.get("authorization").map(|value| value.to_str().unwrap());
        assert_eq!(carried, authorization);
    }
    process.stop().await?;
    providers.stop().await;
    Ok(())
}
