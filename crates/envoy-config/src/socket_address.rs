//! Addresses, as Envoy writes them.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

/// An address, as Envoy writes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SocketAddress {
    address: String,
    port: u16,
}

impl SocketAddress {
    pub(super) fn new(address: impl ToString, port: u16) -> Self {
        Self { address: address.to_string(), port }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip(), address.port())
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.contains(':') {
            write!(formatter, "[{}]:{}", self.address, self.port)
        } else {
            write!(formatter, "{}:{}", self.address, self.port)
        }
    }
}
