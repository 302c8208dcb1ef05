//! What a client is, and how it is run: one turn of a session is one process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// A client in a fixed version.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) package: Package,
    /// Its files, below its home; `$GATEWAY` is the address.
    pub(crate) files: &'static [(&'static str, &'static str)],
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// The arguments of the first turn, and of later ones; `$TEXT` is what the user says.
    pub(crate) first: &'static [&'static str],
    pub(crate) later: &'static [&'static str],
}

#[derive(Debug)]
pub(crate) enum Package {
    /// A package with its version, and its program.
    Npm(&'static str, &'static str),
    /// A package with its version, and its program, or `python`.
    PyPi(&'static str, &'static str),
}

impl Package {
    /// The package and its version.
    pub(crate) fn pinned(&self) -> &'static str {
        match self {
            Self::Npm(package, _) | Self::PyPi(package, _) => package,
        }
    }
}

/// Longer than any of them takes to answer or to give up.
const PATIENCE: Duration = Duration::from_secs(90);

impl Client {
    /// Runs one turn in the directory of a session.
    ///
    /// # Errors
    /// If the client does not end well, with the end of what it said.
    pub(crate) async fn turn(
        &self,
        home: &Path,
        session: &Path,
        gateway: &str,
        text: &str,
        is_first: bool,
    ) -> Result<()> {
        let program = match self.package {
            Package::Npm(_, program) => home.join("node_modules/.bin").join(program),
            Package::PyPi(_, program) => home.join("venv/bin").join(program),
        };
        let arguments = if is_first { self.first } else { self.later };
        let fill = |word: &str| {
            let home = home.to_string_lossy();
            word.replace("$GATEWAY", gateway).replace("$TEXT", text).replace("$HOME", &home)
        };
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|word| fill(word)));
        with_home(&mut command, home).current_dir(session);
        command.envs(self.environment.iter().map(|(name, value)| (*name, fill(value))));
        run(&mut command, PATIENCE).await
    }
}

/// A client sees nothing of whoever runs it.
fn with_home<'c>(command: &'c mut Command, home: &Path) -> &'c mut Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", home).env("TERM", "dumb").env("CI", "1")
}

/// Runs a command to its end, or ends it with all that it started.
///
/// # Errors
/// If it does not end well or in time, with the last line that it said.
pub(crate) async fn run(command: &mut Command, patience: Duration) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.kill_on_drop(true).spawn().context("cannot start it")?;
    let group = child.id();
    let Ok(output) = timeout(patience, child.wait_with_output()).await else {
        if let Some(group) = group {
            let group = format!("-{group}");
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status().await;
        }
        bail!("it did not end in {} s", patience.as_secs());
    };
    let output = output?;
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    let errors = said(&output.stderr);
    let last = if errors.is_empty() { said(&output.stdout) } else { errors };
    ensure!(output.status.success(), "{}: {last}", output.status);
    Ok(())
}
