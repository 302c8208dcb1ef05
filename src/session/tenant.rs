//! What keeps the sessions of different tenants apart.

use crate::hash::{KeyHash, Seed};
use crate::request::Request;

/// Something that distinguishes tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopePart {
    pub source: ScopeSource,
    /// Whether a request without it is refused.
    pub required: bool,
}

/// Where a part of the scope is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeSource {
    /// All values of a request header.
    Header(String),
    /// An attribute of Envoy, as the path to it: `["connection", "uri_san_peer_certificate"]`.
    Property(Vec<String>),
}

/// The hash of what the operator says distinguishes tenants; `None` if the configuration names
/// nothing. It is the same on every Envoy, for the strategy `consistent`.
pub fn tenant_scope(parts: &[ScopePart], request: &Request<'_>) -> Option<KeyHash> {
    if parts.is_empty() {
        return None;
    }
    let hashes: Vec<_> = values(parts, request)
        .into_iter()
        .map(|values| Seed::STABLE.hash(&values).0.to_le_bytes())
        .collect();
    let hashes: Vec<_> = hashes.iter().map(<[u8; 16]>::as_slice).collect();
    Some(Seed::STABLE.hash(&hashes))
}

/// Whether a request lacks a part that is required.
pub fn lacks_required(parts: &[ScopePart], request: &Request<'_>) -> bool {
    parts
        .iter()
        .zip(values(parts, request))
        .any(|(part, values)| part.required && values.iter().all(|value| value.is_empty()))
}

/// The values of each part.
fn values<'r>(parts: &[ScopePart], request: &'r Request<'_>) -> Vec<Vec<&'r [u8]>> {
    let mut properties = request.properties.iter();
    let mut all = Vec::new();
    for part in parts {
        all.push(match &part.source {
            ScopeSource::Header(name) => {
                let headers = request.headers.iter().filter(|(other, _)| other == name);
                headers.map(|(_, value)| value).collect()
            }
            ScopeSource::Property(_) => properties.next().map(Vec::as_slice).into_iter().collect(),
        });
    }
    all
}
