//! What `cargo xtask demo` and `cargo xtask run` need before they can begin: the module and an
//! Envoy.

use std::path::Path;

use anyhow::Result;

use envoy_harness::progress::Step;
use envoy_harness::{self as envoy, Envoy, module, project_root};

/// Builds the module and finds an Envoy, the requested version of it if there is one, and shows
/// that it does.
///
/// # Errors
/// If the module cannot be built, or there is no Envoy that can run it.
pub(crate) fn prepare(envoy_version: Option<&str>) -> Result<Envoy> {
    let step = Step::start("filter");
    step.say("building, which takes a minute the first time");
    let module = module::build_silently(project_root(), |line| step.say(line))?;
    step.done(&format!("{}, {} KB", shown(&module.path), module.size.div_ceil(1024)));

    let envoy = envoy::find(envoy_version)?;
    Step::start("Envoy").done(&format!("{}, {}", envoy.version, shown(&envoy.path)));
    Ok(envoy)
}

/// Paths inside the project are shown as seen from there.
fn shown(path: &Path) -> String {
    path.strip_prefix(project_root()).unwrap_or(path).display().to_string()
}
