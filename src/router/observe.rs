//! What follows from the end of an attempt, in the profile `recommended`.
//!
//! A response that is proof by itself starts a cooldown at once. Every other failure is kept in the
//! plan until the fate of the request is known: if another credential served it, the failure was the
//! credential's; if every credential that was asked failed alike, it was the request's or the
//! provider's. What is pending is lost if the request ends in between, because the client leaves or
//! a worker's VM traps: then nothing was proven.

use std::time::Duration;

use super::plan::FailedAttempt;
use super::{AttemptResult, Plan, Router, Verdict};
use crate::binding::FAILURES_TO_MOVE;
use crate::config::{Credential, CredentialId, Pool, Return};
use crate::cooldown::{Change, Fault, Grounds};
use crate::operation::Operation;
use crate::outcome::Observed;
use crate::response::{Failure, Response};
use crate::shared::SharedData;
use crate::signals::{self, Class, Context, Evidence, Reading, Rule, Scope};
use crate::time::Timestamp;

/// For so long a session avoids a home that failed it without another credential to serve it.
const AVOIDANCE: Duration = Duration::from_mins(1);

/// What an attempt meant, and what was written because of it.
struct Lesson<'c> {
    is_written: bool,
    changes: Vec<(&'c Credential, Change)>,
}

impl Router {
    pub(super) fn observe_recommended<'c>(
        &'c self,
        plan: &mut Plan,
        pool: &'c Pool,
        credential: &'c Credential,
        response: &Response<'_>,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Verdict<'c> {
        let reading = self.read(plan, pool, response, now);
        let mut lesson = Lesson { is_written: true, changes: Vec::new() };
        let mut next = None;
        let result = match reading.class {
            Class::Success => {
                self.settle_served(plan, pool, credential, shared, now, &mut lesson);
                AttemptResult::Served
            }
            class if fails_over(class, response) => {
                let is_repeated = self.repeats(plan, pool, credential, response);
                if !is_repeated {
                    let written = self.note_failure(
                        plan,
                        credential,
                        &reading,
                        response,
                        shared,
                        now,
                        &mut lesson,
                    );
                    lesson.is_written &= written;
                }
                next = if is_repeated {
                    plan.is_repeated = true;
                    Some(credential)
                } else if self.may_follow(plan, response, now) {
                    self.take_next(pool, plan, shared, now)
                } else {
                    None
                };
                AttemptResult::Failed
            }
            _ => AttemptResult::ClientError,
        };
        plan.result = Some(result);
        plan.next = next.map(|next| next.fingerprint);
        if result == AttemptResult::Failed && next.is_none() {
            self.settle_failed(plan, pool, shared, now, &mut lesson);
        }
        let observed =
            if lesson.is_written { Observed::Class(reading.class) } else { Observed::Contended };
        Verdict { observed, next, changes: lesson.changes }
    }

    /// Settles a request whose failover Envoy did not carry out: the client got the last failure.
    pub fn abandon(
        &self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<(&Credential, Change)> {
        let mut lesson = Lesson { is_written: true, changes: Vec::new() };
        if let Some(pool) = self.pool_of(plan) {
            self.settle_failed(plan, pool, shared, now, &mut lesson);
        }
        lesson.changes
    }

    /// Records that a response broke off after it had begun. A stream that its home cuts off again
    /// and again is a reason for its session to move; it proves nothing about the credential.
    pub fn observe_cut(
        &self,
        plan: &Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<(&Credential, Change)> {
        if let Some((key, current)) = plan.binding.zip(plan.current) {
            self.bindings.cut(shared, key, current, now);
        }
        Vec::new()
    }

    /// What a response means: by the operator's rules and statuses, else by the provider's tables.
    fn read(&self, plan: &Plan, pool: &Pool, response: &Response<'_>, now: Timestamp) -> Reading {
        let target = plan.target(pool);
        let context =
            Context { api: plan.api, provider: target.provider, model: &target.canonical_model };
        let mut reading = match response {
            Response::ErrorEvent(reading) => *reading,
            Response::Failed(_) => signals::read(0, &Default::default(), b"", &context, now),
            Response::Received { status, headers, body } => {
                let rules = &self.config.cooldown.rules;
                if let Some(reading) = Rule::read(rules, *status, headers, body, &context) {
                    return reading;
                }
                signals::read(*status, headers, body, &context, now)
            }
        };
        let is_event = matches!(response, Response::ErrorEvent(_));
        let configured = self.config.cooldown.class_of_status(response.status());
        if let Some(class) = configured.filter(|class| !is_event && *class != reading.class) {
            reading = Reading { class, scope: class.usual_scope(), ..reading };
        }
        reading
    }

    /// Whether the same credential is tried once more: its kept connection was closed as it was used
    /// again, or what failed lies below all credentials of the pool.
    fn repeats(
        &self,
        plan: &Plan,
        pool: &Pool,
        credential: &Credential,
        response: &Response<'_>,
    ) -> bool {
        let Response::Failed(failure) = response else {
            return false;
        };
        let is_below = failure.is_before_sending() && pool.shares_endpoint(credential);
        plan.attempts > 0
            && !plan.is_repeated
            && ((*failure == Failure::Stale && plan.operation.may_be_repeated()) || is_below)
    }

    /// Notes that the current credential failed: at once if that is proven, else in the plan. Returns
    /// whether it could be written.
    #[expect(clippy::too_many_arguments, reason = "one step of a longer one, with its state")]
    fn note_failure<'c>(
        &'c self,
        plan: &mut Plan,
        credential: &'c Credential,
        reading: &Reading,
        response: &Response<'_>,
        shared: &impl SharedData,
        now: Timestamp,
        lesson: &mut Lesson<'c>,
    ) -> bool {
        let mut is_written = true;
        if let Some(key) = plan.binding {
            is_written &= self.bindings.withdraw(shared, key, credential.fingerprint, now);
        }
        let is_proof = reading.evidence == Evidence::Proof && reading.class.cools_down();
        let fault = self.fault(plan, reading, response, is_proof);
        if is_proof {
            let learned = self.learn(plan, credential, &fault, Grounds::Proof, shared, now, lesson);
            is_written &= learned;
        }
        let pool = self.pool_of(plan);
        // Every provider closes connections that are kept for long.
        let is_innocent = match response {
            Response::Failed(Failure::Stale) => true,
            Response::Failed(_) => pool.is_some_and(|pool| pool.shares_endpoint(credential)),
            _ => false,
        };
        if !is_innocent {
            plan.add_failure(FailedAttempt {
                credential: credential.fingerprint,
                fault,
                is_learned: is_proof,
            });
        }
        is_written
    }

    fn fault(
        &self,
        plan: &Plan,
        reading: &Reading,
        response: &Response<'_>,
        is_proof: bool,
    ) -> Fault {
        let code = match response {
            Response::Failed(failure) => failure.as_str(),
            _ => reading.code,
        };
        // Without a connection every model is out of reach.
        let scope = match response {
            Response::Failed(failure) if failure.is_before_sending() => Scope::Credential,
            _ => reading.scope,
        };
        Fault {
            class: reading.class,
            key: self.cooldowns().key(scope, plan.subject(), is_proof),
            status: response.status(),
            wait: reading.wait,
            long: reading.long,
            code: code.to_owned(),
        }
    }

    /// Whether another credential may be tried after this failure: there are attempts left, it is
    /// not too late, and nothing is repeated that must not be.
    fn may_follow(&self, plan: &Plan, response: &Response<'_>, now: Timestamp) -> bool {
        let is_refused = match response {
            Response::Received { status, .. } => matches!(status, 400..=499) && *status != 408,
            Response::ErrorEvent(_) => false,
            Response::Failed(failure) => failure.is_before_sending(),
        };
        let attempts = plan.attempts.saturating_sub(u8::from(plan.is_repeated));
        plan.attempts > 0
            && attempts < plan.max_attempts
            && now.since(plan.began) < self.config.failover.give_up_after
            && (is_refused || plan.operation.may_be_repeated())
    }

    /// The request was served: what failed before it did fail.
    fn settle_served<'c>(
        &'c self,
        plan: &mut Plan,
        pool: &'c Pool,
        credential: &'c Credential,
        shared: &impl SharedData,
        now: Timestamp,
        lesson: &mut Lesson<'c>,
    ) {
        let subject = plan.subject();
        let ended = self.cooldowns().succeed(shared, credential, subject, plan.sent, now);
        lesson.is_written &= ended.written;
        lesson.changes.extend(ended.result.into_iter().map(|change| (credential, change)));
        for failed in pending(plan) {
            if let Some(other) = pool.credential(failed.credential) {
                let grounds = Grounds::SecondOpinion;
                lesson.is_written &=
                    self.learn(plan, other, &failed.fault, grounds, shared, now, lesson);
            }
        }
        if let Some(key) = plan.binding {
            let failed = weights(plan);
            let returns = self.config.failover.returns != Return::Never;
            let id = credential.fingerprint;
            lesson.is_written &= self.bindings.confirm(shared, key, id, &failed, returns, now);
        }
    }

    /// The request failed everywhere, as far as it was tried.
    fn settle_failed<'c>(
        &'c self,
        plan: &mut Plan,
        pool: &'c Pool,
        shared: &impl SharedData,
        now: Timestamp,
        lesson: &mut Lesson<'c>,
    ) {
        let is_alike = is_alike(&plan.failures);
        let grounds = if is_alike { Grounds::Everywhere } else { Grounds::Alone };
        for failed in pending(plan) {
            if let Some(credential) = pool.credential(failed.credential) {
                lesson.is_written &=
                    self.learn(plan, credential, &failed.fault, grounds, shared, now, lesson);
            }
        }
        if let Some(key) = plan.binding.filter(|_| !is_alike) {
            let failed = weights(plan);
            let avoid_until = now + AVOIDANCE;
            lesson.is_written &= self.bindings.fail(shared, key, &failed, avoid_until, now);
        }
        plan.failures.iter_mut().for_each(|failed| failed.is_learned = true);
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a longer one, with its state")]
    fn learn<'c>(
        &'c self,
        plan: &Plan,
        credential: &'c Credential,
        fault: &Fault,
        grounds: Grounds,
        shared: &impl SharedData,
        now: Timestamp,
        lesson: &mut Lesson<'c>,
    ) -> bool {
        // No client can cause that Envoy finds no host: such failures add up whatever the session.
        let is_envoys = fault.code == Failure::NoHost.as_str();
        let session = if is_envoys { now.as_millis() as u32 } else { plan.session() };
        let learned = self.cooldowns().learn(shared, credential, fault, grounds, session, now);
        lesson.changes.extend(learned.result.map(|change| (credential, change)));
        learned.written
    }
}

/// The failures that wait for the fate of the request.
fn pending(plan: &Plan) -> Vec<FailedAttempt> {
    plan.failures.iter().filter(|failed| !failed.is_learned).cloned().collect()
}

/// Whether several credentials failed in the same way, and none of them provably.
fn is_alike(failures: &[FailedAttempt]) -> bool {
    let mut classes = failures.iter().map(|failed| failed.fault.class);
    let first = classes.next();
    failures.len() > 1
        && classes.all(|class| Some(class) == first)
        && failures.iter().all(|failed| !failed.is_learned)
}

/// How much the failures of a request count against the home of its session. A limit is no reason to
/// leave for good, and a home that cannot count tokens has the session's prompts cached all the same.
fn weights(plan: &Plan) -> Vec<(CredentialId, u8)> {
    let counts = plan.operation != Operation::CountTokens;
    let failures = plan.failures.iter().filter(|_| counts);
    let weights = failures.map(|failed| match failed.fault.class {
        Class::RateLimit | Class::Overloaded => (failed.credential, 0),
        Class::Transient | Class::Unclear => (failed.credential, 1),
        _ => (failed.credential, FAILURES_TO_MOVE),
    });
    weights.collect()
}

/// Whether another credential could do better.
fn fails_over(class: Class, response: &Response<'_>) -> bool {
    match class {
        Class::RateLimit
        | Class::Denied
        | Class::NotSupported
        | Class::NotFound
        | Class::Transient
        | Class::Overloaded
        | Class::Elsewhere => true,
        Class::Unclear => matches!(response.status(), 0 | 500..),
        Class::Success | Class::RequestFault | Class::NotHere => false,
    }
}
