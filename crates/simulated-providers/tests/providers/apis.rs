//! Every API, plain and as a stream, in the shapes its clients expect.

use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::Vendor;

use crate::client::{Reply, World, anthropic, chat, gemini, key_header, responses};

const GENERATE: &str = "/v1beta/models/gemini-3.1-pro:generateContent";
const STREAM: &str = "/v1beta/models/gemini-3.1-pro:streamGenerateContent";

fn names(reply: &Reply) -> Vec<String> {
    let mut names: Vec<String> = reply.events().into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

fn concat(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()).collect()
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

#[tokio::test]
async fn anthropic_messages() {
    let world = World::start().await;
    let body = anthropic(json!([{"role": "user", "content": "hello"}]));
    let plain = world.post("anthropic-a", "/v1/messages?beta=true", &body).await;
    assert_eq!((plain.status, plain.account()), (200, "anthropic-a"));
    assert!(plain.header("request-id").is_some_and(|id| id.starts_with("req_")));
    let message = plain.json();
    assert_eq!(
        (&message["type"], &message["stop_reason"]),
        (&json!("message"), &json!("end_turn"))
    );

    let stream = world.post("anthropic-a", "/v1/messages", &streamed(body)).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(
        names(&stream),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let data = stream.data();
    assert_eq!(concat(&data, "/delta/text"), message["content"][0]["text"].as_str().unwrap());
    assert!(data[0]["message"]["usage"]["cache_read_input_tokens"].as_u64() > Some(1500));
    assert_eq!(data[data.len() - 2]["usage"]["output_tokens"], message["usage"]["output_tokens"]);
    world.providers.stop().await;
}

#[tokio::test]
async fn anthropic_count_tokens() {
    let world = World::start().await;
    let body = anthropic(json!([{"role": "user", "content": "hello"}]));
    let counted = world.post("anthropic-a", "/v1/messages/count_tokens", &body).await.json();
    let usage = world.post("anthropic-a", "/v1/messages", &body).await.json()["usage"].clone();
    let sum = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
        .map(|name| usage[name].as_u64().unwrap())
        .iter()
        .sum::<u64>();
    assert_eq!(counted["input_tokens"], sum);
    world.providers.stop().await;
}

#[tokio::test]
async fn openai_chat_completions() {
    let world = World::start().await;
    let mut body = chat(json!([{"role": "user", "content": "hello"}]));
    let plain = world.post("openai-a", "/v1/chat/completions", &body).await.json();
    assert_eq!(
        (&plain["object"], &plain["choices"][0]["finish_reason"]),
        (&json!("chat.completion"), &json!("stop"))
    );

    body["stream_options"] = json!({"include_usage": true});
    let stream = world.post("openai-a", "/v1/chat/completions", &streamed(body)).await;
    assert!(stream.text.ends_with("data: [DONE]\n\n"));
    let data = stream.data();
    assert_eq!(
        concat(&data, "/choices/0/delta/content"),
        plain["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert_eq!(data.last().unwrap()["usage"], plain["usage"]);
    world.providers.stop().await;
}

#[tokio::test]
async fn openai_responses() {
    let world = World::start().await;
    let body = responses(json!("hello"));
    let plain = world.post("openai-a", "/v1/responses", &body).await.json();
    assert!(plain["id"].as_str().unwrap().starts_with("resp_"));

    let stream = world.post("openai-a", "/v1/responses", &streamed(body)).await;
    assert_eq!(
        names(&stream),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let data = stream.data();
    assert_eq!(concat(&data, "/delta"), plain["output"][0]["content"][0]["text"].as_str().unwrap());
    assert!(data.iter().enumerate().all(|(index, event)| event["sequence_number"] == index));
    let usage = &data.last().unwrap()["response"]["usage"];
    assert_eq!(usage["input_tokens"], plain["usage"]["input_tokens"]);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_previous_response_is_known_to_the_account_that_made_it() {
    let world = World::start().await;
    let first = world.post("openai-a", "/v1/responses", &responses(json!("hello"))).await.json();
    let mut next = responses(json!("and?"));
    next["previous_response_id"] = first["id"].clone();
    assert_eq!(world.post("openai-a", "/v1/responses", &next).await.status, 200);
    let elsewhere = world.post("openai-b", "/v1/responses", &next).await;
    assert_eq!(
        (elsewhere.status, &elsewhere.json()["error"]["code"]),
        (400, &json!("previous_response_not_found"))
    );

    let mut unstored = responses(json!("hello"));
    unstored["store"] = json!(false);
    next["previous_response_id"] =
        world.post("openai-a", "/v1/responses", &unstored).await.json()["id"].clone();
    assert_eq!(world.post("openai-a", "/v1/responses", &next).await.status, 400);
    world.providers.stop().await;
}

#[tokio::test]
async fn openai_compaction() {
    let world = World::start().await;
    let body = responses(json!([{"role": "user", "content": "hello"}]));
    let compacted = world.post("openai-a", "/v1/responses/compact", &body).await.json();
    assert_eq!(compacted["object"], "response.compaction");
    let next = responses(compacted["output"].clone());
    assert_eq!(world.post("openai-a", "/v1/responses", &next).await.status, 200);
    let elsewhere = world.post("openai-b", "/v1/responses", &next).await;
    assert_eq!(
        (elsewhere.status, &elsewhere.json()["error"]["code"]),
        (400, &json!("invalid_encrypted_content"))
    );
    world.providers.stop().await;
}

#[tokio::test]
async fn gemini_content() {
    let world = World::start().await;
    let body = gemini(json!([{"role": "user", "parts": [{"text": "hello"}]}]));
    let plain = world.post("gemini-a", GENERATE, &body).await.json();
    let text = plain["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
    let usage = &plain["usageMetadata"];
    let [total, prompt, candidates] =
        ["totalTokenCount", "promptTokenCount", "candidatesTokenCount"]
            .map(|name| usage[name].as_u64().unwrap());
    assert_eq!(total, prompt + candidates);

    let events = world.post("gemini-a", &format!("{STREAM}?alt=sse"), &body).await;
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let array = world.post("gemini-a", STREAM, &body).await.json();
    for chunks in [events.data(), array.as_array().unwrap().clone()] {
        assert!(chunks.len() > 1);
        assert_eq!(concat(&chunks, "/candidates/0/content/parts/0/text"), text);
        let end = chunks.last().unwrap();
        assert_eq!(
            (&end["candidates"][0]["finishReason"], &end["usageMetadata"]["promptTokenCount"]),
            (&json!("STOP"), &usage["promptTokenCount"])
        );
        assert!(end["usageMetadata"]["cachedContentTokenCount"].as_u64() > Some(2048));
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn every_vendor_lists_models() {
    let world = World::start().await;
    for (account, path, pointer) in [
        ("anthropic-a", "/v1/models", "/data/0/id"),
        ("openai-a", "/v1/models", "/data/0/id"),
        ("gemini-a", "/v1beta/models", "/models/0/name"),
    ] {
        let account = world.account(account);
        let (name, key) = key_header(&account);
        let reply =
            world.send(account.vendor, Method::GET, path, &[(name, &key)], "").await.unwrap();
        assert!(reply.status == 200 && reply.json().pointer(pointer).is_some(), "{reply:?}");
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn http2_without_tls_gives_the_same() {
    let world = World::start().await;
    let body = streamed(responses(json!("hello")));
    let reply = world.send_http2("openai-b", "/v1/responses", &body).await.unwrap();
    assert_eq!((reply.status, reply.account(), reply.complete), (200, "openai-b", true));
    assert_eq!(names(&reply).last().unwrap(), "response.completed");
    world.providers.stop().await;
}

#[tokio::test]
async fn a_body_may_have_64_mib_and_no_more() {
    let world = World::start().await;
    let key = key_header(&world.account("openai-a")).1;
    let empty = chat(json!([{"role": "user", "content": ""}])).to_string().len();
    for (length, expected) in [(64 << 20, 200), ((64 << 20) + 1, 413)] {
        let body =
            chat(json!([{"role": "user", "content": "x".repeat(length - empty)}])).to_string();
        let headers = [("authorization", key.as_str())];
        let reply =
            world.send(Vendor::OpenAi, Method::POST, "/v1/chat/completions", &headers, body).await;
        // The server may close the connection while the client is still writing what is too much.
        assert_eq!(reply.map_or(413, |reply| reply.status), expected);
    }
    let statuses: Vec<_> = world.providers.requests().iter().map(|record| record.status).collect();
    assert_eq!(statuses, [Some(200), Some(413)]);
    world.providers.stop().await;
}

#[tokio::test]
async fn bedrock_gives_what_messages_give_in_its_own_forms() {
    let world = World::start().await;
    let system = "word ".repeat(2000);
    let text = json!([{"role": "user", "content": [{"text": "hello"}]}]);
    let converse = json!({"messages": text, "inferenceConfig": {"maxTokens": 64},
        "system": [{"text": system}, {"cachePoint": {"type": "default"}}]});
    let first = world.post("anthropic-a", "/model/m/converse", &converse).await.json();
    let again = world.post("anthropic-a", "/model/m/converse", &converse).await.json();
    assert!(first["usage"]["cacheWriteInputTokens"].as_u64() > Some(2000));
    assert_eq!(again["usage"]["cacheReadInputTokens"], first["usage"]["cacheWriteInputTokens"]);
    let invoke = anthropic(json!([{"role": "user", "content": "hello"}]));
    let message = world.post("anthropic-a", "/model/m/invoke", &invoke).await;
    let usage = message.json()["usage"].clone();
    for (name, count) in [
        ("x-amzn-bedrock-input-token-count", "input_tokens"),
        ("x-amzn-bedrock-output-token-count", "output_tokens"),
        ("x-amzn-bedrock-cache-read-input-token-count", "cache_read_input_tokens"),
        ("x-amzn-bedrock-cache-write-input-token-count", "cache_creation_input_tokens"),
    ] {
        assert_eq!(message.header(name), Some(usage[count].to_string().as_str()), "{name}");
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn code_assist_wraps_what_gemini_gives() {
    let world = World::start().await;
    let body = gemini(json!([{"role": "user", "parts": [{"text": "hello"}]}]));
    let plain = world.post("gemini-a", GENERATE, &body).await.json();
    let wrapped = json!({"model": "gemini-3.1-pro", "request": body});
    let reply = world.post("gemini-a", "/v1internal:generateContent", &wrapped).await.json();
    assert_eq!(reply["response"]["candidates"], plain["candidates"]);
    let path = "/v1internal:streamGenerateContent?alt=sse";
    let stream = world.post("gemini-a", path, &wrapped).await;
    let text = concat(&stream.data(), "/response/candidates/0/content/parts/0/text");
    assert_eq!(text, plain["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap());
    world.providers.stop().await;
}
