//! Errors in the form of each vendor.

use serde_json::{Value, json};

use super::vendor::Vendor;

/// An error, before it takes the shape of a vendor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) message: String,
    /// OpenAI's `code` and the parameter that it is about; the others have no field for them.
    pub(super) code: Option<&'static str>,
    pub(super) parameter: Option<&'static str>,
    /// Anthropic's `details.error_code`.
    pub(super) details: Option<&'static str>,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, code: None, parameter: None, details: None, retry_after: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn missing(parameter: &'static str) -> Self {
        let message = format!("Missing required parameter: '{parameter}'.");
        Self::invalid(message).about(parameter, "missing_required_parameter")
    }

    pub(super) fn unauthorized() -> Self {
        let error = Self::new(401, "The API key is missing or unknown to this simulated provider.");
        Self { code: Some("invalid_api_key"), ..error }
    }

    /// A status that a test or an `x-simulate` header requested.
    pub(super) fn simulated(status: u16, retry_after: Option<u64>) -> Self {
        let code = (status == 429).then_some("rate_limit_exceeded");
        Self {
            code,
            retry_after,
            ..Self::new(status, format!("Simulated fault: status {status}."))
        }
    }

    pub(super) fn about(self, parameter: &'static str, code: &'static str) -> Self {
        Self { parameter: Some(parameter), code: Some(code), ..self }
    }

    /// The body of the response in the form of the vendor. Anthropic repeats the id of the request
    /// in it.
    pub(super) fn json(&self, vendor: Vendor, request_id: &str) -> Value {
        match vendor {
            Vendor::Anthropic => self.anthropic(request_id),
            Vendor::OpenAi => json!({"error": {
                "message": self.message,
                "type": openai_type(self.status),
                "param": self.parameter,
                "code": self.code,
            }}),
            Vendor::Gemini => self.gemini(),
        }
    }

    fn anthropic(&self, request_id: &str) -> Value {
        let mut error = json!({"type": anthropic_type(self.status), "message": self.message});
        if let Some(code) = self.details {
            error["details"] = json!({ "error_code": code });
        }
        json!({"type": "error", "error": error, "request_id": request_id})
    }

    fn gemini(&self) -> Value {
        let mut error = json!({
            "code": self.status,
            "message": self.message,
            "status": google_status(self.status),
        });
        if let Some(seconds) = self.retry_after {
            let kind = "type.googleapis.com/google.rpc.RetryInfo";
            error["details"] = json!([{"@type": kind, "retryDelay": format!("{seconds}s")}]);
        }
        json!({ "error": error })
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        429 => "requests",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_has_the_form_of_the_vendor() {
        let error = ApiError::simulated(429, Some(7));
        let anthropic = error.json(Vendor::Anthropic, "req_1");
        assert_eq!(
            (&anthropic["type"], &anthropic["error"]["type"]),
            (&json!("error"), &json!("rate_limit_error"))
        );
        assert_eq!(error.json(Vendor::OpenAi, "req_1")["error"]["code"], "rate_limit_exceeded");
        let gemini = &error.json(Vendor::Gemini, "req_1")["error"];
        assert_eq!(
            (&gemini["code"], &gemini["status"]),
            (&json!(429), &json!("RESOURCE_EXHAUSTED"))
        );
        assert_eq!(gemini["details"][0]["retryDelay"], "7s");
    }

    #[test]
    fn the_status_529_of_anthropic_is_an_overload() {
        assert_eq!(
            ApiError::simulated(529, None).json(Vendor::Anthropic, "req_1")["error"]["type"],
            "overloaded_error"
        );
    }
}
