//! Waiting for what should happen at once, and not for ever.

use std::time::Duration;

use anyhow::{Context, Result};

/// How long something that should happen at once may take before it counts as never happening: on a
/// busy machine, and from a cold disk.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a future, but not for ever: a request without a response must fail the test, not hang
/// it.
pub(super) async fn patiently<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("{what}: nothing for {} s", PATIENCE.as_secs()))?
        .with_context(|| what.to_owned())
}

/// Polls until there is a value, for what Envoy reports only on request.
pub async fn wait_until<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    patiently(what, async {
        loop {
            if let Some(value) = condition().await? {
                return Ok(value);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
