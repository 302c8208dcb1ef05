//! The stack of `docker-compose.yml`: up, its logs, down.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use hyper::Request;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::command::{command, output_if_ok, output_of};
use super::engine;
use super::report::report;
use envoy_harness::client::{self, Protocol};
use envoy_harness::progress::note;
use envoy_harness::wait_until;

/// Where `docker-compose.yml` publishes Envoy.
pub(super) const PUBLISHED: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10000));

/// Not the name of the checkout's folder: the containers and volumes of a stack that is in use stay
/// out of this.
const PROJECT: &str = "session-affinity-compose-test";

/// What to print of each container when a check failed.
const LINES_OF_A_LOG: &str = "60";

/// The stack under a project name of its own.
pub(super) struct Stack {
    compose: &'static str,
    file: PathBuf,
}

impl Stack {
    /// Takes `docker compose` (v2) where it is installed, else docker-compose 1.29, which Debian 12
    /// has.
    pub(super) async fn new(root: &Path, provision: bool) -> Result<Self> {
        let compose = match Self::installed().await {
            Some(compose) => compose,
            None => {
                ensure!(
                    provision,
                    "there is neither `docker compose` nor docker-compose: install one, or add \
                     --provision, which does so on a Debian machine"
                );
                engine::install("docker-compose").await?;
                "docker-compose"
            }
        };
        let version = output_of(command(compose).args(["version", "--short"])).await?;
        report("compose", format!("{compose} {version}"));
        Ok(Self { compose, file: root.join("docker-compose.yml") })
    }

    async fn installed() -> Option<&'static str> {
        for compose in ["docker compose", "docker-compose"] {
            if output_if_ok(command(compose).arg("version")).await.is_some() {
                return Some(compose);
            }
        }
        None
    }

    /// Prepares for `up`, and fails if another program uses its port.
    pub(super) async fn clear(&self) -> Result<()> {
        // What is not started here, Prometheus and Grafana, is at least read.
        output_of(self.command().args(["--profile", "observe", "config", "--quiet"])).await?;
        // A run that was killed may have left its containers.
        self.down().await?;
        ensure!(
            TcpStream::connect(PUBLISHED).await.is_err(),
            "something listens on {PUBLISHED} already: stop it first"
        );
        Ok(())
    }

    /// Builds what must be built, and returns when Envoy responds.
    pub(super) async fn up(&self) -> Result<()> {
        report("up", "building in a container: this takes minutes");
        let started = Instant::now();
        output_of(self.command().args(["up", "--detach"])).await?;
        // A published port accepts connections as soon as its container runs, and drops them until
        // Envoy listens.
        wait_until("waiting for Envoy", async || {
            self.ensure_envoy_runs().await?;
            let request = Request::get("/").body(client::empty())?;
            Ok(client::send(PUBLISHED, Protocol::Http1, request).await.ok())
        })
        .await?;
        report("up", format!("Envoy responds after {} s", started.elapsed().as_secs()));
        Ok(())
    }

    async fn ensure_envoy_runs(&self) -> Result<()> {
        let running =
            output_of(self.command().args(["ps", "--services", "--filter", "status=running"]))
                .await?;
        ensure!(
            running.lines().any(|service| service == "envoy"),
            "the container of Envoy has ended"
        );
        Ok(())
    }

    /// Shows the logs of the containers, if possible, beside the error.
    pub(super) async fn print_logs(&self) {
        let logs =
            output_of(self.command().args(["logs", "--no-color", "--tail", LINES_OF_A_LOG])).await;
        note(&logs.unwrap_or_else(|error| format!("{error:#}")));
    }

    pub(super) async fn down(&self) -> Result<()> {
        output_of(self.command().args(["down", "--volumes", "--remove-orphans"])).await.map(drop)
    }

    fn command(&self) -> Command {
        let mut command = command(self.compose);
        command.args(["--project-name", PROJECT, "--file"]).arg(&self.file);
        command
    }
}
