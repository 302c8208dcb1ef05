//! A complete configuration of Envoy from a list of pools: `cargo xtask envoy-config`, or the
//! program `session-affinity-config` where the project is not checked out.
//!
//! Many things have to fit together: names of clusters in the filter, in the route and among the
//! secrets, the filter in the listener and again on every cluster, limits of bodies and of retries.
//! That is error-prone by hand from the second credential on. The shipped configurations come from
//! here, too, so that tests, demo and users have the same.
//!
//! A configuration is only printed when the filter has accepted its part, and a real Envoy all of
//! it. Whoever merges its parts into another configuration lets [`check`] look for what is missing.

pub mod check;
mod clusters;
pub mod command;
mod input;
mod socket_address;
mod templates;
mod validate;
mod wiring;
mod yaml;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use envoy_harness::Mode;

use input::Input;
use wiring::Wiring;

/// A configuration of Envoy.
#[derive(Debug)]
pub struct EnvoyConfig {
    wiring: Wiring,
    mode: Mode,
}

impl EnvoyConfig {
    /// Reads the pools of a file.
    ///
    /// # Errors
    /// All problems of the file, each with its path.
    pub fn read(file: &Path, mode: Mode) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text, mode).map_err(|problems| {
            let problems = problems.to_string().replace('\n', "\n  ");
            anyhow!("{} cannot be used:\n  {problems}", file.display())
        })
    }

    /// Reads pools.
    ///
    /// # Errors
    /// All problems, each with its path.
    pub fn parse(json: &str, mode: Mode) -> Result<Self> {
        let wiring = Wiring::new(deserialize(json)?, mode)
            .map_err(|problems| anyhow!("{}", problems.join("\n")))?;
        Ok(Self { wiring, mode })
    }

    /// The text for Envoy. `command` is what prints it again; a comment at its head says so.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn yaml(&self, command: &str) -> Result<String> {
        templates::render(&self.wiring, self.mode, command)
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
