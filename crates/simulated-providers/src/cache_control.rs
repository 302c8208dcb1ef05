//! Anthropic's `cache_control`: up to where in a prompt to cache, and for how long.

use std::time::Duration;

use serde_json::{Map, Value};

use super::error::ApiError;
use super::prompt::Prompt;

const MAX_BREAKPOINTS: usize = 4;
/// The usual lifetime.
pub(super) const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);
/// The longer lifetime, which is billed separately.
pub(super) const ONE_HOUR: Duration = Duration::from_secs(60 * 60);

/// The lifetime that a block, or the request as a whole, requests.
pub(super) fn of(owner: &Value) -> Result<Option<Duration>, ApiError> {
    let control = &owner["cache_control"];
    if control.is_null() {
        return Ok(None);
    }
    match (control["type"].as_str(), control["ttl"].as_str()) {
        (Some("ephemeral"), Some("1h")) => Ok(Some(ONE_HOUR)),
        (Some("ephemeral"), Some("5m")) => Ok(Some(FIVE_MINUTES)),
        (Some("ephemeral"), None) if control["ttl"].is_null() => Ok(Some(FIVE_MINUTES)),
        _ => Err(ApiError::invalid(
            "cache_control: type `ephemeral` with a ttl of `5m` or `1h` is expected",
        )),
    }
}

/// A block without its `cache_control`, and the requested lifetime. Clients move `cache_control`
/// from turn to turn, so it must not be part of what is compared. In the content of a tool result
/// it marks the enclosing block.
pub(super) fn take(block: &Value) -> Result<(Value, Option<Duration>), ApiError> {
    let Value::Object(fields) = block else {
        return Ok((block.clone(), None));
    };
    let mut keep = of(block)?;
    let mut stripped = Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "cache_control") {
        let value = match value {
            Value::Array(parts) if name == "content" => {
                let mut inner = Vec::with_capacity(parts.len());
                for part in parts {
                    let (part, inner_keep) = take(part)?;
                    keep = keep.or(inner_keep);
                    inner.push(part);
                }
                Value::Array(inner)
            }
            other => other.clone(),
        };
        stripped.insert(name.clone(), value);
    }
    Ok((Value::Object(stripped), keep))
}

/// The rules for all the breakpoints of a prompt together.
pub(super) fn check(prompt: &Prompt) -> Result<(), ApiError> {
    let keeps: Vec<Duration> = prompt.keeps().collect();
    if keeps.len() > MAX_BREAKPOINTS {
        let found = keeps.len();
        let message = format!(
            "A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {found}."
        );
        return Err(ApiError::invalid(message));
    }
    if keeps.is_sorted_by(|earlier, later| earlier >= later) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "a cache_control block with ttl `1h` must not come after one with ttl `5m`",
    ))
}
