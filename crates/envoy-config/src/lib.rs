//! `cargo xtask envoy-config`: a complete configuration of Envoy from a list of pools.
//!
//! What has to fit together is a lot: names of clusters in the filter, in the route and among the
//! secrets, the filter in the listener and again on every cluster, limits of bodies and of retries.
//! Nobody should write that by hand for a second credential. The configurations that are shipped
//! are printed by it, too, so that tests, demo and users have one.
//!
//! A configuration is only printed when the filter has accepted its part, and a real Envoy all of
//! it.

mod clusters;
mod input;
mod socket_address;
mod templates;
mod validate;
mod wiring;
mod yaml;

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

use envoy_harness::progress::Step;
use envoy_harness::{Envoy, Mode};

use input::Input;
use wiring::Wiring;

/// A configuration of Envoy.
#[derive(Debug)]
pub struct EnvoyConfig {
    wiring: Wiring,
    mode: Mode,
    command: String,
}

/// Prints the configuration for the pools of a file.
///
/// # Errors
/// All that is wrong with the file, each problem with its path; or what Envoy says.
pub fn print(file: &Path, mode: Mode, prepare: impl FnOnce() -> Result<Envoy>) -> Result<()> {
    let config = EnvoyConfig::read(file, mode)?;
    let envoy = prepare()?;
    ensure!(
        mode.runs_on(envoy.version),
        "--mode {} needs Envoy {} or later, but this is {}: choose one with --envoy, or another mode",
        mode.as_str(),
        mode.oldest_envoy(),
        envoy.version
    );
    let step = Step::start("configuration");
    config.validate(&envoy)?;
    step.done(&format!("accepted by Envoy {}", envoy.version));
    std::io::stdout().write_all(config.yaml()?.as_bytes()).context("cannot print the configuration")
}

impl EnvoyConfig {
    /// Reads the pools of a file.
    ///
    /// # Errors
    /// All that is wrong with it, each problem with its path.
    pub fn read(file: &Path, mode: Mode) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.display().to_string();
        Self::parse(&text, &name, mode).map_err(|problems| {
            anyhow!("{name} cannot be used:\n  {}", problems.to_string().replace('\n', "\n  "))
        })
    }

    /// Reads pools. `name` is what the file is called in the command that is told to readers.
    ///
    /// # Errors
    /// All that is wrong, each problem with its path.
    pub fn parse(json: &str, name: &str, mode: Mode) -> Result<Self> {
        let wiring = Wiring::new(deserialize(json)?, mode)
            .map_err(|problems| anyhow!("{}", problems.join("\n")))?;
        let mut command = format!("cargo xtask envoy-config {name}");
        if mode != Mode::Clusters {
            command.push_str(" --mode ");
            command.push_str(mode.as_str());
        }
        Ok(Self { wiring, mode, command })
    }

    /// The text for Envoy.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn yaml(&self) -> Result<String> {
        templates::render(&self.wiring, self.mode, &self.command)
    }
}

fn deserialize(json: &str) -> Result<Input> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let input = serde_path_to_error::deserialize(&mut deserializer);
    let input = input.map_err(|error| match error.path().to_string().as_str() {
        "." | "?" => anyhow!("{}", error.inner()),
        path => anyhow!("{path}: {}", error.inner()),
    })?;
    deserializer.end()?;
    Ok(input)
}
