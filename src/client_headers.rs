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
/// name is in lower case. Nearly all names are told apart by three bytes.
pub fn is_control(name: &[u8]) -> bool {
    match name {
        [b'x', b'-', b'e', ..] if name.starts_with(b"x-envoy-") => {
            !OF_ENVOY.iter().any(|known| known.as_bytes() == name)
        }
        [b'x', b'-', b's', ..] if name.starts_with(b"x-session-affinity-") => true,
        [.., b'k', b'e', b'y'] => is_twin(name),
        _ => false,
    }
}

/// Whether it is the name of a key with underscores.
#[inline(never)]
fn is_twin(name: &[u8]) -> bool {
    let hyphenated = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let is_twin_of = |key: &&str| key.bytes().eq(name.iter().map(hyphenated));
    name.contains(&b'_') && KEY_HEADERS.iter().any(is_twin_of)
}

/// A path without the query parameters that carry keys; `None` if there are none. They must reach
/// neither an upstream, where another key is injected, nor a log.
pub fn without_keys(path: &[u8]) -> Option<Vec<u8>> {
    let end = path.iter().position(|byte| *byte == b'?')?;
    let (path, query) = (path.get(..end)?, path.get(end + 1..)?);
    let mut kept = path.to_vec();
    let mut has_key = false;
    for parameter in query.split(|byte| *byte == b'&') {
        if names_key(parameter) {
            has_key = true;
        } else {
            kept.push(if kept.len() == end { b'?' } else { b'&' });
            kept.extend_from_slice(parameter);
        }
    }
    has_key.then_some(kept)
}

/// Whether the name of a parameter is one of a key, with its percent escapes undone.
fn names_key(parameter: &[u8]) -> bool {
    let mut plain = Vec::new();
    let mut rest = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if byte == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        plain.push(escaped.map_or(byte, |(high, low)| high << 4 | low));
        rest = after.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    KEY_PARAMETERS.iter().any(|key| plain.eq_ignore_ascii_case(key.as_bytes()))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The protocols that a WebSocket offers, in as many headers as the client sent, without those that
/// carry keys or name accounts; `None` if there are none of them.
pub fn protocols_without_keys<'v>(values: impl Iterator<Item = &'v [u8]>) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut has_key = false;
    for value in values {
        for protocol in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if carries_key(protocol) {
                has_key = true;
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b", ");
            }
            kept.extend_from_slice(protocol);
        }
    }
    has_key.then_some(kept)
}

fn carries_key(protocol: &[u8]) -> bool {
    KEY_PROTOCOLS.iter().any(|prefix| {
        let start = protocol.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
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
            assert!(is_control(name.as_bytes()), "{name}");
        }
        for name in ["x-envoy-external-address", "session_id", "x-api-key", "x-session-affinity"] {
            assert!(!is_control(name.as_bytes()), "{name}");
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
            let expected = expected.map(str::as_bytes);
            assert_eq!(without_keys(path.as_bytes()).as_deref(), expected, "{path}");
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
            let expected = expected.map(str::as_bytes);
            assert_eq!(protocols_without_keys(values).as_deref(), expected, "{offered:?}");
        }
    }
}
