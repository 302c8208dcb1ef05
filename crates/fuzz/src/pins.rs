//! Any ids in paths, bodies and responses: what is read of them is bounded, and what a response
//! names is found where it is, by whoever names it.

use session_affinity::body::{Body, Paths};
use session_affinity::pins::{Id, IdPaths, KindId, created, in_path};
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, Router};
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;

use crate::input;
use crate::routers::router;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

const CONFIG: &[u8] = br#"{
    "session": {"max_bindings": 16}, "pins": {"max": 64},
    "pools": [{"name": "p", "credentials": [
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}, {"id": "c", "cluster": "c"}
    ]}]
}"#;

/// Paths of requests that create something, and those of requests about it.
const PATHS: [[&str; 2]; 6] = [
    ["/v1/responses", "/v1/responses/"],
    ["/v1/conversations", "/v1/conversations/"],
    ["/v1/files", "/v1/files/"],
    ["/v1/messages/batches", "/v1/messages/batches/"],
    ["/v1beta/cachedContents", "/v1beta/cachedContents/"],
    ["/v1/containers", "/v1/containers/"],
];

pub(crate) fn run(bytes: &[u8]) {
    let Some((at, path, body, response)) = input::<(u8, &str, &[u8], &[u8])>(bytes) else { return };
    let mut paths = Paths::default();
    let ids = IdPaths::new(&mut paths);
    let body = Body::read(&paths, body);
    in_path(path).iter().for_each(check);
    for path in [path, "/v1/responses", "/v1/messages"] {
        for may_have_files in [false, true] {
            ids.in_body(path, &body, may_have_files).iter().for_each(check);
        }
        ids.creates(path, &body);
    }
    ids.is_once(&body);
    for (kind, _) in KindId::all() {
        created(kind, response).iter().for_each(check);
    }

    let [create, about] = PATHS[usize::from(at) % PATHS.len()];
    let (router, shared) = router(CONFIG);
    let router = &*router;
    let Some(creator) = ask(router, &shared, create, response) else { return };
    let Some(kind) = ids.creates(create, &Body::default()) else { return };
    for id in created(kind, response).into_iter().take(1).filter(|id| id.kind == kind) {
        let Ok(text) = String::from_utf8(id.text) else { continue };
        let path = [about, text.as_str()].concat();
        // Not every id can stand in a path.
        if in_path(&path).is_some_and(|id| id.kind == kind && id.text == text.as_bytes()) {
            let found = ask(router, &shared, &path, b"{}");
            assert!(found.is_none_or(|found| found == creator), "{path}");
        }
    }
}

fn check(id: &Id) {
    assert!((1..=512).contains(&id.text.len()));
    assert!(!id.text.contains(&b'/'));
}

/// The credential that is asked, and responds with this.
fn ask(router: &Router, shared: &InMemory, path: &str, body: &[u8]) -> Option<String> {
    let headers: Headers = [(":method", "POST"), (":path", path)].into_iter().collect();
    let request = Request::new(&headers, router.read_body(b"{}"));
    let Decision::Route(route) = router.route(&request, shared, NOW) else { return None };
    let mut plan = router.plan(&route, NOW);
    let none = Headers::default();
    let response = Response::Received { status: 200, headers: &none, body };
    router.observe(&mut plan, &response, shared, NOW);
    Some(route.credential.id.clone())
}
