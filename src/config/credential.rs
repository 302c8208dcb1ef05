//! Credentials: one way to a provider each.

use std::hash::Hasher;

use fnv::FnvHasher;
use serde_json::Value;

use super::Profile;
use super::fields::{Fields, Problems};

/// One way to a provider: an API key, a subscription, a workspace, a replica.
#[derive(Debug)]
pub struct Credential {
    /// Unique in its pool. Bindings name it, so it should outlive reorderings of the configuration.
    pub id: String,
    /// The cluster that serves it.
    pub cluster: String,
    /// Higher goes first. Envoy's own priorities run the other way.
    pub priority: i64,
    /// Credentials of one parent (an account, say) share a turn in round-robin.
    pub parent: Option<String>,
    /// Its share among credentials that take turns, 0 to 1,000,000; 0 takes no new session. Default 1.
    pub weight: u32,
    /// Whether errors block it; `None`: as `disable_cooling` at the top says.
    pub disable_cooling: Option<bool>,
    /// Preferred for WebSocket streams.
    pub websockets: bool,
    /// Whether it serves.
    pub state: State,
    /// What bindings store in place of the id.
    pub fingerprint: u64,
    /// The key of shared data under which its cooldowns are kept.
    pub cooldown_key: String,
}

/// Whether a credential serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serves bound and new sessions.
    Active,
    /// Serves the sessions bound to it until they go idle, and takes no new one.
    Drain,
    /// Serves none.
    Disabled,
}

impl Credential {
    pub(super) fn read(path: String, value: Value, profile: Profile, pool: &str, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(path, value, problems);
        let id = fields.required_word("id");
        let cluster = fields.required_word("cluster");
        let priority = match profile {
            Profile::Recommended => fields.integer("priority"),
            Profile::Reference => fields.attribute("priority").map(|text| reference_priority(&text)),
        };
        let weight = fields.integer_within("weight", 0, 1_000_000).unwrap_or(1) as u32;
        let disable_cooling = fields.boolean("disable_cooling");
        let parent = fields.string("parent").map(|parent| parent.trim().to_owned()).filter(|parent| !parent.is_empty());
        let websockets = fields.boolean("websockets").unwrap_or(false);
        let states = [("active", State::Active), ("drain", State::Drain), ("disabled", State::Disabled)];
        let state = fields.one_of("state", &states);
        fields.finish();
        Self {
            fingerprint: fingerprint(&[&id]),
            cooldown_key: format!("session_affinity/credential/{:016x}", fingerprint(&[pool, "\0", &id])),
            id,
            cluster,
            priority: priority.unwrap_or(0),
            parent,
            weight,
            disable_cooling,
            websockets,
            state: state.unwrap_or(State::Active),
        }
    }
}

/// FNV-1a. Ids are the operator's, so nobody gains by finding two that collide; that none of one pool do is checked
/// where the pool is read.
fn fingerprint(parts: &[&str]) -> u64 {
    let mut hasher = FnvHasher::default();
    parts.iter().for_each(|part| hasher.write(part.as_bytes()));
    hasher.finish()
}

/// A priority as the reference reads its attribute: a decimal number with an optional sign, blanks around it ignored;
/// anything else is 0.
fn reference_priority(text: &str) -> i64 {
    text.trim().parse().unwrap_or(0)
}
