//! Request headers that must not go where the filter sends a request.

use proxy_wasm::traits::HttpContext;

/// Headers of a client that name an account, or belong to another site. Beside an injected key they
/// contradict it: the provider would refuse the request, and the credential would be blamed.
/// Sources: the providers' API references; `origin` makes Anthropic refuse organizations without
/// CORS.
const IDENTITIES: [&str; 8] = [
    "openai-organization",
    "openai-project",
    "chatgpt-account-id",
    "x-goog-user-project",
    "anthropic-workspace-id",
    "cookie",
    "proxy-authorization",
    "origin",
];

/// Headers with which Envoy lets a client steer retries, timeouts, hedging and stats. The filter
/// decides these; whether Envoy strips them depends on the address that it takes the client for.
const CONTROLS: [&str; 14] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-is-timeout-retry",
    "x-session-affinity-retry",
];

/// Removes what would contradict an injected key.
pub(super) fn remove_identities(context: &impl HttpContext) {
    for name in IDENTITIES {
        if context.get_http_request_header_bytes(name).is_some() {
            context.set_http_request_header_bytes(name, None);
        }
    }
}

/// Removes what would let a client steer Envoy's router. `names` are the names of all headers.
pub(super) fn remove_controls<'n>(
    context: &impl HttpContext,
    names: impl Iterator<Item = &'n str>,
) {
    for name in names.filter(|name| CONTROLS.contains(name)) {
        context.set_http_request_header_bytes(name, None);
    }
}

/// Leaves only those encodings of responses that the filter can read: providers compress errors too.
/// A client loses nothing but a few percent of compression.
pub(super) fn narrow_encodings(context: &impl HttpContext) {
    const NAME: &str = "accept-encoding";
    let Some(value) = context.get_http_request_header_bytes(NAME) else {
        return;
    };
    let value = String::from_utf8_lossy(&value);
    let is_readable = |encoding: &&str| {
        let name = encoding.split(';').next().unwrap_or_default().trim();
        ["gzip", "deflate", "identity"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let readable: Vec<_> = value.split(',').filter(is_readable).map(str::trim).collect();
    if readable.len() < value.split(',').count() {
        let readable = readable.join(", ");
        let value = Some(readable.as_bytes()).filter(|value| !value.is_empty());
        context.set_http_request_header_bytes(NAME, value);
    }
}

/// A path without the query parameters in which Google's clients send keys.
pub(super) fn without_keys(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let parameters = query.split('&');
    let kept: Vec<_> = parameters
        .clone()
        .filter(|it| !matches!(it.split('=').next(), Some("key" | "access_token" | "oauth_token")))
        .collect();
    if kept.len() == parameters.count() {
        return None;
    }
    if kept.is_empty() {
        return Some(path.to_owned());
    }
    Some(format!("{path}?{}", kept.join("&")))
}
