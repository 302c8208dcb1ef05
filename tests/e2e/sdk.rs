//! The real SDKs of Anthropic and OpenAI, from the Python Package Index, through a real Envoy.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Mode, project_root};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::envoy;

/// A Python with the pinned SDKs, which is installed once.
async fn python() -> Result<PathBuf> {
    let files = project_root().join("tests/e2e/sdk");
    let wanted = fs::read_to_string(files.join("requirements.txt"))?;
    let home = project_root().join("target/sdk");
    let (python, installed) = (home.join("bin/python"), home.join("installed.txt"));
    if fs::read_to_string(&installed).is_ok_and(|it| it == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).await?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).arg("-r").arg(files.join("requirements.txt"))).await?;
    fs::write(installed, wanted)?;
    Ok(python)
}

/// Runs a command, and returns what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await.context("cannot run it")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn programs_with_the_real_sdks_find_their_state_at_the_first_try() -> Result<()> {
    let (envoy, python) = (envoy()?, python().await?);
    for mode in [Mode::Clusters, Mode::Keys].into_iter().filter(|it| it.runs_on(envoy.version)) {
        // New work goes round, so that only what is followed comes back.
        let round_robin = |filter: &mut Value| filter["routing"]["strategy"] = json!("round-robin");
        let gateway =
            Gateway::start_in(&envoy, mode, 2, |fixture| fixture.edit_filter(round_robin)).await?;
        let script = project_root().join("tests/e2e/sdk/state.py");
        let address = format!("http://{}", gateway.envoy.address());
        let used = run(Command::new(&python).arg(script).arg(address)).await?;
        assert_eq!(used.lines().count(), 7, "{mode:?}: {used}");
        let failed: Vec<_> = gateway
            .providers
            .requests()
            .into_iter()
            .filter(|record| record.status != Some(200))
            .map(|record| (record.path, record.status))
            .collect();
        assert_eq!(failed, [], "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}
