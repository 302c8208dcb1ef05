//! A session stays on its credential.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::support::{
    OUTCOME, Served, body, expect_counts, gateway, message, post, send, served, served_in, shipped,
};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn turns_of_one_session_go_to_one_credential_and_new_sessions_spread() -> Result<()> {
    let gateway = shipped().await?;
    let mut first_turns = BTreeMap::new();
    for session in ["1", "2", "3", "4", "5", "6"] {
        let served = served_in(&gateway, session).await?;
        assert_eq!((served.outcome.as_str(), served.source.as_deref()), ("miss", Some("header")));
        first_turns.insert(session, served.credential);
    }
    for (session, account) in &first_turns {
        let served = served_in(&gateway, session).await?;
        assert_eq!(
            (served.outcome.as_str(), &served.credential),
            ("hit", account),
            "session {session}"
        );
    }
    let mut sessions_of = BTreeMap::new();
    for credential in first_turns.into_values() {
        *sessions_of.entry(credential).or_insert(0) += 1;
    }
    assert_eq!(sessions_of.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    expect_counts(&gateway, OUTCOME, [("hit", 6), ("miss", 6)]).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_session_without_an_id_is_known_by_its_beginning() -> Result<()> {
    let gateway = shipped().await?;
    served_in(&gateway, "so that the rotation is not at its start").await?;
    let mut sent = message("Why is the sky blue?");
    let first = served(&send(&gateway, post("/v1/messages").body(body(&sent))?).await?)?;
    assert_eq!((first.outcome.as_str(), first.source.as_deref()), ("miss", Some("msg")));
    for expected in ["hit", "hit", "hit"] {
        let messages = sent["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": "Rayleigh scattering."}));
        messages.push(json!({"role": "user", "content": "Go on."}));
        let next = served(&send(&gateway, post("/v1/messages").body(body(&sent))?).await?)?;
        assert_eq!((next.outcome.as_str(), &next.credential), (expected, &first.credential));
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_api_keeps_its_sessions_by_what_its_clients_send() -> Result<()> {
    let gateway = shipped().await?;
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]});
    let mut with_conversation_id = chat.clone();
    with_conversation_id["conversation_id"] = json!("c-1");
    let responses = json!({"model": "gpt-5.4", "instructions": "Be thorough.", "input": [{"role": "user", "content": "Hi."}]});
    let gemini = json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "Hi."}]}]});
    for (path, header, sent, source) in [
        ("/v1/messages?beta=true", None, message_of("user_0a_account__session_1f-2e"), "claude"),
        ("/v1/messages", None, message_of(r#"{"device_id":"d","session_id":"3d-4c"}"#), "claude"),
        ("/v1/messages", None, message_of("a user"), "user"),
        ("/v1/messages", Some(("X-Amp-Thread-Id", "T-1")), message("hi"), "amp"),
        ("/v1/chat/completions", Some(("X-Session-Id", "ses_1")), chat.clone(), "header"),
        ("/v1/chat/completions", None, with_conversation_id, "conv"),
        ("/v1/chat/completions", None, chat, "msg"),
        ("/v1/responses", None, responses, "msg"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", None, gemini, "msg"),
    ] {
        let mut turns = Vec::new();
        for _ in 0..2 {
            let mut request = post(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            turns.push(served(&send(&gateway, request.body(body(&sent))?).await?)?);
        }
        let [first, second] = <[Served; 2]>::try_from(turns).unwrap();
        assert_eq!(
            (first.outcome.as_str(), first.source.as_deref()),
            ("miss", Some(source)),
            "{path} {sent}"
        );
        assert_eq!(
            (second.outcome.as_str(), second.credential),
            ("hit", first.credential),
            "{path} {sent}"
        );
    }
    gateway.stop().await?;
    Ok(())
}

fn message_of(user_id: &str) -> Value {
    let mut body = message("hi");
    body["metadata"] = json!({"user_id": user_id});
    body
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_binding_that_was_not_used_for_its_ttl_is_gone() -> Result<()> {
    let ttl = Duration::from_millis(300);
    let gateway =
        gateway(1, |filter| filter["routing"]["session_affinity_ttl"] = json!("300ms")).await?;
    served_in(&gateway, "1").await?;
    // The test is about this time. A slow machine only makes it longer.
    tokio::time::sleep(ttl * 2).await;
    assert_eq!(served_in(&gateway, "1").await?.outcome, "miss");
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn workers_share_bindings_and_the_rotation() -> Result<()> {
    let gateway = gateway(2, |_| {}).await?;
    let mut credentials = BTreeSet::new();
    for _ in 0..40 {
        credentials.insert(served_in(&gateway, "one").await?.credential);
    }
    assert_eq!(credentials.len(), 1, "one session, one credential: {credentials:?}");
    let mut sessions_of = BTreeMap::new();
    for session in 0..60 {
        *sessions_of
            .entry(served_in(&gateway, &format!("session {session}")).await?.credential)
            .or_insert(0) += 1;
    }
    assert_eq!(sessions_of.into_values().collect::<Vec<_>>(), [20, 20, 20]);

    let stats = gateway.envoy.stats("listener.").await?;
    for worker in ["worker_0", "worker_1"] {
        let name = format!("{worker}.downstream_cx_total");
        assert!(
            stats.iter().any(|(stat, count)| stat.ends_with(&name) && *count > 0),
            "both workers have connections: {stats:?}"
        );
    }
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn without_affinity_requests_take_turns() -> Result<()> {
    let gateway = gateway(1, |filter| filter["routing"]["session_affinity"] = json!(false)).await?;
    let mut credentials = Vec::new();
    for _ in 0..6 {
        let served = served_in(&gateway, "one").await?;
        assert_eq!(served.outcome, "none");
        credentials.push(served.credential);
    }
    assert_eq!(
        credentials,
        ["anthropic-a", "anthropic-b", "anthropic-c", "anthropic-a", "anthropic-b", "anthropic-c"]
    );
    gateway.stop().await?;
    Ok(())
}
