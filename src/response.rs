//! How an attempt ended: with a response, or without.

use crate::request::Headers;

/// How an attempt to serve a request ended.
#[derive(Clone, Copy)]
pub enum Response<'a> {
    /// The upstream sent a response.
    Received {
        status: u16,
        headers: &'a Headers,
        /// The beginning of the body, where [`crate::classify::depends_on_message`] says that it
        /// counts; else empty.
        body: &'a [u8],
    },
    /// The connection failed, or broke before there was a response.
    ConnectionFailed,
}

impl Response<'_> {
    /// The status; 0 without a response, as in `cooldown.statuses`.
    pub fn status(&self) -> u16 {
        match self {
            Self::Received { status, .. } => *status,
            Self::ConnectionFailed => 0,
        }
    }
}
