//! Everything that can be made to go wrong, from a test and from a header.

use std::time::Duration;

use serde_json::{Value, json};
use simulated_providers::{FAULT_HEADER, Fault, Vendor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{World, anthropic, chat, gemini, responses};

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

fn message() -> Value {
    anthropic(json!([{"role": "user", "content": "hello"}]))
}

#[tokio::test]
async fn a_rate_limit_lasts_as_many_requests_as_planned() {
    let world = World::start().await;
    world.providers.fault("anthropic-a", Fault::rate_limit(7), Some(2)).unwrap();
    for _ in 0..2 {
        let reply = world.post("anthropic-a", "/v1/messages", &message()).await;
        assert_eq!(
            (reply.status, reply.header("retry-after"), reply.account()),
            (429, Some("7"), "anthropic-a")
        );
        assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
        assert_eq!(world.post("anthropic-b", "/v1/messages", &message()).await.status, 200);
    }
    assert_eq!(world.post("anthropic-a", "/v1/messages", &message()).await.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_in_the_cache() {
    let world = World::start().await;
    world
        .providers
        .fault("openai-a", Fault::Status { status: 500, retry_after: None }, Some(1))
        .unwrap();
    let body = responses(json!("hello"));
    let reply = world.post("openai-a", "/v1/responses", &body).await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));
    let reply = world.post("openai-a", "/v1/responses", &body).await.json();
    assert_eq!(reply["usage"]["input_tokens_details"]["cached_tokens"], 0);
    world.providers.stop().await;
}

#[tokio::test]
async fn faults_can_be_cleared_and_need_a_known_account() {
    let world = World::start().await;
    assert!(world.providers.fault("unknown", Fault::Drop, None).is_err());
    world.providers.fault("openai-a", Fault::rate_limit(1), None).unwrap();
    world.providers.clear_faults();
    assert_eq!(
        world.post("openai-a", "/v1/responses", &responses(json!("hello"))).await.status,
        200
    );
    world.providers.stop().await;
}

#[tokio::test]
async fn the_header_works_on_the_account_it_names() {
    let world = World::start().await;
    let headers = [(FAULT_HEADER, "account=anthropic-a; status=529")];
    let reply = world.try_post("anthropic-a", "/v1/messages", &message(), &headers).await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (529, &json!("overloaded_error")));
    let reply = world.try_post("anthropic-b", "/v1/messages", &message(), &headers).await.unwrap();
    assert_eq!(reply.status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_rate_limit_of_gemini_is_an_array_where_an_array_is_expected() {
    let world = World::start().await;
    let body = gemini(json!([{"role": "user", "parts": [{"text": "hello"}]}]));
    let headers = [(FAULT_HEADER, "status=429; retry-after=3")];
    let path = "/v1beta/models/m:streamGenerateContent";
    let array = world.try_post("gemini-a", path, &body, &headers).await.unwrap();
    assert_eq!(
        (array.header("retry-after"), &array.json()[0]["error"]["status"]),
        (Some("3"), &json!("RESOURCE_EXHAUSTED"))
    );
    let plain =
        world.try_post("gemini-a", &format!("{path}?alt=sse"), &body, &headers).await.unwrap();
    assert_eq!(plain.json()["error"]["code"], 429);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_slow_response_is_the_same_response() {
    let world = World::start().await;
    let slow = Fault::SlowFirstByte(Duration::from_millis(20));
    world.providers.fault("openai-a", slow, Some(1)).unwrap();
    let reply = world.post("openai-a", "/v1/responses", &responses(json!("hello"))).await;
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("completed")));
    world.providers.stop().await;
}

#[tokio::test]
async fn of_two_first_requests_at_once_both_miss() {
    let world = World::start().await;
    // The first response has not begun when the second request arrives.
    world
        .providers
        .fault("openai-a", Fault::SlowFirstByte(Duration::from_secs(3600)), Some(1))
        .unwrap();
    let body = responses(json!("hello"));
    let first = world.post("openai-a", "/v1/responses", &body);
    let second = async {
        world.a_body_arrived().await;
        world.post("openai-a", "/v1/responses", &body).await.json()
    };
    tokio::select! {
        _ = first => panic!("the first response takes an hour"),
        second = second => assert_eq!(second["usage"]["input_tokens_details"]["cached_tokens"], 0),
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_in_the_record_without_a_status() {
    let world = World::start().await;
    world
        .providers
        .fault("openai-a", Fault::SlowFirstByte(Duration::from_secs(3600)), Some(1))
        .unwrap();
    let body = responses(json!("hello"));
    tokio::select! {
        _ = world.post("openai-a", "/v1/responses", &body) => panic!("the response takes an hour"),
        () = world.a_body_arrived() => {}
    }
    let records = world.providers.requests();
    assert_eq!(
        records.iter().map(|record| (record.account.as_deref(), record.status)).collect::<Vec<_>>(),
        [(Some("openai-a"), None)]
    );
    world.providers.stop().await;
}

#[tokio::test]
async fn a_drop_closes_the_tcp_connection_without_a_byte() {
    let world = World::start().await;
    world.providers.fault("openai-a", Fault::Drop, Some(1)).unwrap();
    let body = responses(json!("hello")).to_string();
    let key = world.account("openai-a").key;
    let length = body.len();
    let request = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(world.providers.address(Vendor::OpenAi)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    // The end of the stream or a reset, both without a byte.
    let _ = stream.read_to_end(&mut response).await;
    assert_eq!(response, b"");
    let records = world.providers.requests();
    assert_eq!((records[0].body_length, records[0].status), (length, None));
    world.providers.stop().await;
}

#[tokio::test]
async fn a_drop_is_an_error_on_http2_too() {
    let world = World::start().await;
    world.providers.fault("openai-a", Fault::Drop, Some(1)).unwrap();
    let body = responses(json!("hello"));
    assert!(world.send_http2("openai-a", "/v1/responses", &body).await.is_err());
    assert_eq!(world.send_http2("openai-a", "/v1/responses", &body).await.unwrap().status, 200);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_cut_breaks_a_stream_after_its_number_of_events() {
    let world = World::start().await;
    let body = streamed(chat(json!([{"role": "user", "content": "hello"}])));
    for events in [0, 1, 3] {
        world.providers.fault("openai-a", Fault::CutAfter(events), Some(2)).unwrap();
        let http1 = world.try_post("openai-a", "/v1/chat/completions", &body, &[]).await.unwrap();
        let http2 = world.send_http2("openai-a", "/v1/chat/completions", &body).await.unwrap();
        for reply in [http1, http2] {
            assert_eq!((reply.status, reply.data().len(), reply.complete), (200, events, false));
        }
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_cut_breaks_a_plain_response_in_its_middle() {
    let world = World::start().await;
    let headers = [(FAULT_HEADER, "cut=1")];
    let reply = world.try_post("anthropic-a", "/v1/messages", &message(), &headers).await.unwrap();
    assert!(!reply.complete && !reply.text.is_empty());
    assert!(serde_json::from_str::<Value>(&reply.text).is_err());
    world.providers.stop().await;
}

#[tokio::test]
async fn stopping_lets_a_response_finish() {
    let world = World::start().await;
    world
        .providers
        .fault("openai-a", Fault::SlowFirstByte(Duration::from_millis(200)), Some(1))
        .unwrap();
    let address = world.providers.address(Vendor::OpenAi);
    let key = world.account("openai-a").key;
    let request =
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    while world.providers.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    world.providers.stop().await;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(TcpStream::connect(address).await.is_err());
}
