//! A conversation stays on its credential.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use envoy_harness::client::{Connection, Protocol};
use serde_json::{Value, json};

use crate::support::{body, counted, gateway, message, post, say, send, served, shipped};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn turns_of_one_session_go_to_one_credential_and_new_sessions_spread() -> Result<()> {
    let gateway = shipped().await?;
    let mut first_turns = BTreeMap::new();
    for session in ["1", "2", "3", "4", "5", "6"] {
        let served = say(&gateway, session).await?;
        assert_eq!((served.outcome.as_str(), served.source.as_deref()), ("miss", Some("header")));
        first_turns.insert(session, served.account);
    }
    for (session, account) in &first_turns {
        let served = say(&gateway, session).await?;
        assert_eq!(
            (served.outcome.as_str(), &served.account),
            ("hit", account),
            "session {session}"
        );
    }
    let mut sessions_of = BTreeMap::new();
    for account in first_turns.into_values() {
        *sessions_of.entry(account).or_insert(0) += 1;
    }
    assert_eq!(sessions_of.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(counted(&gateway).await?, [("hit".to_owned(), 6), ("miss".to_owned(), 6)]);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_conversation_without_an_id_is_known_by_its_beginning() -> Result<()> {
    let gateway = shipped().await?;
    say(&gateway, "so that the rotation is not at its start").await?;
    let mut conversation = message("Why is the sky blue?");
    let turn = async |conversation: &Value| {
        served(&send(&gateway, post("/v1/messages").body(body(conversation))?).await?)
    };
    let first = turn(&conversation).await?;
    assert_eq!((first.outcome.as_str(), first.source.as_deref()), ("miss", Some("msg")));
    for expected in ["inherit", "hit", "hit"] {
        let messages = conversation["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": "Rayleigh scattering."}));
        messages.push(json!({"role": "user", "content": "Go on."}));
        let next = turn(&conversation).await?;
        assert_eq!((next.outcome.as_str(), &next.account), (expected, &first.account));
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_api_keeps_its_conversations_by_what_its_clients_send() -> Result<()> {
    let gateway = shipped().await?;
    let claude_code = |user_id: &str| {
        let mut body = message("hi");
        body["metadata"] = json!({"user_id": user_id});
        body
    };
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]});
    let mut with_conversation_id = chat.clone();
    with_conversation_id["conversation_id"] = json!("c-1");
    let responses = json!({"model": "gpt-5.4", "instructions": "Be thorough.", "input": [{"role": "user", "content": "Hi."}]});
    let gemini = json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "Hi."}]}]});
    for (path, header, sent, source) in [
        ("/v1/messages?beta=true", None, claude_code("user_0a_account__session_1f-2e"), "claude"),
        ("/v1/messages", None, claude_code(r#"{"device_id":"d","session_id":"3d-4c"}"#), "claude"),
        ("/v1/messages", None, claude_code("somebody"), "user"),
        ("/v1/messages", Some(("X-Amp-Thread-Id", "T-1")), message("hi"), "amp"),
        ("/v1/chat/completions", Some(("X-Session-Id", "ses_1")), chat.clone(), "header"),
        ("/v1/chat/completions", None, with_conversation_id, "conv"),
        ("/v1/chat/completions", None, chat, "msg"),
        ("/v1/responses", None, responses, "msg"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", None, gemini, "msg"),
    ] {
        let turn = async || {
            let mut request = post(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            served(&send(&gateway, request.body(body(&sent))?).await?)
        };
        let (first, second) = (turn().await?, turn().await?);
        assert_eq!(
            (first.outcome.as_str(), first.source.as_deref()),
            ("miss", Some(source)),
            "{path} {sent}"
        );
        assert_eq!(
            (second.outcome.as_str(), second.account),
            ("hit", first.account),
            "{path} {sent}"
        );
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_binding_that_was_not_used_for_its_ttl_is_gone() -> Result<()> {
    let ttl = Duration::from_millis(300);
    let gateway =
        gateway(1, |filter| filter["routing"]["session_affinity_ttl"] = json!("300ms")).await?;
    say(&gateway, "1").await?;
    // The wait is the story. A slow machine only makes it longer.
    tokio::time::sleep(ttl * 2).await;
    assert_eq!(say(&gateway, "1").await?.outcome, "miss");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn workers_share_bindings_and_the_rotation() -> Result<()> {
    let gateway = gateway(2, |_| {}).await?;
    let on_new_connection = async |session: &str| {
        let mut connection = Connection::open(gateway.envoy.address(), Protocol::Http1).await?;
        let request =
            post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
        served(&connection.send(request).await?)
    };
    let mut accounts = BTreeSet::new();
    for _ in 0..40 {
        accounts.insert(on_new_connection("one").await?.account);
    }
    assert_eq!(accounts.len(), 1, "one session, one credential: {accounts:?}");
    let mut sessions_of = BTreeMap::new();
    for session in 0..60 {
        *sessions_of
            .entry(on_new_connection(&format!("session {session}")).await?.account)
            .or_insert(0) += 1;
    }
    assert_eq!(sessions_of.into_values().collect::<Vec<_>>(), [20, 20, 20]);

    let stats = gateway.envoy.stats("listener.").await?;
    let connections = |worker: &str| -> u64 {
        let name = format!("worker_{worker}.downstream_cx_total");
        stats.iter().filter(|(stat, _)| stat.ends_with(&name)).map(|(_, count)| count).sum()
    };
    assert!(connections("0") > 0 && connections("1") > 0, "both workers took part: {stats:?}");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn without_affinity_every_request_goes_on_in_turn() -> Result<()> {
    let gateway = gateway(1, |filter| filter["routing"]["session_affinity"] = json!(false)).await?;
    let mut accounts = Vec::new();
    for _ in 0..6 {
        let served = say(&gateway, "one").await?;
        assert_eq!(served.outcome, "none");
        accounts.push(served.account);
    }
    assert_eq!(
        accounts,
        ["anthropic-a", "anthropic-b", "anthropic-c", "anthropic-a", "anthropic-b", "anthropic-c"]
    );
    gateway.stop().await?;
    Ok(())
}
