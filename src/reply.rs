//! Responses of the filter itself, all of them errors, in the dialect of the API that the client
//! speaks.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::availability::Unready;
use crate::response::Failure;
use crate::target::Target;
use crate::time::Timestamp;

/// A response of the filter itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// Seconds for the header `retry-after`, rounded up.
    pub retry_after: Option<u64>,
    /// Whether a repetition is useless (`x-should-retry: false`): waiting does not cure it.
    pub retry_is_useless: bool,
    /// A JSON document. Its content type is `application/json`.
    pub body: String,
}

/// The longest `retry-after` of a 503. Clients sleep through a longer one, or end the session.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The reply when no credential may serve a request: 429 `model_cooldown` if all of them wait for
/// an announced end, else 503, as in the reference. Clients of Anthropic's and Google's APIs get
/// the same message in their own shape.
pub fn no_credential(target: &Target<'_>, unready: Unready, now: Timestamp) -> LocalReply {
    match unready {
        Unready::RateLimited(until) => {
            let body = cooldown(target, until.since(now));
            let retry_after = Some(seconds(until.since(now)));
            LocalReply { status: 429, retry_after, retry_is_useless: false, body: body.to_string() }
        }
        Unready::Unavailable(until) => {
            let body = unavailable(target, 503, "auth_unavailable: no auth available");
            LocalReply {
                status: 503,
                retry_after: until.map(|until| seconds(until.since(now))),
                retry_is_useless: until.is_none(),
                body: body.to_string(),
            }
        }
        Unready::NotFound => {
            let body = unavailable(target, 503, "auth_not_found: no auth candidates");
            let body = body.to_string();
            LocalReply { status: 503, retry_after: None, retry_is_useless: true, body }
        }
    }
}

/// The reply to a request that does not say which tenant it belongs to.
pub fn unauthorized(target: &Target<'_>) -> LocalReply {
    let message = "the request lacks what identifies its tenant";
    refused(target, 401, ["authentication_error", "UNAUTHENTICATED"], message)
}

/// The reply to a request that names two models.
pub fn two_models(target: &Target<'_>) -> LocalReply {
    let message = "the body names its model twice";
    refused(target, 400, ["invalid_request_error", "INVALID_ARGUMENT"], message)
}

/// The reply to a request that is at fault: its kind in the words of most APIs, and in Google's.
fn refused(target: &Target<'_>, status: u16, kind: [&str; 2], message: &str) -> LocalReply {
    let [kind, google] = kind;
    let body = match target.api {
        Api::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        Api::Gemini => {
            json!({"error": {"code": status, "message": message, "status": google}})
        }
        Api::Bedrock => json!({"message": message}),
        Api::OpenAi | Api::Azure => {
            json!({"error": {"message": message, "type": kind, "code": null}})
        }
    };
    let body = body.to_string();
    LocalReply { status, retry_after: None, retry_is_useless: true, body }
}

/// The reply when the last attempt ended without a response: 503, or 504 if it took too long, with
/// the cause.
pub fn no_response(target: &Target<'_>, failure: Failure, retry_after: Duration) -> LocalReply {
    let status = if failure == Failure::Timeout { 504 } else { 503 };
    let message = format!("upstream_unavailable: {}", failure.describe());
    LocalReply {
        status,
        retry_after: Some(seconds(retry_after.min(LONGEST_WAIT))),
        retry_is_useless: false,
        body: unavailable(target, status, &message).to_string(),
    }
}

impl LocalReply {
    /// The reply to a request whose pool or credential is not configured yet where it arrived: the
    /// next try will find it.
    pub fn not_ready() -> Self {
        let message = "upstream_unavailable: the configuration is being updated";
        Self {
            status: 503,
            retry_after: Some(1),
            retry_is_useless: false,
            body: json!({"error": {"message": message, "type": "server_error"}}).to_string(),
        }
    }
}

fn cooldown(target: &Target<'_>, wait: Duration) -> Value {
    let model = if target.model.is_empty() { "requested model" } else { &target.model };
    let via = if is_named(target.provider) {
        format!(" via provider {}", target.provider)
    } else {
        String::new()
    };
    let message = format!("All credentials for model {model} are cooling down{via}");
    match target.api {
        Api::Anthropic => {
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}})
        }
        Api::Gemini => {
            json!({"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}})
        }
        Api::Bedrock => json!({"message": message}),
        Api::OpenAi | Api::Azure => {
            let mut error = Map::new();
            error.insert("code".to_owned(), json!("model_cooldown"));
            error.insert("message".to_owned(), json!(message));
            error.insert("model".to_owned(), json!(target.model));
            if is_named(target.provider) {
                error.insert("provider".to_owned(), json!(target.provider));
            }
            error.insert("reset_seconds".to_owned(), json!(seconds(wait)));
            error.insert("reset_time".to_owned(), json!(rounded_duration(wait)));
            json!({"error": error})
        }
    }
}

fn unavailable(target: &Target<'_>, status: u16, message: &str) -> Value {
    let message = format!("{message} (providers={}, model={})", target.provider, target.model);
    match target.api {
        Api::Anthropic => {
            json!({"type": "error", "error": {"type": "api_error", "message": message}})
        }
        Api::Gemini => {
            json!({"error": {"code": status, "message": message, "status": "UNAVAILABLE"}})
        }
        Api::Bedrock => json!({"message": message}),
        Api::OpenAi | Api::Azure => {
            json!({"error": {"message": message, "type": "server_error", "code": "internal_server_error"}})
        }
    }
}

/// `mixed` is the reference's word for "several".
fn is_named(provider: &str) -> bool {
    !matches!(provider, "" | "mixed")
}

/// Whole seconds, rounded up: what `retry-after` takes.
pub(crate) fn seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// A duration as Go prints it when it is rounded to the second (half away from zero): `1m30s`. Less
/// than a second is one.
fn rounded_duration(duration: Duration) -> String {
    let seconds = match duration.as_millis() {
        1..1000 => 1,
        milliseconds => (milliseconds + 500) / 1000,
    };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
