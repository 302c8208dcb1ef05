//! Keys: which are accepted, which are refused, and how requests are recorded.

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::Vendor;

use crate::client::{World, anthropic, chat, gemini, key_header, responses};

const GENERATE: &str = "/v1beta/models/gemini-3.1-pro:generateContent";

fn body(vendor: Vendor) -> (&'static str, Value) {
    match vendor {
        Vendor::Anthropic => {
            ("/v1/messages", anthropic(json!([{"role": "user", "content": "hello"}])))
        }
        Vendor::OpenAi => ("/v1/responses", responses(json!("hello"))),
        Vendor::Gemini => {
            (GENERATE, gemini(json!([{"role": "user", "parts": [{"text": "hello"}]}])))
        }
    }
}

async fn status(world: &World, vendor: Vendor, headers: &[(&str, &str)]) -> (u16, String) {
    let (path, body) = body(vendor);
    let reply = world.send(vendor, Method::POST, path, headers, body.to_string()).await.unwrap();
    (reply.status, reply.account().to_owned())
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_refused_in_the_form_of_the_vendor() {
    let world = World::start().await;
    for (vendor, header, pointer, expected) in [
        (Vendor::Anthropic, ("x-api-key", "wrong"), "/error/type", "authentication_error"),
        (Vendor::OpenAi, ("authorization", "Bearer wrong"), "/error/code", "invalid_api_key"),
        (Vendor::Gemini, ("x-goog-api-key", "wrong"), "/error/status", "UNAUTHENTICATED"),
    ] {
        for headers in [vec![header], vec![]] {
            let (path, body) = body(vendor);
            let reply =
                world.send(vendor, Method::POST, path, &headers, body.to_string()).await.unwrap();
            assert_eq!((reply.status, reply.account()), (401, "none"));
            assert_eq!(reply.json().pointer(pointer), Some(&json!(expected)));
            assert_eq!(reply.json()["request_id"].as_str(), reply.header("request-id"));
        }
    }
    let records = world.providers.requests();
    assert!(
        records.len() == 6
            && records.iter().all(|record| record.account.is_none() && record.status == Some(401))
    );
    world.providers.stop().await;
}

#[tokio::test]
async fn a_key_of_another_vendor_is_refused() {
    let world = World::start().await;
    let openai = world.account("openai-a");
    assert_eq!(status(&world, Vendor::Anthropic, &[("x-api-key", &openai.key)]).await.0, 401);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_key_may_also_be_in_these_places() {
    let world = World::start().await;
    let bearer = format!("Bearer {}", world.account("anthropic-b").key);
    let served = status(&world, Vendor::Anthropic, &[("authorization", &bearer)]).await;
    assert_eq!(served, (200, "anthropic-b".to_owned()));

    let path = format!("{GENERATE}?key={}", world.account("gemini-b").key);
    let reply = world
        .send(Vendor::Gemini, Method::POST, &path, &[], body(Vendor::Gemini).1.to_string())
        .await
        .unwrap();
    assert_eq!((reply.status, reply.account()), (200, "gemini-b"));
    world.providers.stop().await;
}

#[tokio::test]
async fn two_keys_in_one_header_are_no_key() {
    let world = World::start().await;
    let (a, b) = (world.account("anthropic-a").key, world.account("anthropic-b").key);
    assert_eq!(
        status(&world, Vendor::Anthropic, &[("x-api-key", &a), ("x-api-key", &b)]).await.0,
        401
    );
    // The downstream client's own header beside the injected one does no harm.
    let both = [("authorization", "Bearer sk-downstream"), ("x-api-key", a.as_str())];
    assert_eq!(status(&world, Vendor::Anthropic, &both).await, (200, "anthropic-a".to_owned()));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_body_that_is_not_a_request_is_refused() {
    let world = World::start().await;
    for name in ["anthropic-a", "openai-a", "gemini-a"] {
        let account = world.account(name);
        let (header, key) = key_header(&account);
        for text in ["", "{", "[]", "{}", "{\"model\": 1}"] {
            let path = body(account.vendor).0;
            let reply = world
                .send(account.vendor, Method::POST, path, &[(header, &key)], text)
                .await
                .unwrap();
            assert_eq!((reply.status, reply.account()), (400, name), "{text}");
            assert!(reply.json()["error"]["message"].is_string());
        }
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let world = World::start().await;
    let reply = world.post("openai-a", "/v1/embeddings", &json!({})).await;
    assert_eq!((reply.status, reply.account()), (404, "openai-a"));
    world.providers.stop().await;
}

#[tokio::test]
async fn the_record_shows_what_the_upstream_saw() {
    let world = World::start().await;
    let body = chat(json!([{"role": "user", "content": "hello"}]));
    let more = [("x-internal", "leaked"), ("x-twice", "1"), ("x-twice", "2")];
    world.try_post("openai-b", "/v1/chat/completions?a=b", &body, &more).await.unwrap();
    let records = world.providers.requests();
    let [record] = records.as_slice() else { panic!("one request: {records:?}") };
    assert_eq!((record.vendor, record.account.as_deref()), (Vendor::OpenAi, Some("openai-b")));
    assert_eq!(
        (record.method.as_str(), record.path.as_str()),
        ("POST", "/v1/chat/completions?a=b")
    );
    assert_eq!((record.body_length, record.status), (body.to_string().len(), Some(200)));
    assert!(record.usage.is_some_and(|usage| usage.prompt_tokens > 0 && usage.output_tokens > 0));
    assert_eq!(record.headers.get("x-internal").unwrap(), "leaked");
    assert_eq!(record.headers.get_all("x-twice").iter().count(), 2);
    assert_eq!(record.headers.get_all("authorization").iter().count(), 1);

    world.providers.clear_requests();
    assert!(world.providers.requests().is_empty());
    world.providers.stop().await;
}
