//! Ten million requests of a million hostile sessions, through the core: what is stored and what is
//! allocated stay as they are.
//!
//! A minute with optimizations:
//! `cargo test --profile simulation --test ten_million -- --ignored --nocapture`. The same through a
//! real Envoy: `cargo xtask memory`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;

use session_affinity::{
    Config, Decision, Headers, InMemory, Request, Response, Router, Seed, SharedData, Timestamp,
};

const SESSIONS: u64 = 1_000_000;
const MILLION: u64 = 1_000_000;

/// Pages of a megabyte may come and go.
const RESIDENT_GROWTH: u64 = 4 << 20;

fn router(strategy: &str, shared: &InMemory) -> Router {
    let json = format!(
        r#"{{"routing": {{"strategy": "{strategy}"}}, "session": {{"max_bindings": 16384}},
            "pins": {{"max": 4096}}, "pools": [{{"name": "p", "credentials": [
            {{"id": "a", "cluster": "a"}}, {{"id": "b", "cluster": "b", "weight": 3}},
            {{"id": "c", "cluster": "c", "max_concurrent": 5}}]}}]}}"#
    );
    Router::new(Config::parse(json.as_bytes()).unwrap(), Seed::agree(shared, [7; 16]))
}

/// The bytes of all values, and the number of keys.
fn stored(shared: &InMemory) -> (usize, usize) {
    let keys = shared.keys();
    (keys.iter().map(|key| shared.get(key).value.len()).sum(), keys.len())
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A session that names itself as long as it may, models without end, and state that nobody has.
fn serve(router: &Router, shared: &InMemory, number: u64, now: Timestamp) {
    let session = format!("{:0>200}", number % SESSIONS);
    let headers: Headers =
        [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", session.as_str())]
            .into_iter()
            .collect();
    let body = format!(
        r#"{{"model": "model-{}", "previous_response_id": "resp_{number}", "input": "x"}}"#,
        number % 999_983
    );
    let request = Request::new(&headers, router.read_body(body.as_bytes()));
    let Decision::Route(route) = router.route(&request, shared, now) else { return };
    let mut plan = router.plan(&route, now);
    let told: Headers = [
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "400"),
        ("x-ratelimit-reset-tokens", "30s"),
        ("retry-after", "2"),
    ]
    .into_iter()
    .collect();
    let status = match number % 16 {
        3 => 429,
        7 => 503,
        11 => 404,
        _ => 200,
    };
    let answer = format!(r#"{{"id": "resp_{number}", "object": "response"}}"#);
    let response = Response::Received { status, headers: &told, body: answer.as_bytes() };
    router.observe(&mut plan, &response, shared, now);
}

#[test]
#[ignore = "takes a minute with optimizations"]
fn ten_million_requests_of_a_million_hostile_sessions_take_no_more_memory() {
    for strategy in ["round-robin", "headroom", "consistent"] {
        let shared = InMemory::default();
        let router = router(strategy, &shared);
        let known = router.shared_keys().count();
        let mut warm = None;
        for million in 0..10 {
            for number in million * MILLION..(million + 1) * MILLION {
                let now = Timestamp::from_millis(1_800_000_000_000 + number);
                serve(&router, &shared, number, now);
            }
            let ((bytes, keys), resident) = (stored(&shared), resident());
            println!(
                "{strategy}: {} million requests, {keys} keys of {known}, {bytes} bytes in them, \
                 {} MB resident",
                million + 1,
                resident >> 20
            );
            assert!(keys <= known);
            let (warm_bytes, warm_resident) = *warm.get_or_insert((bytes, resident));
            if million > 1 {
                assert!(bytes <= warm_bytes + warm_bytes / 20, "{bytes} after {warm_bytes}");
                assert!(resident <= warm_resident + RESIDENT_GROWTH);
            }
        }
    }
}
