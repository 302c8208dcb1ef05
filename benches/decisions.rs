//! What the parts of a decision take natively: `cargo bench`, or `cargo bench -- scan` for one of
//! them. What a whole request costs in Envoy says `cargo xtask bench`, and in instructions, whatever
//! else the machine does, `cargo xtask cost`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde_json::json;
use session_affinity::binding::HomeRule;
use session_affinity::body::Body;
use session_affinity::config::{Config, CredentialId};
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{BodyNeed, Decision, Plan, Router};
use session_affinity::second_model::SecondModel;
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;

const SIZES: [usize; 3] = [2 << 10, 100 << 10, 1 << 20];
const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

fn main() {
    divan::main();
}

/// A gateway that has served one session.
struct Gateway {
    router: Router,
    shared: InMemory,
    headers: Headers,
}

impl Gateway {
    fn new() -> Self {
        let credentials = ["a", "b", "c"].map(|id| json!({"id": id, "cluster": id}));
        let pool =
            json!({"name": "p", "match": {"path_prefixes": ["/v1"]}, "credentials": credentials});
        let config = Config::parse(json!({"pools": [pool]}).to_string().as_bytes());
        let shared = InMemory::default();
        let router = Router::new(config.unwrap(), Seed::agree(&shared, [7; 16]));
        let list = [
            (":authority", "gateway"),
            (":path", "/v1/messages?beta=true"),
            (":method", "POST"),
            ("content-type", "application/json"),
            ("user-agent", "claude-cli/2.1.120 (external, cli)"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("anthropic-version", "2023-06-01"),
            ("x-claude-code-session-id", "00000000-0000-4000-8000-000000000042"),
        ];
        let gateway = Self { router, shared, headers: list.into_iter().collect() };
        let plan = gateway.plan(NOW);
        gateway.serve(&mut plan.clone(), NOW);
        gateway
    }

    fn plan(&self, now: Timestamp) -> Plan {
        let request = Request::new(&self.headers, Body::default());
        match self.router.route(&request, &self.shared, now) {
            Decision::Route(route) => self.router.plan(&route, now),
            other => panic!("no route: {other}"),
        }
    }

    fn serve(&self, plan: &mut Plan, now: Timestamp) {
        let headers = Headers::default();
        let response = Response::Received { status: 200, headers: &headers, body: b"" };
        black_box(self.router.observe(plan, &response, &self.shared, now));
    }
}

/// A document full of escaped quotes, with the id of the session at its end.
fn document(size: usize) -> Vec<u8> {
    let line = "println!(\"Hello, \\\"{name}\\\"!\");\n";
    let code = line.repeat(size / 2 / line.len());
    let user =
        format!("user_{}_account__session_00000000-0000-4000-8000-000000000042", "0a".repeat(32));
    let messages = [json!({"role": "user", "content": code})];
    json!({"model": "claude-sonnet-5", "messages": messages, "metadata": {"user_id": user}})
        .to_string()
        .into_bytes()
}

#[divan::bench(args = SIZES)]
fn scan_of_a_body(bencher: Bencher<'_, '_>, size: usize) {
    let (gateway, document) = (Gateway::new(), document(size));
    bencher
        .counter(BytesCount::of_slice(&document))
        .bench_local(|| black_box(gateway.router.read(&document, BodyNeed::Whole)));
}

#[divan::bench(args = SIZES)]
fn watch_for_a_second_model(bencher: Bencher<'_, '_>, size: usize) {
    let document = document(size);
    bencher.counter(BytesCount::of_slice(&document)).bench_local(|| {
        let mut watch = SecondModel::default();
        black_box(watch.read(&document))
    });
}

#[divan::bench]
fn hash_of_a_key(bencher: Bencher<'_, '_>) {
    let seed = Seed::agree(&InMemory::default(), [7; 16]);
    let parts: [&[u8]; 5] = [b"pool", &[0; 16], b"anthropic", b"header:session", b"model"];
    bencher.bench_local(|| black_box(seed.hash(black_box(&parts))));
}

#[divan::bench]
fn lookup_of_a_binding(bencher: Bencher<'_, '_>) {
    let gateway = Gateway::new();
    let key = gateway.plan(NOW).binding.unwrap();
    bencher.bench_local(|| black_box(gateway.router.bindings().peek(&gateway.shared, key, NOW)));
}

#[divan::bench]
fn confirmation_of_a_binding(bencher: Bencher<'_, '_>) {
    let gateway = Gateway::new();
    let plan = gateway.plan(NOW);
    let (key, credential) = (plan.binding.unwrap(), plan.next.unwrap_or(CredentialId(0)));
    let mut now = NOW;
    bencher.bench_local(|| {
        now += Duration::from_mins(1);
        gateway.router.bindings().confirm(
            &gateway.shared,
            key,
            credential,
            &[],
            HomeRule::Kept,
            now,
        )
    });
}

#[divan::bench]
fn decision_on_a_known_session(bencher: Bencher<'_, '_>) {
    let gateway = Gateway::new();
    bencher.bench_local(|| black_box(gateway.plan(NOW)));
}

#[divan::bench]
fn plan_through_filter_state(bencher: Bencher<'_, '_>) {
    let plan = Gateway::new().plan(NOW);
    bencher.bench_local(|| black_box(Plan::decode(&plan.encode())));
}

#[divan::bench]
fn success_of_a_known_session(bencher: Bencher<'_, '_>) {
    let gateway = Gateway::new();
    let plan = gateway.plan(NOW);
    bencher.with_inputs(|| plan.clone()).bench_local_refs(|plan| gateway.serve(plan, NOW));
}
