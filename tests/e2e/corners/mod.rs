//! The corners of HTTP: methods without bodies, interim and early responses, upgrades that are
//! refused, tunnels, headers and targets that are not what they should be, upstreams that reset.
//!
//! One table, one Envoy, bytes on the wire. Each row has one response, and none of them harms the
//! request of another client that follows it.

mod quic;
mod table;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Mode, PATIENCE};
use serde_json::{Value, json};
use simulated_providers::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{
    FAILOVER, OUTCOME, attempts_begun, body, expect_no_blame, gateway_with, pairs, post, send,
    start, wait_for_attempt, wait_for_counts, wait_until_all_ended, word,
};
use table::{CORNERS, Corner};
use upstream::{Frames, Upstream};

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn corners_of_http_have_one_response_each_and_harm_no_other_request() -> Result<()> {
    let upstream = Upstream::start().await?;
    let gateway = in_front_of(&upstream, "anthropic", false).await?;
    let address = gateway.envoy.address();
    for Corner { head, body, answer, statuses, outcome } in &CORNERS {
        upstream.answer(answer);
        let (seen, decided) = exchange(address, head, body).await.context(*head)?;
        assert_eq!((seen.as_str(), decided.as_str()), (*statuses, *outcome), "{head}");
        assert_eq!(upstream.take().is_some(), !answer.is_empty(), "{head}");
        unaffected(&gateway).await.context(*head)?;
    }

    let rows = CORNERS.iter().filter(|it| !matches!(it.outcome, "" | "unmatched")).count();
    let expected = (rows + CORNERS.len()) as u64 + 1 + 2;

    // The headers of a response are there before the request is.
    upstream.answer("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}");
    let head = "POST /v1/messages HTTP/1.1\r\nx-claude-code-session-id: early\r\n\
                content-type: application/json\r\ncontent-length: 1000000";
    let (seen, decided) = exchange(address, head, r#"{"model":"m","#).await?;
    assert_eq!((seen.as_str(), decided.as_str()), ("400", "miss"), "an early response");
    unaffected(&gateway).await?;

    // A client that has closed its half is gone, for Envoy.
    upstream.answer("");
    let mut half = TcpStream::connect(address).await?;
    half.write_all(request("POST /v1/messages HTTP/1.1\r\ncontent-length: 2", "{}").as_bytes())
        .await?;
    half.shutdown().await?;
    let mut rest = Vec::new();
    timeout(PATIENCE, half.read_to_end(&mut rest)).await??;
    assert_eq!(rest, b"", "no response for half a connection");
    unaffected(&gateway).await?;
    // A decision for each row that names one, and for the two requests behind the table.
    let decided = |counted: &Vec<(String, u64)>| {
        let sent = counted.iter().filter(|(outcome, _)| outcome != "unmatched");
        sent.map(|(_, count)| *count).sum::<u64>() >= expected
    };
    wait_for_counts(&gateway, OUTCOME, decided).await?;
    let abandoned = pairs([("abandoned", 1)]);
    let ends = if gateway.mode == Mode::Clusters { abandoned } else { Vec::new() };
    wait_for_counts(&gateway, FAILOVER, |counted| *counted == ends).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn resets_of_http2_reach_another_credential_and_no_other_request() -> Result<()> {
    let upstream = Upstream::start().await?;
    let gateway = in_front_of(&upstream, "anthropic", true).await?;
    let fails_over = gateway.mode == Mode::Clusters;
    for reset in [Frames::Refused, Frames::InternalError, Frames::GoAway, Frames::NoHttp2] {
        upstream.frames([reset, Frames::Ok]);
        let message = json!({"model": "claude-sonnet-4-5", "messages": []});
        let session = format!("{reset:?}");
        let request = post("/v1/messages").header("x-session-id", session).body(body(&message))?;
        let response = send(&gateway, request).await?;
        let expected = if fails_over { 200 } else { 503 };
        assert_eq!(response.status, expected, "{reset:?}: {}", response.text());
        unaffected(&gateway).await?;
    }
    // An extended CONNECT that Envoy has not offered ends its stream, or its connection.
    let seen = upstream::extended_connect(gateway.envoy.address()).await?;
    assert!(!seen.contains(&200), "{seen:?}");
    unaffected(&gateway).await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn requests_that_clients_break_off_blame_no_credential() -> Result<()> {
    let path = "/v1beta/models/gemini-2.5-pro:generateContent";
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nx-session-id: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let no_chunk = [[head.as_bytes(), b"5\r\nhello\r\n"].concat(), b"zz\r\n".to_vec()];
    for mode in [Mode::Clusters, Mode::Keys] {
        let Some(gateway) = start(mode, 1, Ok).await? else {
            continue;
        };
        let slow = Fault::SlowFirstByte(Duration::from_secs(60));
        gateway.providers.fault("gemini-a", slow.clone(), None)?;
        gateway.providers.fault("gemini-b", slow, None)?;
        for [request, end] in
            [no_chunk.clone(), upstream::reset(path, 0)?, upstream::reset(path, 8)?]
        {
            let before = attempts_begun(&gateway, "gemini").await?;
            let mut client = TcpStream::connect(gateway.envoy.address()).await?;
            client.write_all(&request).await?;
            wait_for_attempt(&gateway, "gemini", before).await?;
            client.write_all(&end).await?;
            wait_until_all_ended(&gateway).await?;
        }
        expect_no_blame(&gateway, &format!("{mode:?}"));
        gateway.stop().await?;
    }
    Ok(())
}

/// The shipped set-up, with this upstream in place of a provider.
async fn in_front_of(upstream: &Upstream, pool: &str, is_http2: bool) -> Result<Gateway> {
    let address = upstream.address;
    gateway_with(|fixture| {
        Ok(fixture.edit(|document| {
            let clusters = document["static_resources"]["clusters"].as_array_mut().unwrap();
            let own = |cluster: &&mut Value| cluster["name"].as_str().unwrap().starts_with(pool);
            for cluster in clusters.iter_mut().filter(own) {
                cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
                if is_http2 {
                    let options = cluster["typed_extension_protocol_options"].as_object_mut();
                    for options in options.unwrap().values_mut() {
                        options["explicit_http_config"] = json!({"http2_protocol_options": {}});
                    }
                }
            }
        }))
    })
    .await
}

fn request(head: &str, body: &str) -> String {
    format!("{head}\r\nhost: gateway\r\nconnection: close\r\n\r\n{body}")
}

/// Sends bytes; returns the statuses that come back, and the outcome of the decision.
async fn exchange(address: SocketAddr, head: &str, body: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // Rows that end their headers themselves are sent as they are.
    let whole = if head.contains("\r\n\r\n") { head.to_owned() } else { request(head, "") };
    stream.write_all(whole.as_bytes()).await?;
    let mut seen = Vec::new();
    if head.contains("100-continue") {
        read_until(&mut stream, &mut seen, |text| text.ends_with("\r\n\r\n")).await?;
    }
    // Envoy may have answered already, and closed.
    let _ = stream.write_all(body.as_bytes()).await;
    let is_head = head.starts_with("HEAD");
    read_until(&mut stream, &mut seen, |text| is_whole(text, is_head)).await?;
    let text = String::from_utf8_lossy(&seen);
    let statuses = text.split("HTTP/1.1 ").skip(1).filter_map(|response| response.get(..3));
    let name = "x-session-affinity-decision: ";
    let decision = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let outcome = word(decision, "outcome=").unwrap_or_default();
    Ok((statuses.collect::<Vec<_>>().join(" "), outcome))
}

/// Reads until there is enough, or nothing more comes.
async fn read_until(
    stream: &mut TcpStream,
    seen: &mut Vec<u8>,
    is_enough: impl Fn(&str) -> bool,
) -> Result<()> {
    while !is_enough(&String::from_utf8_lossy(seen)) {
        if timeout(PATIENCE, stream.read_buf(seen)).await.context("no end")?? == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether the last response in a text is complete, and no interim one.
fn is_whole(text: &str, is_head: bool) -> bool {
    let last = text.rsplit("HTTP/1.1 ").next().and_then(|last| last.split_once("\r\n\r\n"));
    let Some((head, body)) = last.filter(|(head, _)| !head.starts_with('1')) else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length.and_then(|length| length.parse::<usize>().ok()) {
        _ if is_head || head.starts_with("204") || head.starts_with("304") => true,
        Some(length) => body.len() >= length,
        None => body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n"),
    }
}

/// Another client is served, by a provider that is as it was.
async fn unaffected(gateway: &Gateway) -> Result<()> {
    let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
    let request = post("/v1/chat/completions").body(body(&chat))?;
    let response = send(gateway, request).await?;
    assert_eq!(response.status, 200, "{}", response.text());
    Ok(())
}
