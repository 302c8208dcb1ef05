//! What the two decisions of the router come to, as plain data.

use std::fmt;

use crate::api::Api;
use crate::availability::Unready;
use crate::config::{Credential, Pool};
use crate::hash::KeyHash;
use crate::outcome::{Observed, Outcome};
use crate::reply::LocalReply;

/// What is to become of a request.
#[derive(Clone, Debug)]
pub enum Decision<'c> {
    /// It goes to a credential.
    Route(Route<'c>),
    /// The filter answers it, because no credential is ready.
    Reply(Unready, LocalReply),
    /// No pool serves it: the rest of Envoy's configuration decides.
    Pass,
}

impl Decision<'_> {
    /// The word for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Route(route) => route.outcome,
            Self::Reply(Unready::RateLimited(_), _) => Outcome::ModelCooldown,
            Self::Reply(Unready::Unavailable(_), _) => Outcome::AuthUnavailable,
            Self::Reply(Unready::NotFound, _) => Outcome::AuthNotFound,
            Self::Pass => Outcome::Unmatched,
        }
    }
}

/// What access logs and the debug log say: `outcome=hit source=header pool=openai
/// credential=openai-a session=1f9c03b7`. A session is told by a few digits of its hash only.
impl fmt::Display for Decision<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "outcome={}", self.outcome().as_str())?;
        let Self::Route(route) = self else {
            return Ok(());
        };
        if let Some((source, _)) = route.session {
            write!(formatter, " source={source}")?;
        }
        write!(formatter, " pool={} credential={}", route.pool.name, route.credential.id)?;
        match route.session {
            Some((_, key)) => write!(formatter, " session={:08x}", key.tag()),
            None => Ok(()),
        }
    }
}

/// A request on its way to a credential.
#[derive(Clone, Debug)]
pub struct Route<'c> {
    /// The pool that serves it.
    pub pool: &'c Pool,
    /// The credential that was chosen.
    pub credential: &'c Credential,
    /// Who may be asked if it fails, in order.
    pub others: Vec<&'c Credential>,
    /// The API that the client speaks.
    pub api: Api,
    /// The model as the client wrote it; empty if it is not known.
    pub model: String,
    /// Why this one.
    pub outcome: Outcome,
    /// Where the session was found, and the hash it is bound under.
    pub session: Option<(&'c str, KeyHash)>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'c> {
    /// What was learnt from it.
    pub observed: Observed,
    /// Whom to ask in place of this answer.
    pub next: Option<&'c Credential>,
}
