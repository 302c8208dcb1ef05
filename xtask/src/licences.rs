//! Checks that everything the project is built from may be distributed under Apache-2.0.
//!
//! All dependencies count, also those of tests, tools and foreign platforms: a list with exceptions
//! would have to be maintained.
//!
//! cargo-deny does this and more, but it would have to be compiled or downloaded for every run of
//! CI, and this takes a second without a network. Advisories are another matter: they appear
//! without a change here, so `.github/workflows/advisories.yml` lets cargo-deny look for them on a
//! schedule.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

/// Licences that require no more than a notice.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks the licences of all packages in `Cargo.lock`.
///
/// # Errors
/// Every package that may not be used.
pub(crate) fn check(project_root: &Path) -> Result<()> {
    let problems = problems(&packages(project_root)?)?;
    ensure!(problems.is_empty(), "these packages may not be used:\n  {}", problems.join("\n  "));
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

fn packages(project_root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(project_root)
        .args(["metadata", "--format-version", "1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed, see above");
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("unexpected output of cargo metadata")?;
    Ok(metadata.packages)
}

fn problems(packages: &[Package]) -> Result<Vec<String>> {
    let allowed =
        ALLOWED.iter().map(|licence| Licensee::parse(licence)).collect::<Result<Vec<_>, _>>()?;
    let mut problems = Vec::new();
    for Package { name, version, license } in packages {
        if let Some(objection) = objection(license.as_deref(), &allowed) {
            problems.push(format!("{name} {version}: {objection}"));
        }
    }
    Ok(problems)
}

fn objection(licence: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = licence else {
        return Some("names no licence".to_owned());
    };
    // Old packages write MIT/Apache-2.0 and mean OR.
    let mode = ParseMode { allow_slash_as_or_operator: true, ..ParseMode::STRICT };
    match Expression::parse_mode(licence, mode) {
        Ok(expression)
            if expression
                .evaluate(|required| allowed.iter().any(|one| one.satisfies(required))) =>
        {
            None
        }
        Ok(_) => Some(format!("its licence {licence} is not among the allowed ones")),
        Err(error) => {
            Some(format!("its licence {licence} is not an SPDX expression ({})", error.reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(licence: Option<&str>, expected: &[&str]) {
        let licence = licence.map(str::to_owned);
        let package =
            Package { name: "some".to_owned(), version: "1.0.0".to_owned(), license: licence };
        assert_eq!(problems(&[package]).unwrap(), expected);
    }

    #[test]
    fn one_allowed_licence_of_a_choice_is_enough() {
        check(Some("MIT"), &[]);
        check(Some("GPL-3.0-only OR MIT"), &[]);
        check(Some("MIT/Apache-2.0"), &[]);
        check(Some("(MIT OR Apache-2.0) AND Unicode-3.0"), &[]);
        check(Some("Apache-2.0 WITH LLVM-exception"), &[]);
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        check(
            Some("GPL-3.0-only"),
            &["some 1.0.0: its licence GPL-3.0-only is not among the allowed ones"],
        );
        check(
            Some("MIT AND OpenSSL"),
            &["some 1.0.0: its licence MIT AND OpenSSL is not among the allowed ones"],
        );
        check(None, &["some 1.0.0: names no licence"]);
        check(
            Some("Free"),
            &["some 1.0.0: its licence Free is not an SPDX expression (unknown term)"],
        );
    }

    #[test]
    fn all_packages_of_this_project_may_be_used() {
        super::check(envoy_harness::project_root()).unwrap();
    }
}
