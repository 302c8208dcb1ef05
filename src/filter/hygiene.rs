//! What must not pass: headers and query parameters with which clients carry keys, name accounts or
//! steer Envoy, and response headers that name accounts. Generated routes remove the same headers of
//! clients where Envoy injects the key (`crates/envoy-config/src/wiring.rs`).

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

/// What Envoy itself may have set when the filter sees a request. Every other `x-envoy-` header
/// comes from the client, and would let it steer retries, timeouts, hedging, stats or logs; whether
/// Envoy strips them depends on the address that it takes the client for.
const OF_ENVOY: [&str; 4] = [
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
];

/// Headers that carry keys. Some upstreams read `_` as `-`, so the twins with underscores must not
/// pass beside an injected key.
const KEY_HEADERS: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];

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

/// Removes what names the account from a response.
pub(super) fn remove_account_headers(context: &impl HttpContext) {
    for name in ACCOUNT_HEADERS {
        if context.get_http_response_header_bytes(name).is_some() {
            context.set_http_response_header_bytes(name, None);
        }
    }
}

/// Removes what would contradict an injected key.
pub(super) fn remove_identities(context: &impl HttpContext) {
    for name in IDENTITIES {
        if context.get_http_request_header_bytes(name).is_some() {
            context.set_http_request_header_bytes(name, None);
        }
    }
}

/// Removes what would let a client steer Envoy, or pass a key of its own. `names` are the names of
/// all headers.
pub(super) fn remove_controls<'n>(
    context: &impl HttpContext,
    names: impl Iterator<Item = &'n str>,
) {
    for name in names.filter(|name| is_control(name)) {
        context.set_http_request_header_bytes(name, None);
    }
}

fn is_control(name: &str) -> bool {
    let is_envoys = name.starts_with("x-envoy-") && !OF_ENVOY.contains(&name);
    let is_ours = name.starts_with("x-session-affinity-");
    let is_twin = name.contains('_') && KEY_HEADERS.contains(&name.replace('_', "-").as_str());
    is_envoys || is_ours || is_twin
}

/// Leaves only those encodings of responses that the filter can read: providers compress errors
/// too. A client loses nothing but a few percent of compression.
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

/// Query parameters in which clients send keys.
const KEY_PARAMETERS: [&str; 5] = ["key", "api_key", "apikey", "access_token", "oauth_token"];

/// A path without the query parameters that carry keys; `None` if there are none. They must reach
/// neither an upstream, where another key is injected, nor a log.
pub(super) fn without_keys(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let mut kept = Vec::new();
    let mut has_key = false;
    for parameter in query.split('&') {
        let name = parameter.split('=').next().unwrap_or_default();
        if KEY_PARAMETERS.iter().any(|key| name.eq_ignore_ascii_case(key)) {
            has_key = true;
        } else {
            kept.push(parameter);
        }
    }
    match (has_key, kept.is_empty()) {
        (false, _) => None,
        (true, true) => Some(path.to_owned()),
        (true, false) => Some(format!("{path}?{}", kept.join("&"))),
    }
}
