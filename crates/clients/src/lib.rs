//! Real clients, as their users install them, through the gateway: does it keep a session on its
//! credential, tell sessions apart, and do they survive a credential that fails?
//!
//! Clients come from npm and PyPI in fixed versions, run without a terminal against simulated
//! providers, and are removed afterwards. They take minutes and a network, so they are no part of
//! the tests: `cargo xtask clients` runs them every night, and compares with the table of
//! `docs/clients.md`. What could not be installed or driven is a row that says so.

mod catalog;
mod client;
mod install;
mod play;
mod report;

use std::path::Path;

use anyhow::Result;
use envoy_harness::Envoy;
use envoy_harness::progress::Step;

pub use report::{Row, difference, table, with_table};

/// Plays all clients, or those with these names.
///
/// # Errors
/// If Envoy does not start or a directory cannot be made; a client that does not work is a row.
pub async fn play(envoy: &Envoy, names: &[String]) -> Result<Vec<Row>> {
    // Not below the project: clients look for the root of a repository, and read what is there.
    let root = tempfile::Builder::new().prefix("clients-").tempdir()?;
    let mut rows = Vec::new();
    for client in catalog::CLIENTS {
        if !names.is_empty() && !names.iter().any(|name| name == client.name) {
            continue;
        }
        let step = Step::start(client.name);
        let row = row_of(client, &root.path().join(client.name), envoy, &step).await?;
        step.done(&row.to_string());
        rows.push(row);
    }
    Ok(rows)
}

async fn row_of(client: &client::Client, home: &Path, envoy: &Envoy, step: &Step) -> Result<Row> {
    step.say("installing");
    let row = match install::install(client, home).await {
        Ok(()) => play::play(client, home, envoy, step).await?,
        Err(error) => Row::not_driven(client, &format!("not installed: {error:#}")),
    };
    let _ = tokio::fs::remove_dir_all(home).await;
    Ok(row)
}
