//! Responses as their providers mean them: what is announced, what comes after a 200, what is
//! compressed, and what concerns one model.

use std::time::Instant;

use anyhow::{Context, Result};
use envoy_harness::client::{Body, Connection, Protocol, Response, WebSocket};
use envoy_harness::{Fixture, Mode};
use hyper::Request;
use serde_json::{Value, json};
use simulated_providers::{Fault, Vendor};

use crate::support::{
    attempts, body, chat, decision, envoy, expect_no_failover, message, modes, pairs, post,
    retries_held_responses, send, served, served_in, shipped, start, word,
};

/// A request for a stream, one for each API.
fn stream_of(vendor: Vendor, session: &str) -> Result<Request<Body>> {
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let (path, value) = match vendor {
        Vendor::Anthropic => {
            let mut value = message("hi");
            value["stream"] = json!(true);
            ("/v1/messages", value)
        }
        Vendor::OpenAi => {
            ("/v1/responses", json!({"model": "gpt-5.6", "stream": true, "input": "hi"}))
        }
        Vendor::Gemini => ("/v1beta/models/gemini-3.1-pro:streamGenerateContent?alt=sse", contents),
    };
    Ok(post(path).header("x-session-id", session).body(body(&value))?)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_stream_that_is_an_error_after_its_200_is_followed_by_another() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for (number, (vendor, fault)) in [
            (Vendor::Anthropic, Fault::response("anthropic-overloaded-event")),
            (Vendor::Anthropic, Fault::response("anthropic-overloaded-after-start")),
            (Vendor::Anthropic, Fault::EndAfter(1)),
            (Vendor::OpenAi, Fault::response("openai-failed-event")),
            (Vendor::OpenAi, Fault::EndAfter(2)),
            (Vendor::Gemini, Fault::response("gemini-error-element")),
            (Vendor::Gemini, Fault::EndAfter(0)),
        ]
        .into_iter()
        .enumerate()
        {
            let (session, case) = (number.to_string(), format!("{mode:?} {fault:?}"));
            let home = served(&send(&gateway, stream_of(vendor, &session)?).await?)?.credential;
            gateway.providers.fault(&home, fault, Some(1))?;
            let response = send(&gateway, stream_of(vendor, &session)?).await?;
            let account = served(&response)?.credential;
            if retries_held_responses()? {
                assert_ne!(account, home, "{case}: {}", response.text());
                let text = response.text();
                assert!(!text.contains("\"error\":{"), "{case}: {text}");
            } else {
                assert_eq!(account, home, "{case}: the error has passed");
            }
            served(&send(&gateway, stream_of(vendor, &session)?).await?)?;
        }
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_error_after_content_passes_and_nothing_is_asked_for_again() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let fault = Fault::response("anthropic-overloaded-after-content");
        gateway.providers.fault("anthropic-a", fault, Some(1))?;
        let response = send(&gateway, stream_of(Vendor::Anthropic, "1")?).await?;
        assert_eq!(served(&response)?.credential, "anthropic-a", "{mode:?}");
        assert!(response.text().contains("overloaded_error"), "{mode:?}: {}", response.text());
        assert_eq!(attempts(&gateway), pairs([("anthropic-a", 200)]), "{mode:?}");
        expect_no_failover(&gateway).await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_stream_that_falls_silent_is_let_go() -> Result<()> {
    let edit = |fixture: Fixture| {
        fixture.edit_filter(|filter| filter["failover"]["first_event"] = json!({"wait": "300ms"}))
    };
    for (mode, gateway) in modes(edit).await? {
        gateway.providers.fault("anthropic-a", Fault::SilentAfter(1), Some(1))?;
        let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
        let mut stream = connection.stream(stream_of(Vendor::Anthropic, "1")?).await?;
        assert_eq!(stream.status, 200, "{mode:?}: the client sees that it has begun");
        if !envoy()?.version.to_string().starts_with("1.37") {
            let event = stream.next_event().await?.context("no event")?;
            assert!(event.contains("message_start"), "{mode:?}: {event}");
        }
        drop((stream, connection));
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_held_stream_is_not_changed_by_a_byte() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        for vendor in Vendor::ALL {
            let through = send(&gateway, stream_of(vendor, "1")?).await?;
            let account = served(&through)?.credential;
            let accounts = gateway.providers.accounts().iter();
            let key = accounts.clone().find(|it| it.name == account).unwrap().key.clone();
            let mut request = stream_of(vendor, "1")?;
            let (name, value) = match vendor {
                Vendor::Anthropic => ("x-api-key", key),
                Vendor::OpenAi => ("authorization", format!("Bearer {key}")),
                Vendor::Gemini => ("x-goog-api-key", key),
            };
            request.headers_mut().insert(name, value.parse()?);
            let address = gateway.providers.address(vendor);
            let direct = envoy_harness::client::send(address, Protocol::Http1, request).await?;
            assert_eq!(lengths(&through), lengths(&direct), "{mode:?} {vendor}");
        }
        gateway.stop().await?;
    }
    Ok(())
}

/// The lengths of the lines of a body; ids and times in it differ, but not in their lengths.
fn lengths(response: &Response) -> Vec<usize> {
    response.text().lines().map(str::len).collect()
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_time_to_the_first_token_is_measured_with_and_without_holding() -> Result<()> {
    for bytes in [16 << 10, 0] {
        let edit = |fixture: Fixture| {
            fixture
                .edit_filter(|filter| filter["failover"]["first_event"] = json!({"bytes": bytes}))
        };
        let Some(gateway) = start(Mode::Clusters, 1, edit).await? else {
            continue;
        };
        let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
        let mut times = Vec::new();
        for _ in 0..200 {
            #[expect(clippy::disallowed_methods, reason = "a measurement")]
            let begun = Instant::now();
            let mut stream = connection.stream(stream_of(Vendor::Anthropic, "1")?).await?;
            while let Some(event) = stream.next_event().await? {
                if event.contains("content_block_delta") {
                    times.push(begun.elapsed());
                    break;
                }
            }
            stream.rest().await?;
        }
        times.sort();
        println!(
            "first token, held up to {bytes} bytes: median {:?}, 95 % {:?}",
            times[times.len() / 2],
            times[times.len() * 95 / 100]
        );
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_limit_in_a_body_is_read_compressed_or_not() -> Result<()> {
    // Else no response would be compressed.
    let plain = |filter: &mut Value| filter["observe"] = json!({"usage": "plain"});
    for (mode, gateway) in modes(|fixture| fixture.edit_filter(plain)).await? {
        for (account, name, encoding) in [
            ("openai-a", "gzip-without-header", "identity"),
            ("openai-b", "codex-usage-limit", "gzip, deflate, br, zstd"),
        ] {
            let fault = Fault::Response { name: name.to_owned(), wait: Some(600) };
            gateway.providers.fault(account, fault, Some(1))?;
            let mut request = chat(100, false)?;
            request.headers_mut().insert("accept-encoding", encoding.parse()?);
            send(&gateway, request).await?;
        }
        let response = send(&gateway, chat(100, false)?).await?;
        if !retries_held_responses()? {
            // There a 429 is retried by its headers, and its body is never seen.
            served(&response)?;
            gateway.stop().await?;
            continue;
        }
        assert_eq!(response.status, 429, "{mode:?}: {}", response.text());
        let line = gateway.envoy.wait_for_log(" outcome=model_cooldown").await?;
        let out = word(&line, "out=").unwrap_or_default();
        for id in ["openai-a", "openai-b"] {
            assert!(out.contains(&format!("{id}:rate_limit:10m")), "{mode:?}: {out}");
        }
        let seconds: u64 = response.header("retry-after").unwrap_or_default().parse()?;
        assert!((500..=600).contains(&seconds), "{mode:?}: {seconds}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn waits_are_read_where_each_provider_writes_them() -> Result<()> {
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let generate = "/v1beta/models/gemini-3.1-pro:generateContent";
    let chat = json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": "hi"}]});
    let openai = "/v1/chat/completions";
    for (account, name, path, value, expected) in [
        ("anthropic-a", "anthropic-session-limit", "/v1/messages", message("hi"), "rate_limit:3h"),
        ("anthropic-a", "anthropic-rate-limit", "/v1/messages", message("hi"), "rate_limit:30s"),
        ("openai-a", "openai-rate-limit", openai, chat.clone(), "rate_limit:11s"),
        ("openai-a", "codex-usage-limit", openai, chat.clone(), "rate_limit:90m"),
        ("openai-a", "azure-rate-limit", openai, chat.clone(), "rate_limit:12s"),
        ("openai-a", "openai-insufficient-quota", openai, chat, "denied:"),
        ("gemini-a", "gemini-minute-quota", generate, contents.clone(), "rate_limit:37s"),
        ("gemini-a", "gemini-invalid-key", generate, contents, "denied:"),
    ] {
        let is_in_a_body = matches!(name, "openai-insufficient-quota" | "gemini-minute-quota");
        // Before 1.37 a 429 is retried by its headers, and its body is never seen.
        let gateway = start(Mode::Keys, 1, Ok).await?.context("every Envoy has this mode")?;
        gateway.providers.fault(account, Fault::response(name), Some(1))?;
        for _ in 0..2 {
            let request = post(path).header("x-session-id", "1").body(body(&value))?;
            let response = send(&gateway, request).await?;
            if response.status == 200 {
                continue;
            }
            assert!(!retries_held_responses()?, "{name}: {}", response.text());
        }
        if is_in_a_body && !retries_held_responses()? {
            // What is not seen is guessed: a second, which a slow machine may have taken already.
            let line = gateway.envoy.wait_for_log("cooldown begins:").await?;
            let guess = format!(" credential={account} class=rate_limit ");
            assert!(line.contains(&guess) && line.contains(" length=1s "), "{name}: {line}");
            gateway.stop().await?;
            continue;
        }
        let request = post(path).header("x-session-id", "2").body(body(&value))?;
        let response = send(&gateway, request).await?;
        let out = word(decision(&response)?, "out=").unwrap_or_default();
        let told = close(&out, account, expected);
        assert!(told, "{name}: {out}");
        assert_ne!(served(&response)?.credential, account, "{name}");
        gateway.stop().await?;
    }
    Ok(())
}

/// Whether a credential is out as expected; a few seconds may have passed.
fn close(out: &str, id: &str, expected: &str) -> bool {
    let Some(told) = out.strip_prefix(&format!("{id}:")) else {
        return false;
    };
    let seconds = |text: &str| text.rsplit(':').next()?.strip_suffix('s')?.parse::<u64>().ok();
    match seconds(expected).zip(seconds(told)) {
        Some((expected, told)) => (expected.saturating_sub(10)..=expected).contains(&told),
        None => {
            told.starts_with(expected.trim_end_matches(|it: char| it.is_ascii_alphanumeric()))
                && (expected.ends_with(':') || told == expected || near(told, expected))
        }
    }
}

/// Minutes and hours are rounded up, so that one less may be told.
fn near(told: &str, expected: &str) -> bool {
    let number = |text: &str| {
        let text = text.rsplit(':').next()?;
        let (number, unit) = text.split_at_checked(text.len() - 1)?;
        Some((number.parse::<u64>().ok()?, unit.to_owned()))
    };
    number(told)
        .zip(number(expected))
        .is_some_and(|(told, expected)| told.1 == expected.1 && told.0 + 1 == expected.0)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_usage_limit_on_a_websocket_leads_its_session_elsewhere() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let headers =
            || -> Result<_> { Ok([("session-id".parse()?, "1".parse()?)].into_iter().collect()) };
        let open = async || -> Result<WebSocket> {
            WebSocket::open(gateway.envoy.address(), "/v1/responses", headers()?).await
        };
        let mut socket = open().await?;
        assert_eq!(socket.headers["x-simulated-account"], "openai-a", "{mode:?}");
        gateway.providers.fault("openai-a", Fault::response("codex-usage-limit"), Some(1))?;
        socket.send(r#"{"type":"response.create","model":"gpt-5.6","input":"hi"}"#).await?;
        let frame = socket.next().await?.context("no frame")?;
        assert!(frame.contains("usage_limit_reached"), "{mode:?}: {frame}");
        socket.close().await?;
        let mut again = open().await?;
        assert_eq!(again.headers["x-simulated-account"], "openai-b", "{mode:?}");
        again.send(r#"{"type":"response.create","model":"gpt-5.6","input":"hi"}"#).await?;
        let frame = again.next().await?.context("no frame")?;
        assert!(frame.contains("response.created"), "{mode:?}: {frame}");
        again.close().await?;
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_weekly_limit_of_one_model_leaves_the_others_to_claude_code() -> Result<()> {
    let gateway = shipped().await?;
    let ask = async |model: &str| -> Result<Response> {
        let mut value = message("hi");
        value["model"] = json!(model);
        let request = post("/v1/messages").header("x-claude-code-session-id", "0f6c5a0e");
        send(&gateway, request.body(body(&value))?).await
    };
    let home = served(&ask("claude-opus-4-5").await?)?.credential;
    let limit = Fault::response("anthropic-weekly-opus-limit");
    gateway.providers.fault_of_model(&home, "opus", limit, None)?;
    for _ in 0..2 {
        let response = ask("claude-opus-4-5").await?;
        if response.status == 429 {
            assert!(!retries_held_responses()?, "{}", response.text());
            continue;
        }
        assert_ne!(served(&response)?.credential, home);
    }
    let response = ask("claude-haiku-4-5").await?;
    assert_eq!(served(&response)?.credential, home, "{}", decision(&response)?);
    assert_ne!(served(&ask("claude-opus-4-5").await?)?.credential, home);
    let limits = attempts(&gateway).into_iter().filter(|(_, status)| *status == 429).count();
    assert_eq!(limits, 1, "it is asked for this model once");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_a_client_says_of_its_account_contradicts_no_key() -> Result<()> {
    let gateway = start(Mode::Keys, 1, Ok).await?.context("every Envoy has this mode")?;
    let names = ["openai-organization", "openai-project", "chatgpt-account-id", "cookie", "origin"];
    let mut request = chat(100, false)?;
    for name in names {
        request.headers_mut().insert(name, "of-the-client".parse()?);
    }
    served(&send(&gateway, request).await?)?;
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let path = "/v1beta/models/gemini-3.1-pro:streamGenerateContent?alt=sse&key=of-the-client";
    served(&send(&gateway, post(path).body(body(&contents))?).await?)?;
    for record in gateway.providers.requests() {
        assert!(!record.path.contains("of-the-client"), "{}", record.path);
        for name in names {
            assert!(!record.headers.contains_key(name), "{name}");
        }
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_body_of_24_megabytes_arrives_as_it_was_sent() -> Result<()> {
    // Not all the same, so that a piece that is missing or twice there shows.
    let text: String = (0..4_u32 << 20).map(|number| format!("{:06x}", number)).collect();
    let request = || -> Result<Request<Body>> {
        Ok(post("/v1/messages").header("x-session-id", "1").body(body(&message(&text)))?)
    };
    for (mode, gateway) in modes(Ok).await? {
        let through = send(&gateway, request()?).await?;
        let account = served(&through)?.credential;
        let accounts = gateway.providers.accounts().iter();
        let key = accounts.clone().find(|it| it.name == account).unwrap().key.clone();
        let mut direct = request()?;
        direct.headers_mut().insert("x-api-key", key.parse()?);
        let address = gateway.providers.address(Vendor::Anthropic);
        let direct = envoy_harness::client::send(address, Protocol::Http1, direct).await?;
        let reply = |response: &Response| -> Result<Value> {
            // Made from a hash of the prompt.
            Ok(response.json()?["content"].clone())
        };
        assert_eq!(reply(&through)?, reply(&direct)?, "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn streams_that_are_cut_again_and_again_move_their_session() -> Result<()> {
    let gateway = start(Mode::Keys, 1, Ok).await?.context("every Envoy has this mode")?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    gateway.providers.fault("anthropic-a", Fault::CutAfter(5), None)?;
    let mut moved = false;
    for _ in 0..6 {
        let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
        let stream = connection.stream(stream_of(Vendor::Anthropic, "1")?).await?;
        let is_home = stream.headers["x-simulated-account"] == "anthropic-a";
        let is_whole = stream.rest().await.is_ok();
        assert_eq!(is_home, !is_whole);
        moved |= is_whole;
    }
    assert!(moved, "six streams of one session broke off at its home");
    gateway.stop().await?;
    Ok(())
}
