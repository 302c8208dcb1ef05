//! Lets a real Envoy read a configuration.

use std::path::Path;

use anyhow::{Context, Result};
use envoy_harness::Envoy;

use super::EnvoyConfig;

/// A value for every secret: Envoy reads none of them but wants them to be there.
const STAND_IN: &str = "stand-in";

impl EnvoyConfig {
    /// The path of the module, as seen from where Envoy is started.
    pub fn module(&self) -> &str {
        self.wiring.module()
    }

    /// Lets Envoy read the configuration, with a module that is here: the one that the
    /// configuration names may be on another machine.
    ///
    /// # Errors
    /// What Envoy says against it.
    pub fn validate(&self, envoy: &Envoy, module: &Path) -> Result<()> {
        let module = std::path::absolute(module).context("there is no current directory")?;
        let module = module.to_str().context("the path of the module is not UTF-8")?;
        // Files with keys are where Envoy will run.
        let wiring = self.wiring.on_trial(module);
        let yaml = super::templates::render(&wiring, "")?;
        let variables = wiring.variables();
        envoy.validate(&yaml, variables.into_iter().map(|variable| (variable, STAND_IN)))
    }
}
