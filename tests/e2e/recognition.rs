//! What clients send today; a request is not held if headers settle its session.

use anyhow::Result;
use bytes::Bytes;
use envoy_harness::client::{self, Connection, Protocol, WebSocket};
use envoy_harness::gateway::Gateway;
use envoy_harness::wait_until;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use crate::support::{
    Served, body, body_in_parts, decision, gateway, gateway_with, message, post, send, served,
    served_in, shipped,
};

/// Whether a request reaches the upstream before its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
}

/// Sends headers, checks whether they are held, sends the body, and returns where the session was
/// found.
async fn source_of(request: Request<()>, sent: &Value, held: Held) -> Result<Option<String>> {
    let gateway = shipped().await?;
    let mut text = Bytes::from(sent.to_string());
    let (sender, streamed) = body_in_parts();
    let (parts, ()) = request.into_parts();
    let request = Request::from_parts(parts, streamed);
    let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http2).await?;
    let response = tokio::spawn(async move { connection.send(request).await });
    match held {
        Held::No => {
            sender.send(text.split_to(20)).await?;
            wait_until("the headers at the upstream", async || {
                Ok(has_arrived(&gateway).then_some(()))
            })
            .await?
        }
        Held::Yes => {
            let name = "http.llm.downstream_rq_total";
            gateway.envoy.wait_for_stats(name, |stats| stats.values().sum::<u64>() == 1).await?;
            // Later requests overtake it: by then it has come as far as it can.
            for session in 0..20 {
                served_in(&gateway, &format!("another {session}")).await?;
            }
            assert!(!has_arrived(&gateway), "the headers went on without the body");
        }
    }
    sender.send(text).await?;
    drop(sender);
    let source = served(&response.await??)?.source;
    gateway.stop().await?;
    Ok(source)
}

/// Whether a request without a response yet is at a provider.
fn has_arrived(gateway: &Gateway) -> bool {
    gateway.providers.requests().iter().any(|request| request.status.is_none())
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
async fn a_stream_of_lines_is_not_held() -> Result<()> {
    let request =
        Request::post("/v1/messages").header("content-type", "application/x-ndjson").body(())?;
    assert_eq!(source_of(request, &message("hi"), Held::No).await?, None);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_of_claude_code_that_may_overrule_a_header_is_read_first() -> Result<()> {
    let mut sent = message("hi");
    sent["metadata"] = json!({"user_id": "user_0_account__session_ab-cd"});
    for (sent, source) in [(sent, "claude"), (message("hi"), "header")] {
        let request = post("/v1/messages").header("x-session-id", "1").body(())?;
        assert_eq!(source_of(request, &sent, Held::Yes).await?.as_deref(), Some(source));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_header_and_the_body_of_claude_code_name_one_session() -> Result<()> {
    let gateway = gateway(1, |filter| filter["body"]["read"] = json!("always")).await?;
    let id = "0f6c5a0e-6f7e-4b59-9d3f-2d1a8c7b4e55";
    let by_header =
        post("/v1/messages").header("x-claude-code-session-id", id).body(body(&message("hi")))?;
    let first = served(&send(&gateway, by_header).await?)?;
    let mut old = message("hi");
    old["metadata"] = json!({"user_id": format!("user_0_account__session_{id}")});
    let second = served(&send(&gateway, post("/v1/messages").body(body(&old))?).await?)?;
    assert_eq!((second.outcome.as_str(), second.credential), ("hit", first.credential));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_client_keeps_its_session() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["pools"][1]["match"] = json!({"path_prefixes": ["/v1beta/", "/v1internal:"]});
    })
    .await?;
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
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
        ("Zed", "/v1/chat/completions", None, with(&chat, "prompt_cache_key", json!("t-1")), "pck"),
        (
            "OpenAI SDK",
            "/v1/responses",
            None,
            with(&chat, "conversation_id", json!("conv_1")),
            "conv",
        ),
        (
            "Qwen Code",
            "/v1/chat/completions",
            None,
            with(&chat, "metadata", json!({"sessionId": "d9b1"})),
            "session",
        ),
        ("plain string", "/v1/responses", None, responses, "msg"),
        ("Gemini CLI", "/v1internal:streamGenerateContent?alt=sse", None, code_assist, "session"),
    ] {
        let mut credentials = Vec::new();
        for _ in 0..2 {
            let mut request = post(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            // Only the credential matters here: the simulated providers do not know every path.
            let response = send(&gateway, request.body(body(&sent))?).await?;
            assert!(
                decision(&response)?.contains(&format!("source={source} ")),
                "{client}: {:?}",
                decision(&response)
            );
            credentials.push(response.header("x-simulated-account").map(str::to_owned));
        }
        assert!(
            credentials[0].is_some() && credentials[0] == credentials[1],
            "{client}: {credentials:?}"
        );
    }
    gateway.stop().await?;
    Ok(())
}

fn with(chat: &Value, name: &str, value: Value) -> Value {
    let mut chat = chat.clone();
    chat[name] = value;
    chat
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
    assert_eq!(handshake.account, Some(over_http.credential));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_websocket_that_names_nothing_comes_back_to_its_callers_credential() -> Result<()> {
    let gateway = shipped().await?;
    for key in ["Bearer one", "Bearer two", "Bearer one", "Bearer two", "Bearer one"] {
        let headers =
            HeaderMap::from_iter([("authorization".parse()?, HeaderValue::from_static(key))]);
        let mut socket = WebSocket::open(gateway.envoy.address(), "/v1/responses", headers).await?;
        let frame = json!({"type": "response.create", "model": "gpt-5.4", "input": "hi"});
        socket.send(&frame.to_string()).await?;
        assert!(socket.next().await?.is_some());
        socket.close().await?;
    }
    let handshakes = gateway.providers.requests().into_iter().filter(|it| it.method == "GET");
    let accounts: Vec<_> = handshakes.map(|handshake| handshake.account).collect();
    let [one, two, ..] = &accounts[..] else { panic!("{accounts:?}") };
    assert_ne!(one, two, "two callers");
    assert_eq!(accounts, [one, two, one, two, one].map(Clone::clone));
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn conversations_that_begin_with_the_same_reminder_are_told_apart() -> Result<()> {
    let gateway = shipped().await?;
    let reminder = format!("<system-reminder>\n{}\n</system-reminder>", "r".repeat(4_000));
    let mut homes = Vec::new();
    for question in ["Fix the test", "Explain the module", "Rename it", "Go on"] {
        let first = json!([{"role": "user", "content": [
            {"type": "text", "text": reminder}, {"type": "text", "text": question}
        ]}]);
        let second = json!([
            {"role": "user", "content": question},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": [
                {"type": "text", "text": reminder}, {"type": "text", "text": "And now?"}
            ]}
        ]);
        for (messages, outcome) in [(first, "miss"), (second, "hit")] {
            let sent = json!({"model": "gpt-5.4", "messages": messages});
            let request = post("/v1/chat/completions").body(body(&sent))?;
            let served = served(&send(&gateway, request).await?)?;
            assert_eq!((served.outcome.as_str(), served.source.as_deref()), (outcome, Some("msg")));
            homes.push(served.credential);
        }
    }
    let [one, one_again, two, two_again, ..] = &homes[..] else { panic!("{homes:?}") };
    assert_eq!((one, two), (one_again, two_again));
    assert_ne!(one, two);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_source_and_a_scope_of_the_operator_apply() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["session"]["sources"] = json!([{"body": "thread.key", "pattern": "^t-(.*)$"}]);
        filter["session"]["scope"] =
            json!([{"header": "x-tenant"}, {"property": ["connection", "mtls"]}]);
    })
    .await?;
    let mut sent = message("hi");
    sent["thread"] = json!({"key": "t-1"});
    let mut turns = Vec::new();
    for tenant in ["red", "blue", "red", "blue"] {
        let request =
            post("/v1/messages").header("x-tenant", tenant).header("x-session-id", "ignored");
        turns.push(served(&send(&gateway, request.body(body(&sent))?).await?)?);
    }
    let [red, blue, red_again, blue_again] = <[Served; 4]>::try_from(turns).unwrap();
    assert_eq!(red.source.as_deref(), Some("thread.key"));
    assert_eq!(blue.outcome, "miss", "one id of two tenants is two sessions");
    assert_eq!((red_again.credential, blue_again.credential), (red.credential, blue.credential));
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
    assert_eq!(served_in(&gateway, "1").await?.outcome, "miss");
    assert_eq!(served_in(&gateway, "1").await?.outcome, "hit");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn behind_the_decompressor_of_the_documents_a_compressed_body_is_read() -> Result<()> {
    let page =
        std::fs::read_to_string(envoy_harness::project_root().join("docs/sessions-and-bodies.md"))?;
    let filter =
        page.split("\n```yaml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
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
