//! A real Envoy for tests, demo and benchmarks: found or installed, configured as shipped, run as a
//! child process, and talked to.
//!
//! Nothing here imitates Envoy. What it does with headers, bodies and upgrades is what the filter
//! must live with, so the stories are told on the binary that users run.

mod admin;
pub mod client;
mod document;
pub mod find;
pub mod fixture;
pub mod gateway;
mod log;
pub mod module;
pub mod process;
pub mod progress;
mod refusal;
mod way;
mod websocket;
mod wheel;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

pub use find::{Envoy, Version, find};
pub use fixture::{Encoding, Fixture};
pub use log::LogLines;
pub use process::{Process, Update};
pub use refusal::Refusal;
pub use way::Way;

/// The root of the project: where `envoy.yaml` and `dist/` are.
pub fn project_root() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness)
}

/// How long something that should happen at once may take on a busy machine before it counts as
/// never happening.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a future, but not for ever: a request that Envoy never answers must fail the test, not
/// hang it.
async fn patiently<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("{what}: nothing for {} s", PATIENCE.as_secs()))?
        .with_context(|| what.to_owned())
}

/// Asks again and again until there is an answer, for what Envoy tells only those who ask.
pub async fn wait_until<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    patiently(what, async {
        loop {
            if let Some(answer) = condition().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
