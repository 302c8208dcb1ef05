//! How a stream was decided, and what its answer taught: one word each, the same in metrics, logs
//! and tests.

use std::fmt;

use crate::classify::Class;

/// Every way a decision can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The session's home serves again.
    Hit,
    /// A later turn took over the binding of the first one.
    Inherit,
    /// The home serves again, after a substitute did.
    Return,
    /// The home cannot serve now: another credential stands in.
    Substitute,
    /// The session has a new home: its old one is gone, or cold while the substitute is warm.
    Rebind,
    /// The session's prompt is certainly cached nowhere any more: it was placed anew.
    Cold,
    /// A new session got a credential.
    Miss,
    /// Nothing names a session, or affinity is off: the strategy chose, and nothing was bound.
    None,
    /// A credential was chosen, but the binding or the turn of the rotation could not be written:
    /// other workers wrote it in every attempt.
    Contended,
    /// No pool serves the request: it passes untouched.
    Unmatched,
    /// All credentials that may serve it wait for a quota: the client got 429.
    ModelCooldown,
    /// No credential that may serve it is ready: the client got 503.
    AuthUnavailable,
    /// The pool has no credential that the request has not tried: the client got 503.
    AuthNotFound,
}

impl Outcome {
    /// Every outcome, for defining the metrics.
    pub const ALL: [Self; 13] = [
        Self::Hit,
        Self::Inherit,
        Self::Return,
        Self::Substitute,
        Self::Rebind,
        Self::Cold,
        Self::Miss,
        Self::None,
        Self::Contended,
        Self::Unmatched,
        Self::ModelCooldown,
        Self::AuthUnavailable,
        Self::AuthNotFound,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Inherit => "inherit",
            Self::Return => "return",
            Self::Substitute => "substitute",
            Self::Rebind => "rebind",
            Self::Cold => "cold",
            Self::Miss => "miss",
            Self::None => "none",
            Self::Contended => "contended",
            Self::Unmatched => "unmatched",
            Self::ModelCooldown => "model_cooldown",
            Self::AuthUnavailable => "auth_unavailable",
            Self::AuthNotFound => "auth_not_found",
        }
    }
}

/// How failover within a request ended, where a credential failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failover {
    /// Another credential served it: the client noticed nothing.
    Served,
    /// The last credential that could be asked failed too: the client got an error.
    Exhausted,
    /// Another credential could have been asked, but Envoy made no further attempt: the body is
    /// larger than the buffer limit, or too many retries are under way.
    Abandoned,
}

impl Failover {
    /// Every end, for defining the metrics.
    pub const ALL: [Self; 3] = [Self::Served, Self::Exhausted, Self::Abandoned];
}

impl fmt::Display for Failover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Served => "served",
            Self::Exhausted => "exhausted",
            Self::Abandoned => "abandoned",
        })
    }
}

/// What an answer taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// What it said.
    Class(Class),
    /// Nothing that could be kept: other workers wrote the state of the credential in every
    /// attempt.
    Contended,
}

impl Observed {
    /// Everything that can be learnt, for defining the metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        Class::WORDS.iter().map(|(_, class)| Self::Class(*class)).chain([Self::Contended])
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Class(class) => class.as_str(),
            Self::Contended => "contended",
        })
    }
}
