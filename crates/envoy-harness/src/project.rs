//! Where the files of the project are.

use std::path::Path;

/// The root of the project: where `envoy.yaml` and `dist/` are.
pub fn project_root() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness)
}
