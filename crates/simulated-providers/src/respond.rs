//! HTTP responses from replies and errors.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::api::Api;
use super::error::ApiError;
use super::stream::{self, Payload};
use super::vendor::Vendor;

/// The header of every response that names the account that served it.
pub const ACCOUNT_HEADER: &str = "x-simulated-account";

/// The response with a reply, cut if a fault says so.
pub(super) fn reply(payload: Payload, cut: Option<usize>) -> Response<Body> {
    match payload {
        Payload::Json(value) => json_response(StatusCode::OK, &value, cut.is_some()),
        Payload::Events(framing, events) => {
            let mut response = Response::new(stream::body(framing.frames(&events), cut));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(framing.content_type()));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
    }
}

/// An error in the form that this request expects.
pub(super) fn error(
    vendor: Vendor,
    parts: &Parts,
    error: &ApiError,
    request_id: &str,
) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = error.json(vendor, request_id);
    // A client that expects an array gets one.
    if let Ok(Api::GeminiStream { sse: false, .. }) = Api::of(vendor, &parts.method, &parts.uri) {
        body = Value::Array(vec![body]);
    }
    let mut response = json_response(status, &body, false);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds the headers of every response.
pub(super) fn add_headers(
    vendor: Vendor,
    account: &str,
    request_id: &str,
    headers: &mut HeaderMap,
) {
    let id_header = match vendor {
        Vendor::Anthropic => Some("request-id"),
        Vendor::OpenAi => Some("x-request-id"),
        Vendor::Gemini => None,
    };
    let id = id_header.map(|name| (name, request_id));
    for (name, value) in [(ACCOUNT_HEADER, account)].into_iter().chain(id) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// `broken` promises the whole length and breaks off in the middle.
fn json_response(status: StatusCode, value: &Value, broken: bool) -> Response<Body> {
    let text = value.to_string();
    let length = HeaderValue::from(text.len());
    let body = match text.split_at_checked(text.len() / 2) {
        Some((first, rest)) if broken => {
            stream::body(vec![first.to_owned(), rest.to_owned()], Some(1))
        }
        _ => Body::from(text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
