//! The responses of real providers, and how they are compressed.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use hyper::Method;
use serde_json::{Value, json};
use simulated_providers::{FAULT_HEADER, Fault, Vendor, response_names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{World, anthropic, chat, gemini, key_header};

fn message() -> Value {
    anthropic(json!([{"role": "user", "content": "hello"}]))
}

#[tokio::test]
async fn every_response_of_the_catalog_can_be_requested_of_any_account() {
    let world = World::start().await;
    for name in response_names().filter(|name| *name != "gzip-without-header") {
        let order = format!("response={name}; wait=60");
        let headers = [(FAULT_HEADER, order.as_str())];
        let body = chat(json!([{"role": "user", "content": "hello"}]));
        let reply = world.try_post("openai-a", "/v1/chat/completions", &body, &headers).await;
        let reply = reply.unwrap();
        assert_eq!(reply.account(), "openai-a", "{name}");
        let is_stream = reply.header("content-type").is_some_and(|it| it.starts_with("text/event"));
        let is_warning = name == "anthropic-session-warning";
        assert_eq!(reply.status == 200, is_stream || is_warning, "{name}: {}", reply.text);
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_response_names_the_model_and_the_end_of_the_limit() {
    let world = World::start().await;
    let limit = Fault::Response { name: "openai-rate-limit".to_owned(), wait: Some(90) };
    world.providers.fault_of_model("openai-a", "gpt-5", limit, None).unwrap();
    let mut body = chat(json!([{"role": "user", "content": "hello"}]));
    let reply = world.post("openai-a", "/v1/chat/completions", &body).await;
    assert_eq!((reply.status, reply.header("x-ratelimit-reset-requests")), (429, Some("90s")));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("for gpt-5.6 in"));
    body["model"] = json!("o9");
    assert_eq!(world.post("openai-a", "/v1/chat/completions", &body).await.status, 200);
    assert!(world.providers.fault("openai-a", Fault::response("unknown"), None).is_err());
    world.providers.stop().await;
}

#[tokio::test]
async fn an_error_after_a_200_comes_in_the_framing_of_its_api() {
    let world = World::start().await;
    let headers = [(FAULT_HEADER, "response=gemini-error-element")];
    let body = gemini(json!([{"role": "user", "parts": [{"text": "hello"}]}]));
    let path = "/v1beta/models/m:streamGenerateContent";
    let array = world.try_post("gemini-a", path, &body, &headers).await.unwrap();
    assert_eq!((array.status, &array.json()[0]["error"]["code"]), (200, &json!(503)));
    let headers = [(FAULT_HEADER, "response=anthropic-overloaded-event")];
    let reply = world.try_post("anthropic-a", "/v1/messages", &message(), &headers).await.unwrap();
    assert_eq!(reply.events()[0].0, "error");
    world.providers.stop().await;
}

#[tokio::test]
async fn responses_are_compressed_as_the_client_accepts_and_the_vendor_does() {
    let world = World::start().await;
    let mut stream = message();
    stream["stream"] = json!(true);
    let mut openai_stream = chat(json!([{"role": "user", "content": "hello"}]));
    openai_stream["stream"] = json!(true);
    let order = "response=anthropic-overloaded";
    for (account, path, body, order, accepted, expected) in [
        ("anthropic-a", "/v1/messages", message(), "", "gzip, deflate, br", Some("gzip")),
        ("anthropic-a", "/v1/messages", message(), order, "gzip", Some("gzip")),
        ("anthropic-a", "/v1/messages", message(), order, "deflate", Some("deflate")),
        ("anthropic-a", "/v1/messages", stream, "", "gzip", Some("gzip")),
        ("anthropic-a", "/v1/messages", message(), "", "br", None),
        ("openai-a", "/v1/chat/completions", openai_stream, "", "gzip", None),
    ] {
        let (key, value) = key_header(&world.account(account));
        let mut headers = vec![(key, value.as_str()), ("accept-encoding", accepted)];
        headers.extend((!order.is_empty()).then_some((FAULT_HEADER, order)));
        let address = world.providers.address(world.account(account).vendor);
        let (head, bytes) = raw(address, path, &headers, body.to_string()).await;
        let encoding = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        assert_eq!(encoding, expected, "{head}");
        let text = decoded(encoding, &bytes);
        assert!(text.contains("message_start") || text.contains("data:") || text.starts_with('{'));
    }
    world.providers.stop().await;
}

/// Sends a request over a connection of its own; gives the head and the body of the response.
async fn raw(
    address: std::net::SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> (String, Bytes) {
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    // HTTP/1.0, so that the body is not in chunks.
    let request = format!("POST {path} HTTP/1.0\r\n{lines}content-length: {length}\r\n\r\n{body}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let end = response.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let body = response.split_off(end + 4);
    (String::from_utf8(response).unwrap(), body.into())
}

fn decoded(encoding: Option<&str>, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = match encoding {
        Some("gzip") => GzDecoder::new(bytes).read_to_string(&mut text),
        Some(_) => ZlibDecoder::new(bytes).read_to_string(&mut text),
        None => Read::read_to_string(&mut &*bytes, &mut text),
    };
    read.unwrap();
    text
}

#[tokio::test]
async fn a_stream_can_end_early_in_an_orderly_way_or_fall_silent() {
    let world = World::start().await;
    let mut body = message();
    body["stream"] = json!(true);
    world.providers.fault("anthropic-a", Fault::EndAfter(2), Some(1)).unwrap();
    let reply = world.post("anthropic-a", "/v1/messages", &body).await;
    assert_eq!((reply.status, reply.events().len()), (200, 2));
    world.providers.fault("anthropic-a", Fault::SilentAfter(2), Some(1)).unwrap();
    let silent = world.post("anthropic-a", "/v1/messages", &body);
    assert!(tokio::time::timeout(Duration::from_millis(200), silent).await.is_err());
    assert_eq!(world.providers.requests().last().unwrap().status, Some(200));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_stale_connection_is_one_that_has_served_before() {
    let world = World::start().await;
    world.providers.fault("anthropic-a", Fault::Stale, None).unwrap();
    assert_eq!(world.post("anthropic-a", "/v1/messages", &message()).await.status, 200);
    let (key, value) = key_header(&world.account("anthropic-a"));
    let address = world.providers.address(Vendor::Anthropic);
    let body = message().to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\n{key}: {value}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    assert_eq!(String::from_utf8_lossy(&response).matches("HTTP/1.1 200").count(), 1);
    world.providers.stop().await;
}

#[tokio::test]
async fn an_account_serves_no_more_requests_at_once_than_its_limit() {
    let world = World::start().await;
    let limit = Fault::Concurrency { limit: 1, duration: Duration::from_secs(3600) };
    world.providers.fault("anthropic-a", limit, None).unwrap();
    let (body, second) = (message(), message());
    let first = world.post("anthropic-a", "/v1/messages", &body);
    let second = async {
        world.a_body_arrived().await;
        world.post("anthropic-a", "/v1/messages", &second).await.status
    };
    tokio::select! {
        _ = first => panic!("the first response takes an hour"),
        status = second => assert_eq!(status, 429),
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_gateway_in_front_of_a_provider_has_a_limit_of_its_own() {
    let world = World::start().await;
    let (key, value) = key_header(&world.account("openai-a"));
    let headers = [(key, value.as_str()), (FAULT_HEADER, "response=gateway-rate-limited")];
    let reply = world.send(Vendor::OpenAi, Method::GET, "/v1/models", &headers, "").await.unwrap();
    assert_eq!((reply.status, reply.header("x-envoy-ratelimited")), (429, Some("true")));
    world.providers.stop().await;
}
