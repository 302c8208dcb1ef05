//! Any request on the operator's listener: a reply that is whole, and nothing changed but by a POST
//! of this machine.

use serde_json::Value;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, Router};
use session_affinity::shared::{InMemory, SharedData};
use session_affinity::time::Timestamp;

use crate::headers::named;
use crate::input;
use crate::routers::router;

const CONFIG: &[u8] = br#"{
    "session": {"max_bindings": 16}, "pins": {"max": 16}, "operator": {"hosts": ["gateway.internal"]},
    "pools": [{"name": "p/q", "provider": "claude", "match": {"models": ["m*", "claude-opus-5"]},
        "credentials": [
            {"id": "a%b", "cluster": "a", "group": "g"}, {"id": "b", "cluster": "b", "state": "drain"}
        ]}]
}"#;

const METHODS: [&str; 4] = ["GET", "POST", "HEAD", "DELETE"];

const HEADERS: [&str; 6] =
    ["sec-fetch-site", "origin", "content-type", "accept-encoding", "host", "x"];

const AUTHORITIES: [&str; 4] = ["localhost:9902", "127.0.0.1", "gateway.internal", "[::1]:9902"];

pub(crate) fn run(bytes: &[u8]) {
    type Input<'a> = (u8, u8, bool, &'a str, Vec<(u8, &'a [u8])>, &'a [u8], &'a [u8]);
    let Some((method, authority, is_plain, path, values, foreign, body)) =
        input::<Input<'_>>(bytes)
    else {
        return;
    };
    let method = METHODS[usize::from(method) % METHODS.len()];
    let own = AUTHORITIES.get(usize::from(authority));
    let authority = own.map_or(foreign, |own| own.as_bytes());
    let mut headers = vec![
        (":method", method.as_bytes().to_vec()),
        (":path", path.as_bytes().to_vec()),
        (":authority", authority.to_vec()),
    ];
    if is_plain {
        headers.push(("content-type", b"application/json".to_vec()));
    } else {
        let values = named(&HEADERS, &values);
        headers.extend(values.iter().map(|(name, value)| {
            (HEADERS.into_iter().find(|known| *known == name).unwrap(), value.to_vec())
        }));
    }
    let headers: Headers = headers.into_iter().collect();

    let now = Timestamp::from_secs(1_795_262_400);
    let (router, shared) = router(CONFIG);
    let router = &*router;
    serve(router, &shared, now);
    let before = everything(&shared);
    let reply = router.operate(&headers, body, &shared, &|_| 7, now);

    assert!(matches!(reply.status, 200 | 400 | 403 | 404 | 405 | 409 | 413 | 415 | 503));
    if reply.headers.contains(&("content-type", "application/json")) {
        let json: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json["error"].is_string(), reply.status != 200);
    }
    if method != "POST" || reply.status != 200 {
        assert!(everything(&shared) == before, "{method} {path} {}", reply.status);
    }
    for key in shared.keys() {
        assert!(router.shared_keys().any(|known| known == key), "{key}");
    }
    serve(router, &shared, now);
}

/// A session, bound and refused once.
fn serve(router: &Router, shared: &InMemory, now: Timestamp) {
    let headers: Headers = [(":path", "/v1/messages"), ("x-session-id", "1")].into_iter().collect();
    let request = Request::new(&headers, router.read_body(br#"{"model":"m"}"#));
    let limit: Headers = [("retry-after", "60")].into_iter().collect();
    for (status, headers) in [(200, &Headers::default()), (429, &limit)] {
        if let Decision::Route(route) = router.route(&request, shared, now) {
            let mut plan = router.plan(&route, now);
            let response = Response::Received { status, headers, body: b"" };
            router.observe(&mut plan, &response, shared, now);
        }
    }
}

fn everything(shared: &InMemory) -> Vec<(String, Vec<u8>)> {
    let mut keys = shared.keys();
    keys.sort();
    keys.into_iter().map(|key| (key.clone(), shared.get(&key).value)).collect()
}
