//! `cargo xtask compose-test`: brings `docker-compose.yml` up on a real engine, holds conversations
//! through it, and takes it down again.
//!
//! Nothing of the file is mocked. What the machine lacks is put around it: an engine from Debian's
//! packages and, where no image registry answers, stand-ins under the names that the file gives.
//! Whatever the outcome, nothing keeps running; what stays are the packages and, under names of
//! their own, the stand-ins, which make the next run quick.

mod command;
mod engine;
mod images;
mod report;
mod stack;
mod stand_in;
mod story;

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::engine::Engine;
use self::report::report;
use self::stack::Stack;
use envoy_harness::project_root;

/// Runs the story on the project. The log of an engine that had to be started is left in its
/// `target/compose`.
///
/// # Errors
/// What the machine lacks, or what does not hold of the stack.
pub(crate) fn test() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(run(project_root()))
}

async fn run(root: &Path) -> Result<()> {
    let work = root.join("target/compose");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    // From here on a signal does not end the process on the spot: there is something to take down
    // first.
    let mut signals = Signals::new()?;
    let engine = Engine::find_or_start(&work).await?;
    let outcome = with_engine(root, &work, &mut signals).await;
    let stopped = engine.stop().await;
    outcome.and(stopped)
}

async fn with_engine(root: &Path, work: &Path, signals: &mut Signals) -> Result<()> {
    let stack = Stack::new(root).await?;
    let outcome = tokio::select! {
        outcome = up_and_talk(root, work, &stack) => outcome,
        () = signals.received() => Err(anyhow!("interrupted")),
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

async fn up_and_talk(root: &Path, work: &Path, stack: &Stack) -> Result<()> {
    stack.clear().await?;
    images::provide(root, work).await?;
    stack.up().await?;
    story::tell().await
}

/// The two signals that ask a program to end. They are remembered from `new` on, also while nobody
/// waits for them.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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
