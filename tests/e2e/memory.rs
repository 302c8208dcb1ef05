//! What the filter stores is bounded by its configuration, whatever clients send.
//!
//! No host call lists the keys of shared data, so two kinds of tests show that their number is
//! constant. In the core, `shared_data_holds_no_session_id_and_only_known_keys` and
//! `the_number_of_keys_never_exceeds_what_was_configured` show that only keys that the
//! configuration defines are ever written. Here a real Envoy gets far more sessions, models and
//! limited credentials than fit, and its memory does not grow. A table so large that every session
//! gets a row of its own shows that a key for each session would be visible.
//!
//! The tests send little more than fills a table several times, or once if it is large.
//! `cargo xtask memory --requests 10000000 --sessions 1000000` sends as many as one likes.

use anyhow::{Context, Result, ensure};
use envoy_harness::Process;
use envoy_harness::client::{self, Body};
use envoy_harness::gateway::Gateway;
use hyper::Request;
use serde_json::{Value, json};

use crate::load::{Tally, check_counters, check_workers, send_all, without_upstream};
use crate::support::{CLASS, body, envoy, post, wait_for_counts, wait_until_none};

const WORKERS: u32 = 2;

/// How much the resident memory may grow after the warm-up. Not zero: V8 recompiles hot code, and the
/// allocator takes whole pages. A key for each of the 27,232 sessions after even the longest warm-up
/// would take 5 MB.
const RESIDENT_GROWTH: i64 = 4 << 20;

/// How much the memory that Envoy has allocated may grow. It includes shared data, but not V8. Not
/// zero: buffers of connections come and go, and the last rows fill. It is less than 20 bytes for
/// each of these sessions.
const ALLOCATED_GROWTH: i64 = 512 << 10;

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn far_more_sessions_than_a_small_table_holds_take_no_more_memory() -> Result<()> {
    does_not_grow(4096, 40_000).await
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn far_more_sessions_than_a_larger_table_holds_take_no_more_memory() -> Result<()> {
    does_not_grow(16384, 60_000).await
}

/// Without this the other tests of this file would show nothing.
#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_key_for_every_session_would_be_seen() -> Result<()> {
    let growth = growth(16_777_216, 10_000, 50_000, 50_000).await?;
    assert!(growth.resident > RESIDENT_GROWTH && growth.allocated > ALLOCATED_GROWTH, "{growth:?}");
    Ok(())
}

/// A number from the environment.
fn number(name: &str) -> Result<Option<u64>> {
    let number = std::env::var(name).ok().map(|number| number.parse());
    number.transpose().with_context(|| format!("{name} is not a number"))
}

/// Sends so many requests, unless the environment says how many.
async fn does_not_grow(max_bindings: u32, requests: u64) -> Result<()> {
    let requests = number("MEMORY_TEST_REQUESTS")?.unwrap_or(requests);
    let sessions = number("MEMORY_TEST_SESSIONS")?.unwrap_or(requests);
    ensure!(sessions > 2 * u64::from(max_bindings), "{sessions} sessions could all be kept");
    // Rows fill at random: after twice as many sessions as there is room for, nearly all of them
    // are full.
    let warm_up = (requests / 5).max(2 * u64::from(max_bindings));
    ensure!(
        warm_up < requests,
        "{requests} requests do not fill a table of {max_bindings} bindings"
    );
    let growth = growth(max_bindings, warm_up, requests, sessions).await?;
    assert!(
        growth.resident <= RESIDENT_GROWTH && growth.allocated <= ALLOCATED_GROWTH,
        "{growth:?}"
    );
    Ok(())
}

/// How much memory grows from the end of the warm-up to the last request, if this many sessions take
/// turns.
async fn growth(max_bindings: u32, warm_up: u64, requests: u64, sessions: u64) -> Result<Memory> {
    let request = move |number| request(number % sessions);
    let gateway = Gateway::start(&envoy()?, WORKERS, |fixture| {
        without_upstream(fixture).edit_filter(|filter| {
            filter["session"]["max_bindings"] = json!(max_bindings);
            // So that the model in a body counts, although the header settles the session.
            filter["body"]["read"] = json!("always");
        })
    })
    .await?;
    let mut tally = Tally::default();
    tally.add(send_all(&gateway, 0..warm_up, request).await?);
    let warm = Memory::of(&gateway.envoy).await?;
    tally.add(send_all(&gateway, warm_up..requests, request).await?);
    let end = Memory::of(&gateway.envoy).await?;

    if sessions >= requests {
        assert_eq!(tally.outcome("hit"), 0, "every request is a session of its own");
    }
    assert_eq!(tally.requests(), requests);
    check_counters(&gateway, &tally).await?;
    check_workers(&gateway.envoy, WORKERS).await?;
    let learns = |counted: &Vec<_>| counted.iter().any(|(class, _)| class == "rate_limit");
    wait_for_counts(&gateway, CLASS, learns).await?;
    gateway.stop().await?;
    let growth = Memory {
        resident: end.resident - warm.resident,
        allocated: end.allocated - warm.allocated,
    };
    println!(
        "{requests} requests of {sessions} sessions, room for {max_bindings}: {warm:?} after \
         {warm_up}, then {growth:?}"
    );
    Ok(growth)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn ids_of_state_take_no_more_memory_than_the_table_of_pins() -> Result<()> {
    let gateway = Gateway::start(&envoy()?, WORKERS, |fixture| {
        fixture.edit_filter(|filter| {
            filter["pins"] = json!({"max": 1024});
            filter["session"]["max_bindings"] = json!(1024);
        })
    })
    .await?;
    send_all(&gateway, 0..4_000, created).await?;
    let warm = Memory::of(&gateway.envoy).await?;
    send_all(&gateway, 4_000..16_000, created).await?;
    let mut growth = Memory::of(&gateway.envoy).await?.allocated - warm.allocated;
    if growth > 2 * ALLOCATED_GROWTH {
        // Connections to upstreams have buffers, too, and there may be more of them now. What leaks
        // grows again.
        println!("{growth} bytes first");
        let warm = Memory::of(&gateway.envoy).await?;
        send_all(&gateway, 16_000..28_000, created).await?;
        growth = Memory::of(&gateway.envoy).await?.allocated - warm.allocated;
    }
    let ids: usize = gateway.providers.requests().iter().map(|record| record.created.len()).sum();
    assert!(ids >= 16_000, "every request has created something: {ids}");
    assert!(growth <= 2 * ALLOCATED_GROWTH, "{warm:?}, then {growth} bytes more");
    gateway.stop().await?;
    Ok(())
}

/// A request that creates a response.
fn created(number: u64) -> Result<Request<Body>> {
    let value = json!({"model": "gpt-5.4", "input": format!("question {number}")});
    Ok(post("/v1/responses").body(body(&value))?)
}

/// A request in a session of its own, whose id is as long as may be, or no text, in some. Three of
/// sixteen have a model of their own, and for one of
/// these the credential is at its limit for this model.
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
    let id = match number % 16 {
        3 => format!("{number:0>256}").into_bytes(),
        4 => [b"\xe9\xff ".to_vec(), number.to_string().into_bytes()].concat(),
        _ => format!("session-{number}").into_bytes(),
    };
    Ok(request.header("x-session-id", id).body(body)?)
}

/// Bytes.
#[derive(Debug)]
struct Memory {
    /// Without what the allocator keeps free.
    resident: i64,
    allocated: i64,
}

impl Memory {
    /// When no client is connected any more: connections have buffers.
    async fn of(envoy: &Process) -> Result<Self> {
        wait_until_none(envoy, "http.llm.downstream_cx_active").await?;
        let memory: Value = serde_json::from_str(&envoy.get_admin("/memory").await?)?;
        let bytes = |name: &str| -> Result<i64> {
            Ok(memory[name].as_str().with_context(|| format!("no {name}"))?.parse()?)
        };
        // Caches of threads grow for millions of requests, up to a bound of their own.
        let free = bytes("total_thread_cache")? + bytes("pageheap_free")?;
        let resident = i64::try_from(envoy.resident_memory()?)? - free;
        Ok(Self { resident, allocated: bytes("allocated")? })
    }
}
