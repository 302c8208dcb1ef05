//! What the filter keeps is bounded by its configuration, whatever clients send.
//!
//! No host call lists the keys of shared data, so that their number stands still is shown from two
//! sides. In the core, `shared_data_holds_no_session_id_and_only_known_keys` and
//! `the_number_of_keys_never_exceeds_what_was_configured` show that nothing is ever written but the
//! keys that the configuration names. Here a real Envoy meets far more sessions, models and limited
//! credentials than there is room for, and its memory stands still. That it would show a key per
//! session is shown, too, by a table so large that every session gets a row of its own.
//!
//! `cargo xtask test` sends 200,000 requests for each size of the table. A million, about a minute
//! each: `MEMORY_TEST_REQUESTS=1000000 cargo test --test e2e memory -- --ignored`, after
//! `cargo xtask dist`.

use anyhow::{Context, Result, ensure};
use envoy_harness::Process;
use envoy_harness::client::{self, Body};
use envoy_harness::gateway::Gateway;
use hyper::Request;
use serde_json::{Value, json};

use crate::load::{Tally, answered_by_envoy, check_counters, check_workers, send_all};
use crate::support::{answers, body, envoy, post};

const WORKERS: u32 = 2;

/// By how much the resident memory may grow after the warm-up. Not zero: V8 compiles what has
/// become hot once more, the allocator keeps a cache for every thread, and both take whole pages. A
/// key for each of the 68,928 sessions that follow even the longest warm-up would take 12 MB.
const RESIDENT_GROWTH: i64 = 4 << 20;

/// By how much the memory that Envoy has allocated may grow. Shared data is in it, V8 is not. Not
/// zero: buffers of connections and the last rows that were not full come and go. It is less than
/// four bytes for each of these sessions.
const ALLOCATED_GROWTH: i64 = 256 << 10;

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn far_more_sessions_than_a_small_table_holds_take_no_more_memory() -> Result<()> {
    stands_still(4096).await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn far_more_sessions_than_the_default_table_holds_take_no_more_memory() -> Result<()> {
    stands_still(65536).await
}

/// Else the other stories of this file would show nothing.
#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_key_for_every_session_would_be_seen() -> Result<()> {
    let growth = growth(16_777_216, 20_000, 100_000).await?;
    assert!(growth.resident > RESIDENT_GROWTH && growth.allocated > ALLOCATED_GROWTH, "{growth:?}");
    Ok(())
}

async fn stands_still(max_bindings: u32) -> Result<()> {
    let requests = match std::env::var("MEMORY_TEST_REQUESTS") {
        Ok(number) => number.parse().context("MEMORY_TEST_REQUESTS is no number")?,
        Err(_) => 200_000,
    };
    // Rows fill at random: after twice as many sessions as there is room for, nearly all of them
    // are full.
    let warm_up = (requests / 5).max(2 * u64::from(max_bindings));
    ensure!(
        warm_up < requests,
        "{requests} requests do not fill a table of {max_bindings} bindings"
    );
    let growth = growth(max_bindings, warm_up, requests).await?;
    assert!(
        growth.resident <= RESIDENT_GROWTH && growth.allocated <= ALLOCATED_GROWTH,
        "{growth:?}"
    );
    Ok(())
}

/// By how much memory grows from the end of the warm-up to the last request.
async fn growth(max_bindings: u32, warm_up: u64, requests: u64) -> Result<Memory> {
    let edit = |filter: &mut Value| {
        filter["session"]["max_bindings"] = json!(max_bindings);
        // So that the model in a body counts, although the header settles the session.
        filter["body"]["read"] = json!("always");
    };
    let gateway =
        Gateway::start(&envoy()?, WORKERS, |fixture| answered_by_envoy(fixture).edit_filter(edit))
            .await?;
    let mut told = Tally::default();
    told.add(send_all(&gateway, 0..warm_up, request).await?);
    let warm = Memory::of(&gateway.envoy).await?;
    told.add(send_all(&gateway, warm_up..requests, request).await?);
    let end = Memory::of(&gateway.envoy).await?;

    assert_eq!(told.outcome("hit"), 0, "every request is a session of its own");
    assert_eq!(told.requests(), requests);
    check_counters(&gateway, &told).await?;
    check_workers(&gateway.envoy, WORKERS).await?;
    let limited = answers(&gateway).await?.into_iter().find(|(class, _)| class == "rate_limit");
    assert!(limited.is_some_and(|(_, count)| count > 0), "the filter learns from errors");
    gateway.stop().await?;
    let growth = Memory {
        resident: end.resident - warm.resident,
        allocated: end.allocated - warm.allocated,
    };
    println!(
        "{requests} sessions, room for {max_bindings}: {warm:?} after {warm_up}, then {growth:?}"
    );
    Ok(growth)
}

/// A request in a session that no other has; three of sixteen have a model that no other has, and
/// one of these meets the limit of its credential for this model.
fn request(number: u64) -> Result<Request<Body>> {
    let model = format!("model-{number}");
    let (request, body) = match number % 16 {
        0 => (Request::post(format!("/v1beta/models/{model}:generateContent")), client::empty()),
        1 => (post("/v1/messages"), body(&json!({"model": model}))),
        2 => (
            post("/v1/messages").header("x-simulate", "status=429; retry-after=3600"),
            body(&json!({"model": model})),
        ),
        _ => (Request::post("/v1/messages"), client::empty()),
    };
    Ok(request.header("x-session-id", format!("session-{number}")).body(body)?)
}

/// Bytes.
#[derive(Debug)]
struct Memory {
    resident: i64,
    allocated: i64,
}

impl Memory {
    async fn of(envoy: &Process) -> Result<Self> {
        let told: Value = serde_json::from_str(&envoy.get_admin("/memory").await?)?;
        let allocated = told["allocated"].as_str().context("no allocated memory")?.parse()?;
        Ok(Self { resident: i64::try_from(envoy.resident_memory()?)?, allocated })
    }
}
