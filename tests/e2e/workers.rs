//! Workers that write the same data concurrently lose nothing, and agree.
//!
//! Two workers write at the same time; with more workers than cores one is also interrupted between
//! reading and writing. The responses must match what Envoy counted.

use anyhow::Result;
use envoy_harness::client::{self, Body, Protocol};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode};
use hyper::Request;
use serde_json::json;
use simulated_providers::Fault;
use tokio::task::JoinSet;

use crate::load::{
    CONNECTIONS, Tally, check_counters, check_workers, send_all, send_over, without_upstream,
};
use crate::support::{body, envoy, message, post};

const WORKERS: [u32; 2] = [2, 4];

/// The set-up with room for this many bindings. Fewer than seventeen are one row.
async fn gateway(workers: u32, max_bindings: u32) -> Result<Gateway> {
    Gateway::start(&envoy()?, workers, |fixture| {
        without_upstream(fixture)
            .edit_filter(|filter| filter["session"]["max_bindings"] = json!(max_bindings))
    })
    .await
}

/// Without a body and on one path, so that all new sessions take their turns from one cursor.
fn request(session: u64) -> Result<Request<Body>> {
    Ok(Request::post("/v1/messages")
        .header("x-session-id", session.to_string())
        .body(client::empty())?)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_on_all_connections_at_once_is_bound_once() -> Result<()> {
    for workers in WORKERS {
        let gateway = gateway(workers, 65536).await?;
        let mut total = Tally::default();
        for session in 0..50 {
            let tally = send_all(&gateway, 0..256, move |_| request(session)).await?;
            assert_eq!(
                (tally.outcome("miss"), tally.credentials().len()),
                (1, 1),
                "session {session}: {tally:?}"
            );
            total.add(tally);
        }
        // All connections send the same sessions side by side, so every first request is a race.
        let tally =
            send_all(&gateway, 0..64_000, |number| request(1_000 + number / CONNECTIONS as u64))
                .await?;
        assert_eq!(tally.outcome("miss"), 1_000, "{tally:?}");
        total.add(tally);
        finish(gateway, workers, &total).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn sessions_that_share_a_row_keep_their_credentials() -> Result<()> {
    const SESSIONS: u64 = 16;
    for workers in WORKERS {
        let gateway = gateway(workers, 16).await?;
        let mut total = Tally::default();
        for tally in at_once(&gateway, SESSIONS, 2_000).await? {
            assert_eq!(tally.bound().len(), 1, "{tally:?}");
            total.add(tally);
        }
        assert_eq!(total.outcome("miss"), SESSIONS, "{total:?}");
        finish(gateway, workers, &total).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn more_sessions_than_a_row_holds_are_all_served() -> Result<()> {
    const SESSIONS: u64 = 64;
    for workers in WORKERS {
        let gateway = gateway(workers, 16).await?;
        let mut total = Tally::default();
        at_once(&gateway, SESSIONS, 500).await?.into_iter().for_each(|tally| total.add(tally));
        assert!(total.outcome("miss") >= SESSIONS, "{total:?}");
        assert_eq!(total.credentials().into_values().sum::<u64>(), SESSIONS * 500);
        finish(gateway, workers, &total).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn new_sessions_spread_within_one_of_exact_and_stay() -> Result<()> {
    const SESSIONS: u64 = 40_000;
    for workers in WORKERS {
        // Enough room that no row is full and no binding replaces another.
        let gateway = gateway(workers, 1 << 20).await?;
        let first = send_all(&gateway, 0..SESSIONS, request).await?;
        let contended = first.outcome("contended");
        assert_eq!(first.outcome("miss") + contended, SESSIONS, "{first:?}");
        let sessions_of = first.credentials();
        let (least, most) =
            (sessions_of.values().min().unwrap(), sessions_of.values().max().unwrap());
        assert!(sessions_of.len() == 3 && most - least <= 1 + contended, "{first:?}");

        let mut total = first.clone();
        let second = send_all(&gateway, 0..SESSIONS, request).await?;
        if contended == 0 {
            assert_eq!((second.outcome("hit"), second.credentials()), (SESSIONS, sessions_of));
        }
        total.add(second);
        finish(gateway, workers, &total).await?;
    }
    Ok(())
}

/// Forty rate limits of one credential at the same moment, each for another model. All are one
/// value in shared data.
#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn concurrent_limits_of_a_credential_are_all_stored() -> Result<()> {
    const MODELS: u32 = 40;
    for workers in WORKERS {
        let edit = |fixture: Fixture| {
            fixture.edit_filter(|filter| filter["routing"]["strategy"] = json!("fill-first"))
        };
        let gateway = Gateway::start_in(&envoy()?, Mode::NextRequest, workers, edit).await?;
        gateway.providers.fault("anthropic-a", Fault::rate_limit(3_600), None)?;
        // The first session of every model goes to the first credential.
        let first = of_every_model(&gateway, MODELS, "first").await?;
        assert!(first.iter().all(|(status, _)| *status == 429), "{first:?}");
        for session in ["first", "second", "third"] {
            let served = of_every_model(&gateway, MODELS, session).await?;
            assert!(
                served
                    .iter()
                    .all(|(status, credential)| *status == 200 && credential != "anthropic-a"),
                "{served:?}"
            );
        }
        check_workers(&gateway.envoy, workers).await?;
        gateway.stop().await?;
    }
    Ok(())
}

/// Sends the request of a session for each of this many models, all at once: the statuses, and the
/// credentials that responded.
async fn of_every_model(
    gateway: &Gateway,
    models: u32,
    session: &str,
) -> Result<Vec<(u16, String)>> {
    let mut tasks = JoinSet::new();
    for model in 0..models {
        let mut message = message("hi");
        message["model"] = json!(format!("model-{model}"));
        let request = post("/v1/messages").header("x-session-id", session).body(body(&message))?;
        tasks.spawn(client::send(gateway.envoy.address(), Protocol::Http1, request));
    }
    let responses: Result<Vec<_>> = tasks.join_all().await.into_iter().collect();
    let responses = responses?.into_iter().map(|response| {
        let credential = response.header("x-simulated-account").unwrap_or_default();
        (response.status.as_u16(), credential.to_owned())
    });
    Ok(responses.collect())
}

/// Sends this many requests in each of these sessions, all sessions at once, each over its share of
/// the connections.
async fn at_once(gateway: &Gateway, sessions: u64, requests: u64) -> Result<Vec<Tally>> {
    let (address, connections) = (gateway.envoy.address(), CONNECTIONS.div_ceil(sessions as usize));
    let mut tasks = JoinSet::new();
    for session in 0..sessions {
        tasks.spawn(send_over(connections, address, 0..requests, move |_| request(session)));
    }
    tasks.join_all().await.into_iter().collect()
}

async fn finish(gateway: Gateway, workers: u32, tally: &Tally) -> Result<()> {
    println!("{workers} workers: {:?}", tally.outcomes());
    check_counters(&gateway, tally).await?;
    check_workers(&gateway.envoy, workers).await?;
    gateway.stop().await?;
    Ok(())
}
