//! The machine: which cores there are, and what a reader must know to judge the numbers.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use envoy_harness::{Version, project_root};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// Envoy has a core of its own; everything else shares the other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cores {
    pub load: usize,
    pub envoy: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    ///
    /// # Errors
    /// If there are not two.
    pub(crate) fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot see the cores")?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        choose(&cores).context("the benchmark needs two cores: one of them for Envoy alone")
    }

    /// Moves this thread, and what it starts from now on, to the core of the load.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub(crate) fn take(self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.load);
        sched_setaffinity(None, &set).context("cannot move to a core")
    }
}

fn choose(allowed: &[usize]) -> Option<Cores> {
    match allowed {
        [first, .., last] => Some(Cores { load: *first, envoy: *last }),
        _ => None,
    }
}

/// Looks for the programs that are not part of the project.
///
/// # Errors
/// If one is missing, with how to install it.
pub(crate) fn ensure_programs() -> Result<()> {
    for (program, package) in [("wrk", "wrk"), ("taskset", "util-linux")] {
        let found = Command::new(program).arg("--version").output().is_ok();
        ensure!(found, "{program} is missing: apt-get install -y {package}");
    }
    Ok(())
}

/// What a reader must know to judge the numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    pub date: String,
    pub commit: String,
    pub envoy: String,
    /// Bytes.
    pub module: u64,
    pub cpu: String,
    pub cores: usize,
    pub cores_used: Cores,
    pub kernel: String,
    /// Of the last minute before the run; above zero, something else was running.
    pub load_average: String,
}

impl Facts {
    /// Of this machine, now.
    ///
    /// # Errors
    /// If `/proc` has another shape.
    pub(crate) fn gather(envoy: Version, module: u64, cores_used: Cores) -> Result<Self> {
        let cpus = read("/proc/cpuinfo")?;
        Ok(Self {
            date: output("date", &["--utc", "+%F"]),
            commit: commit(),
            envoy: envoy.to_string(),
            module,
            cpu: cpu_model(&cpus).unwrap_or("unknown").to_owned(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            cores_used,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_average: first_word(&read("/proc/loadavg")?).to_owned(),
        })
    }
}

/// The commit, and whether anything but older results differs from it.
fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let changes = ["status", "--porcelain", "--", ".", ":(exclude)benches/results"];
    let is_clean = output("git", &changes).is_empty();
    if is_clean { commit } else { format!("{commit}, with changes") }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The output of a program that is only there to inform.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(project_root()).output();
    let output = output.ok().filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

fn cpu_model(cpus: &str) -> Option<&str> {
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoy_and_the_load_never_share_a_core() {
        assert_eq!(choose(&[0, 1]), Some(Cores { load: 0, envoy: 1 }));
        assert_eq!(choose(&[2, 3, 7]), Some(Cores { load: 2, envoy: 7 }));
        assert_eq!(choose(&[3]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn the_model_is_that_of_the_first_cpu() {
        let cpus = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nprocessor\t: 1\n";
        assert_eq!(cpu_model(cpus), Some("AMD EPYC"));
        assert_eq!(cpu_model(""), None);
    }
}
