//! The tools behind `cargo xtask`, as a library, so that tests and benchmarks use the same Envoy
//! and the same simulated providers as the demo.

pub mod compose;
pub mod conformance;
pub mod demo;
pub mod dist;
pub mod envoy;
pub mod envoy_config;
pub mod gateway;
pub mod licences;
pub mod prepare;
pub mod progress;
pub mod provider;
pub mod run;
pub mod signals;
pub mod verify;

use std::path::Path;

/// The root of the workspace: where `envoy.yaml` and `dist/` are.
pub fn project_root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}
