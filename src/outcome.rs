//! How a stream was decided: one word, the same in metrics, logs and tests.

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
    /// A credential was chosen but not bound: other workers wrote the same row of bindings in every attempt.
    Contended,
    /// No pool serves the request: it passes untouched.
    Unmatched,
    /// No credential of the pool is ready: the client got an error.
    Unavailable,
}

impl Outcome {
    /// Every outcome, for defining the metrics.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Inherit,
        Self::Rebind,
        Self::Miss,
        Self::None,
        Self::Contended,
        Self::Unmatched,
        Self::Unavailable,
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
            Self::Unavailable => "unavailable",
        }
    }
}
