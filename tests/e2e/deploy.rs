//! What `deploy/` ships, on a real Envoy: with other addresses and keys, and otherwise as it is.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use envoy_config::{EnvoyConfig, File, Source, Target, secret_file};
use envoy_harness::client::{self, Protocol, WebSocket};
use envoy_harness::{Fixture, Mode, Process, module, project_root, wait_until};
use hyper::http::request::Builder;
use simulated_providers::{Config, Providers, Vendor};
use tokio::process::Command;

use crate::discovery::write;
use crate::relay::ClosedPort;
use crate::support::envoy;

/// The pools of the Deployment, with the providers and the places of this machine.
fn input(providers: &Providers, root: &Path, admin: SocketAddr) -> Result<String> {
    let mut text = fs::read_to_string(project_root().join("deploy/kubernetes/pools.yaml"))?;
    for (url, vendor) in [
        ("https://api.anthropic.com", Vendor::Anthropic),
        ("https://api.openai.com", Vendor::OpenAi),
    ] {
        assert!(text.contains(url));
        text = text.replace(url, &format!("http://{}", providers.address(vendor)));
    }
    text.push_str(&format!("listener: 127.0.0.1:0\nstats: 127.0.0.1:0\nadmin: {admin}\n"));
    text.push_str(&format!(
        "module: {}\nsecrets: {}/secrets\n",
        module::path().display(),
        root.display()
    ));
    Ok(text)
}

/// The address of a listener.
async fn address_of(envoy: &Process, name: &str) -> Result<SocketAddr> {
    let text = envoy.get_admin("/listeners").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}::")));
    Ok(line.context("no listener")?.parse()?)
}

async fn status(address: SocketAddr, request: Builder) -> Result<u16> {
    let response = client::send(address, Protocol::Http1, request.body(client::empty())?).await?;
    Ok(response.status.as_u16())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_pod_that_is_to_go_waits_for_its_streams_and_shows_only_metrics() -> Result<()> {
    let envoy = envoy()?;
    if !Mode::Clusters.runs_on(envoy.version) {
        return Ok(());
    }
    let (directory, providers) = (tempfile::tempdir()?, Providers::start(Config::default()).await?);
    let root = directory.path();
    // The listener with the metrics has to know the port of the admin interface.
    let admin = ClosedPort::new()?;
    fs::write(root.join("pools.yaml"), input(&providers, root, admin.address()?)?)?;
    let config = EnvoyConfig::read(&root.join("pools.yaml"), Mode::Clusters, Target::Kubernetes)?;
    let files = config.split(&Source::Files(root.display().to_string()))?;
    let keys = [
        ("anthropic_a_key", "sk-ant-simulated-a"),
        ("anthropic_b_key", "sk-ant-simulated-b"),
        ("openai_a_key", "Bearer sk-simulated-a"),
        ("openai_b_key", "Bearer sk-simulated-b"),
    ];
    let secrets: Vec<File> = keys.iter().map(|(name, key)| secret_file(name, key)).collect();
    secrets.iter().chain(&files).try_for_each(|file| write(root, file))?;
    let fixture = Fixture::without_filter(files[0].content.clone());
    let process = Process::start(&envoy, &fixture, 1, &[]).await?;

    let stats = address_of(&process, "stats").await?;
    let get = |path: &str| hyper::Request::get(path);
    assert_eq!(status(stats, get("/ready")).await?, 200);
    assert_eq!(status(stats, get("/stats/prometheus")).await?, 200);
    for hidden in ["/", "/config_dump", "/stats", "/stats/prometheus/../../config_dump"] {
        assert_eq!(status(stats, get(hidden)).await?, 404, "{hidden}");
    }
    assert_eq!(status(stats, hyper::Request::post("/ready")).await?, 404);

    let mut socket = WebSocket::open(process.address(), "/v1/responses", <_>::default()).await?;
    let mut drain = Command::new("bash")
        .arg(project_root().join("deploy/kubernetes/drain.sh"))
        .env("ADMIN_PORT", process.admin().port().to_string())
        .env("LEAST_SECONDS", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_until("the pod to be unready", async || {
        Ok((status(stats, get("/ready")).await? == 503).then_some(()))
    })
    .await?;
    socket.send(r#"{"type":"response.create","model":"gpt-5.6","input":"hi"}"#).await?;
    assert!(socket.next().await?.context("no frame")?.contains("response.created"));
    assert!(drain.try_wait()?.is_none(), "it waits for the stream");
    socket.close().await?;
    assert!(drain.wait().await?.success());
    process.stop().await?;
    providers.stop().await;
    Ok(())
}
