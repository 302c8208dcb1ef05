//! Cooldowns: what answers teach about credentials, and which credentials are blocked by it.
//!
//! An answer is put into a class ([`Class`]), and the class says what changes: a rate limit blocks
//! for as long as the provider says or by a back-off that doubles, a refused key for half an hour,
//! an overload for a minute, a success ends it all. What is known is kept for a credential and a
//! model, because providers limit by model; where the model is not known, or the limit is the
//! account's, for the credential as a whole.

mod hint;
mod state;

pub use hint::{is_for_the_whole_credential, wait};
pub use state::{Block, MODELS, ModelState, ModelStates, WHOLE};

use std::time::Duration;

use crate::classify::Class;
use crate::config::{CooldownConfig, Credential, Profile};
use crate::hash::{KeyHash, Seed};
use crate::shared::{self, SharedData, Updated};
use crate::target::canonical;
use crate::time::Timestamp;

/// The longest window of the back-off.
const LONGEST_BACKOFF: Duration = Duration::from_mins(30);

/// The first window of the back-off; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// What came of an attempt to serve a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// The beginning of the answer's body, where [`depends_on_message`] says that it counts.
    pub message: String,
    /// How long the provider wants to be left alone.
    pub wait: Option<Duration>,
    /// Whether a limit of the whole credential was hit.
    pub whole: bool,
    /// When the request was sent on its way. A success that set out before a block began does not
    /// end it.
    pub sent: Timestamp,
}

/// An answer, and what it is measured by.
struct Lesson<'a> {
    model: &'a str,
    class: Class,
    observation: &'a Observation,
    /// Whether errors block nothing here.
    cooling_disabled: bool,
    now: Timestamp,
}

/// The cooldowns of all credentials.
#[derive(Clone, Copy)]
pub struct Cooldowns<'c> {
    /// Whose rules.
    pub profile: Profile,
    /// The section `cooldown`.
    pub config: &'c CooldownConfig,
    /// What keys the hashes of models.
    pub seed: Seed,
}

impl Cooldowns<'_> {
    /// Why a credential may not be used for a model now; `None` if it may.
    pub fn block(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        model: &str,
        now: Timestamp,
    ) -> Option<Block> {
        let states = ModelStates::decode(&shared.get(&credential.cooldown_key).value);
        match self.profile {
            Profile::Recommended => self.block_recommended(&states, model, now),
            Profile::Reference => self.block_reference(&states, model, now),
        }
    }

    /// Learns from an answer; gives its class, and whether what changed, if anything did, was
    /// written.
    pub fn learn(
        &self,
        shared: &impl SharedData,
        credential: &Credential,
        model: &str,
        observation: &Observation,
        now: Timestamp,
    ) -> Updated<Class> {
        let class = self.class_of(observation);
        let cooling_disabled = credential.disable_cooling.unwrap_or(self.config.disabled);
        let lesson = Lesson { model, class, observation, cooling_disabled, now };
        shared::update(shared, &credential.cooldown_key, |value| {
            let mut states = ModelStates::decode(value);
            let before = states.clone();
            match self.profile {
                Profile::Recommended => self.learn_recommended(&mut states, &lesson),
                Profile::Reference => self.learn_reference(&mut states, &lesson),
            }
            ((states != before).then(|| states.encode()), class)
        })
    }

    /// The class of an answer: as configured for its status, else as the profile has it.
    fn class_of(&self, observation: &Observation) -> Class {
        let configured =
            self.config.statuses.iter().find(|(status, _)| *status == observation.status);
        match (configured, self.profile) {
            (Some((_, class)), _) => *class,
            (None, Profile::Recommended) => Class::of(observation.status, &observation.message),
            (None, Profile::Reference) => {
                Class::of_reference(observation.status, &observation.message)
            }
        }
    }

    /// The hash under which the state for a model is kept.
    pub fn model_key(&self, model: &str) -> KeyHash {
        if model.is_empty() { WHOLE } else { self.seed.hash(&[model.as_bytes()]) }
    }

    fn block_recommended(
        &self,
        states: &ModelStates,
        model: &str,
        now: Timestamp,
    ) -> Option<Block> {
        let of = |key: KeyHash| states.get(key).and_then(|state| state.block(now));

        [of(WHOLE), of(self.model_key(canonical(model)))]
            .into_iter()
            .flatten()
            .max_by_key(|block| block.until().unwrap_or(Timestamp::MAX))
    }

    /// With a model only its own state counts, else that of the model without suffix; without a
    /// model only the credential's.
    fn block_reference(&self, states: &ModelStates, model: &str, now: Timestamp) -> Option<Block> {
        let exact = states.get(self.model_key(model));
        let base = || states.get(self.model_key(canonical(model))).filter(|_| !model.is_empty());
        exact.or_else(base)?.block(now)
    }

    fn learn_recommended(&self, states: &mut ModelStates, lesson: &Lesson<'_>) {
        let &Lesson { model, class, observation, cooling_disabled, now } = lesson;
        let of_model = self.model_key(canonical(model));
        let (key, length) = match class {
            Class::Success => {
                states.forget(of_model, observation.sent);
                return states.forget(WHOLE, observation.sent);
            }
            Class::RequestFault | Class::Unclear => return,
            // Without a model nobody knows what was not found.
            Class::NotSupported | Class::NotFound if of_model == WHOLE => return,
            Class::NotSupported => (of_model, Some(self.config.not_found)),
            _ if cooling_disabled => return,
            Class::NotFound => (of_model, Some(self.config.not_found)),
            // A key that is refused is refused for every model.
            Class::Denied => (WHOLE, Some(self.config.denied)),
            Class::Transient => (of_model, Some(observation.wait.unwrap_or(self.config.transient))),
            Class::RateLimit => {
                (if observation.whole { WHOLE } else { of_model }, observation.wait)
            }
        };
        let mut state = states.get(key).unwrap_or_default();
        let is_open = state.block(now).is_some();
        let length = match length {
            Some(length) if matches!(class, Class::RateLimit | Class::Transient) => {
                length.min(self.config.max)
            }
            Some(length) => length,
            // The back-off rises once a window, however many requests were on their way when it
            // opened.
            None if is_open => return,
            None => backoff(&mut state.level).min(self.config.max),
        };
        let until = now + length;
        if !is_open || state.retry_at < Some(until) {
            state.unavailable = true;
            state.retry_at = Some(until);
            state.exceeded = class == Class::RateLimit;
        }
        states.set(key, state, now);
    }

    fn learn_reference(&self, states: &mut ModelStates, lesson: &Lesson<'_>) {
        let &Lesson { model, class, observation, cooling_disabled, now } = lesson;
        let key = self.model_key(model);
        let mut state = states.get(key).unwrap_or_default();
        let block_for = |length: Duration| (!cooling_disabled).then(|| now + length);
        match class {
            Class::Success => state = ModelState::default(),
            Class::RequestFault => return,
            Class::NotSupported => state.retry_at = Some(now + Duration::from_hours(12)),
            Class::NotFound => state.retry_at = block_for(Duration::from_hours(12)),
            Class::Denied => state.retry_at = block_for(Duration::from_mins(30)),
            Class::Transient => state.retry_at = block_for(Duration::from_mins(1)),
            Class::Unclear => state.retry_at = None,
            Class::RateLimit => {
                let length = |level: &mut u8| observation.wait.unwrap_or_else(|| backoff(level));
                state.retry_at =
                    if cooling_disabled { None } else { Some(now + length(&mut state.level)) };
                state.exceeded = true;
                state.recover_at = state.retry_at;
            }
        }
        state.unavailable = class != Class::Success;
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

/// In the reference a credential as a whole is what its models are: blocked if all of them are,
/// until the first recovers. Blocks that are over are cleared on the way.
fn aggregate(states: &mut ModelStates, now: Timestamp) {
    let mut whole = ModelState { unavailable: true, ..ModelState::default() };
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
