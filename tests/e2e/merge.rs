//! Configurations that somebody merged by hand and that Envoy accepts: each mistake is one warning
//! that names the line to mend, however many requests show it.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, Process};
use serde_json::{Value, json};
use simulated_providers::Fault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{body, chat, decision, envoy, message, post, send, start, status_in};

const REQUESTS: u32 = 5;

/// Starts the mode of the demo, or `keys` where that has no filter on its clusters.
async fn merged(edit: impl FnOnce(Fixture) -> Fixture) -> Result<Gateway> {
    let mode = if Mode::Clusters.runs_on(envoy()?.version) { Mode::Clusters } else { Mode::Keys };
    start(mode, 1, |fixture| Ok(edit(fixture))).await?.context("the mode runs here")
}

fn clusters(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document["static_resources"]["clusters"].as_array_mut().unwrap().iter_mut()
}

/// The filters of all clusters.
fn filters_of_clusters(document: &mut Value) -> impl Iterator<Item = &mut Vec<Value>> {
    let options = clusters(document)
        .filter_map(|cluster| cluster["typed_extension_protocol_options"].as_object_mut());
    options.flat_map(|it| it.values_mut()).filter_map(|it| it["http_filters"].as_array_mut())
}

fn manager(document: &mut Value) -> &mut Value {
    &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

fn routes(document: &mut Value) -> &mut Vec<Value> {
    let host = &mut manager(document)["route_config"]["virtual_hosts"][0];
    host["routes"].as_array_mut().unwrap()
}

/// Sends some requests, and checks that there is one warning with these words, and no other one.
async fn check_warning(gateway: Gateway, words: &str) -> Result<()> {
    for session in 0..REQUESTS {
        ask(&gateway, &session.to_string()).await?;
    }
    gateway.envoy.wait_for_log(words).await?;
    let log = gateway.stop().await?;
    let warnings = warnings(&log);
    assert!(warnings.len() == 1 && warnings[0].contains(words), "{warnings:#?}");
    Ok(())
}

/// Sends a message that may come to another cluster than the decision says.
async fn ask(gateway: &Gateway, session: &str) -> Result<Response> {
    let request =
        post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
    client::send(gateway.envoy.address(), Protocol::Http1, request).await
}

/// What the filter warned of, but for keys that are missing.
fn warnings(log: &[String]) -> Vec<&String> {
    let of_filter = |line: &&String| line.contains("[warning][wasm]") && line.contains("wasm log");
    log.iter().filter(of_filter).filter(|line| !line.contains("has no key")).collect()
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_listener_without_the_filter_is_told() -> Result<()> {
    let gateway = merged(|fixture| {
        fixture.edit(|document| {
            let name = clusters(document).next().unwrap()["name"].clone();
            let filters = manager(document)["http_filters"].as_array_mut().unwrap();
            filters.remove(0);
            routes(document)
                .insert(0, json!({"match": {"prefix": "/"}, "route": {"cluster": name}}));
        })
    });
    check_warning(gateway.await?, "root_id: session_affinity missing among the http_filters").await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn clusters_without_the_filter_are_told() -> Result<()> {
    let gateway = merged(|fixture| {
        fixture.edit(|document| filters_of_clusters(document).for_each(|it| drop(it.remove(0))))
    });
    check_warning(gateway.await?, "root_id: session_affinity_upstream missing").await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn another_vm_id_on_the_clusters_is_told() -> Result<()> {
    let gateway = merged(|fixture| {
        fixture.edit(|document| {
            for filters in filters_of_clusters(document) {
                filters[0]["typed_config"]["config"]["vm_config"]["vm_id"] = json!("another");
            }
        })
    });
    check_warning(gateway.await?, "is vm_config.vm_id on the cluster another one").await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_route_that_comes_first_is_told_and_what_its_cluster_does_blames_no_credential()
-> Result<()> {
    for keeps_filter in [true, false] {
        let gateway = merged(|fixture| {
            fixture.edit(|document| {
                let legacy = clusters(document).last().unwrap();
                let name = legacy["name"].clone();
                if !keeps_filter {
                    legacy.as_object_mut().unwrap().remove("typed_extension_protocol_options");
                }
                let matches = json!({"prefix": "/v1/messages"});
                routes(document).insert(0, json!({"match": matches, "route": {"cluster": name}}));
            })
        });
        let gateway = gateway.await?;
        for session in ["a", "b", "c"] {
            assert!(ask(&gateway, session).await?.status != 200, "another provider");
        }
        let last = ask(&gateway, "d").await?;
        assert!(!decision(&last)?.contains(" out="), "{}", decision(&last)?);
        check_warning(gateway, "does another route come before the one that matches").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_part_of_the_scope_that_never_comes_is_told() -> Result<()> {
    let scope = json!([
        {"header": "x-test-tag"},
        {"property": ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", "sub"]}
    ]);
    let gateway = start(Mode::Keys, 1, |fixture| {
        fixture.edit_filter(|filter| filter["session"]["scope"] = scope.clone())
    });
    let gateway = gateway.await?.context("every Envoy has this mode")?;
    for session in 0..100 {
        assert_eq!(status_in(&gateway, &session.to_string()).await?, 200);
    }
    check_warning(gateway, "session.scope[1]: none of 100 requests has the property metadata.")
        .await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_configuration_without_mistakes_gets_no_warning() -> Result<()> {
    for mode in Mode::ALL {
        let Some(gateway) = start(mode, 2, Ok).await? else { continue };
        if mode != Mode::Replicas {
            gateway.providers.fault("openai-a", Fault::rate_limit(1), Some(2))?;
            gateway.providers.fault("openai-b", Fault::Drop, Some(1))?;
        }
        for number in 0..110 {
            let mut request = chat(if number % 10 == 0 { 100_000 } else { 10 }, number % 3 == 0)?;
            request.headers_mut().insert("x-session-id", (number % 7).into());
            send(&gateway, request).await?;
        }
        // What no pool serves may go to the same clusters by another route.
        send(&gateway, post("/elsewhere").body(body(&json!({})))?).await?;
        let log = gateway.stop().await?;
        assert!(warnings(&log).is_empty(), "{mode:?} {:#?}", warnings(&log));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_root_id_that_is_neither_role_is_refused() -> Result<()> {
    let envoy = envoy()?;
    let providers =
        simulated_providers::Providers::start(simulated_providers::Config::default()).await?;
    let fixture = Fixture::shipped(Mode::Keys)?.on_free_ports().edit(|document| {
        for filters in filters_of_clusters(document) {
            filters[0]["typed_config"]["config"]["root_id"] = json!("session-affinity-upstream");
        }
    });
    let refusal =
        Process::start_expecting_refusal(&envoy, &fixture, &Gateway::environment(&providers))
            .await?;
    let words = "unknown root_id \"session-affinity-upstream\": expected session_affinity in a";
    assert!(refusal.mentions(words), "{refusal}");
    providers.stop().await;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_that_never_comes_is_told() -> Result<()> {
    let gateway = merged(|fixture| {
        fixture.edit(|document| {
            let filter = &mut manager(document)["http_filters"][0]["typed_config"]["config"];
            filter.as_object_mut().unwrap().remove("allow_on_headers_stop_iteration");
        })
    });
    let gateway = gateway.await?;
    for _ in 0..2 {
        let mut upload = TcpStream::connect(gateway.envoy.address()).await?;
        let request = "POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
        upload.write_all(request.as_bytes()).await?;
        gateway
            .envoy
            .wait_for_stats("http.llm.downstream_rq_active", |stats| {
                stats.values().sum::<u64>() == 1
            })
            .await?;
        drop(upload);
        gateway
            .envoy
            .wait_for_stats("http.llm.downstream_rq_active", |stats| {
                stats.values().sum::<u64>() == 0
            })
            .await?;
    }
    let log = gateway.stop().await?;
    let warnings = warnings(&log);
    assert!(
        warnings.len() == 1 && warnings[0].contains("allow_on_headers_stop_iteration: true"),
        "{warnings:#?}"
    );
    Ok(())
}
