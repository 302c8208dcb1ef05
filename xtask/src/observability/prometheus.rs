//! A Prometheus of this machine that scrapes one Envoy.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use envoy_harness::client::{self, Protocol};
use envoy_harness::wait_until;
use hyper::Request;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
    /// Its configuration and data.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one, and returns when it serves.
    pub(super) async fn start(envoy: SocketAddr, rules: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n\
             - job_name: envoy\n  metrics_path: /stats/prometheus\n  \
               static_configs: [{{targets: [{:?}]}}]\n",
            rules.display().to_string(),
            envoy.to_string()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).context("cannot write Prometheus's configuration")?;
        let address = free_address()?;
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=error"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run prometheus")?;
        wait_until("waiting for Prometheus", async || {
            if let Some(status) = process.try_wait()? {
                bail!("it ended ({status})");
            }
            Ok(get(address, "/-/ready").await.ok())
        })
        .await?;
        Ok(Self { process, address, _folder: folder })
    }

    /// Whether an expression returns at least one number now.
    ///
    /// # Errors
    /// If it is no expression.
    pub(super) async fn has_numbers(&self, expression: &str) -> Result<bool> {
        let answer = get(self.address, &format!("/api/v1/query?query={}", encoded(expression)))
            .await
            .with_context(|| format!("of the expression\n{expression}"))?;
        let answer: Value = serde_json::from_str(&answer).context("Prometheus answers no JSON")?;
        let result = answer["data"]["result"].as_array().context("no result")?;
        let numbers = result.iter().filter_map(|sample| sample["value"][1].as_str()?.parse().ok());
        Ok(numbers.into_iter().any(f64::is_finite))
    }

    pub(super) async fn stop(mut self) -> Result<()> {
        self.process.kill().await.context("cannot end prometheus")
    }
}

/// A port of loopback that was free a moment ago: Prometheus cannot choose one itself.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let request = Request::get(path).body(client::empty())?;
    let response = client::send(address, Protocol::Http1, request).await?;
    ensure!(response.status == 200, "{}: {}", response.status, response.text());
    Ok(response.text())
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            _ => {
                let _never_fails = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
