//! Cooldowns as the reference has them, for the profile `reference`. Recorded scenarios judge every
//! detail; what the profile `recommended` does better is in [`super`].

mod class;
mod state;

use std::time::Duration;

pub use class::depends_on_message;
pub use state::{ReferenceState, ReferenceStates};

use super::{Block, WHOLE};
use crate::config::{CooldownConfig, Credential};
use crate::hash::{KeyHash, Seed};
use crate::shared::{self, SharedData, Updated};
use crate::signals::Class;
use crate::target::canonical;
use crate::time::Timestamp;

/// The longest window of the back-off.
const LONGEST_BACKOFF: Duration = Duration::from_mins(30);

/// The first window of the back-off; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// What came of an attempt to serve a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The status of the response; 0 if there was none.
    pub status: u16,
    /// The beginning of the response's body, where [`depends_on_message`] says that it counts.
    pub message: String,
    /// How long the provider wants to be left alone.
    pub wait: Option<Duration>,
}

/// The cooldowns of all credentials in the profile `reference`.
#[derive(Clone, Copy)]
pub struct ReferenceCooldowns<'c> {
    pub config: &'c CooldownConfig,
    /// What keys the hashes of models.
    pub seed: Seed,
}

impl ReferenceCooldowns<'_> {
    /// Why a credential may not be used for a model now; `None` if it may. With a model only its
    /// own state counts, else that of the model without suffix; without a model only the
    /// credential's.
    pub fn block(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        model: &str,
        now: Timestamp,
    ) -> Option<Block> {
        let states = ReferenceStates::decode(&shared.get(&credential.cooldown_key).value);
        let state = match states.get(self.model_key(model)) {
            None if !model.is_empty() => states.get(self.model_key(canonical(model))),
            state => state,
        };
        state?.block(now)
    }

    /// Learns from how an attempt ended. Returns its class, and whether what changed was written.
    pub fn learn(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        model: &str,
        observation: &Observation,
        now: Timestamp,
    ) -> Updated<Class> {
        let class = self.class_of(observation);
        let cooling_disabled = credential.disable_cooling.unwrap_or(self.config.cooling_disabled);
        shared::update(shared, &credential.cooldown_key, |value| {
            let before = ReferenceStates::decode(value);
            let mut states = before.clone();
            self.apply(&mut states, model, class, observation.wait, cooling_disabled, now);
            ((states != before).then(|| states.encode()), class)
        })
    }

    /// The class of a response: as configured for its status, else the reference's.
    fn class_of(&self, observation: &Observation) -> Class {
        let configured = self.config.class_of_status(observation.status);
        configured.unwrap_or_else(|| class::of(observation.status, &observation.message))
    }

    /// The hash under which the state of a model is kept.
    pub fn model_key(&self, model: &str) -> KeyHash {
        if model.is_empty() { WHOLE } else { self.seed.hash(&[model.as_bytes()]) }
    }

    fn apply(
        &self,
        states: &mut ReferenceStates,
        model: &str,
        class: Class,
        wait: Option<Duration>,
        cooling_disabled: bool,
        now: Timestamp,
    ) {
        let key = self.model_key(model);
        let mut state = states.get(key).unwrap_or_default();
        let fixed = match class {
            Class::Success => {
                state = ReferenceState::default();
                None
            }
            Class::NotSupported | Class::NotFound => Some(Duration::from_hours(12)),
            Class::Denied => Some(Duration::from_mins(30)),
            Class::Transient | Class::Overloaded => Some(Duration::from_mins(1)),
            Class::Unclear => None,
            Class::RateLimit => {
                let next = if cooling_disabled { None } else { wait };
                next.or_else(|| (!cooling_disabled).then(|| backoff(&mut state.level)))
            }
            Class::RequestFault | Class::Elsewhere | Class::NotHere => return,
        };
        // A model that an account does not have is blocked even where errors block nothing.
        let blocks = !cooling_disabled || class == Class::NotSupported;
        state.retry_at = fixed.filter(|_| blocks).map(|length| now + length);
        state.unavailable = class != Class::Success;
        if class == Class::RateLimit {
            state.exceeded = true;
            state.recover_at = state.retry_at;
        }
        states.set(key, state, now);
        if key != WHOLE {
            aggregate(states, now);
        }
    }
}

/// The next window of the back-off; the level rises until the longest window is reached.
fn backoff(level: &mut u8) -> Duration {
    let length = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(u32::from(*level)));
    if length >= LONGEST_BACKOFF {
        return LONGEST_BACKOFF;
    }
    *level += 1;
    length
}

/// A credential as a whole is what its models are: blocked if all of them are, until the first
/// recovers. Blocks that are over are cleared on the way.
fn aggregate(states: &mut ReferenceStates, now: Timestamp) {
    let mut whole = ReferenceState { unavailable: true, ..ReferenceState::default() };
    for state in states.models_mut() {
        let is_over = state.retry_at.is_some_and(|retry_at| retry_at <= now);
        if state.unavailable && !state.disabled && is_over {
            state.unavailable = false;
            state.retry_at = None;
        }
        let blocks = state.disabled || (state.unavailable && state.retry_at.is_some());
        whole.unavailable &= blocks;
        whole.retry_at =
            earliest(whole.retry_at, state.retry_at.filter(|_| blocks && !state.disabled));
        if state.exceeded {
            whole.exceeded = true;
            whole.recover_at = earliest(whole.recover_at, state.recover_at);
            whole.level = whole.level.max(state.level);
        }
    }
    if !whole.unavailable {
        whole.retry_at = None;
    }
    states.set(WHOLE, whole, now);
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
