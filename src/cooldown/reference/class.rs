//! The class of a response as the reference sees it.

use crate::signals::Class;

/// Whether only its body shows what a response with this status means.
pub fn depends_on_message(status: u16) -> bool {
    matches!(status, 400 | 404 | 422)
}

/// The class of a status; 0 is a connection that failed.
pub(super) fn of(status: u16, message: &str) -> Class {
    if says_model_is_not_supported(status, message) {
        return Class::NotSupported;
    }
    match status {
        200..=399 | 101 => Class::Success,
        401..=403 => Class::Denied,
        404 if is_about_a_stored_item(message) => Class::RequestFault,
        404 => Class::NotFound,
        429 => Class::RateLimit,
        408 | 500 | 502..=504 => Class::Transient,
        _ => Class::Unclear,
    }
}

/// Phrases by which providers say, with 400 or 422, that this account does not have the model.
const NOT_SUPPORTED: [&str; 10] = [
    "model is not supported",
    "model not supported",
    "requested model is not supported",
    "requested model is unsupported",
    "requested model is unavailable",
    "unsupported model",
    "model unavailable",
    "model is unavailable",
    "not available for your plan",
    "not available for your account",
];

fn says_model_is_not_supported(status: u16, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(status, 400 | 422) && NOT_SUPPORTED.iter().any(|phrase| message.contains(phrase))
}

/// OpenAI's response to a reference to an item that was never stored: the request is wrong, not the
/// model.
fn is_about_a_stored_item(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("item with id")
        && message.contains("not found")
        && message.contains("items are not persisted when `store` is set to false")
}
