//! What a real Envoy says of a configuration.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::EnvoyConfig;
use envoy_harness::project_root;
use envoy_harness::{Envoy, Refusal};

/// A value for every secret: Envoy reads none of them but wants them to be there.
const STAND_IN: &str = "stand-in";

impl EnvoyConfig {
    /// Lets Envoy read the configuration, with the module that was built here.
    ///
    /// # Errors
    /// What Envoy says against it.
    pub fn validate(&self, envoy: &Envoy) -> Result<()> {
        let module = project_root().join("dist/session_affinity.wasm");
        let yaml = self.yaml_with_module(&module)?;
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let path = directory.path().join("envoy.yaml");
        std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
        let output = Command::new(&envoy.path)
            .args(["--mode", "validate", "--log-level", "warn", "--config-path"])
            .arg(&path)
            .envs(self.wiring.variables.iter().map(|variable| (variable, STAND_IN)))
            .output()
            .with_context(|| format!("cannot run {}", envoy.path.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
        Err(Refusal {
            version: envoy.version,
            reason: "refuses this configuration".to_owned(),
            log,
        }
        .into())
    }

    /// The module may be meant for another machine, but its configuration is to be checked on this
    /// one.
    fn yaml_with_module(&self, module: &Path) -> Result<String> {
        let module = module.to_str().context("the path of the module is not UTF-8")?;
        super::templates::render(&self.wiring.with_module(module), self.mode, &self.command)
    }
}
