//! No input makes a worker stand: whatever clients and providers send, the work is linear in its
//! size. Eight times the bytes take no more than eight times the steps, and no byte takes many.

mod families;

use std::time::Duration;

use serde_json::json;

use crate::api::Api;
use crate::body::{Body, Paths};
use crate::config::Config;
use crate::hash::Seed;
use crate::prompt_cache::Lifetime;
use crate::request::{Headers, Request};
use crate::router::Router;
use crate::second_model::SecondModel;
use crate::shared::InMemory;
use crate::signals::stream::{Frames, Opening, Origin, ending};
use crate::signals::{Class, Context, Rule, Sign, explain, inflate};
use crate::steps;
use crate::target::Target;
use crate::time::Timestamp;
use crate::usage::{self, Excerpt, Turns};
use families::{BODIES, BREAKPOINTS, ERRORS, Family, STREAMS, USAGES};

/// Bytes of the smaller input; the larger one has eight times as many.
const SIZE: usize = 2 << 10;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

fn input((before, unit, behind): Family, size: usize) -> String {
    let fixed = before.len() + behind.len();
    [before, &unit.repeat((size - fixed) / unit.len()), behind].concat()
}

/// Eight times the bytes take at most eight times the steps, and no byte takes more than `most`.
#[track_caller]
fn is_linear(family: Family, most: u64, work: impl Fn(&str)) {
    let (small, large) = (input(family, SIZE), input(family, 8 * SIZE));
    let (few, many) = (steps::of(|| work(&small)), steps::of(|| work(&large)));
    // What does not depend on the size: short texts that are compared with tables.
    let constant = 200_000;
    assert!(many <= 9 * few + constant, "{family:?}: {few} steps, then {many}");
    assert!(many <= most * large.len() as u64 + constant, "{family:?}: {many} steps");
}

fn router(profile: &str) -> Router {
    let sources = json!([
        "claude-code", "codex", "body-session", "user-id", "vendor-headers", "message-hash",
        {"name": "chat", "body": "chat", "pattern": "(a+)+b"},
        {"name": "nested", "body": "nested", "json": "a.a"},
        {"name": "header", "header": "x-chat", "pattern": "^.*-(.*)-.*x$"},
    ]);
    let credentials = json!([{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]);
    let mut config = json!({"profile": profile, "pools": [{
        "name": "p", "match": {"models": ["*a*b*", "*"]}, "credentials": credentials,
    }]});
    if profile == "recommended" {
        config["session"] = json!({"sources": sources});
    }
    let config = Config::parse(config.to_string().as_bytes()).unwrap();
    Router::new(config, Seed::agree(&InMemory::default(), [1; 16]))
}

fn route(router: &Router, headers: &Headers, body: &[u8]) {
    let shared = InMemory::default();
    let request = Request::new(headers, router.read_body(body));
    std::hint::black_box(router.route(&request, &shared, NOW));
}

#[test]
fn a_body_takes_time_in_proportion_to_its_size() {
    for profile in ["recommended", "reference"] {
        let router = router(profile);
        let headers: Headers =
            [(":method", "POST"), (":path", "/v1/messages")].into_iter().collect();
        for family in BODIES.into_iter().chain(BREAKPOINTS) {
            is_linear(family, 40, |body| route(&router, &headers, body.as_bytes()));
        }
    }
}

#[test]
fn what_is_asked_of_caches_takes_time_in_proportion_to_the_body() {
    let router = router("recommended");
    for path in ["/v1/messages", "/v1/responses", "/model/m/converse", "/models/m:generateContent"]
    {
        let headers: Headers = [(":path", path)].into_iter().collect();
        for family in BREAKPOINTS.into_iter().chain(BODIES) {
            is_linear(family, 20, |body| {
                let request =
                    Request::new(&headers, Body::read(&Paths::default(), body.as_bytes()));
                let target = Target::of(&request, router.config()).unwrap();
                std::hint::black_box(Lifetime::of(&target, &request));
            });
        }
    }
}

#[test]
fn what_is_watched_as_it_passes_takes_time_in_proportion_to_its_size() {
    for family in BODIES.into_iter().chain(BREAKPOINTS) {
        for size in [1, 63, 4096] {
            is_linear(family, 10, |body| {
                let mut watch = SecondModel::default();
                body.as_bytes().chunks(size).for_each(|piece| {
                    watch.read(piece);
                });
            });
        }
    }
}

#[test]
fn ids_are_looked_for_in_time_in_proportion_to_the_body() {
    let router = router("recommended");
    for family in [
        ("{", r#""file_id":"file_1","#, r#""b":2}"#),
        ("{", r#""file_ids":["#, r#""b":2}"#),
        (r#"{"tools":["#, r#"{"vector_store_ids":["vs_1"]},"#, "1]}"),
        (r#"{"tools":["#, r#"{"container":""#, "1]}"),
        (r#"{"contents":["#, r#"{"fileUri":"https://x/y"},"#, "1]}"),
        (r#"{"contents":["#, r#""fileUri":"/files/"#, ""),
    ] {
        for path in ["/v1/responses", "/v1/messages", "/v1beta/models/m:generateContent"] {
            let headers: Headers = [(":method", "POST"), (":path", path)].into_iter().collect();
            is_linear(family, 60, |body| route(&router, &headers, body.as_bytes()));
        }
    }
}

#[test]
fn paths_and_headers_take_time_in_proportion_to_their_size() {
    let router = router("recommended");
    for family in [
        ("/v1/messages", "/a", ""),
        ("/v1/messages", "/%2e", "x"),
        ("/v1/messages", "%2f.", ""),
        ("/v1/messages?", "a=b&", ""),
        ("/models/", "/models/a:", ""),
        ("/model/", "%", "/invoke"),
        ("/openai/deployments/", "a", "/chat"),
    ] {
        is_linear(family, 40, |path| {
            let headers: Headers = [(":method", "POST"), (":path", path)].into_iter().collect();
            route(&router, &headers, b"{}");
        });
    }
    for family in [("", "-", ""), ("", "a-", ""), ("", " ", "a"), ("", "\"", ""), ("{", "{", "")] {
        for name in ["x-chat", "x-session-id", "user-agent", "x-codex-turn-metadata", "baggage"] {
            is_linear(family, 40, |value| {
                let headers = [(":path", "/v1/messages"), (name, value)].into_iter().collect();
                route(&router, &headers, b"{}");
            });
        }
    }
}

fn context() -> Context<'static> {
    Context { api: Api::OpenAi, provider: "openai", model: "gpt-5.6" }
}

#[test]
fn errors_take_time_in_proportion_to_their_size() {
    let rules = [Sign::Contains("model x".to_owned()), Sign::Code("a".to_owned())].map(|sign| {
        let wait = Some(Duration::from_secs(1));
        Rule { provider: None, status: None, sign, class: Class::Denied, scope: None, wait }
    });
    let headers = Headers::default();
    for family in ERRORS.into_iter().chain(BODIES) {
        for status in [400, 429] {
            is_linear(family, 100, |body| {
                let body = inflate::error_body(body.as_bytes(), "");
                Rule::read(&rules, status, &headers, &body, &context());
                explain(status, &headers, &body, &context(), NOW);
            });
        }
    }
}

#[test]
fn headers_of_a_response_take_time_in_proportion_to_their_number() {
    for name in ["x-ratelimit-reset-", "anthropic-ratelimit-unified-", "x-codex-"] {
        let read = |count: usize| {
            let list = (0..count).map(|at| (format!("{name}{at}-status"), "rejected"));
            let headers: Headers = list.collect();
            steps::of(|| explain(429, &headers, b"", &context(), NOW))
        };
        let (few, many) = (read(256), read(8 * 256));
        assert!(many <= 9 * few, "{name}: {few} steps, then {many}");
    }
}

#[test]
fn a_stream_in_the_smallest_pieces_takes_time_in_proportion_to_its_size() {
    let headers = Headers::default();
    let origin = Origin { headers: &headers, context: context(), now: NOW };
    for family in STREAMS.into_iter().chain(ERRORS) {
        is_linear(family, 400, |stream| {
            let (bytes, mut opening) = (stream.as_bytes(), Opening::default());
            for end in 1..=bytes.len() {
                opening.look(&bytes[..end], end == bytes.len(), &origin);
            }
        });
        is_linear(family, 100, |stream| {
            ending(stream.as_bytes(), &origin);
        });
        is_linear(family, 100, |stream| {
            let mut frames = Frames::default();
            for part in stream.as_bytes().chunks(100) {
                frames.feed(&[0x81, part.len() as u8], &origin);
                for byte in part {
                    frames.feed(&[*byte], &origin);
                }
            }
        });
    }
}

#[test]
fn counts_are_looked_for_in_time_in_proportion_to_what_is_kept() {
    for family in USAGES.into_iter().chain(STREAMS).chain(BODIES) {
        for api in [Api::Anthropic, Api::OpenAi, Api::Gemini, Api::Bedrock] {
            for size in [1, 4096] {
                is_linear(family, 60, |body| {
                    let mut excerpt = Excerpt::default();
                    for piece in body.as_bytes().chunks(size) {
                        excerpt.take(piece.len(), |range| piece[range].to_vec());
                    }
                    usage::read(api, &excerpt, true);
                });
                is_linear(family, 60, |body| {
                    let mut turns = Turns::default();
                    for piece in body.as_bytes().chunks(size.min(100)) {
                        turns.feed(&[0x81, piece.len() as u8], api, &mut |_| ());
                        turns.feed(piece, api, &mut |_| ());
                    }
                });
            }
        }
    }
}

#[test]
fn frames_of_aws_take_time_in_proportion_to_their_size() {
    let headers = Headers::default();
    let origin = Origin { headers: &headers, context: context(), now: NOW };
    let header = |name: &str, value: &str| {
        let (name_length, value_length) = ([name.len() as u8], (value.len() as u16).to_be_bytes());
        [&name_length[..], name.as_bytes(), &[7], &value_length, value.as_bytes()].concat()
    };
    for count in [10, 1_000] {
        is_linear(("", "x", ""), 2_000, |payload| {
            let mut list = header(":event-type", "messageStart");
            list.extend(header(":message-type", "event"));
            list.extend(header("x", "y").repeat(count));
            let total = (list.len() + payload.len() + 16) as u32;
            let lengths = [total.to_be_bytes(), (list.len() as u32).to_be_bytes(), [0; 4]].concat();
            let frame = [&lengths, &list, payload.as_bytes(), &[0; 4][..]].concat();
            let mut opening = Opening::default();
            for end in 1..=frame.len() {
                opening.look(&frame[..end], false, &origin);
            }
        });
    }
}
