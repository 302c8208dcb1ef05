//! What Gemini keeps for a project, and what it answers elsewhere.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::Vendor;

use crate::client::{World, text};

const GENERATE: &str = "/v1beta/models/gemini-3.1-pro:generateContent";
const CACHES: &str = "/v1beta/cachedContents";
const INTERACTIONS: &str = "/v1beta/interactions";
const A: &str = "gemini-a";
const B: &str = "gemini-b";

fn contents(text: &str) -> Value {
    json!([{"role": "user", "parts": [{"text": text}]}])
}

#[tokio::test]
async fn a_cached_content_is_read_in_its_project_until_it_expires() {
    let world = World::start().await;
    let body =
        json!({"model": "models/gemini-3.1-pro", "contents": contents(&text(500)), "ttl": "60s"});
    let made = world.post(A, CACHES, &body).await.json();
    let name = made["name"].as_str().unwrap();
    assert!(name.starts_with("cachedContents/"), "{name}");
    let ask = json!({"contents": contents("hello"), "cachedContent": name});
    let usage = world.post(A, GENERATE, &ask).await.json()["usageMetadata"].clone();
    let cached = usage["cachedContentTokenCount"].as_u64().unwrap();
    assert!(cached >= 500 && cached < usage["promptTokenCount"].as_u64().unwrap(), "{usage}");

    let path = format!("/v1beta/{name}");
    assert_eq!(world.get(A, &path).await.json()["name"], name);
    world.providers.pass(Duration::from_secs(59));
    assert_eq!(world.post(A, GENERATE, &ask).await.status, 200);
    let elsewhere = [world.post(B, GENERATE, &ask).await, world.get(B, &path).await];
    world.providers.pass(Duration::from_secs(1));
    let late = [world.post(A, GENERATE, &ask).await, world.get(A, &path).await];
    for reply in elsewhere.into_iter().chain(late) {
        let expected = json!({"error": {
            "code": 403,
            "message": "CachedContent not found (or permission denied)",
            "status": "PERMISSION_DENIED",
        }});
        assert_eq!((reply.status, reply.json()), (403, expected));
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_deleted_cached_content_is_as_unknown_as_one_of_another_project() {
    let world = World::start().await;
    let body = json!({"model": "models/gemini-3.1-pro", "contents": contents("x")});
    let made = world.post(A, CACHES, &body).await.json();
    let path = format!("/v1beta/{}", made["name"].as_str().unwrap());
    assert_eq!(world.ask(B, Method::DELETE, &path, &Value::Null).await.status, 403);
    assert_eq!(world.ask(A, Method::DELETE, &path, &Value::Null).await.json(), json!({}));
    assert_eq!(world.get(A, &path).await.status, 403);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_file_is_forbidden_elsewhere() {
    let world = World::start().await;
    let made = world.post(A, "/upload/v1beta/files", &json!({"any": "body"})).await.json();
    let file = &made["file"];
    let part = json!({"fileData": {"fileUri": file["uri"], "mimeType": "text/plain"}});
    let ask = json!({"contents": [{"parts": [part]}]});
    assert_eq!(world.post(A, GENERATE, &ask).await.status, 200);
    let elsewhere = world.post(B, GENERATE, &ask).await;
    assert_eq!(
        (elsewhere.status, &elsewhere.json()["error"]["status"]),
        (403, &json!("PERMISSION_DENIED"))
    );
    let id = file["name"].as_str().unwrap().strip_prefix("files/").unwrap();
    let message =
        format!("You do not have permission to access the File {id} or it may not exist.");
    assert_eq!(elsewhere.json()["error"]["message"], message);
    let path = format!("/v1beta/files/{id}");
    assert_eq!((world.get(A, &path).await.status, world.get(B, &path).await.status), (200, 403));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_file_is_uploaded_in_two_steps_of_which_the_second_needs_no_key() {
    let world = World::start().await;
    let start = [("x-goog-upload-command", "start")];
    let begun = world.try_post(A, "/upload/v1beta/files", &json!({}), &start).await.unwrap();
    let url = begun.header("x-goog-upload-url").unwrap();
    let (_, path) = url.split_once("/upload/").unwrap();
    let path = format!("/upload/{path}");
    let end = [("x-goog-upload-command", "upload, finalize")];
    let ended = world.send(Vendor::Gemini, Method::POST, &path, &end, "content").await.unwrap();
    assert_eq!((ended.account(), ended.header("x-goog-upload-status")), (A, Some("final")));
    assert!(ended.json()["file"]["name"].is_string());
    let again = world.send(Vendor::Gemini, Method::POST, &path, &end, "content").await.unwrap();
    assert_eq!(again.status, 401);
    world.providers.stop().await;
}

#[tokio::test]
async fn an_interaction_continues_where_it_was_stored() {
    let world = World::start().await;
    let mut body = json!({"model": "gemini-3.1-pro", "input": text(2500)});
    let first = world.post(A, INTERACTIONS, &body).await.json();
    let path = format!("{INTERACTIONS}/{}", first["id"].as_str().unwrap());
    assert_eq!(world.get(A, &path).await.json(), first);
    let mut next = json!({"model": "gemini-3.1-pro", "input": "and?"});
    next["previous_interaction_id"] = first["id"].clone();
    let second = world.post(A, INTERACTIONS, &next).await.json();
    assert!(second["usage"]["total_cached_tokens"].as_u64() > Some(2000), "{second}");
    let elsewhere = world.post(B, INTERACTIONS, &next).await;
    assert_eq!((elsewhere.status, world.get(B, &path).await.status), (404, 404));

    body["store"] = json!(false);
    next["previous_interaction_id"] = world.post(A, INTERACTIONS, &body).await.json()["id"].clone();
    assert_eq!(world.post(A, INTERACTIONS, &next).await.status, 404);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_streamed_interaction_names_itself_in_the_first_event() {
    let world = World::start().await;
    let body = json!({"model": "gemini-3.1-pro", "input": "hello", "stream": true});
    let reply = world.post(A, INTERACTIONS, &body).await;
    let events = reply.data();
    assert_eq!(reply.events()[0].0, "interaction.created");
    let id = &events[0]["interaction"]["id"];
    assert_eq!(&events.last().unwrap()["interaction"]["id"], id);
    let next = json!({"model": "gemini-3.1-pro", "input": "x", "previous_interaction_id": id});
    assert_eq!(world.post(A, INTERACTIONS, &next).await.status, 200);
    world.providers.stop().await;
}
