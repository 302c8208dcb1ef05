//! Streams that a real Envoy plays as well (`tests/e2e`), here in milliseconds and in more
//! variants.

use std::time::Duration;

use serde_json::{Value, json};
use wasm_host::{Answer, Attempt, Event, Headers, Played, Request, Response};

use super::messages::{claude, claude_by_header, limited, message, stream};
use super::support::World;

const SESSION: &str = "c2d4e6f8-0a1b-4c3d-9e5f-60718293a4b5";
const DECISION: &str = "session_affinity.decision";

fn serve(_: &Attempt) -> Answer {
    Answer::Response(message())
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_body_is_decided_alike_in_whatever_pieces_it_arrives() {
    let mut world = World::new(true, |_| {});
    world.play(&claude(SESSION, 2048), serve);
    for size in [1, 7, 64, 1000, 4096] {
        let request = claude(SESSION, 2048).in_pieces_of(size);
        let played = world.play(&request, serve);
        let decision = played.filter_state(DECISION);
        assert!(decision.contains("outcome=hit"), "pieces of {size}: {decision}");
    }
    let mut request = claude(SESSION, 2048).in_pieces_of(100);
    request.trailers = Some([("x-checksum", "7")].into_iter().collect());
    let played = world.play(&request, serve);
    assert!(played.filter_state(DECISION).contains("outcome=hit"));
}

/// A response with 200 of a type.
fn of_type(content_type: &str, body: &[u8]) -> Answer {
    Answer::Response(Response::new(200, [("content-type", content_type)], body))
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_client_is_told_of_a_limit_in_place_of_a_dead_key() {
    let mut world = World::new(true, |_| {});
    let played = world.play(&claude_by_header(SESSION, 2048), |attempt| {
        Answer::Response(match attempt.cluster.as_str() {
            "anthropic_a" => limited("30"),
            _ => Response::new(401, [("content-type", "application/json")], b"{}"),
        })
    });
    assert_eq!(played.response.headers.text(":status"), "429");
    assert_eq!(played.response.headers.text("retry-after"), "30");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn nothing_goes_to_a_credential_whose_key_is_not_there() {
    let edit = |filter: &mut Value| {
        for credential in filter["pools"][0]["credentials"].as_array_mut().unwrap() {
            let source = format!("x-key-{}", credential["id"].as_str().unwrap());
            credential["cluster"] = json!("anthropic_a");
            credential["headers"] = json!([{"name": "x-api-key", "header": source}]);
        }
    };
    let keys_of = |played: &Played| -> Vec<String> {
        played.attempts.iter().map(|it| it.headers.text("x-api-key")).collect()
    };
    let mut world = World::new(true, edit);
    let mut request = claude_by_header(SESSION, 2048);
    request.headers.set("x-key-anthropic-b", b"the key of b");
    request.headers.set("x-key-anthropic-a", b"");
    for outcome in ["miss", "hit"] {
        let played = world.play(&request, serve);
        assert_eq!(keys_of(&played), ["the key of b"]);
        let decision = played.filter_state(DECISION);
        assert!(decision.contains(&format!("outcome={outcome}")), "{decision}");
        assert_eq!(decision.contains("then=anthropic-b(no_key)"), outcome == "miss", "{decision}");
    }
    // None has its key.
    let played = world.play(&claude_by_header(SESSION, 2048), |it| unreachable!("{it:?} was sent"));
    assert_eq!(played.response.headers.text(":status"), "503");
    assert_eq!(played.response.headers.text("retry-after"), "1");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn workers_know_the_sessions_of_each_other() {
    let mut world = World::new(true, |_| {});
    let mut other = world.worker(2);
    let first = world.play(&claude(SESSION, 2048), serve);
    let second = other.play(&claude(SESSION, 2048), serve).unwrap();
    assert!(first.filter_state(DECISION).contains("outcome=miss"));
    assert!(second.filter_state(DECISION).contains("outcome=hit"));
    assert_eq!(first.clusters(), second.clusters());
    let hits =
        "pool=.=anthropic;.;outcome=.=hit;.;source=.=claude;.;session_affinity_requests_total";
    assert_eq!(other.vm().counter(hits), 0, "counts stay in the VM until the next tick");
    world.gateway.tick().unwrap();
    other.tick().unwrap();
    assert_eq!((world.gateway.vm().counter(hits), other.vm().counter(hits)), (0, 1));
}

/// A message of a server over a WebSocket.
fn frame(text: &str) -> Event {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    Event::Piece([&[0x81, 126], &length[..], text.as_bytes()].concat())
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn what_codex_tells_of_its_limits_on_a_websocket_spares_its_account() {
    let request = |session| {
        let headers = [
            (":authority", "gateway.example"),
            (":path", "/v1/responses"),
            (":method", "GET"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("session-id", session),
        ];
        Request::new(headers, b"")
    };
    let created = r#"{"type":"response.created","response":{"id":"resp_1"}}"#;
    let delta = r#"{"type":"response.output_text.delta","delta":"hello"}"#;
    let limits = |used| {
        let windows = format!(r#"{{"primary":{{"used_percent":{used},"window_minutes":300}}}}"#);
        frame(&format!(r#"{{"type":"codex.rate_limits","rate_limits":{windows}}}"#))
    };
    for is_on_clusters in [true, false] {
        let mut world =
            World::new(is_on_clusters, |filter| filter["routing"]["spare_at"] = json!(0.9));
        let mut turns = Response::new(101, [("upgrade", "websocket")], b"");
        let mut play = |world: &mut World, session, events: &[Event]| {
            turns.events = events.to_vec();
            world.serve(&request(session), &turns).filter_state(DECISION)
        };
        let first = play(&mut world, "1", &[frame(created), limits(12), frame(delta)]);
        assert!(first.contains("credential=openai-a"), "{first}");
        // In a later turn the account nears its limit.
        let turns = [limits(80), frame(delta), limits(95), frame(created), frame(delta)];
        let second = play(&mut world, "2", &turns);
        assert!(second.contains("credential=openai-a"), "{second}");
        let third = play(&mut world, "3", &[frame(created)]);
        assert!(third.contains("credential=openai-b"), "{is_on_clusters}: {third}");
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn what_fails_is_asked_elsewhere_and_the_client_gets_one_response() {
    let failures = [
        ("a limit", Answer::Response(limited("30"))),
        ("an overload", Answer::Response(Response::new(529, [], b""))),
        (
            "a stream that begins with an error",
            Answer::Response(Response::new(
                200,
                [("content-type", "text/event-stream")],
                b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            )),
        ),
        (
            "a line that is an error",
            of_type("application/x-ndjson", b"{\"error\":\"not enough memory\"}\n"),
        ),
        ("a page", of_type("text/html; charset=utf-8", b"<html>Sign in</html>")),
        ("an empty page", of_type("text/html", b"\n")),
        ("nothing", of_type("application/json", b"")),
        (
            "a redirection",
            Answer::Response(Response::new(302, [("location", "https://login.test/")], b"")),
        ),
        (
            "a suspended account",
            Answer::Response(Response::new(
                412,
                [("content-type", "application/json")],
                br#"{"error":{"code":"PRECONDITION_FAILED","message":"Account x is suspended"}}"#,
            )),
        ),
        (
            "no connection",
            Answer::Failure {
                details: "upstream_reset_before_response_started{connection_failure}".to_owned(),
                is_connected: false,
            },
        ),
    ];
    for (name, failure) in failures {
        let mut world = World::new(true, |_| {});
        let played = world.play(&claude_by_header(SESSION, 2048), |attempt| {
            if attempt.cluster == "anthropic_a" { failure.clone() } else { serve(attempt) }
        });
        assert_eq!(played.clusters(), ["anthropic_a", "anthropic_b"], "{name}");
        assert_eq!(played.response.body(), message().body(), "{name}");
        assert_eq!(played.response.headers.get("x-session-affinity-retry"), None, "{name}");
        assert!(played.filter_state(DECISION).contains("failover=served"), "{name}");
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn what_a_server_calls_a_page_and_is_a_text_reaches_the_client() {
    // whisper.cpp and servers on Flask send transcripts so.
    let text = of_type("text/html; charset=utf-8", b" And so, my fellow Americans.\n");
    let mut world = World::new(true, |_| {});
    let played = world.play(&claude_by_header(SESSION, 2048), |_| text.clone());
    assert_eq!(played.clusters(), ["anthropic_a"]);
    assert_eq!(played.response.body(), b" And so, my fellow Americans.\n");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn nothing_with_200_is_no_success_where_no_filter_is_on_the_cluster_either() {
    for (status, body, expected) in
        [(200, &b""[..], "anthropic_b"), (200, b"{}", "anthropic_a"), (302, b"", "anthropic_b")]
    {
        let mut world = World::new(false, |_| {});
        let request = claude_by_header(SESSION, 2048);
        assert_eq!(world.play(&request, serve).clusters(), ["anthropic_a"]);
        let headers = [("content-type", "application/json")];
        world.play(&request, |_| Answer::Response(Response::new(status, headers, body)));
        assert_eq!(world.play(&request, serve).clusters(), [expected], "{status} {body:?}");
    }
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_stream_that_stays_silent_reaches_the_client_after_a_tick() {
    let mut world = World::new(true, |_| {});
    let mut response = stream(3);
    response.events.insert(0, Event::Wait(Duration::from_secs(120)));
    let played = world.serve(&claude(SESSION, 2048), &response);
    assert_eq!(played.cost.calls["continue_stream response"], 1);
    // The first event was not held for the others, and all have come.
    assert_eq!(played.response.events.len(), 4);
    assert_eq!(played.response.body(), stream(3).body());
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_session_leaves_a_home_that_cuts_off_its_streams_and_none_that_ends_its_websockets() {
    let websocket = Request::new(
        [
            (":method", "GET"),
            (":path", "/v1/responses"),
            (":authority", "gateway.example"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("session_id", SESSION),
        ],
        b"",
    );
    let event = br#"{"type":"response.output_text.delta","delta":"hi"}"#;
    let frame = [&[0x81, event.len() as u8][..], event, &[0x88, 2, 3, 0xe8]].concat();
    let homes = |request: &Request, mut response: Response| {
        let mut world = World::new(true, |_| {});
        response.events.push(Event::Cut);
        let homes = (0..4).map(|_| world.serve(request, &response).attempts[0].cluster.clone());
        homes.collect::<Vec<_>>()
    };
    let closed = homes(&websocket, Response::new(101, [("upgrade", "websocket")], &frame));
    assert_eq!(closed, ["openai_a"; 4]);
    let cut = homes(&claude_by_header(SESSION, 2048), stream(3));
    assert_eq!(cut[..3], ["anthropic_a", "anthropic_a", "anthropic_b"], "{cut:?}");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_stream_is_not_held_until_a_clock_that_was_set_back_is_there_again() {
    let mut world = World::new(true, |_| {});
    let mut response = stream(3);
    response.events.insert(0, Event::SetBack(Duration::from_hours(2)));
    let played = world.serve(&claude(SESSION, 2048), &response);
    assert_eq!(played.cost.calls["continue_stream response"], 1);
    assert_eq!(played.response.body(), stream(3).body());
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn what_a_client_must_not_say_does_not_reach_the_router() {
    let mut world = World::new(true, |_| {});
    let mut request = claude(SESSION, 2048);
    request.headers.set(":path", b"/v1/messages?key=sk-client&beta=true");
    request.headers.add("x-session-affinity-cluster", b"anthropic_c");
    request.headers.add("x-envoy-upstream-rq-timeout-ms", b"1");
    request.headers.add("x_api_key", b"sk-client");
    let played = world.play(&request, serve);
    let headers: &Headers = &played.attempts[0].headers;
    assert_eq!(headers.text(":path"), "/v1/messages?beta=true");
    assert_eq!(headers.text("x-session-affinity-cluster"), "anthropic_a");
    for name in ["x-envoy-upstream-rq-timeout-ms", "x_api_key"] {
        assert_eq!(headers.get(name), None, "{name}");
    }
}
