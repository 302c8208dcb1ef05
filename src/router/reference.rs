//! How the profile `reference` learns from responses: every one at once, by its status.

use super::{AttemptResult, Plan, Router, Verdict};
use crate::config::Credential;
use crate::cooldown::{Observation, ReferenceCooldowns};
use crate::outcome::Observed;
use crate::response::Response;
use crate::shared::SharedData;
use crate::signals::Class;
use crate::time::Timestamp;

impl Router {
    /// The cooldowns of the profile `reference`.
    pub fn reference_cooldowns(&self) -> ReferenceCooldowns<'_> {
        ReferenceCooldowns { config: &self.config.cooldown, seed: self.seed }
    }

    pub(super) fn observe_as_the_reference<'c>(
        &'c self,
        plan: &mut Plan,
        credential: &'c Credential,
        response: &Response<'_>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Verdict<'c> {
        let body = match response {
            Response::Received { body, .. } => body,
            _ => &[][..],
        };
        // The reference leaves it to each provider's client to find out when it may retry.
        let message = String::from_utf8_lossy(body).into_owned();
        let observation = Observation { status: response.status(), message, wait: None };
        let cooldowns = self.reference_cooldowns();
        let updated = cooldowns.learn(shared, credential, &plan.model, &observation, now);
        let class = updated.result;
        let observed = if updated.written { Observed::Class(class) } else { Observed::Contended };
        let (result, next) = match class {
            Class::Success => (AttemptResult::Served, None),
            class if fails_over(class, observation.status) => {
                (AttemptResult::Failed, self.next_in_the_reference(plan, shared, now))
            }
            _ => (AttemptResult::ClientError, None),
        };
        plan.result = Some(result);
        plan.next = next.map(|next| next.fingerprint);
        Verdict { observed, next, changes: Vec::new(), has_left_group: false }
    }

    fn next_in_the_reference<'c>(
        &'c self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Option<&'c Credential> {
        let pool = self.pool_of(plan)?;
        if plan.attempts == 0 || plan.attempts >= plan.max_attempts {
            return None;
        }
        while !plan.rest.is_empty() {
            let candidate = pool.credential(plan.rest.remove(0));
            let ready = candidate.filter(|it| {
                self.reference_cooldowns().block(shared, it, &plan.model, now).is_none()
            });
            if ready.is_some() {
                return ready;
            }
        }
        None
    }
}

fn fails_over(class: Class, status: u16) -> bool {
    match class {
        Class::RateLimit | Class::Denied | Class::NotSupported | Class::Transient => true,
        Class::Unclear => status == 0 || status >= 500,
        _ => false,
    }
}
