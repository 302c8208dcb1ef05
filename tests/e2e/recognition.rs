//! What today's clients send, and that what headers settle is never held.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use envoy_harness::client::{self, Body, Connection, Protocol, WebSocket};
use envoy_harness::wait_until;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    body, decision, gateway, gateway_with, message, post, say, send, served, shipped,
};

/// A body that comes when the test sends it.
fn body_in_parts() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let part = receiver.recv().await?;
        Some((Ok(Frame::data(part)), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// Whether a request reaches the upstream before its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
}

/// Sends headers, checks that they are held or not, sends the body, and tells where the session was
/// found.
async fn source_of(request: Request<()>, sent: &Value, held: Held) -> Result<Option<String>> {
    let gateway = shipped().await?;
    let mut text = Bytes::from(sent.to_string());
    let (sender, streamed) = body_in_parts();
    let (parts, ()) = request.into_parts();
    let request = Request::from_parts(parts, streamed);
    let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http2).await?;
    let response = tokio::spawn(async move { connection.send(request).await });
    let has_arrived =
        || gateway.providers.requests().iter().any(|request| request.status.is_none());
    match held {
        Held::No => {
            sender.send(text.split_to(20)).await?;
            wait_until("the headers at the upstream", async || Ok(has_arrived().then_some(())))
                .await?
        }
        Held::Yes => {
            let at_envoy = |stats: &BTreeMap<String, u64>| stats.values().sum::<u64>() == 1;
            gateway.envoy.wait_for_stats("http.llm.downstream_rq_total", at_envoy).await?;
            // What comes later overtakes it: by then it has got as far as it can.
            for session in 0..20 {
                say(&gateway, &format!("another {session}")).await?;
            }
            assert!(!has_arrived(), "the headers went on without the body");
        }
    }
    sender.send(text).await?;
    drop(sender);
    let source = served(&response.await??)?.source;
    gateway.stop().await?;
    Ok(source)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_that_a_header_settles_is_not_held() -> Result<()> {
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
    let claude = post("/v1/messages").header("X-Claude-Code-Session-Id", "0f6c5a0e").body(())?;
    assert_eq!(source_of(claude, &message("hi"), Held::No).await?.as_deref(), Some("claude"));
    let codex = post("/v1/chat/completions").header("session-id", "019c7a10").body(())?;
    assert_eq!(source_of(codex, &chat, Held::No).await?.as_deref(), Some("codex"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn where_claude_codes_body_may_overrule_a_header_it_is_read_first() -> Result<()> {
    let mut sent = message("hi");
    sent["metadata"] = json!({"user_id": "user_0_account__session_ab-cd"});
    let request = || post("/v1/messages").header("x-session-id", "1").body(());
    assert_eq!(source_of(request()?, &sent, Held::Yes).await?.as_deref(), Some("claude"));
    assert_eq!(source_of(request()?, &message("hi"), Held::Yes).await?.as_deref(), Some("header"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn claude_codes_header_and_its_body_name_one_session() -> Result<()> {
    let gateway = gateway(1, |filter| filter["body"]["read"] = json!("always")).await?;
    let id = "0f6c5a0e-6f7e-4b59-9d3f-2d1a8c7b4e55";
    let by_header =
        post("/v1/messages").header("x-claude-code-session-id", id).body(body(&message("hi")))?;
    let first = served(&send(&gateway, by_header).await?)?;
    let mut old = message("hi");
    old["metadata"] = json!({"user_id": format!("user_0_account__session_{id}")});
    let second = served(&send(&gateway, post("/v1/messages").body(body(&old))?).await?)?;
    assert_eq!((second.outcome.as_str(), second.account), ("hit", first.account));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_client_of_today_keeps_its_conversation() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["pools"][2]["match"]["path_prefixes"] = json!(["/v1beta/", "/v1internal:"]);
    })
    .await?;
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
    let with = |name: &str, value: Value| {
        let mut chat = chat.clone();
        chat[name] = value;
        chat
    };
    let responses = json!({"model": "gpt-5.4", "input": "tell me a joke"});
    let code_assist = json!({
        "model": "gemini-3.1-pro", "user_prompt_id": "s-9########0",
        "request": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "session_id": "s-9"}
    });
    for (client, path, header, sent, source) in [
        ("Codex", "/v1/responses", Some(("session-id", "019c7a10")), responses.clone(), "codex"),
        ("Roo", "/v1/responses", Some(("session_id", "019a5f0e")), responses.clone(), "codex"),
        (
            "LangChain",
            "/v1/chat/completions",
            Some(("x-session-affinity", "3d3f")),
            chat.clone(),
            "affinity",
        ),
        (
            "Open WebUI",
            "/v1/chat/completions",
            Some(("X-OpenWebUI-Chat-Id", "f4c2")),
            chat.clone(),
            "x-openwebui-chat-id",
        ),
        ("Zed", "/v1/chat/completions", None, with("prompt_cache_key", json!("t-1")), "pck"),
        (
            "OpenAI SDK",
            "/v1/responses",
            None,
            with("conversation", json!({"id": "conv_1"})),
            "conv",
        ),
        (
            "Qwen Code",
            "/v1/chat/completions",
            None,
            with("metadata", json!({"sessionId": "d9b1"})),
            "session",
        ),
        ("plain string", "/v1/responses", None, responses, "msg"),
        ("Gemini CLI", "/v1internal:streamGenerateContent?alt=sse", None, code_assist, "session"),
    ] {
        let mut accounts = Vec::new();
        for _ in 0..2 {
            let mut request = post(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            // What matters is where it went: the simulated providers need not know every path.
            let response = send(&gateway, request.body(body(&sent))?).await?;
            assert!(
                decision(&response)?.contains(&format!("source={source} ")),
                "{client}: {:?}",
                decision(&response)
            );
            accounts.push(response.header("x-simulated-account").map(str::to_owned));
        }
        assert!(accounts[0].is_some() && accounts[0] == accounts[1], "{client}: {accounts:?}");
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn codex_over_a_websocket_is_bound_like_codex_over_http() -> Result<()> {
    let gateway = shipped().await?;
    let sent = json!({"model": "gpt-5.4", "input": "hi"});
    let over_http = post("/v1/responses").header("session-id", "019c7a40").body(body(&sent))?;
    let over_http = served(&send(&gateway, over_http).await?)?;
    let headers =
        HeaderMap::from_iter([("session-id".parse()?, HeaderValue::from_static("019c7a40"))]);
    let mut socket = WebSocket::open(gateway.envoy.address(), "/v1/responses", headers).await?;
    socket
        .send(&json!({"type": "response.create", "model": "gpt-5.4", "input": "hi"}).to_string())
        .await?;
    assert!(socket.next().await?.is_some());
    socket.close().await?;
    let handshake =
        gateway.providers.requests().into_iter().find(|request| request.method == "GET").unwrap();
    assert_eq!(handshake.account, Some(over_http.account));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_operators_own_source_and_scope_are_obeyed() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["session"]["sources"] = json!([{"body": "thread.key", "pattern": "^t-(.*)$"}]);
        filter["session"]["scope"] =
            json!([{"header": "x-tenant"}, {"property": ["connection", "mtls"]}]);
    })
    .await?;
    let ask = async |tenant: &'static str| {
        let mut sent = message("hi");
        sent["thread"] = json!({"key": "t-1"});
        let request =
            post("/v1/messages").header("x-tenant", tenant).header("x-session-id", "ignored");
        served(&send(&gateway, request.body(body(&sent))?).await?)
    };
    let (red, blue) = (ask("red").await?, ask("blue").await?);
    assert_eq!(red.source.as_deref(), Some("thread.key"));
    assert_eq!(blue.outcome, "miss", "one id of two tenants is two sessions");
    assert_eq!(
        (ask("red").await?.account, ask("blue").await?.account),
        (red.account, blue.account)
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_property_that_does_not_exist_is_an_empty_scope() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["session"]["scope"] =
            json!([{"property": ["no", "such", "thing"]}, {"property": ["xds", "upstream_host_metadata"]}]);
    })
    .await?;
    assert_eq!(say(&gateway, "1").await?.outcome, "miss");
    assert_eq!(say(&gateway, "1").await?.outcome, "hit");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn behind_the_decompressor_of_the_readme_a_compressed_body_is_read() -> Result<()> {
    let readme =
        std::fs::read_to_string(envoy_harness::project_root().join("docs/sessions-and-bodies.md"))?;
    let filter =
        readme.split("\n```yaml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let decompressor: Value = serde_saphyr::from_str(filter)?;
    let gateway = gateway_with(|fixture| {
        Ok(fixture.edit(|document| {
            let manager =
                "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
            document.pointer_mut(manager).unwrap().as_array_mut().unwrap().insert(0, decompressor);
        }))
    })
    .await?;
    let mut sent = message("hi");
    sent["metadata"] = json!({"user_id": "user_0_account__session_ab-cd"});
    let compressed = compress_to_vec(sent.to_string().as_bytes(), CompressionLevel::Fastest);
    for expected in ["miss", "hit"] {
        let request = post("/v1/messages")
            .header("content-encoding", "zstd")
            .body(client::whole(compressed.clone()))?;
        let served = served(&send(&gateway, request).await?)?;
        assert_eq!((served.outcome.as_str(), served.source.as_deref()), (expected, Some("claude")));
    }
    gateway.stop().await?;
    Ok(())
}
