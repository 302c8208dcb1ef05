//! The Responses API over a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use simulated_providers::{Fault, Vendor};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{World, key_header, responses};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(world: &World, key: &str, more: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let address = world.providers.address(Vendor::OpenAi);
    let mut request = format!("ws://{address}/v1/responses").into_client_request()?;
    request.headers_mut().insert("authorization", key.parse().unwrap());
    for (name, value) in more {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(connect_async(request).await?.0)
}

async fn open_as(world: &World, account: &str) -> Socket {
    open(world, &key_header(&world.account(account)).1, &[]).await.unwrap()
}

fn create(mut body: Value) -> Value {
    body["type"] = json!("response.create");
    body["store"] = json!(false);
    body
}

/// Sends a message and returns the events up to the one that ends the response, or to the end of
/// the connection.
async fn exchange(socket: &mut Socket, message: &Value) -> Vec<Value> {
    socket.send(Message::text(message.to_string())).await.unwrap();
    let mut events: Vec<Value> = vec![];
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        events.push(serde_json::from_str(&text).unwrap());
        if matches!(kind(&events), "response.completed" | "error") {
            break;
        }
    }
    events
}

fn kind(events: &[Value]) -> &str {
    events.last().and_then(|event| event["type"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn each_message_gets_a_response_and_continues_the_last() {
    let world = World::start().await;
    let mut socket = open_as(&world, "openai-a").await;
    let mut warm = create(responses(json!([])));
    warm["generate"] = json!(false);
    let events = exchange(&mut socket, &warm).await;
    assert_eq!(
        (events[0]["type"].as_str(), kind(&events)),
        (Some("response.created"), "response.completed")
    );

    let mut next = create(responses(json!("hello")));
    next["previous_response_id"] = events.last().unwrap()["response"]["id"].clone();
    let events = exchange(&mut socket, &next).await;
    let response = &events.last().unwrap()["response"];
    assert!(response["usage"]["input_tokens_details"]["cached_tokens"].as_u64() > Some(1024));
    assert!(response["output"][0]["content"][0]["text"].is_string());

    let records = world.providers.requests();
    let seen: Vec<_> =
        records.iter().map(|record| (record.method.as_str(), record.status)).collect();
    assert_eq!(seen, [("GET", Some(101)), ("WS", Some(200)), ("WS", Some(200))]);

    // What was not stored is known on this socket alone.
    next["previous_response_id"] = response["id"].clone();
    let mut other = open_as(&world, "openai-a").await;
    let events = exchange(&mut other, &next).await;
    assert_eq!(
        (&events[0]["status"], &events[0]["error"]["code"]),
        (&json!(400), &json!("previous_response_not_found"))
    );
    assert_eq!(kind(&exchange(&mut socket, &next).await), "response.completed");
    world.providers.stop().await;
}

#[tokio::test]
async fn a_stored_response_is_continued_on_any_socket_of_its_group() {
    let world = World::start().await;
    let mut socket = open_as(&world, "openai-a").await;
    let mut message = responses(json!("hello"));
    message["type"] = json!("response.create");
    let events = exchange(&mut socket, &message).await;
    let id = events[0]["response"]["id"].clone();
    let path = format!("/v1/responses/{}", id.as_str().unwrap());
    assert_eq!(world.get("openai-a", &path).await.json()["id"], id);

    message["previous_response_id"] = id;
    let mut other = open_as(&world, "openai-a").await;
    assert_eq!(kind(&exchange(&mut other, &message).await), "response.completed");
    let mut elsewhere = open_as(&world, "openai-b").await;
    let events = exchange(&mut elsewhere, &message).await;
    assert_eq!((events.len(), kind(&events), &events[0]["status"]), (1, "error", &json!(400)));
    assert_eq!(events[0]["error"]["code"], "previous_response_not_found");

    message["previous_response_id"] = Value::Null;
    message["conversation"] = json!("conv_of_another_project");
    let events = exchange(&mut elsewhere, &message).await;
    assert_eq!((&events[0]["status"], &events[0]["error"]["code"]), (&json!(404), &Value::Null));
    world.providers.fault("openai-a", Fault::Lost, Some(1)).unwrap();
    message["conversation"] = Value::Null;
    assert_eq!(exchange(&mut socket, &message).await, [] as [Value; 0]);
    assert_eq!(world.providers.requests().last().unwrap().created.len(), 1);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_handshake_needs_a_key_and_may_be_refused() {
    let world = World::start().await;
    let key = key_header(&world.account("openai-a")).1;
    for (key, more, expected) in
        [("Bearer wrong", vec![], 401), (&key, vec![("x-simulate", "status=503")], 503)]
    {
        let Err(Error::Http(response)) = open(&world, key, &more).await else {
            panic!("a refusal")
        };
        assert_eq!(response.status(), expected);
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn a_get_without_an_upgrade_is_refused() {
    let world = World::start().await;
    let key = key_header(&world.account("openai-a")).1;
    let headers = [("authorization", key.as_str())];
    let reply = world
        .send(Vendor::OpenAi, hyper::Method::GET, "/v1/responses", &headers, "")
        .await
        .unwrap();
    assert_eq!(reply.status, 405);
    world.providers.stop().await;
}

#[tokio::test]
async fn faults_work_on_messages() {
    let world = World::start().await;
    let mut socket = open_as(&world, "openai-a").await;
    let message = create(responses(json!("hello")));
    world.providers.fault("openai-a", Fault::rate_limit(7), Some(1)).unwrap();
    let events = exchange(&mut socket, &message).await;
    assert_eq!(
        (&events[0]["status"], &events[0]["headers"]["retry-after"]),
        (&json!(429), &json!("7"))
    );
    assert_eq!(kind(&exchange(&mut socket, &json!({"type": "unknown"})).await), "error");
    assert_eq!(kind(&exchange(&mut socket, &message).await), "response.completed");

    world.providers.fault("openai-a", Fault::CutAfter(2), Some(1)).unwrap();
    assert_eq!(exchange(&mut socket, &message).await.len(), 2);

    let mut socket = open_as(&world, "openai-a").await;
    world.providers.fault("openai-a", Fault::Drop, Some(1)).unwrap();
    assert_eq!(exchange(&mut socket, &message).await, [] as [Value; 0]);
    world.providers.stop().await;
}

#[tokio::test]
async fn stopping_closes_the_sockets() {
    let world = World::start().await;
    let mut socket = open_as(&world, "openai-a").await;
    let stopped = tokio::time::timeout(Duration::from_secs(60), world.providers.stop());
    let (stopped, message) = tokio::join!(stopped, socket.next());
    assert!(stopped.is_ok());
    assert!(matches!(message, Some(Ok(Message::Close(_)))), "{message:?}");
}
