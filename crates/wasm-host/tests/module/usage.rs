//! What the module counts of responses, and what it does to requests for it.

use serde_json::json;
use wasm_host::{Answer, Event, Played, Response};

use super::messages::{claude, limited, message, responses, stored, stored_response, stream};
use super::support::World;

const SESSION: &str = "c2d4e6f8-0a1b-4c3d-9e5f-60718293a4b5";
const ID: &str = "resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b";

/// Hands over what was counted, and tells the tokens of a type.
fn tokens(world: &mut World, pool: &str, outcome: &str, kind: &str) -> u64 {
    world.clock.advance(std::time::Duration::from_secs(1));
    for _ in 0..10 {
        world.gateway.tick().unwrap();
    }
    let labels = format!("pool=.={pool};.;outcome=.={outcome};.;type=.={kind};.;");
    world.gateway.vm().counter(&format!("{labels}session_affinity_tokens_total"))
}

fn unread(world: &World, reason: &str) -> u64 {
    world.gateway.vm().counter(&format!("reason=.={reason};.;session_affinity_usage_unread_total"))
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn documents_and_streams_are_counted_by_outcome_and_pass_unchanged() {
    for is_on_clusters in [false, true] {
        let mut world = World::new(is_on_clusters, |_| {});
        for response in [message(), stream(300), stream(300)] {
            let played = world.serve(&claude(SESSION, 2048), &response);
            assert_eq!(played.response.body(), response.body());
        }
        assert_eq!(tokens(&mut world, "anthropic", "miss", "cache_read"), 2048);
        for (kind, expected) in [("input", 24), ("cache_read", 4096), ("output", 18)] {
            assert_eq!(tokens(&mut world, "anthropic", "hit", kind), expected, "{kind}");
        }
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn of_a_failover_only_the_response_that_the_client_gets_counts() {
    let mut world = World::new(true, |_| {});
    let begins_with_an_error = Response::new(
        200,
        [("content-type", "text/event-stream")],
        b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"cache_read_input_tokens\":9}}}\n\n\
          data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
    );
    for failure in [limited("1"), begins_with_an_error] {
        let played = world.play(&claude(SESSION, 2048), |attempt| {
            Answer::Response(if attempt.cluster == "anthropic_a" {
                failure.clone()
            } else {
                message()
            })
        });
        assert_eq!(played.response.body(), message().body());
    }
    let outcomes = ["miss", "hit", "substitute", "rebind", "return", "probe", "cold"];
    let read: u64 =
        outcomes.map(|outcome| tokens(&mut world, "anthropic", outcome, "cache_read")).iter().sum();
    assert_eq!(read, 2 * 2048);
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_response_that_is_asked_for_again_is_not_counted_again() {
    let mut world = World::new(true, |_| {});
    let mut response = stored(ID);
    let body = String::from_utf8(response.body()).unwrap();
    let usage = r#","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":2}}"#;
    let body = body.strip_suffix('}').unwrap().to_owned() + usage;
    response.events = vec![Event::Piece(body.into_bytes())];
    world.serve(&responses(SESSION, 2048), &response);
    for _ in 0..2 {
        world.serve(&stored_response(ID), &response);
    }
    assert_eq!(tokens(&mut world, "openai", "miss", "cache_read"), 4);
    assert_eq!(tokens(&mut world, "openai", "pinned", "cache_read"), 0);
    assert_eq!(["absent", "cut", "not_read"].map(|reason| unread(&world, reason)), [0, 0, 0]);
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn providers_are_asked_not_to_compress_what_is_read() {
    let encodings = |played: &Played| played.attempts[0].headers.text("accept-encoding").to_owned();
    for (usage, expected) in
        [("identity", "identity"), ("plain", "gzip, deflate"), ("off", "gzip, deflate")]
    {
        let mut world = World::new(true, |filter| filter["observe"] = json!({"usage": usage}));
        let played = world.serve(&claude(SESSION, 2048), &message());
        assert_eq!(encodings(&played), expected, "{usage}");
        let played = world.serve(&stored_response(ID), &stored(ID));
        assert_eq!(encodings(&played), "gzip, deflate", "{usage}: it is not read");
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_compressed_response_is_not_read_beyond_its_first_piece() {
    for is_on_clusters in [false, true] {
        let mut world = World::new(is_on_clusters, |_| {});
        let mut response = stream(0);
        response.headers.set("content-encoding", b"gzip");
        response.events = vec![Event::Piece([&[0x1f, 0x8b, 8][..], &[0; 2000]].concat()); 50];
        let played = world.serve(&claude(SESSION, 2048), &response);
        assert!(played.cost.calls["get_buffer response_body"] < 12, "{:?}", played.cost.calls);
        assert_eq!(tokens(&mut world, "anthropic", "miss", "input"), 0);
        assert_eq!(unread(&world, "compressed"), 1);
    }
}
