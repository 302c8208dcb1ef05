//! Ciphertext that only the organization that made it can read: OpenAI's encrypted reasoning and
//! compaction, Anthropic's signed thinking.
//!
//! The simulated text names its organization and what it was made from. A text of unknown origin
//! passes, so that recorded traffic can be replayed.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::error::ApiError;
use super::place::Place;

/// What becomes of ciphertext that another organization made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The request is refused with 400.
    Refused,
    /// The reasoning is left out of the prompt and the request is served. OpenAI names it in
    /// `input_transformations`, Anthropic only to clients with the beta that asks for this.
    Removed,
}

const SEALED_BY: &str = "simulated-encryption:";

/// Ciphertext that an organization makes from this text.
pub(super) fn seal(organization: &str, text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{SEALED_BY}{organization}:{:016x}", hasher.finish())
}

/// Whether another organization made this.
fn is_foreign(text: &Value, organization: &str) -> bool {
    let maker = text.as_str().and_then(|text| text.strip_prefix(SEALED_BY));
    maker.and_then(|rest| rest.split(':').next()).is_some_and(|maker| maker != organization)
}

/// Removes foreign reasoning from OpenAI's input items, and returns what is told of that.
pub(super) fn open_items(
    items: &mut Vec<Value>,
    place: &Place<'_>,
) -> Result<Vec<Value>, ApiError> {
    let organization = place.group.organization();
    let mut told = Vec::new();
    for item in items.iter().filter(|item| is_foreign(&item["encrypted_content"], organization)) {
        if place.foreign == Foreign::Refused || item["type"] != "reasoning" {
            let message =
                "Encrypted content organization_id did not match the target organization.";
            return Err(ApiError::invalid(message).about("input", "invalid_encrypted_content"));
        }
        told.push(json!({
            "id": item["id"].as_str().unwrap_or_default(),
            "action": "removed",
            "reason": "organization_mismatch",
            "type": "reasoning",
        }));
    }
    items.retain(|item| !is_foreign(&item["encrypted_content"], organization));
    Ok(told)
}

/// Removes foreign thinking from the messages of an Anthropic request, and returns what is told of
/// that.
pub(super) fn open_messages(body: &mut Value, place: &Place<'_>) -> Result<Vec<Value>, ApiError> {
    let organization = place.group.organization();
    let mut told = Vec::new();
    let messages = body["messages"].as_array_mut().into_iter().flatten();
    for (message_index, message) in messages.enumerate() {
        let Some(blocks) = message.get_mut("content").and_then(Value::as_array_mut) else {
            continue;
        };
        let foreign = blocks.iter().enumerate().filter(|(_, it)| is_thought_of(it, organization));
        for (index, block) in foreign {
            let path = format!("messages.{message_index}.content.{index}");
            if place.foreign == Foreign::Refused {
                let kind = block["type"].as_str().unwrap_or_default();
                let message = format!("{path}: Invalid `signature` in `{kind}` block");
                return Err(ApiError::invalid(message));
            }
            told.push(json!({
                "type": "thinking_dropped",
                "path": path,
                "reason": "organization_binding_mismatch",
            }));
        }
        blocks.retain(|block| !is_thought_of(block, organization));
    }
    Ok(told)
}

/// Whether a block is thinking of another organization.
fn is_thought_of(block: &Value, organization: &str) -> bool {
    match block["type"].as_str() {
        Some("thinking") => is_foreign(&block["signature"], organization),
        Some("redacted_thinking") => is_foreign(&block["data"], organization),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphertext_is_foreign_to_all_but_its_organization() {
        let sealed = json!(seal("acme", "text"));
        assert!(!is_foreign(&sealed, "acme"));
        assert!(is_foreign(&sealed, "other"));
        assert!(!is_foreign(&json!("of unknown origin"), "acme"));
        assert!(!is_foreign(&Value::Null, "acme"));
    }
}
