//! Requests of hostile sessions through the core, many more than are kept: what is stored and what is
//! allocated stay as they are.
//!
//! The length is set by the environment: ten million requests of a million sessions take some minutes
//! with optimizations, `MILLIONS=10 cargo test --profile simulation --test ten_million -- --nocapture`.
//! The same through a real Envoy: `cargo xtask memory`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{env, fs};

use session_affinity::{
    Config, Decision, Headers, InMemory, Request, Response, Router, Seed, SharedData, Timestamp,
};

/// Without a length: requests between two looks, and looks.
const SHORT: (u64, u64) = (2_000, 4);

/// Some megabytes may come and go.
const RESIDENT_GROWTH: u64 = 4 << 20;

fn router(strategy: &str, bindings: u64, shared: &InMemory) -> Router {
    let json = format!(
        r#"{{"routing": {{"strategy": "{strategy}"}}, "session": {{"max_bindings": {bindings}}},
            "pins": {{"max": {bindings}}}, "pools": [{{"name": "p", "credentials": [
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
fn serve(router: &Router, shared: &InMemory, number: u64, sessions: u64) {
    let now = Timestamp::from_millis(1_800_000_000_000 + number);
    let session = format!("{:0>200}", number % sessions);
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
fn many_requests_of_hostile_sessions_take_no_more_memory() {
    let millions: Option<u64> = env::var("MILLIONS").ok().map(|number| number.parse().unwrap());
    let (requests, looks) = millions.map_or(SHORT, |millions| (1_000_000, millions));
    for strategy in ["headroom", "round-robin", "consistent"] {
        let shared = InMemory::default();
        let router = router(strategy, (requests / 64).max(16), &shared);
        let known = router.shared_keys().count();
        let mut warm = None;
        for look in 0..looks {
            for number in look * requests..(look + 1) * requests {
                serve(&router, &shared, number, requests);
                // What Envoy's host hands to metrics, the one in memory keeps.
                drop(shared.take_notes());
            }
            let ((bytes, keys), resident) = (stored(&shared), resident());
            println!(
                "{strategy}: {} requests, {keys} keys of {known}, {bytes} bytes in them, {} MB",
                (look + 1) * requests,
                resident >> 20
            );
            assert!(keys <= known);
            if look == 0 {
                continue;
            }
            let (warm_bytes, warm_resident) = *warm.get_or_insert((bytes, resident));
            assert!(bytes <= warm_bytes + warm_bytes / 20, "{bytes} after {warm_bytes}");
            if millions.is_some() {
                assert!(resident <= warm_resident + RESIDENT_GROWTH);
            }
        }
    }
}
