//! Which credentials are ready.

use crate::config::{Availability, Credential, CredentialId, Pool};
use crate::cooldown::Block;
use crate::time::Timestamp;

/// Why no credential is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// There is none to choose from.
    NotFound,
    /// All of them wait for an announced end; the first may be tried again at this time.
    RateLimited(Timestamp),
    /// Some are blocked for another reason; the first that comes back by itself does so at this
    /// time.
    Unavailable(Option<Timestamp>),
}

impl From<Block> for Unready {
    /// Why a pool of just this credential is not ready.
    fn from(block: Block) -> Self {
        why(&[block])
    }
}

/// The credentials of a pool that may get new sessions, each with its block if it has one.
pub struct Candidates<'c> {
    list: Vec<(&'c Credential, Option<Block>)>,
    has_unavailable: bool,
}

impl<'c> Candidates<'c> {
    /// The candidates of a pool; `block` returns why a credential may not be used.
    pub fn of(pool: &'c Pool, mut block: impl FnMut(&'c Credential) -> Option<Block>) -> Self {
        let list: Vec<_> = (pool.credentials.iter())
            .filter(|credential| takes_new_sessions(credential))
            .map(|credential| (credential, block(credential)))
            .filter(|(_, block)| !matches!(block, Some(Block::Disabled | Block::Draining)))
            .collect();
        let has_unavailable = list.len() < pool.credentials.len();
        Self { list, has_unavailable }
    }

    /// The candidates among which a new session's credential is chosen, by id: the ready ones of
    /// the highest priority.
    ///
    /// # Errors
    /// Why none is ready.
    pub fn ready(&self) -> Result<Vec<&'c Credential>, Unready> {
        let ready = self.list.iter().filter(|(_, block)| block.is_none());
        let ready = highest(ready.map(|(credential, _)| *credential).collect());
        if !ready.is_empty() {
            return Ok(ready);
        }
        let mut blocks: Vec<_> = self.list.iter().filter_map(|(_, block)| *block).collect();
        blocks.extend(self.has_unavailable.then_some(Block::Disabled));
        Err(why(&blocks))
    }

    /// The last resort where no candidate is ready: those that are blocked by no announced end,
    /// each with the end of its block, by id.
    pub fn last_resort(&self) -> Vec<(&'c Credential, Timestamp)> {
        self.list
            .iter()
            .filter_map(|(credential, block)| match block {
                Some(Block::Failing { until, .. }) => Some((*credential, *until)),
                _ => None,
            })
            .collect()
    }

    /// When the first announced end comes, if all candidates wait for one.
    pub fn announced(&self) -> Option<Timestamp> {
        let retries: Option<Vec<_>> = self
            .list
            .iter()
            .map(|(_, block)| match block {
                Some(Block::RateLimited { retry_at, .. }) => Some(*retry_at),
                _ => None,
            })
            .collect();
        retries?.into_iter().min()
    }
}

/// Those of the highest priority.
pub fn highest(mut candidates: Vec<&Credential>) -> Vec<&Credential> {
    let highest = candidates.iter().map(|credential| credential.priority).max();
    candidates.retain(|credential| Some(credential.priority) == highest);
    candidates
}

/// The credential that a session is bound to, if the configuration lets it serve bound sessions.
pub fn bound(pool: &Pool, id: CredentialId) -> Option<&Credential> {
    pool.credential(id).filter(|credential| credential.availability != Availability::Disabled)
}

/// Those among ready credentials that are enabled for WebSockets, or all if none is.
pub fn prefer_websockets(ready: Vec<&Credential>) -> Vec<&Credential> {
    let preferred: Vec<_> =
        ready.iter().copied().filter(|credential| credential.websockets).collect();
    if preferred.is_empty() { ready } else { preferred }
}

/// Whether new sessions may be bound to it.
pub fn takes_new_sessions(credential: &Credential) -> bool {
    credential.availability == Availability::Active && credential.weight > 0
}

fn why(blocks: &[Block]) -> Unready {
    let first = blocks.iter().filter_map(|block| block.retry_at()).min();
    match (blocks, first) {
        ([], _) => Unready::NotFound,
        (blocks, Some(first))
            if blocks.iter().all(|block| matches!(block, Block::RateLimited { .. })) =>
        {
            Unready::RateLimited(first)
        }
        (_, first) => Unready::Unavailable(first),
    }
}
