//! Failover within a request on routes as other platforms make them: the filter says itself what
//! Envoy's router retries.

use anyhow::{Context, Result};
use envoy_harness::Mode;
use serde_json::{Value, json};
use simulated_providers::Fault;

use crate::support::{FAILOVER, envoy, expect_counts, send_in, served_in, start};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// The policy that Istio gives to every route.
fn policy_of_istio() -> Value {
    json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
        "retriable_status_codes": [503],
    })
}

/// Puts a policy in the place of that which is shipped, but for the cluster of a retry.
fn replace_policy(document: &mut Value, mode: Mode, policy: Value) {
    let manager = document.pointer_mut(MANAGER).unwrap();
    let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    assert!(route["retry_policy"].is_object());
    route["retry_policy"] = policy;
    if mode == Mode::Clusters {
        route["retry_policy"]["refresh_cluster_on_retry"] = json!(true);
    }
}

/// As Envoy Gateway does.
fn suppress_headers_of_envoy(document: &mut Value) {
    let filters = document.pointer_mut(MANAGER).unwrap()["http_filters"].as_array_mut().unwrap();
    filters.last_mut().unwrap()["typed_config"]["suppress_envoy_headers"] = json!(true);
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_route_without_a_policy_for_retries_fails_over() -> Result<()> {
    let policies =
        [("none", json!({})), ("Istio", policy_of_istio()), ("headers suppressed", json!({}))];
    for mode in [Mode::Clusters, Mode::Keys] {
        for (name, policy) in &policies {
            let edit = |document: &mut Value| {
                replace_policy(document, mode, policy.clone());
                if *name == "headers suppressed" {
                    suppress_headers_of_envoy(document);
                }
            };
            let edited = start(mode, 1, |fixture| Ok(fixture.edit(edit)));
            let Some(gateway) = edited.await? else {
                continue;
            };
            gateway.providers.fault("anthropic-a", Fault::rate_limit(60), Some(1))?;
            gateway.providers.fault("anthropic-b", Fault::Drop, None)?;
            let served = served_in(&gateway, "1").await?;
            assert_eq!(served.credential, "anthropic-c", "{mode:?} {name}");
            let requests = gateway.providers.requests();
            let mut names = requests.iter().flat_map(|request| request.headers.keys());
            // One more where the connection to b was kept, and looked stale.
            assert!(matches!(requests.len(), 3 | 4), "{mode:?} {name}");
            assert!(names.all(|it| !it.as_str().contains("retr")), "{mode:?} {name}");
            expect_counts(&gateway, FAILOVER, [("served", 1)]).await?;
            gateway.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn without_filters_on_clusters_nothing_is_retried() -> Result<()> {
    let gateway = start(Mode::NextRequest, 1, Ok).await?.context("every Envoy has this mode")?;
    gateway.providers.fault("anthropic-a", Fault::Drop, Some(2))?;
    assert_eq!(send_in(&gateway, "1").await?.status, 503);
    assert_eq!(gateway.providers.requests().len(), 1, "{}", envoy()?.version);
    gateway.stop().await?;
    Ok(())
}

/// A pool of the mode `next-request` beside others: its clusters have no filter of ours.
fn stop_observing(document: &mut Value, cluster: &str) {
    let clusters = document["static_resources"]["clusters"].as_array_mut().unwrap();
    for it in clusters.iter_mut().filter(|it| it["name"].as_str().unwrap().starts_with(cluster)) {
        let options = it["typed_extension_protocol_options"].as_object_mut().unwrap();
        let filters = options.values_mut().next().unwrap()["http_filters"].as_array_mut().unwrap();
        filters.retain(|filter| filter["name"] != "envoy.filters.http.wasm");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn beside_pools_whose_attempts_are_observed_those_of_others_are_not_repeated() -> Result<()> {
    let edit = |document: &mut Value| {
        replace_policy(document, Mode::Clusters, json!({}));
        stop_observing(document, "anthropic_");
    };
    let edited = start(Mode::Clusters, 1, |fixture| Ok(fixture.edit(edit)));
    let Some(gateway) = edited.await? else {
        return Ok(());
    };
    let first = served_in(&gateway, "1").await?;
    gateway.providers.fault(&first.credential, Fault::Drop, Some(2))?;
    assert_eq!(send_in(&gateway, "1").await?.status, 503);
    assert_eq!(gateway.providers.requests().len(), 2, "the second was sent once");
    gateway.stop().await?;
    Ok(())
}
