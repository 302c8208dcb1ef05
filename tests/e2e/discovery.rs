//! Configurations in parts that change while Envoy runs: nothing cuts a stream or fails a request.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result};
use envoy_config::{EnvoyConfig, File, Source, secret_file};
use envoy_harness::client::{self, Protocol, Response, WebSocket};
use envoy_harness::{Fixture, Mode, Process, Update, module, wait_until};
use serde_json::{Value, json};
use simulated_providers::{Config, Providers, Vendor};
use tempfile::TempDir;

use crate::support::{body, decision, envoy, gateway_with, message, post};

/// An Envoy with its configuration in files, and the providers behind it.
struct Split {
    envoy: Process,
    providers: Providers,
    mode: Mode,
    directory: TempDir,
    new_sessions: AtomicU32,
}

impl Split {
    /// Starts it. Envoy reads keys from files of `secrets`, if there are any, else from its
    /// environment.
    async fn start(mode: Mode, input: &Value, secrets: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let providers = Providers::start(Config::default()).await?;
        for (name, key) in secrets {
            write_secret(directory.path(), name, key)?;
        }
        let files = files(mode, input, &providers, directory.path())?;
        files.iter().try_for_each(|file| write(directory.path(), file))?;
        let fixture = Fixture::without_filter(files[0].content.clone());
        let environment: Vec<_> =
            providers.accounts().iter().map(|account| account.environment()).collect();
        let envoy = Process::start(&envoy()?, &fixture, 1, &environment).await?;
        Ok(Self { envoy, providers, mode, directory, new_sessions: AtomicU32::new(0) })
    }

    /// Writes what changes, clusters before routes before the filter that names them, or, where
    /// something was removed, the other way round.
    fn update(&self, input: &Value, removes: bool) -> Result<()> {
        let mut files = files(self.mode, input, &self.providers, self.directory.path())?;
        let order = ["clusters.yaml", "routes.yaml"];
        files.sort_by_key(|file| {
            order.iter().position(|name| *name == file.name).unwrap_or(order.len())
        });
        if removes {
            files.reverse();
        }
        files.iter().try_for_each(|file| write(self.directory.path(), file))
    }

    async fn ask(&self, session: &str) -> Result<Response> {
        ask(self.envoy.address(), session).await
    }

    /// Waits until a session that no one has asked in before is served by the account.
    async fn until_new_sessions_are(&self, wanted: &str) -> Result<()> {
        wait_until("the new configuration", async || {
            let number = self.new_sessions.fetch_add(1, Ordering::Relaxed);
            let response = self.ask(&format!("new {number}")).await?;
            Ok((account(&response) == Some(wanted)).then_some(()))
        })
        .await
    }

    async fn until_session_is(&self, session: &str, wanted: &str) -> Result<()> {
        wait_until("the new configuration", async || {
            let response = self.ask(session).await?;
            Ok((account(&response) == Some(wanted)).then_some(()))
        })
        .await
    }

    /// Waits until workers have the cluster. One that is still warming has statistics, but is not
    /// listed.
    async fn until_cluster_is_used(&self, name: &str) -> Result<()> {
        let line = format!("{name}::observability_name::");
        wait_until("the new cluster", async || {
            let clusters = self.envoy.get_admin("/clusters").await?;
            Ok(clusters.lines().any(|found| found.starts_with(&line)).then_some(()))
        })
        .await
    }

    async fn stop(self) -> Result<()> {
        self.envoy.stop().await?;
        self.providers.stop().await;
        Ok(())
    }
}

async fn ask(address: std::net::SocketAddr, session: &str) -> Result<Response> {
    let request =
        post("/v1/messages").header("x-session-id", session).body(body(&message("hello")))?;
    client::send(address, Protocol::Http1, request).await
}

fn account(response: &Response) -> Option<&str> {
    response.header("x-simulated-account")
}

/// The files of a configuration, with the module and the ports of this machine.
fn files(mode: Mode, input: &Value, providers: &Providers, root: &Path) -> Result<Vec<File>> {
    let mut input = input.clone();
    input["listener"] = json!("127.0.0.1:0");
    input["admin"] = json!("127.0.0.1:0");
    input["module"] = json!(module::path());
    input["show_decision"] = json!(true);
    let mut text = input.to_string();
    for (name, vendor) in [("$anthropic", Vendor::Anthropic), ("$openai", Vendor::OpenAi)] {
        text = text.replace(name, &format!("http://{}", providers.address(vendor)));
    }
    let root = root.to_str().context("the directory is not UTF-8")?;
    let text = text.replace("$secrets", &format!("{root}/secrets"));
    EnvoyConfig::parse(&text, mode)?.split(&Source::Files(root.to_owned()))
}

/// Replaces a file by a rename, as Envoy expects.
pub(crate) fn write(root: &Path, file: &File) -> Result<()> {
    let path = root.join(&file.name);
    fs::create_dir_all(path.parent().context("no directory")?)?;
    let new = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&new, file.yaml(""))?;
    Ok(fs::rename(new, path)?)
}

fn write_secret(root: &Path, name: &str, key: &str) -> Result<()> {
    write(root, &secret_file(name, key))
}

fn pools(credentials: &Value) -> Value {
    json!({"secrets": "$secrets", "pools": [{
        "name": "anthropic",
        "provider": "claude",
        "match": {"path_prefixes": ["/v1/messages"]},
        "upstream": "$anthropic",
        "key_header": "x-api-key",
        "credentials": credentials,
    }]})
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_stream_outlives_a_change_of_the_filter_and_is_cut_by_one_of_the_listener() -> Result<()>
{
    let input = |ttl: &str| {
        json!({"filter": {"routing": {"session_affinity_ttl": ttl}}, "pools": [{
            "name": "openai",
            "match": {"path_prefixes": ["/v1/responses"]},
            "upstream": "$openai",
            "key_header": "authorization",
            "credentials": [{"id": "openai-a", "key": "OPENAI_A_AUTHORIZATION"}],
        }]})
    };
    let split = Split::start(Mode::Keys, &input("1h"), &[]).await?;
    let inline = gateway_with(|fixture| Ok(fixture.with_listeners_from_file())).await?;
    let open = async |address| WebSocket::open(address, "/v1/responses", <_>::default()).await;
    let mut outlives = open(split.envoy.address()).await?;
    let mut is_cut = open(inline.envoy.address()).await?;

    split.update(&input("2h"), false)?;
    // In both roles.
    let is_reloaded = |stats: &BTreeMap<String, u64>| {
        let reloads = stats.iter().filter(|(name, _)| name.ends_with(".config_reload"));
        reloads.filter(|(_, count)| **count == 2).count() == 2
    };
    split.envoy.wait_for_stats("extension_config_discovery.", is_reloaded).await?;
    let other = inline.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        filter["routing"]["session_affinity_ttl"] = json!("2h");
    })?;
    assert_eq!(inline.envoy.update_listener(&other).await?, Update::Accepted);
    // The drain time of both.
    assert!(!matches!(is_cut.next().await, Ok(Some(_))));

    outlives.send(r#"{"type":"response.create","model":"gpt-5.6","input":"hi"}"#).await?;
    let frame = outlives.next().await?.context("no frame")?;
    assert!(frame.contains("response.created"), "{frame}");
    outlives.close().await?;
    split.stop().await?;
    inline.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn credentials_are_added_rotated_drained_and_removed_under_traffic() -> Result<()> {
    for mode in [Mode::Clusters, Mode::Keys] {
        if mode.runs_on(envoy()?.version) {
            play_life_of_credentials(mode).await.with_context(|| format!("{mode:?}"))?;
        }
    }
    Ok(())
}

/// The credentials of the pool, and the names of their secrets.
fn credentials(list: &[(&str, u32, &str)]) -> Value {
    let of = |(id, priority, state): &(&str, u32, &str)| json!({"id": id, "key": "FROM_A_FILE", "priority": priority, "state": state});
    pools(&Value::Array(list.iter().map(of).collect()))
}

async fn play_life_of_credentials(mode: Mode) -> Result<()> {
    let secret = |id: &str| match mode {
        Mode::Keys => format!("anthropic_{id}_key"),
        _ => format!("{id}_key"),
    };
    let [a, b] = ["a", "b"].map(secret);
    let key = |letter: char| format!("sk-ant-simulated-{letter}");
    let split = Split::start(mode, &credentials(&[("a", 0, "active")]), &[(&a, &key('a'))]).await?;
    let traffic = Traffic::start(split.envoy.address());
    split.until_session_is("old", "anthropic-a").await?;

    // Added: without its secret nothing changes; then with it, and last of all in the filter.
    let with_b = |state: &str| credentials(&[("a", 0, "active"), ("b", 1, state)]);
    split.update(&with_b("disabled"), false)?;
    let rejected = |stats: &BTreeMap<String, u64>| {
        stats.iter().any(|(name, count)| name.ends_with("update_rejected") && *count > 0)
    };
    split.envoy.wait_for_stats("cluster_manager.cds.", rejected).await?;
    write_secret(split.directory.path(), &b, &key('b'))?;
    split.update(&with_b("disabled"), false)?;
    split.until_cluster_is_used(if mode == Mode::Keys { "anthropic" } else { "b" }).await?;
    split.update(&with_b("active"), false)?;
    split.until_new_sessions_are("anthropic-b").await?;
    split.until_session_is("of b", "anthropic-b").await?;

    // Rotated: the same credential with another key.
    write_secret(split.directory.path(), &a, &key('c'))?;
    split.until_session_is("old", "anthropic-c").await?;

    // Drained: its session stays, new ones go elsewhere.
    split.update(&with_b("drain"), false)?;
    split.until_new_sessions_are("anthropic-c").await?;
    assert_eq!(account(&split.ask("of b").await?), Some("anthropic-b"));

    // Removed.
    split.update(&credentials(&[("a", 0, "active")]), true)?;
    split.until_session_is("of b", "anthropic-c").await?;
    fs::remove_file(split.directory.path().join(format!("secrets/{b}.yaml")))?;
    split.until_new_sessions_are("anthropic-c").await?;

    let failures = traffic.stop().await?;
    assert_eq!(failures, [""; 0]);
    split.stop().await
}

/// Requests in new sessions, one after the other, until it is stopped.
struct Traffic {
    is_over: Arc<AtomicBool>,
    requests: tokio::task::JoinHandle<Result<Vec<String>>>,
}

impl Traffic {
    fn start(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let requests = tokio::spawn(async move {
            let mut failures = Vec::new();
            let mut number = 0;
            while !until.load(Ordering::Relaxed) {
                number += 1;
                let response = ask(address, &format!("traffic {number}")).await?;
                if response.status != 200 {
                    failures.push(format!("{} {:?}", response.status, decision(&response).ok()));
                }
            }
            Ok(failures)
        });
        Self { is_over, requests }
    }

    /// What failed.
    async fn stop(self) -> Result<Vec<String>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.requests.await?
    }
}
