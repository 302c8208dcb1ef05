//! What Anthropic keeps for a workspace, and what it answers elsewhere.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::{Fault, Foreign, Vendor};

use crate::client::{Reply, World, anthropic, text};

const MESSAGES: &str = "/v1/messages";
const A: &str = "anthropic-a";
const B: &str = "anthropic-b";
const THREADS: (&str, &str) = ("anthropic-beta", "message-threads-2026-08-12");

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

fn message(content: Value) -> Value {
    json!({"model": "claude-sonnet-5", "max_tokens": 100, "messages": content})
}

/// A request that begins a thread with a long system prompt.
fn begin() -> Value {
    let mut body = message(user("hello"));
    (body["system"], body["thread"]) = (json!(text(1500)), json!({"type": "create"}));
    body
}

fn next(previous: &Value) -> Value {
    let mut body = message(user("and?"));
    body["thread"] = json!({"type": "continue", "previous_message_id": previous});
    body
}

async fn post(world: &World, account: &str, body: &Value) -> Reply {
    world.try_post(account, MESSAGES, body, &[THREADS]).await.unwrap()
}

fn code(reply: &Reply) -> (u16, Value) {
    (reply.status, reply.json()["error"]["details"]["error_code"].clone())
}

#[tokio::test]
async fn a_thread_continues_where_it_was_begun_and_reads_its_cache() {
    let world = World::start().await;
    let first = post(&world, A, &begin()).await.json();
    let second = post(&world, A, &next(&first["id"])).await.json();
    let read = |reply: &Value| reply["usage"]["cache_read_input_tokens"].as_u64().unwrap();
    assert!(read(&second) > 1500, "{second}");
    let third = post(&world, A, &next(&second["id"])).await.json();
    assert!(read(&third) > read(&second));

    let lost = post(&world, B, &next(&third["id"])).await;
    assert_eq!(code(&lost), (404, json!("thread_not_found")));
    assert_eq!(lost.json()["error"]["type"], "not_found_error");
    let twice = post(&world, A, &next(&first["id"])).await;
    assert_eq!(code(&twice), (400, json!("thread_already_continued")));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_streamed_thread_names_its_answer_in_the_first_event() {
    let world = World::start().await;
    let mut body = begin();
    body["stream"] = json!(true);
    let events = post(&world, A, &body).await.data();
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(post(&world, A, &next(&events[0]["message"]["id"])).await.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_thread_is_lost_after_five_minutes() {
    let world = World::start().await;
    let first = post(&world, A, &begin()).await.json();
    world.providers.pass(Duration::from_secs(299));
    let second = post(&world, A, &next(&first["id"])).await.json();
    world.providers.pass(Duration::from_secs(301));
    let late = post(&world, A, &next(&second["id"])).await;
    assert_eq!(code(&late), (404, json!("thread_not_found")));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_thread_needs_its_beta_and_keeps_what_it_was_created_with() {
    let world = World::start().await;
    assert_eq!(world.post(A, MESSAGES, &begin()).await.status, 400);
    let first = post(&world, A, &begin()).await.json();
    let mut changed = next(&first["id"]);
    changed["system"] = json!("another");
    let refused = post(&world, A, &changed).await;
    assert_eq!(code(&refused), (400, json!("thread_fingerprint_mismatch")));
    assert_eq!(post(&world, A, &next(&first["id"])).await.status, 200);
    // Another member of the same name is none.
    let mut other = message(user("hello"));
    other["thread"] = json!({"key": "t-1"});
    assert_eq!(world.post(A, MESSAGES, &other).await.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_lost_answer_has_continued_its_thread() {
    let world = World::start().await;
    let first = post(&world, A, &begin()).await.json();
    world.providers.fault(A, Fault::Lost, Some(1)).unwrap();
    assert!(world.try_post(A, MESSAGES, &next(&first["id"]), &[THREADS]).await.is_err());
    let again = post(&world, A, &next(&first["id"])).await;
    assert_eq!(code(&again), (400, json!("thread_already_continued")));
    let records = world.providers.requests();
    let made: Vec<usize> = records.iter().map(|record| record.created.len()).collect();
    assert_eq!(made, [1, 1, 0]);
    assert_eq!(records[0].created[0], first["id"]);
    world.providers.stop().await;
}

#[tokio::test]
async fn signed_thinking_is_removed_or_refused_elsewhere() {
    let world = World::start().await;
    let mut body = anthropic(user("hello"));
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let content = world.post(A, MESSAGES, &body).await.json()["content"].clone();
    assert!(content[0]["signature"].is_string());
    let mut messages = vec![json!({"role": "user", "content": "hello"})];
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": "and?"}));
    let next = anthropic(json!(messages));

    let home = world.post(A, MESSAGES, &next).await.json();
    let removed = world.post(B, MESSAGES, &next).await.json();
    assert_eq!(removed.get("input_transformations"), None);
    let input = |reply: &Value| reply["usage"]["input_tokens"].as_u64().unwrap();
    assert!(input(&removed) < input(&home));
    let beta = ("anthropic-beta", "thinking-binding-controls-2026-08-01");
    let told = world.try_post(B, MESSAGES, &next, &[beta]).await.unwrap().json();
    let told = &told["input_transformations"][0];
    assert_eq!(
        (&told["path"], &told["type"]),
        (&json!("messages.1.content.0"), &json!("thinking_dropped"))
    );

    world.providers.set_foreign(Vendor::Anthropic, Foreign::Refused);
    let refused = world.post(B, MESSAGES, &next).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("Invalid `signature` in `thinking` block"), "{}", refused.text);
    assert_eq!(world.post(A, MESSAGES, &next).await.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn files_batches_and_skills_are_known_in_their_workspace() {
    let world = World::start().await;
    let requests = json!([{"custom_id": "1", "params": message(user("x"))}]);
    for (path, body) in [
        ("/v1/files", json!({"any": "body"})),
        ("/v1/skills", json!({"any": "body"})),
        ("/v1/messages/batches", json!({ "requests": requests })),
    ] {
        let made = world.post(A, path, &body).await.json();
        let one = format!("{path}/{}", made["id"].as_str().unwrap());
        assert_eq!(world.get(A, &one).await.json()["id"], made["id"], "{path}");
        let elsewhere = world.get(B, &one).await;
        assert_eq!(elsewhere.status, 404, "{path}");
        assert_eq!(elsewhere.json()["error"]["type"], "not_found_error");
        assert_eq!(world.ask(A, Method::DELETE, &one, &Value::Null).await.status, 200, "{path}");
        assert_eq!(world.get(A, &one).await.status, 404, "{path}");
    }
    let file = world.post(A, "/v1/files", &json!({})).await.json()["id"].clone();
    let source = json!({"type": "file", "file_id": file});
    let content = json!([{"type": "document", "source": source}]);
    let body = message(json!([{"role": "user", "content": content}]));
    assert_eq!(world.post(A, MESSAGES, &body).await.status, 200);
    assert_eq!(world.post(B, MESSAGES, &body).await.status, 404);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_batch_ends_when_it_is_polled_and_can_be_cancelled() {
    let world = World::start().await;
    let requests = json!([{"custom_id": "1", "params": message(user("x"))}]);
    let path = "/v1/messages/batches";
    let batch = world.post(A, path, &json!({ "requests": requests })).await.json();
    assert_eq!(
        (&batch["processing_status"], &batch["ended_at"]),
        (&json!("in_progress"), &Value::Null)
    );
    let one = format!("{path}/{}", batch["id"].as_str().unwrap());
    assert_eq!(world.get(A, &one).await.json()["processing_status"], "ended");
    let results = world.get(A, &format!("{one}/results")).await;
    assert_eq!(results.header("content-type"), Some("application/x-jsonl"));
    assert_eq!(results.text.lines().count(), 1);
    assert_eq!(world.post(B, &format!("{one}/cancel"), &json!({})).await.status, 404);
    let cancelled = world.post(A, &format!("{one}/cancel"), &json!({})).await.json();
    assert_eq!(cancelled["processing_status"], "canceling");
    world.providers.stop().await;
}

#[tokio::test]
async fn a_container_of_an_answer_is_used_again_until_it_ends() {
    let world = World::start().await;
    let mut body = message(user("x"));
    body["tools"] = json!([{"type": "code_execution_20250825", "name": "code_execution"}]);
    let first = world.post(A, MESSAGES, &body).await.json();
    body["container"] = first["container"]["id"].clone();
    assert!(body["container"].is_string());
    let again = world.post(A, MESSAGES, &body).await.json();
    assert_eq!(again["container"], first["container"]);
    assert_eq!(world.post(B, MESSAGES, &body).await.status, 404);
    body["stream"] = json!(true);
    let events = world.post(A, MESSAGES, &body).await.data();
    let delta = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(delta["delta"]["container"], first["container"]);
    world.providers.pass(Duration::from_secs(3600));
    assert_eq!(world.post(A, MESSAGES, &body).await.status, 404);
    world.providers.stop().await;
}
