//! The page that explains decisions shows what the filter writes: every line of it is played here.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use wasm_host::{Answer, Attempt, Response};

use super::messages::{claude_by_header, limited, message};
use super::support::{World, root};

const DECISION: &str = "session_affinity.decision";
const USAGE: &str = "session_affinity.usage";
const SESSION: &str = "5b1f0f6e-7c3d-4a52-9d0a-2f6f3c1f7f10";

fn serve(_: &Attempt) -> Answer {
    Answer::Response(message())
}

fn refused() -> Response {
    let body =
        r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#;
    Response::new(401, [("content-type", "application/json")], body.as_bytes())
}

/// What was written, in its order.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    /// Plays a request of the session, and keeps the words of its decision.
    fn play(&mut self, world: &mut World, answer: impl FnMut(&Attempt) -> Answer) -> u16 {
        let played = world.play(&claude_by_header(SESSION, 2048), answer);
        self.0.push(played.filter_state(DECISION));
        self.0.push(played.filter_state(USAGE));
        played.response.status()
    }

    /// Keeps the log of changes.
    fn keep_log(&mut self, world: &World) {
        self.0.extend(world.gateway.vm().log().iter().cloned());
    }
}

fn without(credentials: &'static [&str]) -> impl FnOnce(&mut Value) {
    move |filter| {
        for credential in filter["pools"][0]["credentials"].as_array_mut().unwrap() {
            if credentials.iter().any(|id| credential["id"] == *id) {
                credential["state"] = json!("disabled");
            }
        }
    }
}

/// A home that is limited, and what follows until the session is back.
fn a_limit(lines: &mut Lines) {
    let mut world = World::new(true, |_| {});
    lines.play(&mut world, serve);
    lines.play(&mut world, serve);
    lines.play(&mut world, |attempt| match attempt.cluster.as_str() {
        "anthropic_a" => Answer::Response(limited("30")),
        _ => serve(attempt),
    });
    lines.play(&mut world, serve);
    world.clock.advance(Duration::from_secs(40));
    lines.play(&mut world, serve);
    lines.keep_log(&world);
}

/// A session that comes back late: its prompt is nowhere, or only with the substitute.
fn a_pause(lines: &mut Lines) {
    let mut world = World::new(true, |_| {});
    lines.play(&mut world, serve);
    lines.play(&mut world, |attempt| match attempt.cluster.as_str() {
        "anthropic_a" => Answer::Response(limited("600")),
        _ => serve(attempt),
    });
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(240));
        lines.play(&mut world, serve);
    }
    lines.keep_log(&world);
}

/// Every credential at its limit.
fn all_limited(lines: &mut Lines) {
    let mut world = World::new(true, without(&["anthropic-c"]));
    lines.play(&mut world, serve);
    let passed = lines.play(&mut world, |_| Answer::Response(limited("30")));
    let refused = lines.play(&mut world, serve);
    assert_eq!((passed, refused), (429, 429));
}

/// A key that is refused, and one that nobody can reach.
fn broken(lines: &mut Lines) {
    let mut world = World::new(true, |_| {});
    lines.play(&mut world, |attempt| match attempt.cluster.as_str() {
        "anthropic_a" => Answer::Response(refused()),
        "anthropic_b" => Answer::Failure {
            details: "upstream_reset_before_response_started{connection_failure}".to_owned(),
            is_connected: false,
        },
        _ => serve(attempt),
    });
    lines.keep_log(&world);
}

/// The only credential has a key that its provider does not know.
fn a_wrong_key(lines: &mut Lines) {
    let mut world = World::new(true, without(&["anthropic-b", "anthropic-c"]));
    let body = br#"{"type":"error","error":{"code":"invalid_api_key"}}"#;
    let wrong = Response::new(401, [("content-type", "application/json")], body);
    assert_eq!(lines.play(&mut world, |_| Answer::Response(wrong.clone())), 401);
    lines.play(&mut world, serve);
    lines.keep_log(&world);
}

/// No credential may serve.
fn none_left(lines: &mut Lines) {
    let mut world = World::new(true, without(&["anthropic-a", "anthropic-b", "anthropic-c"]));
    assert_eq!(lines.play(&mut world, serve), 503);
}

/// The words of a miss, of two hits, and of one that its home fails; and each time the usage.
fn words(decision: &str) -> [String; 8] {
    let mut world = World::new(true, |filter| filter["observe"] = json!({"decision": decision}));
    let mut lines = Lines::default();
    for _ in 0..3 {
        lines.play(&mut world, serve);
    }
    lines.play(&mut world, |attempt| match attempt.cluster.as_str() {
        "anthropic_a" => Answer::Response(limited("30")),
        _ => serve(attempt),
    });
    lines.0.try_into().unwrap()
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn only_what_is_more_than_usual_is_put_into_words_if_so_configured() {
    let [miss, _, hit, usage, again, _, failed, _] = words("on_change");
    assert!(usage.contains(" gen_ai.usage.cache_read.input_tokens=2048 "), "{usage}");
    assert!(miss.starts_with("outcome=miss source=claude "), "{miss}");
    assert_eq!((hit.as_str(), again.as_str()), ("", ""));
    let expected = "outcome=hit pool=anthropic credential=anthropic-a \
                    gen_ai.conversation.id=16e749cb then=anthropic-b(429,rate_limit,30s) \
                    failover=served";
    assert_eq!(failed, expected);
    assert_eq!(words("off"), [""; 8]);
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn every_line_that_explains_a_decision_is_written_so() {
    let mut lines = Lines::default();
    for play in [a_limit, a_pause, all_limited, broken, a_wrong_key, none_left] {
        play(&mut lines);
    }
    let page = fs::read_to_string(root().join("docs/explain.md")).unwrap();
    let blocks: Vec<&str> = page.split("\n```").skip(1).step_by(2).collect();
    let shown = blocks.iter().filter_map(|block| block.strip_prefix("text\n"));
    let shown: Vec<&str> = shown.flat_map(str::lines).collect();
    assert!(shown.len() >= 12, "{shown:?}\n{}", lines.0.join("\n"));
    for line in shown {
        assert!(lines.0.iter().any(|it| it == line), "{line}\nis none of\n{}", lines.0.join("\n"));
    }
}
