//! What several commands need before they can begin: an Envoy and the module, in this order. An
//! Envoy that is missing or too old is found out before anything is compiled for a minute.

use std::path::{Path, PathBuf};

use anyhow::Result;
use envoy_harness::progress::{self, Step};
use envoy_harness::{self as harness, Envoy, project_root};

/// Finds an Envoy, the requested version of it if there is one, and then builds the module.
///
/// # Errors
/// If there is no Envoy that can run the filter, or the module cannot be built.
pub(crate) fn envoy_and_module(requested: Option<&str>) -> Result<Envoy> {
    harness::ensure_target()?;
    let envoy = envoy(requested)?;
    module()?;
    Ok(envoy)
}

/// Finds an Envoy, the requested version of it if there is one.
///
/// # Errors
/// If there is none that can run the filter.
pub(crate) fn envoy(requested: Option<&str>) -> Result<Envoy> {
    let envoy = harness::find(requested)?;
    progress::done("Envoy", &format!("{}, {}", envoy.version, shown(&envoy.path)));
    Ok(envoy)
}

/// Builds the module.
///
/// # Errors
/// If it cannot be built.
pub(crate) fn module() -> Result<PathBuf> {
    harness::ensure_target()?;
    let step = Step::start("filter");
    step.say("building, which takes a minute the first time");
    let module = harness::module::build_silently(|line| step.say(line))?;
    step.done(&format!("{}, {} KB", shown(&module.path), module.size.div_ceil(1024)));
    Ok(module.path)
}

/// Paths inside the project are shown relative to its root.
fn shown(path: &Path) -> String {
    path.strip_prefix(project_root()).unwrap_or(path).display().to_string()
}
