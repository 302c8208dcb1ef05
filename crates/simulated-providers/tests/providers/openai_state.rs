//! What OpenAI keeps for a project, and what it answers elsewhere.

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::{Foreign, Vendor};

use crate::client::{Reply, World, responses};

const RESPONSES: &str = "/v1/responses";
const A: &str = "openai-a";
const B: &str = "openai-b";

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn error(reply: &Reply) -> (u16, Value, Value) {
    let error = reply.json()["error"].clone();
    (reply.status, error["code"].clone(), error["param"].clone())
}

fn cached(reply: &Value) -> u64 {
    reply["usage"]["input_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn a_stored_response_is_seen_by_its_path_where_it_was_made() {
    let world = World::start().await;
    let made = world.post(A, RESPONSES, &responses(json!("hello"))).await.json();
    let path = format!("{RESPONSES}/{}", made["id"].as_str().unwrap());
    assert_eq!(world.get(A, &path).await.json(), made);
    let items = world.get(A, &format!("{path}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "hello");
    assert_eq!(error(&world.get(B, &path).await), (404, Value::Null, Value::Null));
    assert_eq!(world.ask(B, Method::DELETE, &path, &Value::Null).await.status, 404);

    let deleted = world.ask(A, Method::DELETE, &path, &Value::Null).await.json();
    assert_eq!((&deleted["deleted"], &deleted["object"]), (&json!(true), &json!("response")));
    assert_eq!(world.get(A, &path).await.status, 404);
    world.providers.stop().await;
}

#[tokio::test]
async fn the_first_event_of_a_stream_names_the_response_that_the_next_continues() {
    let world = World::start().await;
    let body = with(responses(json!("hello")), "stream", json!(true));
    let events = world.post(A, RESPONSES, &body).await.data();
    assert_eq!(events[0]["type"], "response.created");
    let id = events[0]["response"]["id"].clone();
    assert_eq!(events.last().unwrap()["response"]["id"], id);
    let next = with(responses(json!("and?")), "previous_response_id", id);
    let continued = world.post(A, RESPONSES, &next).await.json();
    assert!(cached(&continued) > 1024);
    let elsewhere = world.post(B, RESPONSES, &next).await;
    let expected = (400, json!("previous_response_not_found"), json!("previous_response_id"));
    assert_eq!(error(&elsewhere), expected);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_background_response_is_done_when_it_is_polled_or_cancelled_before() {
    let world = World::start().await;
    let body = with(responses(json!("hello")), "background", json!(true));
    let queued = world.post(A, RESPONSES, &body).await.json();
    assert_eq!((&queued["status"], &queued["usage"]), (&json!("queued"), &Value::Null));
    let path = format!("{RESPONSES}/{}", queued["id"].as_str().unwrap());
    let done = world.get(A, &path).await.json();
    assert_eq!(done["status"], "completed");
    assert!(done["usage"]["output_tokens"].as_u64() > Some(0));
    let cancel = |path: &str| format!("{path}/cancel");
    assert_eq!(world.post(A, &cancel(&path), &json!({})).await.status, 400);

    let queued = world.post(A, RESPONSES, &body).await.json();
    let path = format!("{RESPONSES}/{}", queued["id"].as_str().unwrap());
    assert_eq!(world.post(B, &cancel(&path), &json!({})).await.status, 404);
    let cancelled = world.ask(A, Method::POST, &cancel(&path), &Value::Null).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(world.get(A, &path).await.json()["status"], "cancelled");
    world.providers.stop().await;
}

#[tokio::test]
async fn a_conversation_grows_by_its_responses_and_is_unknown_elsewhere() {
    let world = World::start().await;
    let items = json!([{"role": "user", "content": "I am Ada."}]);
    let made = world.post(A, "/v1/conversations", &json!({ "items": items })).await.json();
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("conv_"), "{id}");

    let first = with(responses(json!("hello")), "conversation", json!(id));
    let first = world.post(A, RESPONSES, &first).await.json();
    assert_eq!(first["conversation"]["id"], id);
    let next = with(responses(json!("and?")), "conversation", json!({ "id": id }));
    let next_reply = world.post(A, RESPONSES, &next).await.json();
    assert!(cached(&next_reply) > 1024);
    let tokens = |reply: &Value| reply["usage"]["input_tokens"].as_u64().unwrap();
    assert!(tokens(&next_reply) > tokens(&first));

    let path = format!("/v1/conversations/{id}");
    let items = world.get(A, &format!("{path}/items")).await.json();
    assert_eq!(items["data"].as_array().unwrap().len(), 5);
    let item = format!("{path}/items/{}", items["data"][0]["id"].as_str().unwrap());
    assert_eq!(world.get(A, &item).await.json()["content"][0]["text"], "I am Ada.");

    let elsewhere = world.post(B, RESPONSES, &next).await;
    assert_eq!(error(&elsewhere), (404, Value::Null, Value::Null));
    let message = format!("Conversation with id '{id}' not found.");
    assert_eq!(elsewhere.json()["error"]["message"], message);
    for path in [path.clone(), format!("{path}/items")] {
        assert_eq!(world.get(B, &path).await.status, 404);
    }
    let deleted = world.ask(A, Method::DELETE, &path, &Value::Null).await.json();
    assert_eq!(deleted["object"], "conversation.deleted");
    assert_eq!(world.post(A, RESPONSES, &next).await.status, 404);
    world.providers.stop().await;
}

#[tokio::test]
async fn reasoning_is_encrypted_and_refused_or_removed_elsewhere() {
    let world = World::start().await;
    let body = with(responses(json!("hello")), "reasoning", json!({"effort": "low"}));
    let output = world.post(A, RESPONSES, &body).await.json()["output"].clone();
    assert!(output[0]["encrypted_content"].is_string());
    let mut input = vec![json!({"role": "user", "content": "hello"})];
    input.extend(output.as_array().unwrap().clone());
    let next = responses(json!(input));

    let home = world.post(A, RESPONSES, &next).await.json();
    assert_eq!(home.get("input_transformations"), None);
    let refused = error(&world.post(B, RESPONSES, &next).await);
    assert_eq!(refused, (400, json!("invalid_encrypted_content"), json!("input")));

    world.providers.set_foreign(Vendor::OpenAi, Foreign::Removed);
    let served = world.post(B, RESPONSES, &next).await.json();
    let told = &served["input_transformations"][0];
    assert_eq!((&told["id"], &told["reason"]), (&output[0]["id"], &json!("organization_mismatch")));
    let tokens = |reply: &Value| reply["usage"]["input_tokens"].as_u64().unwrap();
    assert!(tokens(&served) < tokens(&home));
    world.providers.stop().await;
}

#[tokio::test]
async fn reasoning_that_is_streamed_is_complete_in_the_item_that_is_done() {
    let world = World::start().await;
    let mut body = with(responses(json!("hello")), "reasoning", json!({"effort": "low"}));
    body["stream"] = json!(true);
    let events = world.post(A, RESPONSES, &body).await.data();
    let of = |kind: &str| {
        let event = events.iter().find(|event| event["type"] == kind).unwrap();
        event["item"]["encrypted_content"].clone()
    };
    assert_eq!(of("response.output_item.added"), "");
    assert_ne!(of("response.output_item.done"), "");
    world.providers.stop().await;
}

#[tokio::test]
async fn what_a_request_refers_to_must_be_here() {
    let world = World::start().await;
    let file = world.post(A, "/v1/files", &json!({"any": "body"})).await.json()["id"].clone();
    let store = world.post(A, "/v1/vector_stores", &json!({})).await.json()["id"].clone();
    let container = world.post(A, "/v1/containers", &json!({"name": "x"})).await.json();
    let made = world.post(A, RESPONSES, &responses(json!("hello"))).await.json();
    let part = json!([{"type": "input_file", "file_id": file}]);
    let item = json!({"type": "item_reference", "id": made["output"][0]["id"]});
    let search = json!([{"type": "file_search", "vector_store_ids": [store]}]);
    let code = json!([{"type": "code_interpreter", "container": container["id"]}]);
    for (body, parameter, words) in [
        (responses(json!([{"role": "user", "content": part}])), json!("id"), "No such File object"),
        (responses(json!([item])), Value::Null, "Item with id"),
        (with(responses(json!("x")), "tools", search), Value::Null, "Vector store"),
        (with(responses(json!("x")), "tools", code), Value::Null, "Container"),
    ] {
        assert_eq!(world.post(A, RESPONSES, &body).await.status, 200, "{words}");
        let elsewhere = world.post(B, RESPONSES, &body).await;
        assert_eq!(error(&elsewhere), (404, Value::Null, parameter), "{words}");
        assert!(elsewhere.text.contains(words), "{}", elsewhere.text);
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn files_batches_uploads_and_stores_are_known_in_their_project() {
    let world = World::start().await;
    let file = world.post(A, "/v1/files", &json!({"any": "body"})).await.json();
    let batch = json!({"input_file_id": file["id"], "endpoint": RESPONSES});
    for (path, body) in [
        ("/v1/files", json!({"any": "body"})),
        ("/v1/batches", batch),
        ("/v1/vector_stores", json!({"name": "x"})),
        ("/v1/containers", json!({"name": "x"})),
    ] {
        let made = world.post(A, path, &body).await.json();
        let one = format!("{path}/{}", made["id"].as_str().unwrap());
        let seen = world.get(A, &one).await.json();
        assert_eq!((&seen["id"], &seen["object"]), (&made["id"], &made["object"]), "{path}");
        assert!(world.get(A, path).await.text.contains(made["id"].as_str().unwrap()), "{path}");
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(world.ask(B, method, &one, &Value::Null).await.status, 404, "{path}");
        }
        assert_eq!(world.ask(A, Method::DELETE, &one, &Value::Null).await.status, 200, "{path}");
        assert_eq!(world.get(A, &one).await.status, 404, "{path}");
    }
    let upload = json!({"filename": "a", "purpose": "batch", "bytes": 3});
    let upload = world.post(A, "/v1/uploads", &upload).await.json();
    let path = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    assert_eq!(world.post(B, &format!("{path}/complete"), &json!({})).await.status, 404);
    let done = world.post(A, &format!("{path}/complete"), &json!({})).await.json();
    let file = format!("/v1/files/{}", done["file"]["id"].as_str().unwrap());
    assert_eq!(world.get(A, &file).await.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_batch_is_done_when_it_is_polled() {
    let world = World::start().await;
    let file = world.post(A, "/v1/files", &json!({})).await.json()["id"].clone();
    let batch = json!({"input_file_id": file, "endpoint": RESPONSES});
    assert_eq!(world.post(B, "/v1/batches", &batch).await.status, 404);
    let batch = world.post(A, "/v1/batches", &batch).await.json();
    assert_eq!((&batch["status"], &batch["output_file_id"]), (&json!("validating"), &Value::Null));
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let done = world.get(A, &path).await.json();
    assert_eq!(done["status"], "completed");
    let output = format!("/v1/files/{}/content", done["output_file_id"].as_str().unwrap());
    assert_eq!(world.get(A, &output).await.status, 200);
    world.providers.stop().await;
}
