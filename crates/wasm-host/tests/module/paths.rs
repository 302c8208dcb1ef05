//! The ways that a request can take through the filter, each measured in a state in which most
//! requests find it: the session is known, and the VM has served before.

use std::time::Duration;

use serde_json::{Value, json};
use wasm_host::{Answer, Attempt, Played, Request};

use super::messages::{
    claude, claude_by_header, limited, message, responses, stored, stored_response, stream,
};
use super::support::{KEY, World};

const SMALL: usize = 2 << 10;
const MEDIUM: usize = 100 << 10;
const LARGE: usize = 1 << 20;
const SESSION: &str = "c2d4e6f8-0a1b-4c3d-9e5f-60718293a4b5";

/// A path, and the stream that takes it.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) play: fn() -> Played,
}

/// All paths, in the order of the table.
pub(crate) const ALL: [Path; 18] = [
    Path { name: "header, 2 KB", play: || known(false, &claude_by_header(SESSION, SMALL)) },
    Path {
        name: "header, 2 KB, filter on the cluster",
        play: || known(true, &claude_by_header(SESSION, SMALL)),
    },
    Path { name: "body, 2 KB", play: || known(false, &claude(SESSION, SMALL)) },
    Path {
        name: "body, 2 KB, filter on the cluster",
        play: || known(true, &claude(SESSION, SMALL)),
    },
    Path {
        name: "body, 2 KB, filter on the cluster injects keys",
        play: || known_in(World::new(true, inject_keys), &claude(SESSION, SMALL)),
    },
    Path {
        name: "Responses API, 2 KB, filter on the cluster",
        play: || known(true, &responses(SESSION, SMALL)),
    },
    Path { name: "body, 100 KB", play: || known(false, &claude(SESSION, MEDIUM)) },
    Path {
        name: "body, 100 KB, filter on the cluster",
        play: || known(true, &claude(SESSION, MEDIUM)),
    },
    Path { name: "body, 1 MB", play: || known(false, &claude(SESSION, LARGE)) },
    Path {
        name: "body, 1 MB, filter on the cluster",
        play: || known(true, &claude(SESSION, LARGE)),
    },
    Path { name: "body, 2 KB, failover 429 to 200", play: failover },
    Path { name: "body, 2 KB, local reply 429", play: refused },
    Path { name: "GET of a pinned response, filter on the cluster", play: pinned },
    Path {
        name: "body, 2 KB, stream of 31 events, filter on the cluster",
        play: || streamed(World::new(true, |_| {})),
    },
    Path {
        name: "body, 2 KB, filter on the cluster, usage off",
        play: || known_in(World::new(true, without_usage), &claude(SESSION, SMALL)),
    },
    Path {
        name: "body, 2 KB, stream of 31 events, filter on the cluster, usage off",
        play: || streamed(World::new(true, without_usage)),
    },
    Path {
        name: "body, 2 KB, filter on the cluster, limits are read (every three seconds)",
        play: || {
            let mut world = World::new(true, |_| {});
            let request = claude(SESSION, SMALL);
            let play = |world: &mut World| world.play(&request, serve);
            (0..18).for_each(|_| drop(play(&mut world)));
            world.clock.advance(Duration::from_secs(3));
            play(&mut world)
        },
    },
    Path {
        name: "body, 2 KB, filter on the cluster, strategy headroom",
        play: || known_in(World::new(true, with_headroom), &claude(SESSION, SMALL)),
    },
];

fn serve(_: &Attempt) -> Answer {
    Answer::Response(message())
}

fn known(is_on_clusters: bool, request: &Request) -> Played {
    known_in(World::new(is_on_clusters, |_| {}), request)
}

/// A request of a known session, in a VM that has served so many requests that it does not look at
/// everything any more.
fn known_in(mut world: World, request: &Request) -> Played {
    for _ in 0..18 {
        world.play(request, serve);
    }
    let played = world.play(request, serve);
    assert_eq!(played.response.status(), 200);
    assert_eq!(played.attempts.len(), 1);
    assert!(played.filter_state("session_affinity.decision").contains("outcome=hit"));
    played
}

/// Credentials whose keys the filter knows.
fn inject_keys(configuration: &mut Value) {
    for pool in configuration["pools"].as_array_mut().unwrap() {
        for credential in pool["credentials"].as_array_mut().unwrap() {
            credential["headers"] = json!([{"name": "x-api-key", "environment": KEY}]);
        }
    }
}

/// The session's credential is at its limit, and another serves the request.
fn failover() -> Played {
    let mut world = World::new(true, |_| {});
    let request = claude(SESSION, SMALL);
    for _ in 0..2 {
        world.play(&request, serve);
    }
    let played = world.play(&request, |attempt| {
        Answer::Response(if attempt.cluster == "anthropic_a" { limited("60") } else { message() })
    });
    assert_eq!(played.response.status(), 200);
    assert_eq!(played.clusters(), ["anthropic_a", "anthropic_b"]);
    played
}

/// All credentials are at their limit, and the filter responds itself.
fn refused() -> Played {
    let mut world = World::new(true, |_| {});
    let request = claude(SESSION, SMALL);
    for _ in 0..2 {
        world.serve(&request, &limited("600"));
    }
    let played = world.serve(&request, &limited("600"));
    assert_eq!(played.response.status(), 429);
    assert!(played.attempts.is_empty());
    assert_ne!(played.response.headers.text("retry-after"), "600");
    played
}

/// What a provider stores is asked for where it is.
fn pinned() -> Played {
    let mut world = World::new(true, |_| {});
    let id = "resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b";
    let mut request = responses(SESSION, SMALL);
    let body = String::from_utf8(request.pieces.concat()).unwrap();
    request.pieces = vec![body.replace(r#""store":false"#, r#""store":true"#).into_bytes()];
    let created = world.serve(&request, &stored(id));
    world.serve(&stored_response(id), &stored(id));
    let played = world.serve(&stored_response(id), &stored(id));
    assert_eq!(played.response.status(), 200);
    assert_eq!(played.clusters(), created.clusters());
    let decision = played.filter_state("session_affinity.decision");
    assert!(decision.contains("pin"), "{decision}");
    played
}

fn with_headroom(configuration: &mut Value) {
    configuration["routing"]["strategy"] = json!("headroom");
}

fn without_usage(configuration: &mut Value) {
    configuration["observe"] = json!({"usage": "off"});
}

fn streamed(mut world: World) -> Played {
    let request = claude(SESSION, SMALL);
    for _ in 0..2 {
        world.serve(&request, &stream(30));
    }
    let played = world.serve(&request, &stream(30));
    assert_eq!(played.response.body(), stream(30).body());
    played
}
