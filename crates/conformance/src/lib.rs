//! Runs the recorded vectors of the reference, and requests as real clients write them, against the
//! core: `cargo xtask conformance DIR…`.
//!
//! The name of a file decides how it is run: `vectors_*.jsonl` are session identities,
//! `fnv_*.jsonl` message hashes, `selection_*.jsonl` scripted selections of credentials,
//! `client_requests*.jsonl` requests of clients. Files of a later generation of the reference
//! (`vectors_newest_*`) are for information and are skipped. `tests/vectors/README.md` describes
//! the files.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

mod case;
mod clients;
mod identity;
mod selection;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The results of all files.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were run.
    pub files: Vec<FileReport>,
}

/// The results of one file.
#[derive(Debug)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// Passed and failed cases of each group.
    pub groups: BTreeMap<String, (usize, usize)>,
    /// The expected and the actual result, a line for each failed case.
    pub failures: Vec<String>,
}

/// Whether a case passed; if not, what was expected and what came.
type Verdict = Result<(), String>;

/// One result of a case.
struct Outcome {
    /// Which case of the file.
    line: usize,
    group: String,
    verdict: Verdict,
}

/// How the cases of a file are run.
enum Check {
    /// Each by itself.
    Each(fn(&Value) -> (String, Verdict)),
    /// Together.
    All(fn(&[Value]) -> Vec<Outcome>),
}

impl Check {
    fn run(&self, cases: &[Value]) -> Vec<Outcome> {
        match self {
            Self::Each(check) => {
                let outcome = |(line, case)| {
                    let (group, verdict) = check(case);
                    Outcome { line, group, verdict }
                };
                cases.iter().enumerate().map(outcome).collect()
            }
            Self::All(check) => check(cases),
        }
    }
}

/// Runs all vector files of these folders.
///
/// # Errors
/// If a folder has no vector file, or a file cannot be read. A failed case is not an error; the
/// report has it.
pub fn run<P: AsRef<Path>>(folders: &[P]) -> Result<Report> {
    let mut report = Report::default();
    for folder in folders {
        let files = vector_files(folder.as_ref())?;
        ensure!(!files.is_empty(), "{} has no vector file", folder.as_ref().display());
        for (path, check) in files {
            report.files.push(run_file(path, &check)?);
        }
    }
    Ok(report)
}

impl Report {
    /// Passed and failed cases of all files.
    pub fn totals(&self) -> (usize, usize) {
        let counts = self.files.iter().flat_map(|file| file.groups.values());
        counts.fold((0, 0), |(passed, failed), (more_passed, more_failed)| {
            (passed + more_passed, failed + more_failed)
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(formatter, "{}", file.path.display())?;
            for (group, (passed, failed)) in &file.groups {
                writeln!(formatter, "  {group:<28} {passed:>5} passed {failed:>5} failed")?;
            }
            for failure in &file.failures {
                writeln!(formatter, "  FAILED {failure}")?;
            }
        }
        let (passed, failed) = self.totals();
        write!(formatter, "{passed} passed, {failed} failed")
    }
}

fn vector_files(folder: &Path) -> Result<Vec<(PathBuf, Check)>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(check) = check_of(name) {
            files.push((path, check));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

fn check_of(file: &str) -> Option<Check> {
    let stem = file.strip_suffix(".jsonl")?;
    if stem.starts_with("vectors_newest") {
        return None;
    }
    let checks: [(&str, Check); 4] = [
        ("vectors_", Check::Each(identity::check)),
        ("fnv_", Check::Each(identity::check_hash)),
        ("selection_", Check::Each(selection::check)),
        ("client_requests", Check::All(clients::check)),
    ];
    checks.into_iter().find(|(prefix, _)| stem.starts_with(prefix)).map(|(_, check)| check)
}

fn run_file(path: PathBuf, check: &Check) -> Result<FileReport> {
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut numbers, mut cases) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line)
            .with_context(|| format!("{} line {} is not JSON", path.display(), at + 1))?;
        numbers.push(at + 1);
        cases.push(case);
    }
    let mut report = FileReport { path, groups: BTreeMap::new(), failures: Vec::new() };
    for Outcome { line, group, verdict } in check.run(&cases) {
        let (passed, failed) = report.groups.entry(group.clone()).or_default();
        match verdict {
            Ok(()) => *passed += 1,
            Err(difference) => {
                *failed += 1;
                let id = match cases[line]["id"].as_str() {
                    Some(id) => id.to_owned(),
                    None => format!("line {}", numbers[line]),
                };
                report.failures.push(format!("{id} {group}: {difference}"));
            }
        }
    }
    Ok(report)
}
