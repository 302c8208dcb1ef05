//! `cargo xtask test` and `cargo xtask ci`: everything that must hold, the quickest checks first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use envoy_harness::output::print;
use envoy_harness::{
    Envoy, FLOOR, PINNED, TARGET, ensure_target, find, module as built, project_root,
};

use crate::{compose, deploy, dist, licences, observability, release};

/// How often each fuzz target changes an input in CI: a quarter of a minute for all.
const FUZZ_ROUNDS: &str = "3000";

/// What property tests draw from here: a change is judged by the same cases as the one before it.
/// A plain `cargo test` draws others each time.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Builds and checks the module, runs all tests, and then the e2e tests on these versions of Envoy;
/// if there are none, on the Envoy that [`find`] finds.
///
/// # Errors
/// The first step that fails.
pub(crate) fn test(versions: &[String]) -> Result<()> {
    test_with(versions, &[PROPERTY_SEED])
}

/// The same, with an environment for the tests that need no Envoy.
fn test_with(versions: &[String], environment: &[(&str, &str)]) -> Result<()> {
    let envoys = envoys(versions)?;
    step("module", module)?;
    step("tests", || cargo(&["test", "--workspace", "--all-targets", "--locked"], environment))?;
    step("doctests", || cargo(&["test", "--workspace", "--doc", "--locked"], &[]))?;
    step("tests of the module in memory", || in_memory(&[], &[]))?;
    for envoy in &envoys {
        step(&format!("e2e tests on Envoy {}", envoy.version), || e2e(envoy))?;
    }
    print("\n==> all passed\n")
}

/// Builds the module, and compares what it costs with the table, or writes that.
///
/// # Errors
/// If it cannot be built, or costs something else.
pub(crate) fn cost(is_update: bool) -> Result<()> {
    module()?;
    let update = [("COST_TABLE", "update")];
    in_memory(&["cost"], if is_update { &update } else { &[] })
}

/// Builds the module, and sends this many requests of this many sessions through Envoy: memory does
/// not grow.
///
/// # Errors
/// If it does.
pub(crate) fn memory(envoy: Option<&str>, requests: u64, sessions: u64) -> Result<()> {
    let envoy = find(envoy)?;
    module()?;
    let (requests, sessions) = (requests.to_string(), sessions.to_string());
    let environment = [("MEMORY_TEST_REQUESTS", &*requests), ("MEMORY_TEST_SESSIONS", &*sessions)];
    let all = ["test", "--locked", "--test", "e2e", "memory::far_more", "--", "--ignored"];
    let arguments = [&all[..], &["--nocapture", "--test-threads", "1"]].concat();
    cargo_on(&envoy, &arguments, &environment)
}

/// Builds the simulation for speed, and runs it.
///
/// # Errors
/// If it cannot be built, or says so.
pub(crate) fn simulate(arguments: &[String]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--locked", "--profile", "simulation"];
    all.extend(["--package", "simulate", "--"]);
    all.extend(arguments.iter().map(String::as_str));
    cargo(&all, &[])
}

/// The tests that run the module without an Envoy.
fn in_memory(filter: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let all = ["test", "--locked", "--package", "wasm-host", "--test", "module", "--", "--ignored"];
    cargo(&[&all[..], filter].concat(), environment)
}

/// Finds the Envoys before anything is compiled for minutes.
fn envoys(versions: &[String]) -> Result<Vec<Envoy>> {
    ensure_target()?;
    if versions.is_empty() {
        return Ok(vec![find(None)?]);
    }
    versions.iter().map(|version| find(Some(version))).collect()
}

/// Builds the module, checks it, and prints its size.
///
/// # Errors
/// If it cannot be built, or Envoy could not load it, or it is too large.
pub(crate) fn module() -> Result<()> {
    ensure_target()?;
    let module = built::build()?;
    dist::check(&module.path)?;
    let path = module.path.display();
    print(&format!("{path}: {} bytes of at most {}\n", module.size, dist::MAX_SIZE))
}

/// All that [`test`](fn@test) does, on the pinned version of Envoy and on the oldest one; before it
/// what needs no Envoy, and after it the docker-compose stack.
///
/// Installs nothing on the machine but what belongs to the toolchain and to `target/`, unless
/// `provision` allows it for the docker-compose stack.
///
/// # Errors
/// The first step that fails.
pub(crate) fn ci(provision: bool) -> Result<()> {
    let versions = [PINNED.to_string(), FLOOR.to_string()];
    step("prerequisites", || {
        crate::block_on(compose::ensure_engine(provision))?;
        ensure!(
            release::are_installed() || provision,
            "umoci, skopeo and docker-registry are missing: install them, or add --provision"
        );
        crate::block_on(observability::ensure_tools(provision))?;
        ensure!(
            browser::is_installed() || provision,
            "there is no chromium with a chromedriver: install them, or add --provision, which \
             does so on a Debian machine"
        );
        envoys(&versions).map(drop)
    })?;
    step("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    step("licences", || licences::check(project_root()))?;
    step("deployments", deploy::check)?;
    step("clippy, native", || clippy(&["--workspace", "--all-targets"]))?;
    step("clippy, module", || {
        let module = ["--package", "session-affinity", "--lib", "--target", TARGET];
        clippy(&module)?;
        clippy(&[&module[..], &["--all-features"]].concat())?;
        clippy(&["--package", "bench-noop", "--target", TARGET])
    })?;
    step("clippy, fuzz targets", || {
        let arguments = ["clippy", "--manifest-path", "fuzz/Cargo.toml", "--locked"];
        // They are not linked, so they need neither a nightly compiler nor libFuzzer, which is C++.
        let libfuzzer = [("CUSTOM_LIBFUZZER_PATH", "/unused/libfuzzer.a")];
        cargo(&[&arguments[..], &["--", "--deny", "warnings"]].concat(), &libfuzzer)
    })?;
    step("documentation", || {
        let all = ["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"];
        let flags = [("RUSTDOCFLAGS", "--deny warnings")];
        cargo(&all, &flags)?;
        // The filter itself is only there on the target of the module.
        let module = ["doc", "--package", "session-affinity", "--lib", "--target", TARGET];
        cargo(
            &[&module[..], &["--no-deps", "--locked", "--document-private-items"]].concat(),
            &flags,
        )
    })?;
    test_with(&versions, &[PROPERTY_SEED, ("FUZZ_ROUNDS", FUZZ_ROUNDS)])?;
    step("release", || release::check(provision))?;
    step("rules and dashboard", || crate::block_on(observability::test(provision)))?;
    step("operator's page in a browser", || {
        if !browser::is_installed() {
            crate::block_on(compose::install("chromium chromium-driver"))?;
        }
        in_browser(&find(Some(&PINNED.to_string()))?)
    })?;
    step("soak", || {
        let envoy = find(Some(&PINNED.to_string()))?;
        crate::block_on(soak::Arguments::of_ci().run(&envoy, &built::path()))
    })?;
    step("docker-compose", || crate::block_on(compose::test(provision)))
}

fn clippy(arguments: &[&str]) -> Result<()> {
    let lint = ["--locked", "--", "--deny", "warnings"];
    cargo(&[&["clippy"], arguments, &lint].concat(), &[])
}

/// Each e2e test is a process of Envoy and the simulated providers, and many of them wait: more at
/// once than there are cores, but not many more.
fn e2e(envoy: &Envoy) -> Result<()> {
    // Those of `wasm-host` need none, and those of `browser` need more.
    let but = ["--exclude", "wasm-host", "--exclude", "browser"];
    let all = [&["test", "--workspace"], &but[..], &["--locked", "--tests"]].concat();
    cargo_on(envoy, &[&all[..], &["--", "--ignored", "--test-threads", "4"]].concat(), &[])
}

/// The tests of the operator's page, which leave pictures in `target/operator`.
fn in_browser(envoy: &Envoy) -> Result<()> {
    let all = ["test", "--locked", "--package", "browser", "--test", "page"];
    cargo_on(envoy, &[&all[..], &["--", "--ignored", "--test-threads", "1"]].concat(), &[])
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    print(&format!("\n==> {name}\n"))?;
    let begun = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    print(&format!("==> {name}: {} s\n", begun.elapsed().as_secs()))
}

/// Runs cargo for tests that take this Envoy.
fn cargo_on(envoy: &Envoy, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
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
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}
