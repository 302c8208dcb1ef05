//! What an answer says about the credential that gave it.

/// What an answer says about its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It serves.
    Success,
    /// The request was wrong; any credential would have said so.
    RequestFault,
    /// A quota or rate ran out.
    RateLimit,
    /// The key, or what it pays for, is not accepted.
    Denied,
    /// The credential's account does not have this model.
    NotSupported,
    /// There is no such model.
    NotFound,
    /// It will pass: the provider is overloaded or broken, or the connection failed.
    Transient,
    /// An error that says nothing lasting.
    Unclear,
}

impl Class {
    /// The words for configuration and logs.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("success", Self::Success),
        ("request_fault", Self::RequestFault),
        ("rate_limit", Self::RateLimit),
        ("denied", Self::Denied),
        ("not_supported", Self::NotSupported),
        ("not_found", Self::NotFound),
        ("transient", Self::Transient),
        ("unclear", Self::Unclear),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, class)| *class == self).map_or("unclear", |(word, _)| word)
    }

    /// Whether another credential could do better. A missing model is missing elsewhere too, as far
    /// as anyone knows, and a request that is wrong is wrong everywhere.
    pub fn fails_over(self, status: u16) -> bool {
        match self {
            Self::RateLimit | Self::Denied | Self::NotSupported | Self::Transient => true,
            Self::Unclear => status == 0 || status >= 500,
            Self::Success | Self::RequestFault | Self::NotFound => false,
        }
    }

    /// The class of a status as the reference sees it; 0 is a connection that failed.
    pub fn of_reference(status: u16, message: &str) -> Self {
        if says_model_is_not_supported(status, message) {
            return Self::NotSupported;
        }
        match status {
            200..=399 | 101 => Self::Success,
            401..=403 => Self::Denied,
            404 if is_about_a_stored_item(message) => Self::RequestFault,
            404 => Self::NotFound,
            429 => Self::RateLimit,
            408 | 500 | 502..=504 => Self::Transient,
            _ => Self::Unclear,
        }
    }

    /// The class of a status by the better rules.
    pub fn of(status: u16, message: &str) -> Self {
        if says_model_is_not_supported(status, message) {
            return Self::NotSupported;
        }
        match status {
            200..=399 | 101 => Self::Success,
            401..=403 => Self::Denied,
            // A path or an item that is not there says nothing about the credential; a model does.
            404 if message.to_ascii_lowercase().contains("model") => Self::NotFound,
            429 => Self::RateLimit,
            // A connection that failed, and every way in which a provider says that it is not well.
            0 | 408 | 500..=599 => Self::Transient,
            _ => Self::RequestFault,
        }
    }
}

/// Whether only its body tells what an answer of this status means.
pub fn depends_on_message(status: u16) -> bool {
    matches!(status, 400 | 404 | 422)
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

/// OpenAI's answer to a reference to an item that was never stored: the request is wrong, not the
/// model.
fn is_about_a_stored_item(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("item with id")
        && message.contains("not found")
        && message.contains("items are not persisted when `store` is set to false")
}
