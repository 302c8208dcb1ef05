//! Any bytes in shared data: whatever another layout, another filter or chance left under our keys,
//! decisions are made, and what is written back decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_affinity::config::Config;
use session_affinity::cooldown::ReferenceStates;
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, Plan, Router};
use session_affinity::shared::{Cas, InMemory, SharedData};
use session_affinity::time::Timestamp;

const CONFIG: &[u8] = br#"{
    "session": {"max_bindings": 16},
    "pools": [{"name": "p", "credentials": [
        {"id": "a", "cluster": "a", "weight": 2}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
    ]}]
}"#;

fuzz_target!(|input: (u64, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (now, row, states, wheel, plan) = input;
    let now = Timestamp::from_millis(now);
    let shared = InMemory::default();
    let seed = Seed::agree(&shared, [7; 16]);
    let router = Router::new(Config::parse(CONFIG).unwrap(), seed);
    for key in router.shared_keys().collect::<Vec<_>>() {
        let value = match key.split('/').nth(1) {
            Some("binding" | "cursor") => &row,
            Some("credential") => &states,
            Some("wheel") => &wheel,
            _ => continue,
        };
        shared.set(&key, value, Cas(0)).unwrap();
    }
    let headers: Headers = [("x-session-id", "1")].into_iter().collect();
    for status in [200, 429, 500] {
        let request = Request::new(&headers, Default::default());
        if let Decision::Route(route) = router.route(&request, &shared, now) {
            let mut plan = router.plan(&route, now);
            let headers = Headers::default();
            let response = Response::Received { status, headers: &headers, body: b"" };
            router.observe(&mut plan, &response, &shared, now);
        }
    }
    if let Some(mut plan) = Plan::decode(&plan) {
        assert_eq!(Plan::decode(&plan.encode()).as_ref(), Some(&plan));
        plan.pool = router.config().pools[0].fingerprint;
        for (status, cluster) in [(500, "a"), (200, "")] {
            router.attempt(&mut plan, cluster, &shared, now);
            let headers = Headers::default();
            let response = Response::Received { status, headers: &headers, body: b"" };
            router.observe(&mut plan, &response, &shared, now);
        }
    }
    let decoded = ReferenceStates::decode(&states);
    assert_eq!(ReferenceStates::decode(&decoded.encode()), decoded);
});
