//! The licences of what the module is built from, in full, as they ask for.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Package;

use crate::packages::Packages;

/// How the files begin in which packages keep their licences.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "copyright"];

/// The texts of all licences, by package.
pub(crate) fn texts(packages: &Packages) -> Result<String> {
    let mut texts = String::from(
        "The module contains code of these packages. Where several licences are named, either may \
         be chosen.\n",
    );
    for package in packages.foreign() {
        let licence = package.license.as_deref().unwrap_or("see below");
        let rule = "=".repeat(80);
        writeln!(texts, "\n{rule}\n{} {}: {licence}\n{rule}", package.name, package.version)?;
        for (name, text) in files(package)? {
            writeln!(texts, "\n--- {name}\n\n{}", text.trim_end())?;
        }
    }
    Ok(texts)
}

/// The files of a package that are about its licence, in order.
fn files(package: &Package) -> Result<Vec<(String, String)>> {
    let directory = package.manifest_path.parent().context("a package has a directory")?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {directory}"))? {
        let path = entry.context("cannot list a package")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lower = name.to_ascii_lowercase();
        if path.is_file() && NAMES.iter().any(|begin| lower.starts_with(begin)) {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name, String::from_utf8_lossy(&text).into_owned()));
        }
    }
    ensure!(
        !files.is_empty() || package.license.is_some(),
        "{} {} names no licence",
        package.name,
        package.version
    );
    files.sort();
    Ok(files)
}
