//! What is counted of responses is what the providers have told, to the token.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use envoy_harness::client::{self, Connection, Protocol, WebSocket};
use envoy_harness::gateway::Gateway;
use hyper::Request;
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use session_affinity::outcome::TokenType;
use simulated_providers::{FAULT_HEADER, RequestRecord, Vendor};
use tokio::task::JoinSet;

use crate::mixed::{Asked, Counted, KINDS, TAG, asked};
use crate::support::{body, gateway, message, modes, post, send, served, word};

/// Requests under way at once.
const TASKS: u64 = 8;

/// What a client has seen: the status, and the words of the decision.
type Seen = BTreeMap<u64, (u16, String)>;

/// Counts by labels.
type Sums = BTreeMap<String, u64>;

/// What is to be counted.
#[derive(Debug, Default)]
struct Sum {
    /// By `pool`, `outcome` and `type`.
    tokens: Sums,
    /// By `reason`.
    unread: Sums,
    /// By `pool`, `outcome` and `currency`.
    cost: Sums,
    saved: Sums,
}

/// What tokens cost, in hundredths: `input`, `cache_read`, `cache_write`, `output`.
const PRICES: [u64; 4] = [300, 30, 375, 1_500];

impl Sum {
    fn add(&mut self, counted: Counted, pool: &str, outcome: &str) {
        let count = |kind: TokenType| counted.tokens.get(kind.as_str()).copied().unwrap_or(0);
        let costs = TokenType::ALL.iter().zip(PRICES).map(|(kind, price)| count(*kind) * price);
        let labels = format!("pool=.={pool};.;outcome=.={outcome};.;currency=.=EUR;.;");
        let cost = (costs.sum::<u64>() + 50) / 100;
        let saved = (count(TokenType::CacheRead) * (PRICES[0] - PRICES[1]) + 50) / 100;
        *self.cost.entry(labels.clone()).or_default() += cost;
        *self.saved.entry(labels).or_default() += saved;
        for (kind, count) in &counted.tokens {
            let labels = format!("pool=.={pool};.;outcome=.={outcome};.;type=.={kind};.;");
            *self.tokens.entry(labels).or_default() += count;
        }
        if let Some(reason) = counted.unread {
            *self.unread.entry(format!("reason=.={reason};.;")).or_default() += 1;
        }
    }

    /// What is counted, by name.
    fn named(&self) -> [(&str, &Sums); 4] {
        [
            ("tokens_total", &self.tokens),
            ("usage_unread_total", &self.unread),
            ("cost_microunits_total", &self.cost),
            ("saved_microunits_total", &self.saved),
        ]
    }
}

/// The shipped pools, which also serve Bedrock's and Code Assist's paths, and Interactions.
fn serve_all(filter: &mut Value) {
    for pool in filter["pools"].as_array_mut().unwrap() {
        let prefix = match pool["name"].as_str() {
            Some("anthropic") => "/model/",
            Some("gemini") => "/v1internal:",
            _ => continue,
        };
        let matches = pool["match"].as_array_mut();
        matches.unwrap().push(json!({"path_prefixes": [prefix], "methods": ["POST"]}));
    }
}

async fn ask(connection: &mut Connection, asked: &Asked) -> Result<(u16, String)> {
    let mut request = Request::post(&asked.path);
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    let request = request.body(client::whole(asked.body.to_string()))?;
    let response = connection.stream(request).await?;
    let decision = response.headers.get("x-session-affinity-decision");
    let decision = decision.and_then(|words| words.to_str().ok()).unwrap_or_default().to_owned();
    let status = response.status.as_u16();
    let rest = response.rest().await;
    assert!(rest.is_ok() || !asked.is_sound, "{} {:?}", asked.path, asked.headers);
    Ok((status, decision))
}

/// Sends the requests of these numbers, several at once.
async fn ask_all(gateway: &Gateway, count: u64) -> Result<Seen> {
    let mut tasks = JoinSet::new();
    for first in 0..TASKS {
        let address = gateway.envoy.address();
        tasks.spawn(async move {
            // Over HTTP/2 a response that breaks off takes no other with it.
            let mut connection = Connection::open(address, Protocol::Http2).await?;
            let mut seen = Seen::new();
            for number in (first..count).step_by(TASKS as usize) {
                let asked = asked(number);
                let answer = ask(&mut connection, &asked).await;
                seen.insert(number, answer.with_context(|| format!("{number} {}", asked.path))?);
            }
            anyhow::Ok(seen)
        });
    }
    let mut seen = Seen::new();
    while let Some(part) = tasks.join_next().await {
        seen.extend(part??);
    }
    Ok(seen)
}

/// Has turns on WebSockets, some of which break off, and adds what is to be counted.
async fn talk(gateway: &Gateway, sockets: usize, sum: &mut Sum) -> Result<()> {
    for number in 0..sockets {
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", format!("socket-{}", number % 3).parse()?);
        if number % 2 == 1 {
            headers.insert(FAULT_HEADER, "cut=5".parse()?);
        }
        let address = gateway.envoy.address();
        let mut socket = WebSocket::open(address, "/v1/responses", headers).await?;
        let decision = socket.headers["x-session-affinity-decision"].to_str()?.to_owned();
        let outcome = word(&decision, "outcome=").context("no outcome")?;
        let before = turns(gateway).len();
        for turn in 0..3 {
            let input = format!("{} turn {turn}", "word ".repeat(1_500));
            let create = json!({"type": "response.create", "model": "gpt-5.6", "input": input});
            if socket.send(&create.to_string()).await.is_err() {
                break;
            }
            while let Ok(Some(event)) = socket.next().await {
                if event.starts_with(r#"{"type":"response.completed""#) {
                    break;
                }
            }
        }
        drop(socket);
        for record in turns(gateway).split_off(before) {
            sum.add(Counted::of(record.told), "openai", &outcome);
        }
    }
    Ok(())
}

/// The turns on WebSockets so far.
fn turns(gateway: &Gateway) -> Vec<RequestRecord> {
    let records = gateway.providers.requests().into_iter();
    records.filter(|record| record.method == "WS").collect()
}

/// What is to be counted, by the ledger of the providers and the decisions that clients saw.
fn expected(records: &[RequestRecord], seen: &Seen) -> Result<Sum> {
    let mut sum = Sum::default();
    let mut last: BTreeMap<u64, &RequestRecord> = BTreeMap::new();
    for record in records {
        // Attempts that failed come before the one that the client has got.
        last.insert(record.headers[TAG].to_str()?.parse()?, record);
    }
    for (number, record) in last {
        let (status, decision) = &seen[&number];
        if *status != 200 || record.status != Some(200) {
            continue;
        }
        let pool = record.vendor.as_str();
        let outcome = word(decision, "outcome=").context("no outcome")?;
        sum.add(Counted::of(record.told), pool, &outcome);
    }
    Ok(sum)
}

/// The counters of this name, by their labels. Envoy 1.36 puts them under a cluster.
fn counted(stats: &BTreeMap<String, u64>, name: &str) -> Sums {
    let mut sums = Sums::new();
    for (series, count) in stats.iter().filter(|(_, count)| **count > 0) {
        if let Some(labels) = series.strip_suffix(name) {
            let begin = ["pool=.=", "reason=.="].iter().find_map(|first| labels.find(first));
            let labels = labels.get(begin.unwrap_or(0)..).unwrap_or_default();
            *sums.entry(labels.to_owned()).or_default() += count;
        }
    }
    sums
}

async fn tokens_are_counted(count: u64, usage: &str) -> Result<Sum> {
    let price = json!({"input": 3, "cache_read": 0.3, "cache_write": 3.75, "output": 15});
    let gateway = gateway(2, |filter| {
        serve_all(filter);
        let prices = json!({"currency": "EUR", "of": [price]});
        filter["observe"] = json!({"usage": usage, "prices": prices});
    })
    .await?;
    let seen = ask_all(&gateway, count).await?;
    let served = seen.values().filter(|(status, _)| *status == 200).count() as u64;
    assert!(served > count * 9 / 10, "{served} of {count} were served");
    let mut sum = expected(&gateway.providers.requests(), &seen)?;
    talk(&gateway, 4, &mut sum).await?;
    let named = sum.named().map(|(name, sums)| (format!("session_affinity_{name}"), sums.clone()));
    let waited = gateway.envoy.wait_for_stats("", |stats| {
        named.iter().all(|(name, sums)| counted(stats, name) == without_zeros(sums))
    });
    if let Err(error) = waited.await {
        let stats = gateway.envoy.wait_for_stats("", |_| true).await?;
        for (name, sums) in &named {
            assert_eq!(counted(&stats, name), without_zeros(sums), "{name}: {error}");
        }
    }
    gateway.stop().await?;
    Ok(sum)
}

fn without_zeros(sums: &Sums) -> Sums {
    sums.iter()
        .filter(|(_, count)| **count > 0)
        .map(|(labels, count)| (labels.clone(), *count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn measured_tokens_are_those_that_providers_have_served() -> Result<()> {
    let Sum { tokens, unread, .. } = tokens_are_counted(40 * KINDS, "plain").await?;
    for vendor in Vendor::ALL {
        let hits = format!("pool=.={vendor};.;outcome=.=hit;.;type=.=cache_read;.;");
        assert!(tokens.get(&hits).is_some_and(|count| *count > 10_000), "{tokens:?}");
    }
    for reason in ["compressed", "cut", "absent"] {
        assert!(unread[&format!("reason=.={reason};.;")] > 10, "{unread:?}");
    }
    // Where clients accept compression, and providers are asked not to compress.
    let Sum { unread, .. } = tokens_are_counted(10 * KINDS, "identity").await?;
    assert_eq!(unread.get("reason=.=compressed;.;"), None);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_access_log_says_what_each_response_has_cost() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let mut told = Vec::new();
        for is_streamed in [false, true] {
            let mut asked = message("hi");
            asked["stream"] = json!(is_streamed);
            let response = send(&gateway, post("/v1/messages").body(body(&asked))?).await?;
            served(&response)?;
            told.extend(gateway.providers.requests().last().map(|request| request.told));
        }
        let log = gateway.stop().await?.join("\n");
        for told in &told {
            let input = told.usage.context("nothing was told")?.prompt_tokens;
            let count = format!(" gen_ai.usage.input_tokens={input} ");
            assert!(log.contains(&count), "{mode:?} {count}: {log}");
        }
        assert_eq!(log.matches(" cached=").count(), 2, "{mode:?}: {log}");
    }
    Ok(())
}
