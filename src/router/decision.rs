//! What the decisions of the router come to, as plain data.

use std::fmt::{self, Write};

use super::StateUse;
use crate::api::Api;
use crate::availability::Unready;
use crate::config::{Credential, Pool};
use crate::cooldown::{Block, Change};
use crate::duration::short;
use crate::hash::KeyHash;
use crate::operation::Operation;
use crate::outcome::{Absence, Observed, Outcome};
use crate::reply::{self, LocalReply};
use crate::target::Target;
use crate::time::Timestamp;

/// Bytes of the words for a usual decision.
const WORDS: usize = 192;

/// The decision for a request.
#[derive(Clone, Debug)]
pub enum Decision<'c> {
    /// It goes to a credential.
    Route(Route<'c>),
    /// The filter responds itself, because no credential may serve it.
    Reply(Refusal<'c>),
    /// No pool serves it: the rest of Envoy's configuration decides.
    Pass,
}

/// A request on its way to a credential.
#[derive(Clone, Debug)]
pub struct Route<'c> {
    /// The pool that serves it.
    pub pool: &'c Pool,
    /// The credential that was chosen.
    pub credential: &'c Credential,
    /// The credentials to try if it fails, in order.
    pub others: Vec<&'c Credential>,
    /// The API that the client speaks.
    pub api: Api,
    /// What is asked for.
    pub operation: Operation,
    /// The model as the client wrote it; empty if it is not known.
    pub model: String,
    /// How the credential was selected.
    pub outcome: Outcome,
    /// Where the session was found, and the hash it is bound under.
    pub session: Option<(&'c str, KeyHash)>,
    /// What the request has to do with state that a provider keeps.
    pub state: StateUse,
    /// When its session was last used before; `None` for a new one.
    pub used: Option<Timestamp>,
    /// The credential that would serve it if it could, and why it does not. It has no name if it is
    /// not configured.
    pub absent: Option<(Option<&'c Credential>, Absence)>,
    /// Whether it is sent in spite of a cooldown, to see whether that still holds.
    pub is_probe: bool,
    /// The credentials that were found blocked.
    pub blocked: Vec<(&'c Credential, Block)>,
    /// When the decision was made.
    pub decided: Timestamp,
}

/// A request to which the filter responds itself.
#[derive(Clone, Debug)]
pub struct Refusal<'c> {
    /// Why no credential may serve it.
    pub unready: Unready,
    /// The pool that would serve it.
    pub pool: &'c Pool,
    /// Where the session was found, and the hash it is bound under.
    pub session: Option<(&'c str, KeyHash)>,
    /// The response.
    pub reply: LocalReply,
    /// The credentials that were found blocked.
    pub blocked: Vec<(&'c Credential, Block)>,
    /// When the decision was made.
    pub decided: Timestamp,
}

/// What a response means.
#[derive(Clone, Debug)]
pub struct Verdict<'c> {
    /// What was observed.
    pub observed: Observed,
    /// The credential to retry on, in place of this response.
    pub next: Option<&'c Credential>,
    /// The cooldowns that began or ended, for the log.
    pub changes: Vec<(&'c Credential, Change)>,
    /// Whether a request was served that carries what, as far as is known, only another group of
    /// credentials can read.
    pub has_left_group: bool,
}

impl<'c> Refusal<'c> {
    /// A request that does not say which tenant it belongs to.
    pub(super) fn without_tenant(target: &Target<'c>, now: Timestamp) -> Self {
        Self {
            unready: Unready::NotFound,
            pool: target.pool,
            session: None,
            reply: reply::unauthorized(target),
            blocked: Vec::new(),
            decided: now,
        }
    }
}

impl Decision<'_> {
    /// What [`Display`](fmt::Display) shows, in memory that need not grow.
    pub fn words(&self) -> String {
        let mut words = String::with_capacity(WORDS);
        let _never_fails = write!(words, "{self}");
        words
    }

    /// Label for metrics and logs.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Route(route) => route.outcome,
            Self::Reply(Refusal { unready: Unready::RateLimited(_), .. }) => Outcome::ModelCooldown,
            Self::Reply(Refusal { reply: LocalReply { status: 401, .. }, .. }) => {
                Outcome::Unauthorized
            }
            Self::Reply(_) => Outcome::AuthUnavailable,
            Self::Pass => Outcome::Unmatched,
        }
    }
}

/// What access logs and the debug log show: `outcome=substitute source=header pool=openai
/// credential=openai-b gen_ai.conversation.id=1f9c03b7 idle=40s home=openai-a why=rate_limit
/// out=openai-a:rate_limit:12s`. A session is shown by a few digits of its hash only, under the name
/// that OpenTelemetry has for it.
impl fmt::Display for Decision<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(formatter, &["outcome=", self.outcome().as_str()])?;
        match self {
            Self::Route(route) => {
                write_source(formatter, route.session)?;
                let (pool, credential) = (&route.pool.name, &route.credential.id);
                write_all(formatter, &[" pool=", pool, " credential=", credential])?;
                write_session(formatter, route.session)?;
                if let Some(used) = route.used {
                    write_all(formatter, &[" idle=", &short(route.decided.since(used))])?;
                }
                if let Some((home, why)) = route.absent {
                    let home = home.map_or("-", |home| home.id.as_str());
                    write_all(formatter, &[" home=", home, " why=", why.as_str()])?;
                }
                let state = route.state.references.first().and_then(|it| it.kind.kind());
                if let Some(kind) = state {
                    write_all(formatter, &[" state=", kind.name])?;
                }
                write_blocked(formatter, &route.blocked, route.decided)
            }
            Self::Reply(refusal) => {
                write_source(formatter, refusal.session)?;
                write_all(formatter, &[" pool=", &refusal.pool.name])?;
                write_session(formatter, refusal.session)?;
                if let Some(seconds) = refusal.reply.retry_after {
                    write!(formatter, " retry_after={seconds}s")?;
                }
                write_blocked(formatter, &refusal.blocked, refusal.decided)
            }
            Self::Pass => Ok(()),
        }
    }
}

/// Every request has these words, so they are put together without the machinery of formats.
fn write_all(formatter: &mut fmt::Formatter<'_>, parts: &[&str]) -> fmt::Result {
    parts.iter().try_for_each(|part| formatter.write_str(part))
}

fn write_source(
    formatter: &mut fmt::Formatter<'_>,
    session: Option<(&str, KeyHash)>,
) -> fmt::Result {
    session.map_or(Ok(()), |(source, _)| write_all(formatter, &[" source=", source]))
}

fn write_session(
    formatter: &mut fmt::Formatter<'_>,
    session: Option<(&str, KeyHash)>,
) -> fmt::Result {
    session
        .map_or(Ok(()), |(_, key)| write!(formatter, " gen_ai.conversation.id={:08x}", key.tag()))
}

fn write_blocked(
    formatter: &mut fmt::Formatter<'_>,
    blocked: &[(&Credential, Block)],
    now: Timestamp,
) -> fmt::Result {
    for (at, (credential, block)) in blocked.iter().enumerate() {
        let separator = if at == 0 { " out=" } else { "," };
        write_all(formatter, &[separator, &credential.id])?;
        match block {
            Block::RateLimited { class, until, .. } | Block::Failing { class, until } => {
                write_all(formatter, &[":", class.as_str(), ":", &short(until.since(now))])?;
            }
            Block::Disabled => formatter.write_str(":disabled")?,
            Block::Draining => formatter.write_str(":drain")?,
        }
    }
    Ok(())
}
