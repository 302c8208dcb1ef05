//! Which credentials are ready.

use crate::config::{Credential, Pool, State};

/// The credential that a session is bound to, if it still serves bound sessions. An established binding outranks
/// priority: moving a conversation costs its prompt cache.
pub fn bound(pool: &Pool, fingerprint: u64) -> Option<&Credential> {
    let credential = pool.credentials.iter().find(|credential| credential.fingerprint == fingerprint)?;
    matches!(credential.state, State::Active | State::Drain).then_some(credential)
}

/// The credentials among which a new session's is chosen, by id: the ready ones of the highest priority. A WebSocket
/// stream prefers those among them that are enabled for WebSockets, if there are any.
pub fn ready(pool: &Pool, websocket: bool) -> Vec<&Credential> {
    let active = || pool.credentials.iter().filter(|credential| credential.state == State::Active);
    let highest = active().map(|credential| credential.priority).max();
    let ready: Vec<_> = active().filter(|credential| Some(credential.priority) == highest).collect();
    let preferred: Vec<_> = ready.iter().copied().filter(|credential| websocket && credential.websockets).collect();
    if preferred.is_empty() { ready } else { preferred }
}
