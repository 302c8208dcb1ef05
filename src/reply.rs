//! Errors that the filter answers itself, in the dialect of the API that the client speaks.

use serde_json::json;

use crate::request::Request;
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
pub fn unavailable(request: &Request<'_>, target: &Target<'_>) -> LocalReply {
    let message =
        format!("auth_unavailable: no auth available (providers={}, model={})", target.pool.provider, target.model);
    let body = match Dialect::of(request.path()) {
        Dialect::Anthropic => json!({"type": "error", "error": {"type": "api_error", "message": message}}),
        Dialect::OpenAi => {
            json!({"error": {"message": message, "type": "server_error", "code": "internal_server_error"}})
        }
        Dialect::Gemini => json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}),
    };
    LocalReply { status: 503, body: body.to_string() }
}

/// The error format that a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Anthropic,
    OpenAi,
    Gemini,
}

impl Dialect {
    /// The dialect of a path; OpenAI's where nothing tells, because most clients understand it.
    fn of(path: &str) -> Self {
        if path.ends_with("/messages") || path.contains("/messages/") {
            Self::Anthropic
        } else if path.contains("/v1beta") || path.rsplit('/').next().is_some_and(|last| last.contains(":")) {
            Self::Gemini
        } else {
            Self::OpenAi
        }
    }
}
