//! How an attempt ended: with a response, or without.

use crate::request::Headers;
use crate::signals::Reading;

/// How an attempt to serve a request ended.
#[derive(Clone, Copy)]
pub enum Response<'a> {
    /// The upstream sent a response.
    Received {
        status: u16,
        headers: &'a Headers,
        /// The beginning of the body, readable, where `Router::reads_body_of` says that it counts;
        /// else empty.
        body: &'a [u8],
    },
    /// The upstream accepted the request and then sent an error in place of content: as an event of
    /// a stream, or as a frame of a WebSocket.
    ErrorEvent(Reading),
    /// There was no response.
    Failed(Failure),
}

/// Why there was no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: refused, or not established in time.
    Connect,
    /// A connection that had served before was closed as it was used again.
    Stale,
    /// The connection broke before the response.
    Reset,
    /// The response did not come in time.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The cluster does not exist, or has no healthy host; its name may not resolve.
    NoHost,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Stale, Self::Reset, Self::Timeout, Self::Tls, Self::NoHost];

    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Stale => "stale",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::NoHost => "no_host",
        }
    }

    /// Whether the request has certainly not reached the provider.
    pub fn is_before_sending(self) -> bool {
        matches!(self, Self::Connect | Self::Tls | Self::NoHost)
    }

    /// The cause, in words for a client.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Connect => "the connection to the provider failed",
            Self::Stale | Self::Reset => {
                "the provider closed the connection before it sent a response"
            }
            Self::Timeout => "the provider sent no response in time",
            Self::Tls => "the TLS handshake with the provider failed",
            Self::NoHost => "the provider has no reachable address",
        }
    }
}

impl Response<'_> {
    /// The status; 0 without a response, as in `cooldown.statuses`.
    pub fn status(&self) -> u16 {
        match self {
            Self::Received { status, .. } => *status,
            Self::ErrorEvent(_) => 200,
            Self::Failed(_) => 0,
        }
    }
}
