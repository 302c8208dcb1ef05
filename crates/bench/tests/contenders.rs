//! Every contender serves, and does what it is measured for, on a real Envoy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;

use anyhow::Result;
use bench::contender::Contender;
use bench::upstream::Upstream;
use bench::{build_noop, setup};
use bytes::Bytes;
use envoy_harness::client::{self, Body, Connection, Protocol};
use envoy_harness::{Mode, Process, find};
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// A contender with its own upstream; `None` if this Envoy cannot run it.
async fn start(contender: Contender) -> Result<Option<(Process, Upstream)>> {
    let envoy = find(None)?;
    if !Mode::Clusters.runs_on(envoy.version) {
        return Ok(None);
    }
    let upstream = Upstream::start()?;
    let fixture = setup::fixture(contender, &upstream.addresses, &build_noop()?.path)?.unwrap();
    Ok(Some((Process::start(&envoy, &fixture, 1, &[]).await?, upstream)))
}

fn request(header: Option<&str>, body: Body) -> Result<Request<Body>> {
    let request = Request::post("/v1/messages").header("content-type", "application/json");
    let request = header
        .into_iter()
        .fold(request, |request, session| request.header("x-claude-code-session-id", session));
    Ok(request.body(body)?)
}

fn body(session: &str) -> Body {
    client::whole(format!(
        r#"{{"model":"claude-sonnet-5","metadata":{{"user_id":"user_0a_account__session_{session}"}}}}"#
    ))
}

/// Sends this many requests of each session, and waits for each.
async fn send(process: &Process, sessions: &[&str], times: usize) -> Result<()> {
    let mut connection = Connection::open(process.address(), Protocol::Http1).await?;
    for session in sessions {
        for _ in 0..times {
            let response = connection.send(request(None, body(session))?).await?;
            assert_eq!(response.status, 200);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn every_contender_serves() -> Result<()> {
    for contender in Contender::ALL.into_iter().filter(|one| *one != Contender::Direct) {
        let Some((process, _upstream)) = start(contender).await? else {
            return Ok(());
        };
        send(&process, &["a1"], 2).await?;
        process.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn only_the_noop_that_holds_waits_for_the_body() -> Result<()> {
    const BEGINNING: &str = "some of a body";
    for (contender, forwarded) in [(Contender::Continues, 1), (Contender::Holds, 0)] {
        let Some((process, _upstream)) = start(contender).await? else {
            return Ok(());
        };
        let (pieces, mut received) = mpsc::unbounded_channel::<Bytes>();
        pieces.send(Bytes::from(BEGINNING))?;
        let stream = futures_util::stream::poll_fn(move |context| received.poll_recv(context));
        let frames =
            futures_util::StreamExt::map(stream, |piece| Ok::<_, Infallible>(Frame::data(piece)));
        let unfinished = request(None, StreamBody::new(frames).boxed_unsync())?;
        let address = process.address();
        let response = tokio::spawn(client::send(address, Protocol::Http1, unfinished));
        let received = "http.llm.downstream_cx_rx_bytes_total";
        process
            .wait_for_stats(received, |stats| {
                stats.get(received).is_some_and(|&bytes| bytes > BEGINNING.len() as u64)
            })
            .await?;
        let sent = "cluster.anthropic_a.upstream_rq_total";
        let stats = process
            .wait_for_stats(sent, |stats| stats.get(sent).is_some_and(|&n| n >= forwarded))
            .await?;
        assert_eq!(stats.get(sent), Some(&forwarded), "{contender:?}");
        drop(pieces);
        assert_eq!(response.await??.status, 200);
        process.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn stock_envoy_spreads_sessions_and_keeps_each_on_one_endpoint() -> Result<()> {
    let Some((process, _upstream)) = start(Contender::Stock).await? else {
        return Ok(());
    };
    send(&process, &["a1"], 4).await?;
    assert_eq!(requests_of_endpoints(&process).await?.iter().max(), Some(&4));
    let others: Vec<_> = (10..42).map(|number| number.to_string()).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    send(&process, &others, 1).await?;
    let spread = requests_of_endpoints(&process).await?;
    assert!(spread.len() == 3 && spread.iter().all(|&requests| requests > 0), "{spread:?}");
    process.stop().await?;
    Ok(())
}

async fn requests_of_endpoints(process: &Process) -> Result<Vec<u64>> {
    let clusters = process.get_admin("/clusters").await?;
    let lines = clusters.lines().filter(|line| line.starts_with("anthropic_a::127."));
    let totals = lines.filter_map(|line| line.split_once("::rq_total::"));
    Ok(totals.map(|(_, total)| total.parse().unwrap()).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn ours_recognizes_a_session_by_header_or_body() -> Result<()> {
    for (contender, header) in [
        (Contender::Header, Some("0-1")),
        (Contender::HeaderOnClusters, Some("0-1")),
        (Contender::Body, None),
        (Contender::BodyOnClusters, None),
    ] {
        let Some((process, _upstream)) = start(contender).await? else {
            return Ok(());
        };
        let mut connection = Connection::open(process.address(), Protocol::Http1).await?;
        for _ in 0..3 {
            let response = connection.send(request(header, body("0-2"))?).await?;
            assert_eq!(response.status, 200);
        }
        process
            .wait_for_stats("wasmcustom.", |stats| {
                let hits = stats.iter().filter(|(name, _)| {
                    name.contains("outcome=.=hit;.;") && name.ends_with("requests_total")
                });
                hits.map(|(_, count)| count).sum::<u64>() == 2
            })
            .await?;
        process.stop().await?;
    }
    Ok(())
}
