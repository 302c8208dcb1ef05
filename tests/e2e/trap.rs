//! After a trap of the VM its worker serves again at once, and no binding is lost.
//!
//! Nothing in the filter should ever trap, so these tests use a module that traps on request.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use envoy_harness::client::{self, Connection, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::module;
use envoy_harness::{Fixture, wait_until};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::load::{check_workers, without_upstream};
use crate::support::{
    body, decision, envoy, message, post, send, served, served_in, shipped, word,
};

const WORKERS: u32 = 2;
const SESSIONS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

/// Enough that the kernel gives some to each worker.
const CONNECTIONS: usize = 32;

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn after_a_trap_the_worker_serves_again_and_every_session_is_where_it_was() -> Result<()> {
    let gateway = Gateway::start(&envoy()?, WORKERS, trapping).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(gateway.envoy.address(), Protocol::Http1).await?);
    }
    let mut home = BTreeMap::new();
    for session in SESSIONS {
        let response = request(&mut connections[0], session).await?;
        home.insert(session, bound(&response, "miss")?);
    }
    for connection in &mut connections {
        trap(connection).await?;
        let first = wait_until("waiting for the worker to serve again", async || {
            let response = request(connection, SESSIONS[0]).await?;
            Ok((response.status != StatusCode::SERVICE_UNAVAILABLE).then_some(response))
        });
        assert_eq!(bound(&first.await?, "hit")?, home[SESSIONS[0]]);
        for (session, credential) in &home {
            assert_eq!(
                bound(&request(connection, session).await?, "hit")?,
                *credential,
                "session {session}"
            );
        }
    }
    assert_eq!(reloads(&gateway).await?, CONNECTIONS as u64);
    check_workers(&gateway.envoy, WORKERS).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_shipped_module_does_not_trap_on_demand() -> Result<()> {
    let gateway = shipped().await?;
    let before = served_in(&gateway, "1").await?;
    let request = post("/v1/messages").header("x-session-id", "1").header("x-trap", "now");
    let after = served(&send(&gateway, request.body(body(&message("hello")))?).await?)?;
    assert_eq!((after.outcome.as_str(), after.credential), ("hit", before.credential));
    assert_eq!(reloads(&gateway).await?, 0);
    gateway.stop().await?;
    Ok(())
}

/// The set-up with a module that traps on demand, and workers that soon take a new VM.
fn trapping(fixture: Fixture) -> Result<Fixture> {
    let module = module::build_with_trap()?;
    let fixture = without_upstream(fixture).with_module(&module.path)?;
    Ok(fixture.edit(|document| {
        let listener = &mut document["static_resources"]["listeners"][0];
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let plugin = &mut manager["http_filters"][0]["typed_config"]["config"];
        plugin["reload_config"] = json!({"backoff": {"base_interval": "0.01s"}});
    }))
}

async fn trap(connection: &mut Connection) -> Result<()> {
    let request = Request::post("/v1/messages").header("x-trap", "now").body(client::empty())?;
    assert_eq!(connection.send(request).await?.status, StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}

/// Without a body, because Envoy closes a connection on which it responds before the body was read.
async fn request(connection: &mut Connection, session: &str) -> Result<Response> {
    connection
        .send(Request::post("/v1/messages").header("x-session-id", session).body(client::empty())?)
        .await
}

/// The credential of a response that must have this outcome.
fn bound(response: &Response, outcome: &str) -> Result<String> {
    let decision = decision(response)?;
    assert_eq!(word(decision, "outcome=").as_deref(), Some(outcome), "{decision}");
    word(decision, "credential=").context("no credential")
}

/// How often a worker took a new VM.
async fn reloads(gateway: &Gateway) -> Result<u64> {
    let stats = gateway.envoy.stats("wasm.session_affinity.vm_reload_success").await?;
    stats.into_values().next().context("Envoy does not count reloads")
}
