//! Any bytes in shared data: whatever another layout, another filter or chance left under our keys,
//! decisions are made, and what is written back decodes.

use session_affinity::cooldown::{COOLDOWNS, Record, ReferenceStates};
use session_affinity::hash::Seed;
use session_affinity::headroom::LoadRecord;
use session_affinity::request::{Headers, Request};
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, Plan, Router};
use session_affinity::shared::{Cas, InMemory, SharedData};
use session_affinity::time::Timestamp;

use crate::input;
use crate::routers::router;

const CONFIGS: [&[u8]; 2] = [
    br#"{
    "session": {"max_bindings": 16}, "pins": {"max": 16},
    "pools": [{"name": "p", "credentials": [
        {"id": "a", "cluster": "a", "weight": 2}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
    ]}]
}"#,
    br#"{
    "routing": {"strategy": "headroom"}, "session": {"max_bindings": 16}, "pins": {"max": 16},
    "pools": [{"name": "p", "credentials": [
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
    ]}]
}"#,
];

pub(crate) fn run(bytes: &[u8]) {
    let Some((now, row, record, wheel, plan)) =
        input::<(u64, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)>(bytes)
    else {
        return;
    };
    let (router, shared) = router(CONFIGS[usize::from(record.len() % 5 == 0)]);
    let now = Timestamp::from_millis(now);
    let router = &*router;
    let pool = &router.config().pools[0];
    let entry_of = |key: &str| {
        let credential = pool.credentials.iter().find(|it| it.cooldown_key == key);
        credential.map_or(0, |credential| credential.entry)
    };
    let entry_of_load = |key: &str| {
        let credential = pool.credentials.iter().find(|it| it.load_key == key);
        credential.map_or(0, |credential| credential.entry)
    };
    for key in router.shared_keys().collect::<Vec<_>>() {
        let value = match key.split('/').nth(1) {
            Some("binding" | "cursor" | "pin") => row.clone(),
            Some("credential") => of_this_layout(&record, entry_of(&key)),
            Some("load") => of_load(&record, entry_of_load(&key)),
            Some("wheel" | "flights" | "changes" | "pin_kinds" | "group") => wheel.clone(),
            _ => continue,
        };
        shared.set(&key, &value, Cas(0)).unwrap();
    }
    for credential in &pool.credentials {
        let decoded = LoadRecord::decode(&shared.get(&credential.load_key).value, credential.entry);
        let encoded = decoded.encode(credential.entry);
        assert_eq!(LoadRecord::decode(&encoded, credential.entry), decoded);
    }
    workers_agree(&router.shared_keys().next().unwrap(), &row);
    let headers: Headers = [(":path", "/v1/messages"), ("x-session-id", "1")].into_iter().collect();
    for status in [200, 429, 500] {
        let request = Request::new(&headers, Default::default());
        if let Decision::Route(route) = router.route(&request, &shared, now) {
            send(router, &shared, router.plan(&route, now), status, now);
        }
    }
    if let Some(mut plan) = Plan::decode(&plan) {
        assert_eq!(Plan::decode(&plan.encode()).as_ref(), Some(&plan));
        plan.pool = pool.fingerprint;
        for status in [500, 200] {
            send(router, &shared, plan.clone(), status, now);
        }
        router.abandon(&mut plan, &shared, now);
        router.observe_cut(&plan, &shared, now);
        router.earlier_recovery(&plan, &shared, now);
    }
    for credential in &pool.credentials {
        let value = shared.get(&credential.cooldown_key).value;
        let decoded = Record::decode(&value, credential.entry);
        assert!(decoded.iter().count() <= COOLDOWNS);
        let encoded = decoded.encode(credential.entry);
        assert_eq!(Record::decode(&encoded, credential.entry), decoded);
    }
    let decoded = ReferenceStates::decode(&record);
    assert_eq!(ReferenceStates::decode(&decoded.encode()), decoded);
}

/// The load of a credential, behind the header of today's layout.
fn of_load(record: &[u8], entry: u32) -> Vec<u8> {
    let mut value = LoadRecord::default().encode(entry);
    // Behind the version and the entry everything may be anything.
    value.truncate(5);
    value.extend_from_slice(record);
    value
}

/// Whatever is in the place of the seed, all workers come to the same one.
fn workers_agree(key: &str, found: &[u8]) {
    let shared = InMemory::default();
    shared.set(key, found, Cas(0)).unwrap();
    let seeds = [7, 8].map(|random| Seed::agree(&shared, [random; 16]).hash(&[b"x"]));
    assert_eq!(seeds[0], seeds[1]);
}

/// A record behind the header of today's layout, so that more than the header is read.
fn of_this_layout(record: &[u8], entry: u32) -> Vec<u8> {
    match record.split_first() {
        Some((first, rest)) if first % 2 == 0 => {
            let mut value = Record::default().encode(entry);
            value.extend_from_slice(rest);
            value
        }
        _ => record.to_vec(),
    }
}

/// Sends a request attempt after attempt, a bounded number of times.
fn send(router: &Router, shared: &InMemory, mut plan: Plan, status: u16, now: Timestamp) {
    let none = Headers::default();
    for attempt in 0..20 {
        router.attempt(&mut plan, "", shared, now);
        let response = match attempt {
            1 => Response::Failed(Failure::Stale),
            _ => Response::Received { status, headers: &none, body: b"" },
        };
        if router.observe(&mut plan, &response, shared, now).next.is_none() {
            break;
        }
        let decoded = Plan::decode(&plan.encode());
        assert!(decoded.is_some(), "what is written is read");
    }
}
