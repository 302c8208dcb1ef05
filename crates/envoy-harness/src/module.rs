//! Builds the module that Envoy loads, and those that tools load beside it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::project::project_root;
use super::target::TARGET;

const FILE: &str = "session_affinity.wasm";
const PACKAGE: &str = "session-affinity";

/// The module as it is shipped.
#[derive(Clone, Debug)]
pub struct Module {
    /// Where it is.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// Where the module is that this project ships: `dist/session_affinity.wasm`.
pub fn path() -> PathBuf {
    project_root().join("dist").join(FILE)
}

/// Builds the filter for release into `dist/session_affinity.wasm`.
pub fn build() -> Result<Module> {
    let output = cargo(PACKAGE).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the filter cannot be built, see above");
    put(&project_root().join("dist"), FILE, &output.stdout)
}

/// Builds the filter for release from a copy of this project, into the copy's own `target/`.
///
/// # Errors
/// If it cannot be built.
pub fn build_in(copy: &Path) -> Result<Module> {
    let output = cargo_in(copy, PACKAGE)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the filter cannot be built:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    put(&copy.join("dist"), FILE, &output.stdout)
}

/// Builds the module of another package of this workspace, in the same way, into this directory
/// below `target/`.
pub fn build_package(package: &str, directory: &str) -> Result<Module> {
    let output = cargo(package).output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "{package} cannot be built:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let file = format!("{}.wasm", package.replace('-', "_"));
    put(&project_root().join("target").join(directory), &file, &output.stdout)
}

/// Builds a filter that traps on demand into `target/trap/session_affinity.wasm`, for tests. It is
/// never shipped.
pub fn build_with_trap() -> Result<Module> {
    let output =
        cargo(PACKAGE).args(["--features", "trap"]).output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the filter cannot be built:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    put(&project_root().join("target/trap"), FILE, &output.stdout)
}

/// Builds it as [`build`] does, but passes the output of cargo on, line by line, instead of writing
/// it to the terminal. If the build fails, the error has all of it.
pub fn build_silently(mut progress: impl FnMut(&str)) -> Result<Module> {
    let mut child = cargo(PACKAGE).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut printed = String::new();
    // Both at once: cargo blocks while one of them is not read.
    let messages = thread::scope(|scope| {
        let messages = scope.spawn(|| read_all(stdout.context("cargo has no stdout")?));
        for line in BufReader::new(stderr.context("cargo has no stderr")?).lines() {
            let line = line.context("cannot read the output of cargo")?;
            progress(&line);
            printed.push_str(&line);
            printed.push('\n');
        }
        messages.join().map_err(|_| anyhow!("cannot read the messages of cargo"))?
    });
    let status = child.wait().context("cannot wait for cargo")?;
    ensure!(status.success(), "the filter cannot be built:\n{printed}");
    put(&project_root().join("dist"), FILE, &messages?)
}

/// Copies what cargo has built, according to its messages, into a directory.
fn put(directory: &Path, file: &str, messages: &[u8]) -> Result<Module> {
    let messages = str::from_utf8(messages).context("the messages of cargo are not UTF-8")?;
    let artifact = built_module(messages, file)
        .with_context(|| format!("cargo built no {file} for {TARGET}"))?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(file);
    // By a rename, because an Envoy that watches the file, or a test that starts one, must not read
    // a part of it.
    let new = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write into {}", directory.display()))?;
    let size = fs::copy(&artifact, new.path())
        .with_context(|| format!("cannot copy {}", artifact.display()))?;
    new.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Module { path, size })
}

/// The build. It writes messages to stdout, because only cargo knows all the settings that decide
/// where the module ends up. The paths of this machine do not get into the module: it would differ
/// from machine to machine, and carry names of users.
fn cargo(package: &str) -> Command {
    cargo_in(project_root(), package)
}

fn cargo_in(project: &Path, package: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(project)
        .args(["build", "--release", "--locked", "--package", package, "--lib", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags={}", json!(remapped_paths(project))))
        .stdout(Stdio::piped());
    command
}

fn remapped_paths(project: &Path) -> Vec<String> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registry = cargo_home.map(|home| (home.join("registry/src"), "/registry"));
    let project = (project.to_owned(), "/session-affinity");
    let paths = registry.into_iter().chain([project]);
    paths.map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())).collect()
}

fn read_all(mut output: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).context("cannot read the messages of cargo")?;
    Ok(bytes)
}

fn built_module(messages: &str, file: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.ends_with(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_the_messages_of_cargo() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/deps/liblog.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","filenames":["/t/session_affinity.wasm","/t/libsession_affinity.rlib"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        assert_eq!(built_module(messages, FILE), Some(PathBuf::from("/t/session_affinity.wasm")));
        assert_eq!(built_module(messages, "other.wasm"), None);
        assert_eq!(built_module("", FILE), None);
    }
}
