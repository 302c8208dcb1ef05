//! Which credentials are ready.

use crate::config::{Availability, Credential, Pool};
use crate::cooldown::Block;

/// Why no credential is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// There is none to choose from.
    NotFound,
    /// All of them wait for a quota; the first recovers at this time.
    RateLimited(u64),
    /// Some are blocked for another reason; the first that comes back by itself does so at this
    /// time.
    Unavailable(Option<u64>),
}

impl From<Block> for Unready {
    /// Why a pool of just this credential is not ready.
    fn from(block: Block) -> Self {
        why(&[block])
    }
}

/// The credentials among which a new session's is chosen, by id: the ready ones of the highest
/// priority. `block` tells why one may not be used; `tried` are those that this request has been
/// to.
///
/// # Errors
/// Why none is ready.
pub fn ready<'c>(
    pool: &'c Pool,
    tried: &[u64],
    block: impl Fn(&Credential) -> Option<Block>,
) -> Result<Vec<&'c Credential>, Unready> {
    let candidates: Vec<_> =
        pool.credentials.iter().filter(|it| !tried.contains(&it.fingerprint)).collect();
    let mut blocks = Vec::new();
    let mut ready: Vec<&Credential> = Vec::new();
    for &credential in &candidates {
        match if takes_new_sessions(credential) { block(credential) } else { Some(Block::Disabled) }
        {
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
pub fn bound(pool: &Pool, fingerprint: u64) -> Option<&Credential> {
    pool.credential(fingerprint)
        .filter(|credential| matches!(credential.state, Availability::Active | Availability::Drain))
}

/// Those among ready credentials that are enabled for WebSockets, or all if none is.
pub fn prefer_websockets(ready: Vec<&Credential>) -> Vec<&Credential> {
    let preferred: Vec<_> =
        ready.iter().copied().filter(|credential| credential.websockets).collect();
    if preferred.is_empty() { ready } else { preferred }
}

/// Whether new sessions may be bound to it.
pub fn takes_new_sessions(credential: &Credential) -> bool {
    credential.state == Availability::Active && credential.weight > 0
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
