//! `cargo xtask compose-test`: brings `docker-compose.yml` up on a real engine, sends sessions
//! through it, and takes it down again.
//!
//! Nothing of the file is mocked. It takes the Docker engine, the compose program and the images of
//! this machine. With `--provision`, which is for machines of CI, it also installs what is missing:
//! the engine from Debian's packages and, where no image registry can be reached, stand-ins under
//! the names of the images. Whatever the outcome, nothing keeps running; what stays are the
//! packages and, under names of their own, the stand-ins, which make the next run quick.

mod command;
mod engine;
mod images;
mod report;
mod sessions;
mod stack;
mod stand_in;

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use self::engine::Engine;
use self::report::report;
use self::stack::Stack;
use envoy_harness::project_root;
use simulated_providers::Shutdown;

/// Brings the stack up, checks it, and takes it down. The log of an engine that had to be started
/// is left in `target/compose`.
///
/// # Errors
/// What the machine lacks, or what is wrong with the stack.
pub(crate) async fn test(provision: bool) -> Result<()> {
    let root = project_root();
    let work = root.join("target/compose");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    // From here on a signal does not end the process on the spot: there is something to take down
    // first.
    let mut shutdown = Shutdown::listen()?;
    let engine = Engine::find(&work, provision).await?;
    let outcome = with_engine(root, &work, provision, &mut shutdown).await;
    let stopped = engine.stop().await;
    outcome.and(stopped)
}

/// Checks what can be checked at once: that there is an engine, or that one may be installed.
///
/// # Errors
/// What to start or install.
pub(crate) async fn ensure_engine(provision: bool) -> Result<()> {
    engine::ensure_possible(provision).await
}

/// Whether a program is on the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    engine::is_installed(program)
}

/// Installs packages of Debian, given in one string.
///
/// # Errors
/// If this is no Debian machine, or not as root.
pub(crate) async fn install(packages: &str) -> Result<()> {
    engine::install(packages).await
}

async fn with_engine(
    root: &Path,
    work: &Path,
    provision: bool,
    shutdown: &mut Shutdown,
) -> Result<()> {
    let stack = Stack::new(root, provision).await?;
    let outcome = tokio::select! {
        outcome = up_and_talk(root, work, provision, &stack) => outcome,
        () = shutdown.requested() => Err(anyhow!("interrupted")),
    };
    if outcome.is_err() {
        stack.print_logs().await;
    }
    let down = stack.down().await;
    let withdrawn = images::withdraw_stand_ins().await;
    outcome.and(down).and(withdrawn)?;
    report("down", "containers, network and volumes of the run are removed");
    Ok(())
}

async fn up_and_talk(root: &Path, work: &Path, provision: bool, stack: &Stack) -> Result<()> {
    stack.clear().await?;
    images::provide(root, work, provision).await?;
    stack.up().await?;
    sessions::check().await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use envoy_harness::PINNED;
    use envoy_harness::project_root;
    use simulated_providers::{Account, Providers};

    fn services() -> Value {
        let text = std::fs::read_to_string(project_root().join("docker-compose.yml")).unwrap();
        let file: Value = serde_saphyr::from_str(&text).unwrap();
        file["services"].clone()
    }

    #[test]
    fn envoy_gets_the_keys_of_the_simulated_accounts() {
        let given: BTreeMap<String, String> =
            serde_json::from_value(services()["envoy"]["environment"].clone()).unwrap();
        let expected = Providers::demo_accounts().iter().map(Account::environment).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn prometheus_and_grafana_start_only_on_request_and_mount_what_is_there() {
        for service in ["prometheus", "grafana"] {
            let service = &services()[service];
            assert_eq!(service["profiles"][0], "observe");
            for volume in service["volumes"].as_array().unwrap() {
                let file = volume.as_str().unwrap().split(':').next().unwrap();
                assert!(project_root().join(file).exists(), "{file}");
            }
        }
        let dashboards = project_root().join("deploy/observability/grafana/dashboards.yml");
        let dashboards = std::fs::read_to_string(dashboards).unwrap();
        assert!(dashboards.contains("path: /observability"));
    }

    #[test]
    fn the_images_are_those_of_the_pinned_versions() {
        let toolchain =
            std::fs::read_to_string(project_root().join("rust-toolchain.toml")).unwrap();
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
        let services = services();
        assert_eq!(services["envoy"]["image"], format!("envoyproxy/envoy:v{PINNED}"));
        for service in ["module", "providers"] {
            let expected = format!("rust:{}-slim-bookworm", channel.trim_matches('"'));
            assert_eq!(services[service]["image"], expected);
        }
    }
}
