//! Removes what must not pass: headers with which clients carry keys, name accounts or steer Envoy,
//! and response headers that name accounts. What those are is said in `client_headers`.

use proxy_wasm::traits::HttpContext;

use crate::client_headers::{IDENTITIES, is_control, protocols_without_keys, without_keys};
use crate::config::Pool;
use crate::request::Headers;

/// Response headers of providers that name the account, and cookies of their edges.
const ACCOUNT_HEADERS: [&str; 7] = [
    "anthropic-organization-id",
    "anthropic-workspace-id",
    "openai-organization",
    "openai-project",
    "x-codex-plan-type",
    "x-goog-user-project",
    "set-cookie",
];

/// The protocols that a WebSocket offers.
const PROTOCOLS: &str = "sec-websocket-protocol";

/// Whether a header of a response names the account.
pub(super) fn names_account(name: &str) -> bool {
    ACCOUNT_HEADERS.contains(&name)
}

/// Whether a header of an earlier response may be given with its body, which is not compressed any
/// more, by Envoy itself.
pub(super) fn may_be_given(name: &str) -> bool {
    const OF_THE_CONNECTION: [&str; 8] = [
        "content-encoding",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "date",
        "server",
        "alt-svc",
    ];
    !name.starts_with(':')
        && !name.starts_with("x-envoy-")
        && !name.starts_with("x-session-affinity-")
        && !OF_THE_CONNECTION.contains(&name)
}

/// Removes what names the account from a response.
pub(super) fn remove_account_headers(context: &impl HttpContext, headers: &Headers) {
    for name in ACCOUNT_HEADERS.into_iter().filter(|name| headers.first(name).is_some()) {
        context.set_http_response_header_bytes(name, None);
    }
}

/// Removes what would contradict an injected key.
pub(super) fn remove_identities(context: &impl HttpContext, headers: &Headers, pool: &Pool) {
    for name in IDENTITIES.into_iter().filter(|name| headers.first(name).is_some()) {
        if pool.source_headers.iter().any(|source| source == name) {
            // A filter in front has put a key there.
            continue;
        }
        context.set_http_request_header_bytes(name, None);
    }
}

/// Removes what would let a client steer Envoy, or pass a key of its own, in whatever place.
pub(super) fn remove_controls_and_keys(context: &impl HttpContext, headers: &Headers) {
    for name in headers.names().filter(|name| is_control(name)) {
        // Names are ASCII: Envoy takes no other.
        context.set_http_request_header_bytes(str::from_utf8(name).unwrap_or_default(), None);
    }
    if let Some(path) = headers.first(":path").and_then(without_keys) {
        context.set_http_request_header_bytes(":path", Some(&path));
    }
    if let Some(protocols) = protocols_without_keys(headers.all(PROTOCOLS)) {
        let value = Some(protocols.as_slice()).filter(|value| !value.is_empty());
        context.set_http_request_header_bytes(PROTOCOLS, value);
    }
}

/// The encodings of responses that a client accepts.
const ENCODINGS: &str = "accept-encoding";

/// Asks for a response that is not compressed, unless that is what the client asks for.
pub(super) fn refuse_encodings(context: &impl HttpContext, headers: &Headers) {
    if headers.all(ENCODINGS).any(|value| value != b"identity") {
        context.set_http_request_header_bytes(ENCODINGS, Some(b"identity"));
    }
}

/// Leaves only those encodings of responses that the filter can read: providers compress errors
/// too. A client loses nothing but a few percent of compression.
pub(super) fn narrow_encodings(context: &impl HttpContext, headers: &Headers) {
    let all = || headers.all(ENCODINGS).flat_map(|value| value.split(|byte| *byte == b','));
    if !all().all(is_readable) {
        let readable: Vec<_> = all().filter(|it| is_readable(it)).map(<[u8]>::trim_ascii).collect();
        let readable = readable.join(&b", "[..]);
        let value = Some(readable.as_slice()).filter(|value| !value.is_empty());
        context.set_http_request_header_bytes(ENCODINGS, value);
    }
}

/// Whether the filter can read a response with this encoding, which may have a weight.
fn is_readable(encoding: &[u8]) -> bool {
    let name = encoding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"gzip"[..], b"deflate", b"identity"].iter().any(|known| name.eq_ignore_ascii_case(known))
}
