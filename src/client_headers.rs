//! What must not pass of a client's headers: keys of its own, names of accounts, and what would
//! steer Envoy. Generated routes remove the same headers where Envoy injects the key
//! (`crates/envoy-config/src/wiring.rs`).

/// Headers of a client that name an account, or belong to another site. Beside an injected key they
/// contradict it: the provider would refuse the request, and the credential would be blamed.
/// Sources: the providers' API references; `origin` makes Anthropic refuse organizations without
/// CORS.
pub const IDENTITIES: [&str; 8] = [
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

/// Query parameters in which clients send keys.
const KEY_PARAMETERS: [&str; 5] = ["key", "api_key", "apikey", "access_token", "oauth_token"];

/// WebSocket protocols in which browsers, which can set no header, send keys and accounts: those of
/// OpenAI's and xAI's SDKs. Ephemeral keys have the same forms. Servers select another item of the
/// list, such as `realtime`, or none.
const KEY_PROTOCOLS: [&str; 5] = [
    "openai-insecure-api-key.",
    "openai-ephemeral-",
    "openai-organization.",
    "openai-project.",
    "xai-client-secret.",
];

/// Whether a header would let a client steer Envoy or the filter, or pass a key of its own. The
/// name is in lower case.
pub fn is_control(name: &str) -> bool {
    let is_envoys = name.starts_with("x-envoy-") && !OF_ENVOY.contains(&name);
    let is_ours = name.starts_with("x-session-affinity-");
    let is_twin = name.contains('_') && KEY_HEADERS.contains(&name.replace('_', "-").as_str());
    is_envoys || is_ours || is_twin
}

/// A path without the query parameters that carry keys; `None` if there are none. They must reach
/// neither an upstream, where another key is injected, nor a log.
pub fn without_keys(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let mut kept = Vec::new();
    let mut has_key = false;
    for parameter in query.split('&') {
        if names_key(parameter.split('=').next().unwrap_or_default()) {
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

/// Whether the name of a parameter is one of a key, with its percent escapes undone.
fn names_key(name: &str) -> bool {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    KEY_PARAMETERS.iter().any(|key| plain.eq_ignore_ascii_case(key.as_bytes()))
}

/// The protocols that a WebSocket offers, in as many headers as the client sent, without those that
/// carry keys or name accounts; `None` if there are none of them.
pub fn protocols_without_keys<'v>(values: impl Iterator<Item = &'v [u8]>) -> Option<String> {
    let values: Vec<_> = values.map(String::from_utf8_lossy).collect();
    let offered: Vec<_> = values.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    let kept: Vec<_> = offered.iter().copied().filter(|protocol| !carries_key(protocol)).collect();
    (kept.len() < offered.len()).then(|| kept.join(", "))
}

fn carries_key(protocol: &str) -> bool {
    KEY_PROTOCOLS.iter().any(|prefix| {
        protocol.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_steer_envoy_or_the_filter_are_controls_and_envoys_own_are_not() {
        for name in [
            "x-envoy-retry-on",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-hedge-on-per-try-timeout",
            "x-envoy-original-path",
            "x-session-affinity-retry",
            "x_api_key",
            "x-goog_api_key",
            "api_key",
        ] {
            assert!(is_control(name), "{name}");
        }
        for name in ["x-envoy-external-address", "session_id", "x-api-key", "x-session-affinity"] {
            assert!(!is_control(name), "{name}");
        }
    }

    #[test]
    fn a_query_loses_its_keys_and_nothing_else() {
        for (path, expected) in [
            ("/v1beta/models/m:g?key=AIza", Some("/v1beta/models/m:g")),
            ("/p?alt=sse&KEY=AIza&x=1", Some("/p?alt=sse&x=1")),
            ("/p?access_token=t&api_key=k&apikey=k", Some("/p")),
            ("/p?k%65y=AIza&%zz=1&a%", Some("/p?%zz=1&a%")),
            ("/p?keys=1&x=key", None),
            ("/p", None),
            ("/p?", None),
        ] {
            assert_eq!(without_keys(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_websocket_offers_no_key_and_keeps_its_other_protocols() {
        for (offered, expected) in [
            (&["realtime, openai-insecure-api-key.sk-1"][..], Some("realtime")),
            (&["OpenAI-Insecure-API-Key.sk-1,realtime"], Some("realtime")),
            (
                &["realtime", "openai-insecure-api-key.ek_1, openai-beta.realtime-v1"],
                Some("realtime, openai-beta.realtime-v1"),
            ),
            (&["realtime, openai-organization.o, openai-project.p"], Some("realtime")),
            (&["xai-client-secret.s"], Some("")),
            (&["realtime, openai-beta.realtime-v1"], None),
            (&[], None),
        ] {
            let values = offered.iter().map(|value| value.as_bytes());
            assert_eq!(protocols_without_keys(values).as_deref(), expected, "{offered:?}");
        }
    }
}
