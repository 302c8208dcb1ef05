//! Which conversation a request belongs to.
//!
//! Clients name their conversation in different places. The places are tried in the order of the reference, and the
//! first that says something decides:
//!
//! | # | place | session id |
//! |---|---|---|
//! | 1 | body `metadata.user_id` as Claude Code writes it | `claude:<id>` |
//! | 2 | header `X-Session-ID` | `header:<id>` |
//! | 3 | header `X-Amp-Thread-Id` | `amp:<id>` |
//! | 4 | body `metadata.user_id`, any other | `user:<id>` |
//! | 5 | body `conversation_id` | `conv:<id>` |
//! | 6 | hash of the first system, user and assistant texts | `msg:<16 hex digits>` |
//!
//! Only the hash changes as a conversation grows, and only once: the first turn has no assistant text yet. So it comes
//! with a fallback, the hash without that text, under which the first turn was bound.

mod claude;
mod message_hash;

use std::fmt;

pub use message_hash::hash as message_hash;

use crate::request::Request;

/// Where a session id was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Claude Code's session in `metadata.user_id`.
    Claude,
    /// The header `X-Session-ID`.
    Header,
    /// The header `X-Amp-Thread-Id`.
    Amp,
    /// `metadata.user_id` of any other client.
    User,
    /// `conversation_id` in the body.
    Conversation,
    /// The hash of the first messages.
    MessageHash,
}

impl Source {
    /// The word for logs, and the prefix of the session id, which keeps equal ids of different places apart.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Header => "header",
            Self::Amp => "amp",
            Self::User => "user",
            Self::Conversation => "conv",
            Self::MessageHash => "msg",
        }
    }
}

/// The identity of a conversation. It cannot be printed: ids belong to clients and reach no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    source: Source,
    id: Vec<u8>,
    fallback: Option<Vec<u8>>,
}

impl Session {
    /// The session of a request; `None` if nothing in it names one.
    pub fn identify(request: &Request<'_>) -> Option<Self> {
        let user_id = request.body.user_id.map(|value| value.text()).unwrap_or_default();
        let header = |name| request.headers.first(name).unwrap_or_default().to_vec();
        let conversation_id = || request.body.conversation_id.map(|value| value.text().into_owned());

        Self::named(Source::Claude, claude::session_of(&user_id).unwrap_or_default())
            .or_else(|| Self::named(Source::Header, header("x-session-id")))
            .or_else(|| Self::named(Source::Amp, header("x-amp-thread-id")))
            .or_else(|| Self::named(Source::User, user_id.to_vec()))
            .or_else(|| Self::named(Source::Conversation, conversation_id().unwrap_or_default()))
            .or_else(|| Self::hashed(request))
    }

    /// Where the id was found.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The id with its prefix: what a binding is kept under.
    pub fn primary(&self) -> Vec<u8> {
        self.prefixed(&self.id)
    }

    /// The id under which an earlier turn of the same conversation may have been bound.
    pub fn fallback(&self) -> Option<Vec<u8>> {
        self.fallback.as_deref().map(|id| self.prefixed(id))
    }

    fn named(source: Source, id: Vec<u8>) -> Option<Self> {
        (!id.is_empty()).then_some(Self { source, id, fallback: None })
    }

    fn hashed(request: &Request<'_>) -> Option<Self> {
        let (id, fallback) = message_hash::FirstTexts::of(&request.body).hashes()?;
        Some(Self { source: Source::MessageHash, id: id.into_bytes(), fallback: fallback.map(String::into_bytes) })
    }

    fn prefixed(&self, id: &[u8]) -> Vec<u8> {
        [self.source.as_str().as_bytes(), b":", id].concat()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("source", &self.source).finish_non_exhaustive()
    }
}
