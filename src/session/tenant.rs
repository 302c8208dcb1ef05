//! What keeps the sessions of different tenants apart.

use crate::config::ScopePart;
use crate::hash::{KeyHash, Seed};
use crate::request::Request;

/// The hash of what the operator says distinguishes tenants; `None` if the configuration names
/// nothing. It is the same on every Envoy, for the strategy `consistent`.
pub fn tenant_scope(parts: &[ScopePart], request: &Request<'_>) -> Option<KeyHash> {
    if parts.is_empty() {
        return None;
    }
    let mut properties = request.properties.iter();
    let mut hashes = Vec::new();
    for part in parts {
        let values: Vec<&[u8]> = match part {
            ScopePart::Header(name) => request.headers.all(name).collect(),
            ScopePart::Property(_) => properties.next().map(Vec::as_slice).into_iter().collect(),
        };
        hashes.push(Seed::STABLE.hash(&values).0.to_le_bytes());
    }
    let hashes: Vec<_> = hashes.iter().map(<[u8; 16]>::as_slice).collect();
    Some(Seed::STABLE.hash(&hashes))
}
