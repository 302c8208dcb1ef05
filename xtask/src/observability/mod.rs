//! `cargo xtask observe-test`: the rules and the dashboard of `deploy/observability` on live data.
//!
//! A real Envoy under load is scraped by Debian's Prometheus, which evaluates the shipped rules.
//! Then every expression of the rules, of the dashboard and of the documents must return numbers.
//! Grafana itself is not run.

mod expressions;
mod load;
mod prometheus;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::done;
use envoy_harness::project_root;
use session_affinity::metrics::{Metric, PREFIX};
use simulated_providers::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use self::expressions::Expression;
use self::load::Load;
use self::prometheus::Prometheus;
use crate::compose::{install, is_installed};
use crate::prepare;

const FOLDER: &str = "deploy/observability";

/// Long enough on a busy machine; the gauges are set every ten seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// Checks the files, and runs their expressions.
///
/// # Errors
/// What is missing on this machine, or which expression says nothing.
pub(crate) async fn test(provision: bool) -> Result<()> {
    ensure_tools(provision).await?;
    let folder = project_root().join(FOLDER);
    check_files(&folder).await?;
    let envoy = prepare::envoy_and_module(None)?;
    let mut shutdown = Shutdown::listen()?;
    let gateway =
        Gateway::start(&envoy, 2, |fixture| fixture.edit_filter(load::set_prices)).await?;
    let outcome = tokio::select! {
        outcome = on_live_data(&gateway, &folder) => outcome,
        () = shutdown.requested() => Err(anyhow!("interrupted")),
    };
    let stopped = gateway.stop().await;
    outcome.and(stopped.map(drop))
}

/// Finds Prometheus, or installs it if that is allowed.
///
/// # Errors
/// If it is missing.
pub(crate) async fn ensure_tools(provision: bool) -> Result<()> {
    if is_installed("prometheus") && is_installed("promtool") {
        return Ok(());
    }
    ensure!(
        provision,
        "there is no Prometheus: install it, or add --provision, which does so on a Debian machine"
    );
    install("prometheus").await
}

async fn check_files(folder: &Path) -> Result<()> {
    for arguments in [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let output = Command::new("promtool").args(arguments).current_dir(folder).output().await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
    }
    done("rules", "accepted and tested by promtool");
    Ok(())
}

async fn on_live_data(gateway: &Gateway, folder: &Path) -> Result<()> {
    let expressions = expressions::all(folder)?;
    check_names(&expressions)?;
    let prometheus = Prometheus::start(gateway.envoy.admin(), &folder.join("rules.yml")).await?;
    let mut load = Load::new(gateway);
    let mut missing: Vec<_> = expressions.iter().collect();
    let begun = Instant::now();
    while !missing.is_empty() {
        let origins: Vec<_> = missing.iter().map(|it| it.origin.as_str()).collect();
        ensure!(begun.elapsed() < DEADLINE, "no numbers for {}", origins.join("; "));
        load.waits_for(origins.len());
        load.make().await?;
        let mut left = Vec::new();
        for expression in missing {
            if !prometheus.has_numbers(&expression.text).await? {
                left.push(expression);
            }
        }
        missing = left;
    }
    load.done(&format!("{} return numbers", expressions.len()));
    check_metrics(gateway).await?;
    prometheus.stop().await
}

/// Every metric of ours that an expression names is one that is counted.
fn check_names(expressions: &[Expression]) -> Result<()> {
    let known: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    for expression in expressions {
        let words = expression.text.split(|letter: char| !is_of_name(letter));
        for name in words.filter(|word| word.starts_with(PREFIX)) {
            ensure!(known.contains(name), "{}: there is no metric {name}", expression.origin);
        }
    }
    Ok(())
}

/// With the colon of recording rules, which are no metrics.
fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

/// `promtool check metrics` has nothing to say of our metrics but that they have no help text, which
/// Envoy never writes.
async fn check_metrics(gateway: &Gateway) -> Result<()> {
    let scrape = gateway.envoy.get_admin("/stats/prometheus").await?;
    let is_ours = |line: &&str| line.trim_start_matches("# TYPE ").starts_with(PREFIX);
    let ours: String = scrape.lines().filter(is_ours).flat_map(|line| [line, "\n"]).collect();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    let mut input = promtool.stdin.take().context("promtool has no input")?;
    input.write_all(ours.as_bytes()).await?;
    drop(input);
    let output = promtool.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let complaints: Vec<_> = said.lines().filter(|line| !line.ends_with("no help text")).collect();
    ensure!(complaints.is_empty(), "promtool check metrics:\n{}", complaints.join("\n"));
    ensure!(said.lines().count() > 5, "promtool has seen too few metrics:\n{ours}");
    done("metrics", "promtool misses nothing but help texts");
    Ok(())
}

/// A path or text that is not there is an error with its name.
fn text_of(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    }
}
