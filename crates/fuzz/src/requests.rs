//! Any headers, paths and bodies of a client, through the whole of a request: its decision, its
//! attempts and its end. It reaches one credential of its pool after the other, none twice, and no
//! more than it may; what it writes are known keys; its next turn finds its session.

use std::collections::BTreeSet;

use session_affinity::client_headers::{protocols_without_keys, without_keys};
use session_affinity::outcome::Outcome;
use session_affinity::request::{Headers, Request};
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, NextStep, Plan, Router};
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;

use crate::headers::named;
use crate::input;
use crate::routers::router;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

/// The largest plan: one whose model and references are as long as may be.
const LARGEST_PLAN: usize = 1024;

const CONFIGS: [&[u8]; 2] = [
    br#"{
        "session": {"max_bindings": 16, "subagents": "own", "scope": [{"header": "x-tenant"}],
            "sources": [{"header": "x-own", "json": "a.b"}, {"header": "x-pattern", "pattern": "s-([a-z]+)"},
                {"body": "thread.id"}, "claude-code-header",
                "claude-code",
                "session-id-header",
                "amp",
                "codex",
                "session-affinity-header",
                "vendor-headers",
                "client-request-id",
                "body-session",
                "prompt-cache-key",
                "conversation",
                "user-id",
                "conversation-id",
                "end-user",
                "message-hash"]},
        "pins": {"max": 64},
        "pools": [
            {"name": "c", "match": {"path_prefixes": ["/v1/messages"], "models": ["claude-*"],
                "hosts": ["*.example.com"], "methods": ["POST"]},
             "credentials": [{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b", "priority": 1}]},
            {"name": "d", "credentials": [{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b", "group": "g"},
                {"id": "c", "cluster": "c", "group": "g"}, {"id": "d", "cluster": "d", "weight": 3}]}
        ]
    }"#,
    br#"{
        "profile": "reference", "session": {"max_bindings": 16},
        "pools": [{"name": "c", "match": {"models": ["claude-*", "m"]},
            "credentials": [{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]}]
    }"#,
];

const METHODS: [&str; 7] = ["POST", "GET", "DELETE", "PATCH", "TRACE", "CONNECT", "HEAD"];

const HEADERS: [&str; 28] = [
    "x-session-id",
    "session_id",
    "session-id",
    "x-claude-code-session-id",
    "x-client-request-id",
    "x-amp-thread-id",
    "x-tenant",
    "x-own",
    "x-pattern",
    "cookie",
    "authorization",
    "x-api-key",
    "content-type",
    "content-encoding",
    "upgrade",
    "anthropic-beta",
    "openai-beta",
    "user-agent",
    "sec-websocket-protocol",
    "x-goog-api-client",
    "idempotency-key",
    "x-envoy-retry-on",
    "conversation_id",
    "x-codex-turn-state",
    "x-openai-subagent",
    "traceparent",
    "x-parent-session-id",
    "x-grok-conv-id",
];

pub(crate) fn run(bytes: &[u8]) {
    // What the host hands over is read as far as it is whole.
    let of_host = Headers::of_map(bytes.to_vec());
    assert!(of_host.iter().count() <= bytes.len() / 8);

    type Input<'a> = (u8, u8, u8, &'a [u8], &'a [u8], Vec<(u8, &'a [u8])>, &'a [u8]);
    let Some((config, method, status, path, host, values, body)) = input::<Input<'_>>(bytes) else {
        return;
    };
    check_headers(path, &values);
    let method = METHODS[usize::from(method) % METHODS.len()];
    let of_client = named(&HEADERS, &values);
    let fixed = [(":method", method.as_bytes()), (":path", path), (":authority", host)];
    let all = fixed.into_iter().chain(of_client.iter());
    let headers: Headers = all.map(|(name, value)| (name, value.to_vec())).collect();

    let (router, shared) = router(CONFIGS[usize::from(config) % CONFIGS.len()]);
    let router = &*router;
    let need = router.needs_body(&headers, false, &shared);
    let request = Request::new(&headers, router.read(body, need));
    let first = turn(router, &request, &shared, 200);
    let second =
        turn(router, &request, &shared, [200, 429, 500, 401, 404, 400][usize::from(status) % 6]);
    if let (Some((credential, Some(session))), Some((again, Some(known)))) = (first, second) {
        assert_eq!((again, known), (credential, session), "a session stays where it is");
    }
    turn(router, &request, &shared, 500);
    let known: BTreeSet<_> = router.shared_keys().collect();
    assert!(shared.keys().iter().all(|key| known.contains(key)));
}

/// The credential that is asked first and the hash of the session, of a request whose every attempt
/// ends with this status.
fn turn(
    router: &Router,
    request: &Request<'_>,
    shared: &InMemory,
    status: u16,
) -> Option<(String, Option<u128>)> {
    let decision = router.route(request, shared, NOW);
    assert!(!decision.words().contains(['\n', '\r', '\0']));
    let route = match &decision {
        Decision::Route(route) => route,
        Decision::Reply(refusal) => {
            serde_json::from_str::<serde_json::Value>(&refusal.reply.body).unwrap();
            return None;
        }
        Decision::Pass => return None,
    };
    let path = request.headers.path();
    let leads_out = |segment: &str| matches!(segment, "." | "..");
    assert!(!path.split('/').any(leads_out), "{path}");
    assert!(
        !matches!(request.headers.text(":method"), "TRACE") || request.headers.ask_for_websocket()
    );
    assert!(route.model.len() <= 512);
    assert_ne!(decision.outcome(), Outcome::Unmatched);

    let mut plan = router.plan(route, NOW);
    assert!(plan.encode().len() <= LARGEST_PLAN);
    let none = Headers::default();
    let mut sent = Vec::new();
    while let Some(NextStep::Send { credential, .. }) = router.attempt(&mut plan, "", shared, NOW) {
        sent.push(credential.id.clone());
        let response = match sent.len() {
            1 if status == 404 => Response::Failed(Failure::Reset),
            _ => Response::Received { status, headers: &none, body: b"" },
        };
        let ends = router.observe(&mut plan, &response, shared, NOW).next.is_none();
        plan = Plan::decode(&plan.encode()).unwrap();
        if ends {
            break;
        }
    }
    let several: BTreeSet<_> = sent.iter().collect();
    assert_eq!(several.len(), sent.len(), "no credential twice: {sent:?}");
    assert!(sent.len() <= router.config().failover.max_attempts);
    let session = route.session.map(|(_, key)| key.0);
    Some((route.credential.id.clone(), session.filter(|_| status == 200)))
}

/// A path and protocols without keys have none.
fn check_headers(path: &[u8], values: &[(u8, &[u8])]) {
    if let Some(clean) = without_keys(path) {
        assert!(clean.len() < path.len());
        assert_eq!(without_keys(&clean), None);
    }
    if let Some(clean) = protocols_without_keys(values.iter().map(|(_, value)| *value)) {
        assert_eq!(protocols_without_keys([clean.as_slice()].into_iter()), None);
    }
}
