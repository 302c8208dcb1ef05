//! A Docker engine to work with: the one that is running or, with `--provision`, one that is
//! started for this run, from Debian's packages if need be.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::process::{Child, Command};

use super::command::{command, output_if_ok, output_of};
use super::report::report;
use envoy_harness::wait_until;

/// Long enough for the engine to end its containers, and its containerd.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A setting of apt: a transfer that breaks off is repeated.
pub(super) const RETRIES: &str = "Acquire::Retries=5";

/// An engine that is running.
pub(super) struct Engine {
    /// The daemon, if this run started it: then this run ends it too.
    daemon: Option<Child>,
}

impl Engine {
    /// Finds the engine that is running. With `provision` it starts one if there is none, and
    /// leaves its log and process id in `work`.
    pub(super) async fn find(work: &Path, provision: bool) -> Result<Self> {
        if let Some(version) = running_version().await {
            report("engine", format!("Docker {version}, running already"));
            return Ok(Self { daemon: None });
        }
        ensure_possible(provision).await?;
        if !is_installed("dockerd") {
            install("docker.io iptables").await?;
            // Where systemd runs, the package has started its service by now.
            if let Some(version) = running_version().await {
                report(
                    "engine",
                    format!("Docker {version}, installed, and started by its package"),
                );
                return Ok(Self { daemon: None });
            }
        }
        start(work).await
    }

    /// Ends the daemon if this run started it.
    pub(super) async fn stop(self) -> Result<()> {
        let Some(mut daemon) = self.daemon else {
            return Ok(());
        };
        let Some(id) = daemon.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return Ok(());
        };
        kill_process(id, Signal::TERM).context("cannot end dockerd")?;
        match tokio::time::timeout(STOP_DEADLINE, daemon.wait()).await {
            Ok(status) => {
                status.context("cannot wait for dockerd")?;
                report("engine", "stopped");
            }
            Err(_) => {
                daemon.kill().await.context("cannot kill dockerd")?;
                report("engine", "killed: it did not end on SIGTERM");
            }
        }
        Ok(())
    }
}

/// Whether there is an engine, or one may be started.
pub(super) async fn ensure_possible(provision: bool) -> Result<()> {
    if running_version().await.is_some() {
        return Ok(());
    }
    ensure!(
        provision,
        "no Docker engine is running: start one, or add --provision, which installs and starts one on \
         a Debian machine"
    );
    ensure!(is_root(), "no Docker engine is running: start one, or run this as root");
    Ok(())
}

/// Installs packages of Debian that are missing, given in one string.
pub(super) async fn install(packages: &str) -> Result<()> {
    ensure!(is_root(), "install {packages} first: only root can do it from here");
    ensure!(
        is_installed("apt-get"),
        "install {packages} first: this machine has no apt-get to do it from here"
    );
    report("install", packages);
    // One of several sources may not be reachable; the next command fails if that matters.
    output_if_ok(command("apt-get update").args(["-o", RETRIES])).await;
    let mut install = command("apt-get install --yes --no-install-recommends");
    // A machine that has just been started may be updating itself.
    install.args(["-o", "DPkg::Lock::Timeout=300", "-o", RETRIES]);
    install.args(packages.split_whitespace()).env("DEBIAN_FRONTEND", "noninteractive");
    output_of(&mut install).await.map(drop)
}

pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

pub(super) fn is_root() -> bool {
    geteuid().is_root()
}

/// The version of the daemon: the client has one of its own, also without a daemon.
async fn running_version() -> Option<String> {
    output_if_ok(&mut command("docker version --format {{.Server.Version}}")).await
}

async fn start(work: &Path) -> Result<Engine> {
    let log_path = work.join("dockerd.log");
    let log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut daemon = Command::new("dockerd")
        .arg("--pidfile")
        .arg(work.join("dockerd.pid"))
        .stdout(log.try_clone().context("cannot share the log of dockerd")?)
        .stderr(log)
        // A group of its own: Ctrl-C must reach the containers through `down`, not by the engine's
        // sudden end.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run dockerd")?;
    let version = wait_until("waiting for dockerd", async || match daemon.try_wait()? {
        Some(status) => bail!("it ended ({status})"),
        None => Ok(running_version().await),
    })
    .await
    .with_context(|| format!("dockerd does not start; its log is {}", log_path.display()))?;
    report("engine", format!("Docker {version}, started for this run"));
    Ok(Engine { daemon: Some(daemon) })
}
