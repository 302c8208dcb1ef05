//! What is compared: ours in all its ways, and what else one could put in its place.

use serde::{Serialize, Serializer};

/// One set-up that serves the same requests as all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// No proxy: what load generator and upstream do by themselves.
    Direct,
    /// Envoy with its router and nothing else.
    Bare,
    /// The same once more: what differs between the two is noise.
    BareAgain,
    /// A Proxy-Wasm filter that lets everything pass.
    Continues,
    /// A Proxy-Wasm filter that holds requests until their body is there.
    Holds,
    /// Envoy's own filters: a field of the body becomes a header, MAGLEV hashes it.
    Stock,
    /// Ours; a header identifies the session. No filter on the clusters.
    Header,
    /// The same with the filter on the clusters, for failover within a request.
    HeaderOnClusters,
    /// Ours; the body identifies the session. No filter on the clusters.
    Body,
    /// The same with the filter on the clusters.
    BodyOnClusters,
}

/// Where a request has the id of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    Header,
    Body,
}

impl Contender {
    pub const ALL: [Self; 10] = [
        Self::Direct,
        Self::Bare,
        Self::Continues,
        Self::Holds,
        Self::Stock,
        Self::BareAgain,
        Self::Header,
        Self::HeaderOnClusters,
        Self::Body,
        Self::BodyOnClusters,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct, no proxy",
            Self::Bare => "bare Envoy",
            Self::BareAgain => "bare Envoy again (control)",
            Self::Continues => "no-op that continues",
            Self::Holds => "no-op that holds",
            Self::Stock => "json_to_metadata + MAGLEV",
            Self::Header => "ours, header path",
            Self::HeaderOnClusters => "ours, header path, filter on the cluster",
            Self::Body => "ours, body path",
            Self::BodyOnClusters => "ours, body path, filter on the cluster",
        }
    }

    /// Which requests it gets: those of the path that it is compared on. All have a body with an id
    /// last; on the header path a header has one, too.
    pub fn identity(self) -> Identity {
        match self {
            Self::Continues | Self::Header | Self::HeaderOnClusters => Identity::Header,
            Self::Direct
            | Self::Bare
            | Self::BareAgain
            | Self::Holds
            | Self::Stock
            | Self::Body
            | Self::BodyOnClusters => Identity::Body,
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Header | Self::HeaderOnClusters | Self::Body | Self::BodyOnClusters)
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
