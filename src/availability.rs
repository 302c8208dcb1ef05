//! Which credentials are ready.

use crate::config::{Availability, Credential, CredentialId, Pool};
use crate::cooldown::Block;
use crate::time::Timestamp;

/// Why no credential is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// There is none to choose from.
    NotFound,
    /// All of them wait for a quota; the first recovers at this time.
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

/// The credentials among which a new session's is chosen, by id: the ready ones of the highest
/// priority. `block` returns why a credential may not be used.
///
/// # Errors
/// Why none is ready.
pub fn ready(
    pool: &Pool,
    block: impl Fn(&Credential) -> Option<Block>,
) -> Result<Vec<&Credential>, Unready> {
    let mut blocks = Vec::new();
    let mut ready: Vec<&Credential> = Vec::new();
    for credential in &pool.credentials {
        let block =
            if takes_new_sessions(credential) { block(credential) } else { Some(Block::Disabled) };
        match block {
            Some(block) => blocks.push(block),
            None => ready.push(credential),
        }
    }
    if ready.is_empty() {
        return Err(why(&blocks));
    }
    let highest = ready.iter().map(|credential| credential.priority).max();
    ready.retain(|credential| Some(credential.priority) == highest);
    Ok(ready)
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
    let first = blocks.iter().filter_map(|block| block.until()).min();
    match (blocks, first) {
        ([], _) => Unready::NotFound,
        (blocks, Some(first))
            if blocks.iter().all(|block| matches!(block, Block::RateLimited(_))) =>
        {
            Unready::RateLimited(first)
        }
        (_, first) => Unready::Unavailable(first),
    }
}
