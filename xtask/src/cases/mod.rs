//! `cargo xtask cases`: plays situations that users of gateways report on a real Envoy, and
//! compares what happens with what a user needs. `tests/cases/README.md` describes the format of
//! the files.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

mod expect;
mod provider;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use envoy_config::EnvoyConfig;
use envoy_harness::client::{self, Connection, Protocol, WebSocket};
use envoy_harness::output::print;
use envoy_harness::{Envoy, Fixture, Mode, Process, project_root};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use session_affinity::signals::inflate;
use tokio_tungstenite::tungstenite;

use crate::{EnvoyChoice, prepare};
use expect::{Exchange, Outcome};
use provider::Provider;

/// Which cases are played, and on what.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    envoy: EnvoyChoice,
    /// Play them in this mode, instead of the one that each names
    #[arg(long, alias = "way", value_enum)]
    mode: Option<Mode>,
    /// How many are played at once: most of their time is waiting
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// The cases; all of tests/cases if none is named
    files: Vec<PathBuf>,
}

/// Plays cases.
///
/// # Errors
/// If one of them cannot be played, or does not go as a user needs it.
pub(crate) async fn play(arguments: &Arguments) -> Result<()> {
    let envoy = prepare::envoy_and_module(arguments.envoy.version())?;
    let mut files = arguments.files.clone();
    if files.is_empty() {
        let folder = project_root().join("tests/cases");
        for entry in fs::read_dir(folder).context("cannot read tests/cases")? {
            files.extend(
                Some(entry?.path()).filter(|it| it.extension().is_some_and(|e| e == "json")),
            );
        }
        files.sort();
    }
    let played = files.iter().map(|file| play_file(&envoy, file, arguments.mode));
    let mut played = stream::iter(played).buffered(arguments.jobs.max(1));
    let mut wrong = 0;
    for file in &files {
        let Some(problems) = played.next().await else { break };
        let problems =
            problems.unwrap_or_else(|error| vec![format!("cannot be played: {error:#}")]);
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        wrong += usize::from(!problems.is_empty());
        print(&format!("{} {name}\n", if problems.is_empty() { "ok   " } else { "WRONG" }))?;
        for problem in problems {
            print(&format!("        {problem}\n"))?;
        }
    }
    ensure!(wrong == 0, "{wrong} of {} cases do not go as a user needs it", files.len());
    Ok(())
}

/// Plays one case; returns what was not as it should be.
async fn play_file(envoy: &Envoy, file: &Path, mode: Option<Mode>) -> Result<Vec<String>> {
    let text = fs::read_to_string(file)?;
    let case: Value = serde_json::from_str(&text)?;
    let config = &case["config"];
    let mode = match (mode, config["way"].as_str()) {
        (Some(mode), _) => mode,
        (None, Some(name)) => Mode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == name)
            .with_context(|| format!("there is no mode {name}"))?,
        (None, None) => Mode::Clusters,
    };
    let (pools, keys) = pools(config);
    let mut provider = Provider::start(keys.clone()).await?;
    let input = json!({"filter": config["filter"], "pools": pools});
    let input = input.to_string().replace("$upstream", &format!("http://{}", provider.address));
    let yaml = EnvoyConfig::parse(&input, mode)?.yaml("cargo xtask cases")?;
    let edits = config["edits"].as_array().into_iter().flatten();
    let fixture = edits.fold(Fixture::parse(&yaml, project_root())?.on_free_ports(), edited);
    let environment: Vec<_> =
        keys.into_iter().map(|key| (key.variable, key.header_value)).collect();
    let process = Process::start(envoy, &fixture, 1, &environment).await?;
    let mut wrong = Vec::new();
    for (number, step) in (1..).zip(case["steps"].as_array().context("no steps")?) {
        for problem in play_step(step, &process, &mut provider).await? {
            let what = step["what"].as_str().unwrap_or_default();
            wrong.push(format!("step {number}, {what}: {problem}"));
        }
    }
    process.stop().await?;
    Ok(wrong)
}

/// The pools for the generator, and the key of each credential. Cases leave out what does not
/// matter for them.
fn pools(config: &Value) -> (Value, Vec<provider::Key>) {
    let mut pools = config["pools"].clone();
    let mut keys = Vec::new();
    for pool in pools.as_array_mut().into_iter().flatten() {
        pool["upstream"] = json!("$upstream");
        let prefix = pool["match"]["path_prefixes"][0].as_str().unwrap_or_default().to_owned();
        let usual = match prefix.as_str() {
            prefix if prefix.starts_with("/v1/messages") => "x-api-key",
            prefix if prefix.starts_with("/v1beta") => "x-goog-api-key",
            _ => "authorization",
        };
        if pool["key_header"].is_null() {
            pool["key_header"] = json!(usual);
        }
        let scheme = if pool["key_header"] == "authorization" { "Bearer " } else { "" };
        for credential in pool["credentials"].as_array_mut().into_iter().flatten() {
            if credential.is_string() {
                *credential = json!({"id": credential});
            }
            let id = credential["id"].as_str().unwrap_or_default().to_owned();
            let variable = format!("KEY_{}", id.to_uppercase().replace('-', "_"));
            credential["key"] = json!(variable);
            keys.push(provider::Key { header_value: format!("{scheme}sk-of-{id}"), id, variable });
        }
    }
    (pools, keys)
}

/// Applies an edit of Envoy's document, `[pointer, value]`; null removes. The filter's
/// configuration is changed in the listener and on all clusters.
fn edited(fixture: Fixture, edit: &Value) -> Fixture {
    const FILTER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
        /http_filters/0/typed_config/config/configuration/value";
    let pointer = edit[0].as_str().unwrap_or_default();
    match pointer.strip_prefix(FILTER) {
        Some(inner) => {
            let changed = fixture.clone().edit_filter(|filter| set(filter, inner, &edit[1]));
            changed.unwrap_or(fixture)
        }
        None => fixture.edit(|document| set(document, pointer, &edit[1])),
    }
}

fn set(document: &mut Value, pointer: &str, value: &Value) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) if value.is_null() => {
            members.remove(&name.replace("~1", "/"));
        }
        Some(Value::Object(members)) => {
            members.insert(name.replace("~1", "/"), value.clone());
        }
        Some(Value::Array(elements)) => {
            let at = name.parse().unwrap_or(elements.len()).min(elements.len());
            elements.insert(at, value.clone());
        }
        _ => {}
    }
}

async fn play_step(
    step: &Value,
    process: &Process,
    provider: &mut Provider,
) -> Result<Vec<String>> {
    if let Some(seconds) = step["wait"].as_f64() {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        return Ok(Vec::new());
    }
    if !step["answers"].is_null() {
        provider.respond_with(&step["answers"]);
    }
    let before = provider.arrived().len();
    let mut sent = Vec::new();
    for turn in 0..step["times"].as_u64().unwrap_or(1) {
        let is_websocket = step["send"].is_null();
        let request = if is_websocket { &step["websocket"] } else { &step["send"] };
        let request: Value =
            serde_json::from_str(&request.to_string().replace("$n", &turn.to_string()))?;
        sent.push(exchange(process, request, is_websocket));
        if step["together"] != true {
            let outcome = join_all(sent.drain(..)).await;
            provider.outcomes.extend(outcome);
            let pause = step["every"].as_f64().unwrap_or(0.0);
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        }
    }
    provider.outcomes.extend(join_all(sent).await);
    // What is learned after a response is learned by then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let outcomes = std::mem::take(&mut provider.outcomes);
    let arrived = provider.arrived().split_off(before);
    Ok(expect::compare(&step["expect"], &Exchange { outcomes: &outcomes, arrived: &arrived }))
}

/// Sends one request. One whose response breaks off has no status.
async fn exchange(process: &Process, request: Value, is_websocket: bool) -> Outcome {
    let began = std::time::Instant::now();
    let sent = async {
        match is_websocket {
            true => open_websocket(process, &request).await,
            false => send(process, &request).await,
        }
    };
    let patience = Duration::from_secs_f64(request["abort_after"].as_f64().unwrap_or(90.0));
    let outcome = tokio::time::timeout(patience, sent).await;
    let outcome = outcome.unwrap_or_else(|_| bail!("the client left")).unwrap_or_default();
    Outcome { took: began.elapsed().as_secs_f64(), ..outcome }
}

async fn send(process: &Process, request: &Value) -> Result<Outcome> {
    let mut body = request["body"].clone();
    if let Some(length) = body["$pad"].as_u64().and_then(|length| usize::try_from(length).ok())
        && let Some(members) = body.as_object_mut()
    {
        members.remove("$pad");
        members.insert("pad".to_owned(), json!("x".repeat(length)));
    }
    let body = match body {
        Value::Null => String::new(),
        Value::String(text) => text,
        document => document.to_string(),
    };
    let mut built = hyper::Request::builder()
        .method(request["method"].as_str().unwrap_or("POST"))
        .uri(request["path"].as_str().unwrap_or("/"))
        .body(client::whole(body))?;
    built.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    built.headers_mut().extend(headers(request)?);
    let response = Connection::open(process.address(), Protocol::Http1).await?.send(built).await?;
    let encoding = response.header("content-encoding").unwrap_or_default();
    let body = inflate::error_body(&response.body, encoding);
    let body = String::from_utf8_lossy(&body).into_owned();
    let status = Some(response.status.as_u16());
    Ok(Outcome { status, headers: response.headers, body, ..Outcome::default() })
}

async fn open_websocket(process: &Process, request: &Value) -> Result<Outcome> {
    let path = request["path"].as_str().unwrap_or("/");
    let mut socket = match WebSocket::open(process.address(), path, headers(request)?).await {
        Ok(socket) => socket,
        Err(error) => return refused(error),
    };
    for text in request["send"].as_array().into_iter().flatten() {
        socket.send(text.as_str().unwrap_or_default()).await?;
    }
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = socket.next().await {
        frames.push(frame);
    }
    Ok(Outcome { status: Some(101), headers: socket.headers, frames, ..Outcome::default() })
}

/// The response to a handshake that was refused.
fn refused(error: anyhow::Error) -> Result<Outcome> {
    let response = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(tungstenite::Error::Http(response)) => Some(response),
        _ => None,
    });
    let Some(response) = response else { return Err(error) };
    let status = Some(response.status().as_u16());
    Ok(Outcome { status, headers: response.headers().clone(), ..Outcome::default() })
}

fn headers(request: &Value) -> Result<HeaderMap> {
    let headers = request["headers"].as_object().into_iter().flatten();
    headers
        .filter_map(|(name, value)| Some((name, value.as_str()?)))
        .map(|(name, value)| {
            Ok((HeaderName::try_from(name.as_str())?, HeaderValue::try_from(value)?))
        })
        .collect()
}
