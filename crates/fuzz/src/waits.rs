//! Any values in the headers and the fields in which providers say when they may be asked again:
//! the reading is one of those there are, a wait in a field comes before one in prose, and what
//! follows from it in shared data ends.

use std::time::Duration;

use session_affinity::api::Api;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::Decision;
use session_affinity::signals::{Class, Context, Scope, read};
use session_affinity::time::Timestamp;

use crate::headers::named;
use crate::input;
use crate::routers::router;

/// The latest time at which a request is looked at: far behind any that a clock will have.
const LAST: u64 = 1 << 48;

const WEEK: Duration = Duration::from_hours(7 * 24);

const HEADERS: [&str; 28] = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-should-retry",
    "anthropic-ratelimit-unified-status",
    "anthropic-ratelimit-unified-reset",
    "anthropic-ratelimit-unified-representative-claim",
    "anthropic-ratelimit-unified-5h-status",
    "anthropic-ratelimit-unified-5h-reset",
    "anthropic-ratelimit-unified-7d_opus-status",
    "anthropic-ratelimit-unified-7d_opus-reset",
    "anthropic-ratelimit-unified-overage-status",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-codex-active-limit",
    "x-codex-primary-used-percent",
    "x-codex-primary-reset-after-seconds",
    "x-codex-primary-reset-at",
    "anthropic-ratelimit-unified-5h-utilization",
    "anthropic-ratelimit-unified-7d_opus-utilization",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
];

const STATUSES: [u16; 6] = [429, 403, 402, 503, 529, 500];

/// Bodies into which a text is put, as a string and as it is.
const BODIES: [[&str; 2]; 8] = [
    ["", ""],
    [r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":"#, "}}"],
    [r#"{"error":{"type":"usage_limit_reached","resets_at":"#, "}}"],
    [r#"{"error":{"code":429,"details":[{"retryDelay":""#, r#""}]}}"#],
    [r#"{"error":{"details":[{"metadata":{"quotaResetTimeStamp":""#, r#""}}]}}"#],
    [r#"{"error":{"metadata":{"headers":{"X-RateLimit-Reset":""#, r#""}}}}"#],
    [r#"{"error":{"type":"rate_limit_error","message":"Please try again in "#, r#""}}"#],
    [r#"{"error":{"code":"rate_limit_exceeded","message":""#, r#""}}"#],
];

const CONFIGS: [&[u8]; 2] = [
    br#"{
    "session": {"max_bindings": 16}, "pins": {"max": 0},
    "pools": [{"name": "p", "provider": "claude", "credentials": [
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}
    ]}]
}"#,
    br#"{
    "routing": {"strategy": "headroom"}, "session": {"max_bindings": 16}, "pins": {"max": 0},
    "pools": [{"name": "p", "provider": "claude", "credentials": [
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}
    ]}]
}"#,
];

pub(crate) fn run(bytes: &[u8]) {
    type Input<'a> = (u64, u8, u8, u8, Vec<(u8, &'a [u8])>, &'a [u8]);
    let Some((now, api, status, body, values, text)) = input::<Input<'_>>(bytes) else { return };
    let now = Timestamp::from_millis(now % LAST);
    let (router, shared) = router(CONFIGS[usize::from(api) % 2]);
    let api = Api::ALL[usize::from(api) % Api::ALL.len()];
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let [before, behind] = BODIES[usize::from(body) % BODIES.len()];
    let body = [before.as_bytes(), text, behind.as_bytes()].concat();
    let headers = named(&HEADERS, &values);

    let context = Context { api, provider: "claude", model: "claude-opus-5" };
    let reading = read(status, &headers, &body, &context, now);
    assert_ne!(reading.class, Class::Success);
    if let Scope::Family(family) = reading.scope {
        assert!(!family.is_empty());
    }
    // An hour later the same response asks for no later end, unless it names a span.
    let later = read(status, &headers, &body, &context, now + Duration::from_hours(1));
    assert_eq!(reading.wait.is_some(), later.wait.is_some());

    let router = &*router;
    let request: Headers = [(":path", "/v1/messages"), ("x-session-id", "1")].into_iter().collect();
    let request = Request::new(&request, router.read_body(br#"{"model":"claude-opus-5"}"#));
    for _ in 0..3 {
        let Decision::Route(route) = router.route(&request, &shared, now) else { break };
        let mut plan = router.plan(&route, now);
        let response = Response::Received { status, headers: &headers, body: &body };
        while router.attempt(&mut plan, "", &shared, now).is_some()
            && router.observe(&mut plan, &response, &shared, now).next.is_some()
        {}
    }
    // Windows are learned from successes as well.
    if let Decision::Route(route) = router.route(&request, &shared, now) {
        let mut plan = router.plan(&route, now);
        let response = Response::Received { status: 200, headers: &headers, body: b"" };
        router.observe(&mut plan, &response, &shared, now);
    }
    // Whatever they said, no credential is out for longer than may be announced.
    let after = router.route(&request, &shared, now + WEEK + Duration::from_secs(1));
    assert!(matches!(after, Decision::Route(_)), "{after:?}");
}
