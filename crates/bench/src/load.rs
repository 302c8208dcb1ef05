//! The load generator: `wrk`, which costs little itself, so that Envoy has its core to its own and
//! is the one that is busy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::contender::Identity;
use crate::request::{self, DIGITS};

/// How many sessions there are.
pub(crate) const SESSIONS: u64 = 1024;
/// When `wrk` ends by itself, should nobody end it.
const AT_MOST: &str = "40s";

/// The requests, in files that `wrk` reads.
pub(crate) struct Requests {
    directory: TempDir,
    files: BTreeMap<(Identity, usize), [PathBuf; 2]>,
}

impl Requests {
    /// Writes the requests of these sizes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn write(sizes: impl IntoIterator<Item = usize>) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        fs::write(directory.path().join("load.lua"), include_str!("load.lua"))
            .context("cannot write the script of wrk")?;
        let mut files = BTreeMap::new();
        for size in sizes {
            for identity in [Identity::Header, Identity::Body] {
                let request = request::request(identity, size)?;
                let paths = ["before", "after"]
                    .map(|part| directory.path().join(format!("{identity:?}-{size}-{part}")));
                for (path, bytes) in paths.iter().zip([request.before, request.after]) {
                    fs::write(path, bytes)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                files.insert((identity, size), paths);
            }
        }
        Ok(Self { directory, files })
    }

    /// Begins to send requests, as fast as they are answered.
    ///
    /// # Errors
    /// If there is no `wrk`.
    pub(crate) fn send(
        &self,
        address: SocketAddr,
        identity: Identity,
        size: usize,
        connections: u16,
    ) -> Result<Load> {
        let files = self.files.get(&(identity, size)).context("no requests of this size")?;
        let child = Command::new("wrk")
            .args(["--threads", "1", "--duration", AT_MOST, "--timeout", "30s"])
            .args(["--connections", &connections.to_string()])
            .arg("--script")
            .arg(self.directory.path().join("load.lua"))
            .arg(format!("http://{address}/"))
            .arg("--")
            .args(files)
            .args([DIGITS.to_string(), SESSIONS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run wrk")?;
        Ok(Load { child })
    }
}

/// Requests that are being sent. They end with this value.
pub(crate) struct Load {
    child: Child,
}

/// What `wrk` saw.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Seen {
    pub requests: u64,
    pub microseconds: u64,
    /// Connections that broke, and responses that were no success.
    pub failures: u64,
    /// Latencies in microseconds.
    pub p50: u64,
    pub p99: u64,
}

impl Load {
    /// Ends it, and returns what it saw.
    ///
    /// # Errors
    /// If a request failed: then it is not the cost of serving that was measured.
    pub(crate) async fn stop(self) -> Result<Seen> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("wrk ended by itself")?, Signal::INT).context("cannot end wrk")?;
        let output = self.child.wait_with_output().await.context("cannot wait for wrk")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let seen = parse(&printed).with_context(|| {
            format!("wrk printed:\n{printed}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        ensure!(seen.failures == 0, "{} requests failed:\n{printed}", seen.failures);
        ensure!(seen.requests > 0, "no request was answered");
        Ok(seen)
    }
}

fn parse(printed: &str) -> Result<Seen> {
    let line = printed.lines().find_map(|line| line.strip_prefix("RESULT "));
    serde_json::from_str(line.context("no result")?).context("an unexpected result")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_found_in_what_wrk_prints() {
        let printed = "Running 2m test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n\n\
            RESULT {\"requests\":7,\"microseconds\":600000,\"failures\":0,\"p50\":90,\"p99\":210}\n";
        let expected = Seen { requests: 7, microseconds: 600_000, failures: 0, p50: 90, p99: 210 };
        assert_eq!(parse(printed).unwrap(), expected);
        assert!(parse("unable to connect to 127.0.0.1:1 Connection refused\n").is_err());
    }

    #[test]
    fn there_is_a_request_for_every_path_and_size() {
        let requests = Requests::write([2048]).unwrap();
        let (size, files) = (2048, requests.files.len());
        let body = requests.files.get(&(Identity::Body, size)).unwrap();
        let length: usize = body.iter().map(|path| fs::read(path).unwrap().len()).sum();
        assert!(length + DIGITS > size);
        assert_eq!(files, 2);
    }
}
