//! The harness itself on a real Envoy: it starts, changes, observes and ends one, and its client
//! sends what it claims to send. In place of the filter there is a module of forty lines
//! (`fixed_cluster.wat`).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use envoy_harness::client::{self, Connection, Protocol, WebSocket};
use envoy_harness::{Encoding, Envoy, Fixture, Mode, Process, Update, find, wait_until};
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_request_reaches_the_provider_with_the_key_of_its_cluster() -> Result<()> {
    let setup = Setup::new().await?;
    let envoy = setup.start(setup.fixture("anthropic_b")?, 2).await?;
    for protocol in Protocol::ALL {
        let request = hyper::Request::post("/v1/messages?beta=true")
            .header("x-api-key", "a client's own")
            .header("x-odd", &b"caf\xe9"[..])
            .body(client::whole(r#"{"model":"claude"}"#))?;
        let response = client::send(envoy.address(), protocol, request).await?;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("x-seen-key"), Some("key of anthropic_b"));
        assert_eq!(response.headers["x-seen-odd"].as_bytes(), b"caf\xe9");
        assert_eq!(response.text(), r#"/v1/messages?beta=true {"model":"claude"}"#);
    }
    let log = envoy.stop().await?;
    assert!(
        log.iter().any(|line| line.starts_with("POST /v1/messages 200 cluster=anthropic_b")),
        "{log:#?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn bodies_come_in_chunks_and_with_trailers() -> Result<()> {
    let setup = Setup::new().await?;
    let fixture = setup.fixture("anthropic_a")?;
    let envoy = setup.start(fixture, 1).await?;

    let request = hyper::Request::post("/chunks").body(client::chunks(["one ", "two"]))?;
    let response = client::send(envoy.address(), Protocol::Http1, request).await?;
    assert_eq!(response.text(), "/chunks one two");

    let trailers = [("x-checksum".parse()?, "7".parse()?)].into_iter().collect();
    let body = client::chunks_and_trailers(["one ", "two"], trailers);
    let request = hyper::Request::post("/trailers").body(body)?;
    let response = client::send(envoy.address(), Protocol::Http2, request).await?;
    assert_eq!(response.text(), "/trailers one two");
    let counter = "http.llm.downstream_rq_completed";
    envoy.wait_for_stats(counter, |stats| stats.get(counter) == Some(&2)).await?;
    envoy.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_first_event_arrives_while_the_second_is_not_yet_sent() -> Result<()> {
    let setup = Setup::new().await?;
    let envoy = setup.start(setup.fixture("anthropic_a")?, 1).await?;
    for protocol in Protocol::ALL {
        let mut connection = Connection::open(envoy.address(), protocol).await?;
        let mut response =
            connection.stream(hyper::Request::get("/events").body(client::empty())?).await?;
        assert_eq!(response.next_event().await?.as_deref(), Some("data: first"));
        setup.second_event.notify_one();
        assert_eq!(response.next_event().await?.as_deref(), Some("data: second"));
        assert_eq!(response.next_event().await?, None);
    }
    envoy.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_websocket_carries_text_both_ways() -> Result<()> {
    let setup = Setup::new().await?;
    let envoy = setup.start(setup.fixture("openai_a")?, 1).await?;
    let headers = [("x-odd".parse()?, "1".parse()?)].into_iter().collect();
    let mut socket = WebSocket::open(envoy.address(), "/v1/responses", headers).await?;
    for text in ["hello", "again"] {
        socket.send(text).await?;
        assert_eq!(socket.next().await?.as_deref(), Some(text));
    }
    socket.close().await?;
    envoy.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_update_is_accepted_or_rejected_and_a_rejected_one_changes_nothing() -> Result<()> {
    let setup = Setup::new().await?;
    let envoy = setup.start(setup.fixture("anthropic_a")?.with_listeners_from_file(), 2).await?;
    assert_eq!(seen_key(&envoy).await?, "key of anthropic_a");

    for cluster in ["anthropic_b", "anthropic_c", "anthropic_c"] {
        let fixture = setup.fixture(cluster)?.with_listeners_from_file();
        assert_eq!(envoy.update_listener(&fixture).await?, Update::Accepted);
        assert_eq!(seen_key(&envoy).await?, format!("key of {cluster}"));
    }

    let fixture = setup.fixture("")?.with_listeners_from_file();
    let bad = fixture.edit_filter(|filter| *filter = json!({"problem": "a bad key"}))?;
    let Update::Rejected(log) = envoy.update_listener(&bad).await? else {
        panic!("it was accepted")
    };
    assert!(log.iter().any(|line| line.contains(r#"{"problem":"a bad key"}"#)), "{log:#?}");
    assert_eq!(seen_key(&envoy).await?, "key of anthropic_c");
    envoy.stop().await?;
    Ok(())
}

/// The key that the provider sees.
async fn seen_key(envoy: &Process) -> Result<String> {
    let request = hyper::Request::get("/").body(client::empty())?;
    let response = client::send(envoy.address(), Protocol::Http1, request).await?;
    Ok(response.header("x-seen-key").unwrap_or_default().to_owned())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_bad_filter_configuration_is_refused_at_the_start() -> Result<()> {
    let setup = Setup::new().await?;
    let bad = setup.fixture("")?.edit_filter(|filter| *filter = json!({"problem": "a bad key"}))?;
    for fixture in [bad.clone(), bad.with_listeners_from_file()] {
        let refusal = Process::start_expecting_refusal(&setup.envoy, &fixture, &keys()).await?;
        assert!(refusal.mentions(r#"{"problem":"a bad key"}"#), "{refusal}");
    }
    let good = setup.fixture("anthropic_a")?;
    let problem = Process::start_expecting_refusal(&setup.envoy, &good, &keys())
        .await
        .unwrap_err()
        .to_string();
    assert!(problem.ends_with("accepted a configuration that it should refuse"), "{problem}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_struct_reaches_the_filter_as_a_message_and_not_as_json() -> Result<()> {
    let setup = Setup::new().await?;
    let fixture = setup.fixture("anthropic_a")?.filter_configuration_as(Encoding::Struct);
    let refusal = Process::start_expecting_refusal(&setup.envoy, &fixture, &keys()).await?;
    // One entry of a map: key and value, each with a tag and a length in front.
    assert!(refusal.mentions("\u{7}cluster\u{12}"), "{refusal}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_running_envoy_is_observed() -> Result<()> {
    let setup = Setup::new().await?;
    let access_log = setup.directory.path().join("access.log");
    let fixture = setup
        .fixture("anthropic_a")?
        .with_access_log(&access_log)?
        .with_component_log_level("wasm:debug");
    let envoy = setup.start(fixture, 1).await?;
    client::send(
        envoy.address(),
        Protocol::Http1,
        hyper::Request::get("/seen").body(client::empty())?,
    )
    .await?;

    envoy.wait_for_log("debug line of the stand-in").await?;
    wait_until("waiting for the access log", async || {
        let text = fs::read_to_string(&access_log)?;
        Ok(text.starts_with("GET /seen 200 cluster=anthropic_a").then_some(()))
    })
    .await?;
    let memory = envoy.resident_memory()?;
    assert!((10 << 20..1 << 30).contains(&memory), "{memory}");
    // That of clients, and that of the operator's page.
    assert_eq!(envoy.stats("listener_manager.listener_added").await?.values().sum::<u64>(), 2);
    assert!(envoy.get_admin("/config_dump").await?.contains("session_affinity"));
    assert!(envoy.get_admin("/nothing").await.is_err());
    envoy.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn several_envoys_run_side_by_side_and_none_outlives_its_owner() -> Result<()> {
    let setup = Setup::new().await?;
    let first = setup.start(setup.fixture("anthropic_a")?, 1).await?;
    let second = setup.start(setup.fixture("anthropic_b")?, 1).await?;
    assert_ne!(first.address(), second.address());
    let admins = [first.admin(), second.admin()];

    first.stop().await?;
    drop(second);
    for admin in admins {
        wait_until("waiting for Envoy to be gone", async || {
            Ok(tokio::net::TcpStream::connect(admin).await.is_err().then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[test]
#[ignore = "downloads Envoy: cargo xtask test"]
fn concurrent_callers_get_the_version_that_they_request() {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| find(Some("1.36.4")))).collect();
        for caller in callers {
            let envoy = caller.join().unwrap().unwrap();
            assert_eq!(envoy.version.to_string(), "1.36.4");
            assert!(envoy.path.ends_with("target/envoy/1.36.4/envoy"));
        }
    });
}

/// A provider, and the module in place of the filter.
struct Setup {
    envoy: Envoy,
    directory: TempDir,
    providers: BTreeMap<u16, SocketAddr>,
    second_event: Arc<Notify>,
}

impl Setup {
    async fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::write(
            directory.path().join("module.wasm"),
            wat::parse_str(include_str!("fixed_cluster.wat"))?,
        )?;
        let second_event = Arc::new(Notify::new());
        let providers =
            [(18001, serve_http(second_event.clone()).await?), (18002, serve_websockets().await?)];
        Ok(Self { envoy: find(None)?, directory, providers: providers.into(), second_event })
    }

    fn module(&self) -> PathBuf {
        self.directory.path().join("module.wasm")
    }

    /// The shipped configuration, with a module that sends everything to one cluster.
    fn fixture(&self, cluster: &str) -> Result<Fixture> {
        Fixture::shipped(Mode::NextRequest)?
            .on_free_ports()
            .with_providers(&self.providers)?
            .with_module(&self.module())?
            .filter_configuration_as(Encoding::StringValue)
            .edit_filter(|filter| *filter = json!({"cluster": cluster}))
    }

    async fn start(&self, fixture: Fixture, concurrency: u32) -> Result<Process> {
        Process::start(&self.envoy, &fixture, concurrency, &keys()).await
    }
}

/// Envoy starts only with all of them.
fn keys() -> Vec<(String, String)> {
    let keys = ["anthropic_a", "anthropic_b", "anthropic_c", "gemini_a", "gemini_b"]
        .map(|cluster| (format!("{}_KEY", cluster.to_uppercase()), format!("key of {cluster}")));
    let authorizations = ["OPENAI_A", "OPENAI_B"]
        .map(|cluster| (format!("{cluster}_AUTHORIZATION"), "Bearer key".to_owned()));
    keys.into_iter().chain(authorizations).collect()
}

async fn serve_http(second_event: Arc<Notify>) -> Result<SocketAddr> {
    let events = get(async || {
        let second = async move {
            second_event.notified().await;
            Ok::<_, std::io::Error>(Bytes::from("data: second\n\n"))
        };
        let first = async { Ok(Bytes::from("data: first\n\n")) };
        Body::from_stream(stream::once(first).chain(stream::once(second))).into_response()
    });
    let router = Router::new().route("/events", events).fallback(any(echo));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Responds with what it received: the path and the body, and two headers under other names.
async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut text = format!("{} ", parts.uri).into_bytes();
    text.extend(body.collect().await.unwrap().to_bytes());
    let mut response = text.into_response();
    for (name, seen) in [("x-api-key", "x-seen-key"), ("x-odd", "x-seen-odd")] {
        if let Some(value) = parts.headers.get(name) {
            response.headers_mut().insert(seen, value.clone());
        }
    }
    response
}

async fn serve_websockets() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    });
    Ok(address)
}
