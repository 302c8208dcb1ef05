//! The images that `docker-compose.yml` names: present, pulled or, with `--provision`, replaced by
//! stand-ins.
//!
//! A stand-in has the official name only during the run. Left behind, it would pass for the real
//! image in the next `docker compose up` on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use super::command::{command, output_if_ok, output_of};
use super::report::report;
use super::stand_in;

/// A registry that cannot be reached is an error within seconds; this bounds one that trickles.
const PULL_DEADLINE: Duration = Duration::from_secs(180);

/// Makes sure that every image of the file is there.
pub(super) async fn provide(root: &Path, work: &Path, provision: bool) -> Result<()> {
    // What cannot be reached for one image is not waited for with the next.
    let mut is_reachable = true;
    for image in names(root)? {
        if is_genuine(&image).await {
            report("image", format!("{image} is present"));
            continue;
        }
        is_reachable = is_reachable && pull(&image).await;
        if is_reachable {
            report("image", format!("{image} pulled"));
        } else {
            ensure!(
                provision,
                "{image} is not here and cannot be pulled: check the network, or add --provision, \
                 which builds a stand-in"
            );
            let content = stand_in::make(&image, root, work).await?;
            report("image", format!("{image} cannot be pulled; its stand-in is {content}"));
        }
    }
    Ok(())
}

/// Removes the official names from the stand-ins, and those that newer ones have replaced.
pub(super) async fn withdraw_stand_ins() -> Result<()> {
    let filter = format!("label={}", stand_in::LABEL);
    let mut list = command("docker images --format {{.Repository}}:{{.Tag}} --filter");
    let names = output_of(list.arg(&filter)).await?;
    for name in names
        .lines()
        .filter(|name| !name.starts_with(stand_in::OWN_PREFIX) && !name.contains("<none>"))
    {
        output_of(Command::new("docker").args(["rmi", name])).await?;
    }
    output_of(command("docker image prune --force --filter").arg(&filter)).await.map(drop)
}

#[derive(Deserialize)]
struct ComposeFile {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    /// A service with profiles is not started unless one is asked for.
    #[serde(default)]
    profiles: Vec<String>,
}

fn names(root: &Path) -> Result<BTreeSet<String>> {
    let path = root.join("docker-compose.yml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let file: ComposeFile =
        serde_saphyr::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let started = file.services.into_values().filter(|service| service.profiles.is_empty());
    Ok(started.map(|service| service.image).collect())
}

/// Whether the image is here, and is not a stand-in that a killed run has left.
async fn is_genuine(image: &str) -> bool {
    let format = format!("{{{{index .Config.Labels {:?}}}}}", stand_in::LABEL);
    let label =
        output_if_ok(Command::new("docker").args(["image", "inspect", "--format", &format, image]))
            .await;
    label.is_some_and(|label| label.is_empty())
}

async fn pull(image: &str) -> bool {
    let mut pull = Command::new("docker");
    let pulled =
        tokio::time::timeout(PULL_DEADLINE, output_if_ok(pull.args(["pull", image]))).await;
    matches!(pulled, Ok(Some(_)))
}
