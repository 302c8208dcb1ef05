//! How a stream was decided, and what its answer taught: one word each, the same in metrics, logs and tests.

use std::fmt;

use crate::cooldown::Class;

/// Every way a decision can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The session's credential serves again.
    Hit,
    /// A later turn took over the binding of the first one.
    Inherit,
    /// The session's credential no longer serves: it got another one.
    Rebind,
    /// A new session got a credential.
    Miss,
    /// Nothing names a session, or affinity is off: the strategy chose, and nothing was bound.
    None,
    /// A credential was chosen, but the binding or the turn of the rotation could not be written: other workers wrote it
    /// in every attempt.
    Contended,
    /// No pool serves the request: it passes untouched.
    Unmatched,
    /// All credentials of the pool wait for a quota: the client got 429.
    ModelCooldown,
    /// No credential of the pool is ready: the client got 503.
    AuthUnavailable,
    /// The pool has no credential that the request has not tried: the client got 503.
    AuthNotFound,
}

impl Outcome {
    /// Every outcome, for defining the metrics.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Inherit,
        Self::Rebind,
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
            Self::Rebind => "rebind",
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

/// What an answer taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// What it said.
    Class(Class),
    /// Nothing that could be kept: other workers wrote the state of the credential in every attempt.
    Contended,
}

impl Learnt {
    /// Everything that can be learnt, for defining the metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        Class::WORDS.iter().map(|(_, class)| Self::Class(*class)).chain([Self::Contended])
    }
}

impl fmt::Display for Learnt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Class(class) => class.as_str(),
            Self::Contended => "contended",
        })
    }
}
