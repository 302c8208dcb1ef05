//! Lets an Envoy read a configuration without serving it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::find::Envoy;
use super::refusal::Refusal;

impl Envoy {
    /// Lets this Envoy read a configuration, with these environment variables beside its own.
    ///
    /// # Errors
    /// A [`Refusal`], if Envoy does not accept it.
    pub fn validate<'a>(
        &self,
        configuration: &str,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let path = directory.path().join("envoy.yaml");
        fs::write(&path, configuration)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let output = Command::new(&self.path)
            .args(["--mode", "validate", "--log-level", "warn", "--config-path"])
            .arg(&path)
            .envs(environment)
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let output = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&output).lines().map(str::to_owned).collect();
        let reason = "refuses this configuration".to_owned();
        Err(Refusal { version: self.version, reason, log }.into())
    }
}
