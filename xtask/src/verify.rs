//! `cargo xtask test` and `cargo xtask ci`: everything that must hold, in the order of how soon it
//! tells.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use envoy_harness as envoy;
use envoy_harness::{module as built, project_root};

use crate::{compose, dist, licences};

/// Builds and checks the module, runs all tests, and tells the stories on these versions of Envoy;
/// with none given, on the Envoy that [`envoy::find`] finds.
///
/// # Errors
/// The first step that fails.
pub(crate) fn test(envoy_versions: &[String]) -> Result<()> {
    step("module", module)?;
    step("tests", || cargo(&["test", "--workspace", "--all-targets", "--locked"], &[]))?;
    if envoy_versions.is_empty() {
        return stories(None);
    }
    envoy_versions.iter().try_for_each(|version| stories(Some(version)))
}

/// Builds the module, checks it, and tells its size.
///
/// # Errors
/// If it cannot be built, or Envoy could not load it, or it is too large.
pub(crate) fn module() -> Result<()> {
    let module = built::build()?;
    dist::check(&module.path)?;
    println!("{}: {} bytes of at most {}", module.path.display(), module.size, dist::MAX_SIZE);
    Ok(())
}

/// All that [`test`] does, on the pinned version of Envoy and on the oldest one, and before it what
/// needs no Envoy, and behind it the docker-compose stack.
///
/// # Errors
/// The first step that fails.
pub(crate) fn ci() -> Result<()> {
    let lint = ["--locked", "--", "--deny", "warnings"];
    step("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    step("clippy, native", || {
        cargo(&[&["clippy", "--workspace", "--all-targets"], &lint[..]].concat(), &[])
    })?;
    step("clippy, module", || {
        let module =
            ["clippy", "--package", "session-affinity", "--lib", "--target", envoy::TARGET];
        cargo(&[&module[..], &lint].concat(), &[])?;
        cargo(&[&module[..], &["--all-features"], &lint].concat(), &[])
    })?;
    step("documentation", || {
        cargo(
            &["doc", "--package", "session-affinity", "--no-deps", "--locked"],
            &[("RUSTDOCFLAGS", "--deny warnings")],
        )
    })?;
    step("licences", || licences::check(project_root()))?;
    test(&[envoy::PINNED.to_string(), envoy::FLOOR.to_string()])?;
    step("a million sessions", || {
        million_sessions(&envoy::find(Some(&envoy::PINNED.to_string()))?)
    })?;
    step("docker-compose", compose::test)
}

/// The stories of memory at their full length; [`test`] tells them with a fifth.
fn million_sessions(envoy: &envoy::Envoy) -> Result<()> {
    let arguments =
        ["test", "--locked", "--test", "e2e", "memory", "--", "--ignored", "--test-threads", "1"];
    cargo_on(envoy, &arguments, &[("MEMORY_STORY_REQUESTS", "1000000")])
}

fn stories(version: Option<&str>) -> Result<()> {
    let envoy = envoy::find(version)?;
    step(&format!("stories on Envoy {}", envoy.version), || {
        // Each story is a process of Envoy and the simulated providers; more at once than cores
        // only slows all down.
        let arguments = [
            "test",
            "--workspace",
            "--locked",
            "--tests",
            "--",
            "--ignored",
            "--test-threads",
            "2",
        ];
        cargo_on(&envoy, &arguments, &[])
    })
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n==> {name}");
    let begun = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    println!("==> {name}: {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Runs cargo for tests that take this Envoy.
fn cargo_on(envoy: &envoy::Envoy, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let path = envoy.path.to_str().context("the path of Envoy is not UTF-8")?;
    cargo(arguments, &[&[("ENVOY", path)], environment].concat())
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(project_root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}
