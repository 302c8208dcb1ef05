//! `cargo xtask clients`: real clients, and the table of them in the documents.

use std::fs;

use ::clients::{difference, table, with_table};
use anyhow::{Context, Result, ensure};
use envoy_harness::output::print;
use envoy_harness::{Envoy, project_root};

/// Plays clients, and writes the table or compares with it.
///
/// # Errors
/// If a client does other than the table says.
pub(crate) async fn play(envoy: &Envoy, names: &[String], update: bool) -> Result<()> {
    let rows = ::clients::play(envoy, names).await?;
    let table = table(&rows);
    print(&table)?;
    let path = project_root().join("docs/clients.md");
    let page = fs::read_to_string(&path).context("cannot read docs/clients.md")?;
    if update {
        let page = with_table(&page, &table).context("docs/clients.md has no place for it")?;
        return fs::write(path, page).context("cannot write docs/clients.md");
    }
    let differ = difference(&page, &rows);
    let names: Vec<_> = differ.iter().map(|row| row.client.as_str()).collect();
    ensure!(names.is_empty(), "docs/clients.md says otherwise of {}", names.join(", "));
    Ok(())
}
