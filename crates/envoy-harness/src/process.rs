//! An Envoy that runs as a child process of a test or of the demo, and not longer.
//!
//! Every process has its own directory, its own ports and no part in hot restart, so any number run
//! side by side. It is ready when its workers serve the listeners, not when its ports are open. It
//! ends with [`Process::stop`], with the value that holds it or, on Linux, with the process that
//! started it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::admin::{Admin, ListenerStats};
use super::find::Envoy;
use super::fixture::Fixture;
use super::log::{Log, LogLines, Mark};
use super::patience::{PATIENCE, wait_until};
use super::refusal::Refusal;
use super::version::Version;

const ADMIN_ADDRESS_FILE: &str = "admin_address";
const LISTENER: &str = "llm";
const OPERATOR: &str = "operator";

/// A running Envoy.
pub struct Process {
    child: Child,
    version: Version,
    log: Log,
    captures: [JoinHandle<()>; 2],
    admin: Admin,
    address: SocketAddr,
    operator: Option<SocketAddr>,
    concurrency: u32,
    /// The last field, so that the files go after the process.
    directory: TempDir,
}

impl Process {
    /// Starts Envoy and returns when its workers serve the listeners. Else the error is a
    /// [`Refusal`] with what it logged.
    pub async fn start(
        envoy: &Envoy,
        fixture: &Fixture,
        concurrency: u32,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("envoy-")
            .tempdir()
            .context("cannot make a directory")?;
        let mut command = command(envoy, fixture, concurrency, directory.path())?;
        command.envs(environment.iter().chain(&fixture.environment).cloned());
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", envoy.path.display()))?;
        let log = Log::default();
        let captures = [
            log.capture(child.stdout.take().context("no stdout")?),
            log.capture(child.stderr.take().context("no stderr")?),
        ];
        let started = tokio::select! {
            status = child.wait() => Err(Unready::Exited(status?)),
            ready = ready(concurrency, directory.path()) => ready,
        };
        let version = envoy.version;
        match started {
            Ok((admin, listeners)) => {
                let operator = listeners.get(OPERATOR).copied();
                let address = *listeners
                    .get(LISTENER)
                    .with_context(|| format!("there is no listener {LISTENER}"))?;
                Ok(Self {
                    child,
                    version,
                    log,
                    captures,
                    admin,
                    address,
                    operator,
                    concurrency,
                    directory,
                })
            }
            Err(unready) => {
                child.kill().await.context("cannot end Envoy")?;
                drain(captures).await;
                Err(refusal(version, unready.to_string(), &log))
            }
        }
    }

    /// Starts an Envoy that must refuse its configuration.
    pub async fn start_expecting_refusal(
        envoy: &Envoy,
        fixture: &Fixture,
        environment: &[(String, String)],
    ) -> Result<Refusal> {
        match Self::start(envoy, fixture, 1, environment).await {
            Ok(process) => {
                process.stop().await?;
                bail!("Envoy {} accepted a configuration that it should refuse", envoy.version)
            }
            Err(error) => error.downcast(),
        }
    }

    /// The address of the listener `llm`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the operator's page, if there is one.
    pub fn operator(&self) -> Option<SocketAddr> {
        self.operator
    }

    /// The address of the admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address
    }

    /// The response of the admin interface.
    pub async fn get_admin(&self, path: &str) -> Result<String> {
        self.admin.get(path).await
    }

    /// The counters and gauges whose names begin with the prefix.
    pub async fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        self.admin.stats(prefix).await
    }

    /// The lines that Envoy has written so far: its log and, unless that goes to a file, its access
    /// log.
    pub fn log(&self) -> Vec<String> {
        self.log.since(Mark::default())
    }

    /// The lines that come from now on.
    pub fn follow_log(&self) -> LogLines {
        self.log.follow()
    }

    /// Returns when Envoy has ended, which it should not do by itself. [`Process::stop`] then
    /// returns what it logged last.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn ended(&mut self) -> Result<()> {
        self.child.wait().await.context("cannot wait for Envoy")?;
        Ok(())
    }

    /// Waits for a line of the log that contains the text; one that is already there counts.
    pub async fn wait_for_log(&self, text: &str) -> Result<String> {
        self.log.wait_for(text, Mark::default()).await
    }

    /// Waits until the numbers under the prefix are as the condition wants them, and returns them.
    pub async fn wait_for_stats(
        &self,
        prefix: &str,
        condition: impl Fn(&BTreeMap<String, u64>) -> bool,
    ) -> Result<BTreeMap<String, u64>> {
        wait_until(&format!("waiting for the stats {prefix}*"), async || {
            let stats = self.stats(prefix).await?;
            Ok(condition(&stats).then_some(stats))
        })
        .await
    }

    /// The id of the process.
    ///
    /// # Errors
    /// If Envoy has ended.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("Envoy has ended")
    }

    /// Bytes of memory that Envoy occupies now.
    pub fn resident_memory(&self) -> Result<u64> {
        let id = self.id()?;
        let path = format!("/proc/{id}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("{path} has no VmRSS"))? * 1024)
    }

    /// Replaces the listeners by those of the fixture, and returns when the workers serve them or
    /// Envoy has rejected them. New connections meet the new filters; one that is open keeps the
    /// old ones.
    pub async fn update_listener(&self, fixture: &Fixture) -> Result<Update> {
        let before = ListenerStats::read(&self.admin).await?;
        let mark = self.log.mark();
        fixture.write_listeners(self.directory.path())?;
        let after = wait_until("waiting for Envoy to update its listeners", async || {
            let now = ListenerStats::read(&self.admin).await?;
            let served = now.is_served_since(&before, self.concurrency);
            Ok((served || now.is_rejection_after(&before)).then_some(now))
        })
        .await?;
        if after.is_rejection_after(&before) {
            // The counters may be ahead of the log, so wait for the line that ends the complaint.
            self.log.wait_for("Filesystem config update rejected", mark).await?;
            return Ok(Update::Rejected(self.log.since(mark)));
        }
        Ok(Update::Accepted)
    }

    /// Ends Envoy and returns everything it has written.
    pub async fn stop(mut self) -> Result<Vec<String>> {
        if let Some(status) = self.child.try_wait()? {
            drain(self.captures).await;
            return Err(refusal(self.version, format!("had already ended ({status})"), &self.log));
        }
        terminate(&self.child)?;
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            bail!("Envoy {} did not end on SIGTERM, and was killed", self.version);
        }
        drain(self.captures).await;
        Ok(self.log.since(Mark::default()))
    }
}

/// Whether Envoy accepted new listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// All workers serve them.
    Accepted,
    /// The old ones stay. These lines of the log say why.
    Rejected(Vec<String>),
}

fn command(
    envoy: &Envoy,
    fixture: &Fixture,
    concurrency: u32,
    directory: &Path,
) -> Result<Command> {
    let mut command = program(envoy, fixture.core);
    command
        .arg("--config-path")
        .arg(fixture.write(directory)?)
        .arg("--admin-address-path")
        .arg(directory.join(ADMIN_ADDRESS_FILE))
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--drain-time-s", &fixture.drain_seconds.to_string()])
        .args(["--disable-hot-restart", "--log-level", "info"])
        // Access logs are buffered for 10 s otherwise.
        .args(["--file-flush-interval-msec", "50"])
        // Envoy reads listeners from a file only if it knows its own name.
        .args(["--service-node", "harness", "--service-cluster", "harness"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on a terminal reaches a whole process group, but Envoy must end only from here.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(levels) = &fixture.component_log_level {
        command.args(["--component-log-level", levels]);
    }
    end_with_parent(&mut command);
    Ok(command)
}

/// Envoy itself, or `taskset`, which replaces itself by Envoy and so leaves it the process id.
fn program(envoy: &Envoy, core: Option<usize>) -> Command {
    let Some(core) = core else {
        return Command::new(&envoy.path);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(&envoy.path);
    command
}

/// Covers the one case that `kill_on_drop` cannot: a test runner that is itself killed.
///
/// On Linux the parent is the thread that starts the process: that of the test or a worker of the
/// runtime. Both outlive the [`Process`].
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no other way to do this")]
fn end_with_parent(command: &mut Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    // SAFETY: between fork and exec only one system call is made; nothing is allocated and no lock
    // is taken.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &mut Command) {}

fn terminate(child: &Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let id = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        .context("Envoy has ended")?;
    kill_process(id, Signal::TERM).context("cannot end Envoy")
}

fn refusal(version: Version, reason: String, log: &Log) -> anyhow::Error {
    let log = log.since(Mark::default());
    Refusal { version, reason, log }.into()
}

async fn drain(captures: [JoinHandle<()>; 2]) {
    for capture in captures {
        // It fails only if reading panicked, and then there is nothing more to read.
        let _ = capture.await;
    }
}

/// Why Envoy is not ready.
enum Unready {
    Exited(ExitStatus),
    RejectedListeners,
    Unknown(anyhow::Error),
}

impl fmt::Display for Unready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "exited before it was ready ({status})"),
            Self::RejectedListeners => write!(formatter, "rejected its listeners"),
            Self::Unknown(error) => write!(formatter, "did not become ready ({error:#})"),
        }
    }
}

impl From<anyhow::Error> for Unready {
    fn from(error: anyhow::Error) -> Self {
        Self::Unknown(error)
    }
}

/// The admin interface and the listeners, once these serve.
async fn ready(
    concurrency: u32,
    directory: &Path,
) -> Result<(Admin, BTreeMap<String, SocketAddr>), Unready> {
    let path = directory.join(ADMIN_ADDRESS_FILE);
    let address = wait_until("waiting for the admin interface", async || {
        Ok(fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()))
    });
    let admin = Admin { address: address.await? };
    let stats = wait_until("waiting for the listeners", async || {
        // An Envoy that is about to exit does not respond; its exit has the reason.
        let stats = ListenerStats::read(&admin).await.ok();
        Ok(stats.filter(|now| now.rejected > 0 || now.is_serving(concurrency)))
    });
    if stats.await?.rejected > 0 {
        return Err(Unready::RejectedListeners);
    }
    let listeners = admin.listeners().await?;
    Ok((admin, listeners))
}
