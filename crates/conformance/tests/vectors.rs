//! The recorded vectors, every case. `tests/vectors/README.md` describes them.

use std::path::Path;

use anyhow::{Result, ensure};

/// Cases that differ from what was recorded, each with its reason. There are none, not even among
/// those marked `lenient`, where the reference tolerates broken JSON.
const KNOWN_DIFFERENCES: [(&str, &str); 0] = [];

#[test]
fn every_recorded_case_matches() -> Result<()> {
    let report =
        conformance::run(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")])?;
    let mut failures: Vec<_> = report.files.iter().flat_map(|file| &file.failures).collect();
    failures.retain(|failure| !KNOWN_DIFFERENCES.iter().any(|(id, _)| failure.starts_with(id)));
    ensure!(failures.is_empty(), "{} differ:\n{failures:#?}", failures.len());
    let (passed, _) = report.totals();
    ensure!(passed >= 1801 + 157 + 2 * (79 + 57), "only {passed} cases were found");
    Ok(())
}
