//! What is read of the responses of simulated providers, response by response, is what their ledger
//! says that they have told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod mixed;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use mixed::{Asked, Counted, KINDS, TAG, asked};
use session_affinity::Headers;
use session_affinity::api::Api;
use session_affinity::usage::{Excerpt, Reading, read, read_headers};
use simulated_providers::{Config, Providers, Vendor};
use tokio::net::TcpStream;

const REQUESTS: u64 = 100 * KINDS;

/// A response as it came: its pieces, and whether it came to its end.
struct Answer {
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    is_complete: bool,
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, asked: &Asked, key: &str) -> Result<Answer> {
    let name = if asked.vendor == Vendor::Gemini { "x-goog-api-key" } else { "x-api-key" };
    let mut request = Request::post(&asked.path).header("host", "provider").header(name, key);
    if asked.vendor == Vendor::OpenAi {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    sender.ready().await?;
    let body = Full::new(asked.body.to_string().into());
    let (parts, mut body) = sender.send_request(request.body(body)?).await?.into_parts();
    let (mut pieces, mut is_complete) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => pieces.extend(frame.into_data().ok()),
            Err(_) => is_complete = false,
        }
    }
    Ok(Answer { headers: parts.headers, pieces, is_complete })
}

/// What the filter would count, if the response came to it in pieces of this size.
fn measured(api: Api, answer: &Answer, size: usize) -> Counted {
    let names = answer.headers.iter();
    let headers: Headers = names.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let reading = read_headers(api, &headers).unwrap_or_else(|| {
        let mut excerpt = Excerpt::default();
        for piece in answer.pieces.concat().chunks(size) {
            excerpt.take(piece.len(), |range| piece[range].to_vec());
        }
        read(api, &excerpt, answer.is_complete)
    });
    let Reading { usage, unread } = reading;
    let tokens = usage.tokens().map(|(kind, count)| (kind.as_str(), count)).collect();
    Counted { tokens, unread: unread.map(|reason| reason.as_str()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_providers_have_told() -> Result<()> {
    let providers = Providers::start(Config::default()).await?;
    let mut connections = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for number in 0..REQUESTS {
        let asked = asked(number);
        let mut accounts = providers.accounts().iter();
        let account = accounts.find(|it| it.vendor == asked.vendor).context("no account")?;
        let mut sender = match connections.remove(&asked.vendor) {
            Some(sender) => sender,
            None => connect(providers.address(asked.vendor)).await?,
        };
        let answer = ask(&mut sender, &asked, &account.key).await?;
        if answer.is_complete {
            connections.insert(asked.vendor, sender);
        }
        answers.insert(number.to_string(), (asked, answer));
    }
    let mut seen: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for record in providers.requests() {
        let tag = record.headers[TAG].to_str()?;
        if record.status != Some(200) {
            continue;
        }
        let (asked, answer) = &answers[tag];
        let expected = Counted::of(record.told);
        for size in [17, 5_000, 1 << 20] {
            let counted = measured(asked.api, answer, size);
            assert_eq!(counted, expected, "{tag} {} {:?}", asked.path, asked.headers);
        }
        *seen.entry((asked.api.as_str(), expected.unread.unwrap_or("read"))).or_default() += 1;
    }
    // Every API was read, and failed to be read in every way that it can.
    for api in [Api::Anthropic, Api::OpenAi, Api::Gemini, Api::Bedrock] {
        for how in ["read", "compressed", "cut"] {
            assert!(
                seen.get(&(api.as_str(), how)).is_some_and(|count| *count > 5),
                "{api:?} {how}"
            );
        }
    }
    assert!(seen[&(Api::OpenAi.as_str(), "absent")] > 5);
    providers.stop().await;
    Ok(())
}
