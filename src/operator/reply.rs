//! What the operator's page replies.

use std::borrow::Cow;

use super::json::Json;

/// A reply to an operator. Whatever it is, it is not kept, framed or taken for another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers, without those of [`Self::SECURITY`].
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// What was done, for the log.
    pub done: Option<String>,
}

impl Reply {
    /// Headers of every reply.
    pub const SECURITY: [(&'static str, &'static str); 6] = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];

    /// A JSON document.
    pub(super) fn json(status: u16, json: Json) -> Self {
        let body = Cow::Owned(json.into_bytes());
        Self { status, headers: vec![("content-type", "application/json")], body, done: None }
    }

    /// An error, in words.
    pub(super) fn error(status: u16, message: &str) -> Self {
        let mut json = Json::default();
        json.open('{').key("error").text(message).close('}');
        Self::json(status, json)
    }

    /// A path has another method.
    pub(super) fn wrong_method(allowed: &'static str) -> Self {
        let mut reply = Self::error(405, "this path has another method");
        reply.headers.push(("allow", allowed));
        reply
    }

    /// Something was done.
    pub(super) fn done(json: Json, done: String) -> Self {
        Self { done: Some(done), ..Self::json(200, json) }
    }
}
