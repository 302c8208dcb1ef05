//! Errors that the filter answers itself, in the dialect of the API that the client speaks.

use serde_json::json;

use crate::api::Api;
use crate::target::Target;

/// An answer that never reached an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// A JSON document. Its content type is `application/json`.
    pub body: String,
}

/// No credential of the pool is ready: 503, as the reference answers `auth_unavailable`.
pub fn unavailable(target: &Target<'_>) -> LocalReply {
    let message =
        format!("auth_unavailable: no auth available (providers={}, model={})", target.provider, target.model);
    let body = match target.api {
        Api::Anthropic => json!({"type": "error", "error": {"type": "api_error", "message": message}}),
        Api::OpenAi | Api::Azure => {
            json!({"error": {"message": message, "type": "server_error", "code": "internal_server_error"}})
        }
        Api::Gemini => json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}),
        Api::Bedrock => json!({"message": message}),
    };
    LocalReply { status: 503, body: body.to_string() }
}
