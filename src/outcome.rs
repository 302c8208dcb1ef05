//! How requests were decided and attempts ended: one closed enum each, whose words are metric
//! labels, log words and test assertions alike.

use std::fmt;

use crate::signals::Class;

/// Every way a decision can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The session's home serves again.
    Hit,
    /// The request refers to state of the provider, and the credential serves that has it.
    Pinned,
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
    /// No credential is ready, but none waits for an announced end alone: the most promising one is
    /// tried.
    Probe,
    /// Nothing names a session, or affinity is off: the strategy chose, and nothing was bound.
    None,
    /// A credential was chosen, but the binding or the turn of the rotation could not be written:
    /// other workers wrote it in every try.
    Contended,
    /// No pool serves the request: it passes untouched.
    Unmatched,
    /// All credentials that may serve it wait for an announced end: the client got 429.
    ModelCooldown,
    /// No credential may serve it: the client got 503.
    AuthUnavailable,
    /// The request lacks a part of the scope that is required: the client got 401.
    Unauthorized,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 15] = [
        Self::Hit,
        Self::Pinned,
        Self::Inherit,
        Self::Return,
        Self::Substitute,
        Self::Rebind,
        Self::Cold,
        Self::Miss,
        Self::Probe,
        Self::None,
        Self::Contended,
        Self::Unmatched,
        Self::ModelCooldown,
        Self::AuthUnavailable,
        Self::Unauthorized,
    ];

    /// Whether the filter sends the request to a credential.
    pub fn is_sent(self) -> bool {
        !matches!(
            self,
            Self::Unmatched | Self::ModelCooldown | Self::AuthUnavailable | Self::Unauthorized
        )
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Pinned => "pinned",
            Self::Inherit => "inherit",
            Self::Return => "return",
            Self::Substitute => "substitute",
            Self::Rebind => "rebind",
            Self::Cold => "cold",
            Self::Miss => "miss",
            Self::Probe => "probe",
            Self::None => "none",
            Self::Contended => "contended",
            Self::Unmatched => "unmatched",
            Self::ModelCooldown => "model_cooldown",
            Self::AuthUnavailable => "auth_unavailable",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// How failover within a request ended, where a credential failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failover {
    /// Another credential served the request: the client noticed nothing.
    Served,
    /// The last credential that could be tried failed too: the client got an error.
    Exhausted,
    /// Another credential could have been tried, but Envoy made no further attempt: the body is
    /// larger than the buffer limit, or too many retries are under way.
    Abandoned,
}

impl Failover {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Served, Self::Exhausted, Self::Abandoned];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Exhausted => "exhausted",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why the home of a session does not serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is in a cooldown, because of responses of this class; `None` where the configuration
    /// disables it.
    Blocked(Option<Class>),
    /// It has just failed this session.
    Failed,
    /// It is not configured any more, or takes no sessions, or has never served this one.
    Gone,
    /// The prompt is no longer cached there.
    Cold,
}

impl Absence {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked(Some(class)) => class.as_str(),
            Self::Blocked(None) => "disabled",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Cold => "cold",
        }
    }
}

/// What really became of a request that was only watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actual {
    /// The credential served it that had served its session before.
    Same,
    /// Another one did.
    Moved,
    /// Its session was not served before.
    New,
    /// It got an error.
    Failed,
    /// It has no session, or was not seen at the cluster of one credential.
    Unknown,
}

impl Actual {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Moved => "moved",
            Self::New => "new",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What a credential can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// Serve everything.
    Ready,
    /// Serve, but not every model.
    Partly,
    /// Nothing: all of it is in a cooldown.
    Blocked,
    /// Serve the sessions that it has.
    Draining,
    /// Nothing: the configuration says so.
    Disabled,
}

impl CredentialState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Partly, Self::Blocked, Self::Draining, Self::Disabled];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Partly => "partly_blocked",
            Self::Blocked => "blocked",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// Tokens that a provider processes, by what it does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Of the prompt, processed from scratch and not kept.
    Input,
    /// Of the prompt, read from a cache.
    CacheRead,
    /// Of the prompt, processed and kept in a cache.
    CacheWrite,
    /// Of the answer.
    Output,
}

impl TokenType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Input, Self::CacheRead, Self::CacheWrite, Self::Output];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::Output => "output",
        }
    }
}

/// What was observed of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The class of its response.
    Class(Class),
    /// Nothing that could be kept: other workers wrote the record of the credential in every try.
    Contended,
}

impl Observed {
    /// Everything that can be observed.
    pub fn all() -> impl Iterator<Item = Self> {
        Class::ALL.into_iter().map(Self::Class).chain([Self::Contended])
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::Contended => "contended",
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
