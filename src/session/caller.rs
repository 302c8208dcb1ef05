//! Who opens a WebSocket that names no session.
//!
//! What identifies the session is in the frames, and the upstream is chosen before the first of
//! them. Some providers keep the state of such a stream on one account, so a client that connects
//! again has to come to the same credential. All that its handshake has in common with the last one
//! is who connects, and where to.
//!
//! A key is a secret, so it is no id. What leaves this function is a hash, and of that the shared
//! data gets a keyed hash, as of every id; neither reaches a log.

use crate::hash::{KeyHash, Seed};
use crate::request::Headers;

/// Headers that authenticate a caller.
const KEYS: [&str; 5] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization"];

/// Query parameters that do.
const PARAMETERS: [&str; 3] = ["key", "api_key", "access_token"];

/// The hash of the caller of a WebSocket and of its path; `None` for other requests, and where
/// neither a key nor the tenant says who calls.
#[inline(never)]
pub fn caller(headers: &Headers, tenant: Option<KeyHash>, seed: Seed) -> Option<KeyHash> {
    if !headers.ask_for_websocket() {
        return None;
    }
    let tenant_bytes = tenant.map_or([0; 16], |tenant| tenant.0.to_le_bytes());
    let mut parts = vec![headers.path().as_bytes(), &tenant_bytes];
    for (name, value) in headers.iter() {
        let holds_key = match name {
            // Browsers cannot set headers, so the key is a protocol:
            // `openai-insecure-api-key.<key>`.
            "sec-websocket-protocol" => value.windows(7).any(|word| word == b"api-key"),
            name => KEYS.contains(&name) && !value.is_empty(),
        };
        if holds_key {
            parts.push(value);
        }
    }
    let query = headers.text(":path").split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        if PARAMETERS.contains(&name) && !value.is_empty() {
            parts.push(value.as_bytes());
        }
    }
    (parts.len() > 2 || tenant.is_some()).then(|| seed.hash(&parts))
}
