//! HTTP responses from replies and errors.

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::api::Api;
use super::catalog::{Canned, Content};
use super::compress;
use super::error::ApiError;
use super::fault::Stop;
use super::stream::{self, Framing, Payload};
use super::vendor::Vendor;

/// The header of every response that names the account that served it.
pub const ACCOUNT_HEADER: &str = "x-simulated-account";

/// The response with a reply, which stops before its end if a fault says so.
pub(super) fn reply(payload: Payload, stop: Option<Stop>) -> Response<Body> {
    match payload {
        Payload::Json(value) => json_response(StatusCode::OK, &value, stop),
        Payload::Events(framing, events) => events_response(framing, &events, stop),
        Payload::Text(kind, text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
    }
}

fn events_response(framing: Framing, events: &[Value], stop: Option<Stop>) -> Response<Body> {
    let mut response = Response::new(stream::body(framing.frames(events), stop));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(framing.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A response of the catalog in the form that this request expects.
pub(super) fn canned(canned: Canned, api: &Api) -> Response<Body> {
    let status = StatusCode::from_u16(canned.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match canned.content {
        Content::Json(value) => json_response(status, &in_form_of(api, value), None),
        Content::Events(events) => events_response(api.framing(), &events, None),
        Content::Text(text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            response
        }
    };
    for (name, value) in canned.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    if canned.hidden_gzip { compress::hide_gzip(response) } else { response }
}

/// A client that expects an array gets one.
fn in_form_of(api: &Api, error: Value) -> Value {
    match api {
        Api::GeminiStream { sse: false, .. } => Value::Array(vec![error]),
        _ => error,
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
    if let Ok(api) = Api::of(vendor, &parts.method, &parts.uri) {
        body = in_form_of(&api, body);
    }
    let mut response = json_response(status, &body, None);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds headers.
pub(super) fn add(headers: &mut HeaderMap, more: &[(&'static str, String)]) {
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
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

/// One that stops early promises the whole length all the same.
fn json_response(status: StatusCode, value: &Value, stop: Option<Stop>) -> Response<Body> {
    let text = value.to_string();
    let length = HeaderValue::from(text.len());
    let body = match (text.split_at_checked(text.len() / 2), stop) {
        (Some((first, rest)), Some(Stop::Cut(_) | Stop::End(_))) => {
            let halves = [first, rest].map(|half| Bytes::from(half.to_owned()));
            stream::body(halves.into(), Some(Stop::Cut(1)))
        }
        (_, Some(Stop::Silence(_))) => stream::body(vec![text.into()], Some(Stop::Silence(0))),
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
