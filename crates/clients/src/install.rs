//! Installs a client below its own home, so that it can be removed as a whole. npm and pip know of
//! whoever runs them where they find packages; clients know nothing of that.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::fs;
use tokio::process::Command;

use super::client::{Client, Package, run};

/// Some have hundreds of megabytes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Installs it in its version.
///
/// # Errors
/// What npm or pip says.
pub(crate) async fn install(client: &Client, home: &Path) -> Result<()> {
    fs::create_dir_all(home).await?;
    match client.package {
        Package::Npm(package, _) => {
            let mut command = Command::new("npm");
            command.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
            command.arg(home).arg("--cache").arg(home.join("cache")).arg(package);
            run(&mut command, PATIENCE).await.context("npm")
        }
        Package::PyPi(package, _) => {
            let venv = home.join("venv");
            let mut command = Command::new("python3");
            run(command.args(["-m", "venv"]).arg(&venv), PATIENCE).await.context("venv")?;
            let mut command = Command::new(venv.join("bin/python"));
            command.args(["-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir"]);
            run(command.args(["--disable-pip-version-check", package]), PATIENCE)
                .await
                .context("pip")
        }
    }
}

/// Writes the files of a client.
///
/// # Errors
/// If one cannot be written.
pub(crate) async fn write_files(client: &Client, home: &Path, gateway: &str) -> Result<()> {
    for (name, text) in client.files {
        let path = home.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await?;
        }
        let text = text.replace("$GATEWAY", gateway);
        fs::write(&path, text).await.with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}
