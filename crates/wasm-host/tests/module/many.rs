//! What shows only after thousands of streams: that nothing stays behind in the VM.

use serde_json::json;
use wasm_host::{Answer, Attempt, Response};

use super::messages::{claude, claude_by_header, limited, message, stream};
use super::support::World;

/// Sessions, of which some end in other ways than well.
const SESSIONS: usize = 10_000;

/// The VM has seen every way by then.
const WARM: usize = 500;

/// What the upstream does with an attempt of this session.
fn answer(session: usize, attempt: &Attempt) -> Answer {
    let is_first = attempt.cluster == "anthropic_a";
    match session % 100 {
        1 if is_first => Answer::Response(limited("1")),
        2 => Answer::Failure {
            details: "upstream_reset_before_response_started{connection_failure}".to_owned(),
            is_connected: false,
        },
        3 => Answer::Response(Response::new(400, [("content-type", "text/plain")], b"no")),
        4 => Answer::Response(stream(3)),
        _ => Answer::Response(message()),
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn ten_thousand_sessions_leave_nothing_behind_in_the_vm() {
    let mut world = World::new(true, |filter| {
        filter["routing"]["strategy"] = json!("round-robin");
        filter["session"]["max_bindings"] = json!(4096);
    });
    let mut warm = None;
    for session in 0..SESSIONS {
        let request = claude_by_header(&format!("session-{session}"), 256);
        world.play(&request, |attempt| answer(session, attempt));
        assert_eq!(world.gateway.vm().open_contexts(), 0);
        if session == WARM {
            warm = Some(world.gateway.vm().memory_size());
        }
    }
    assert_eq!(Some(world.gateway.vm().memory_size()), warm, "the VM has grown");

    let keys = world.shared.keys();
    let tables = [
        "seed",
        "changes",
        "pin_kinds",
        "binding/",
        "credential/",
        "cursor/",
        "group/",
        "load/",
        "wheel/",
    ];
    let is_unknown = |key: &&String| {
        let name = key.strip_prefix("session_affinity/").unwrap_or_default();
        !tables.iter().any(|table| name.starts_with(table))
    };
    assert_eq!(keys.iter().find(is_unknown), None);
    let (bindings, others): (Vec<_>, Vec<_>) =
        keys.iter().partition(|key| key.contains("/binding/"));
    // As many rows of 16 as hold what is configured.
    assert_eq!(bindings.len(), 4096 / 16);
    assert!(others.len() < 32, "{others:?}");
}

/// Bytes of a body that are read in the test below, in place of 8 MiB.
const MOST: usize = 1 << 20;

/// Uploads side by side.
const UPLOADS: usize = 64;

/// What a stream may take in the VM beside its body: its headers, and a plan.
const OF_STREAM: usize = 64 << 10;

/// What `docs/operations.md` says of the worst case of a worker.
#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn the_longest_bodies_of_many_clients_leave_the_room_of_two_in_the_vm() {
    let mut world = World::new(true, |filter| filter["body"]["max_bytes"] = json!(MOST));
    world.serve(&claude("small", 1024), &message());
    let small = world.gateway.vm().memory_size();
    let long =
        |session: usize, size| claude(&format!("session-{session}"), size).in_pieces_of(32 << 10);
    world.serve(&long(0, MOST), &message());
    let one = world.gateway.vm().memory_size();
    assert!(one <= small + 2 * MOST, "{small}, then {one}");

    // Every other one is longer than what is read: it is sent, and the rest passes. The others are
    // held, with their headers, which are as long as they may be.
    let mut uploads = Vec::new();
    for session in 0..UPLOADS {
        let is_long = session % 2 == 0;
        let mut request = long(session, if is_long { 2 * MOST } else { MOST / 2 });
        request.headers.add("x-long", &[b'x'; 30 << 10]);
        let upload = world.gateway.begin(&request).unwrap();
        assert_eq!(upload.is_sent, is_long);
        uploads.push(upload);
    }
    let many = world.gateway.vm().memory_size();
    assert!(many <= one + UPLOADS * OF_STREAM, "{one}, then {many}");
    for upload in &uploads {
        world.gateway.leave(upload).unwrap();
    }
    assert_eq!(world.gateway.vm().open_contexts(), 0);
    for session in 0..UPLOADS {
        world.serve(&long(session, MOST), &message());
    }
    let end = world.gateway.vm().memory_size();
    println!("small {small}, one {one}, {UPLOADS} side by side {many}, end {end}");
    assert_eq!(end, many, "the VM has grown");
}
