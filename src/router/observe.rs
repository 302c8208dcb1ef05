//! What follows from the end of an attempt, in the profile `recommended`.
//!
//! A response that is proof by itself starts a cooldown at once. Every other failure is kept in the
//! plan until the fate of the request is known: if another credential served it, the failure was
//! the credential's; if every credential that was asked failed alike, it was the request's or the
//! provider's. What is pending is lost if the request ends in between, because the client leaves or
//! a worker's VM traps: then nothing was proven.

use super::plan::FailedAttempt;
use super::{AttemptResult, Plan, Router, Verdict};
use crate::availability;
use crate::binding::{FAILURES_TO_MOVE, HomeRule};
use crate::config::{Credential, CredentialId, Pool, Strategy};
use crate::cooldown::{CONCURRENT, Change, Fault, Grounds};
use crate::group::{self, GroupId};
use crate::operation::Operation;
use crate::outcome::Observed;
use crate::pins::{self, Pin, Reference};
use crate::request::Headers;
use crate::response::{Failure, Response};
use crate::shared::SharedData;
use crate::signals::{self, Class, Context, Evidence, Reading, Rule, Scope};
use crate::time::Timestamp;

/// One attempt that has ended, and what is written because of it.
pub(super) struct Observer<'a, 'c, S> {
    router: &'c Router,
    pool: &'c Pool,
    plan: &'a mut Plan,
    shared: &'a S,
    now: Timestamp,
    /// Whether everything that had to be written was.
    is_written: bool,
    /// The cooldowns that began or ended.
    changes: Vec<(&'c Credential, Change)>,
}

impl Router {
    /// Settles a request whose failover Envoy did not carry out: the client got the last failure.
    pub fn abandon(
        &self,
        plan: &mut Plan,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<(&Credential, Change)> {
        let Some(pool) = self.pool_of(plan) else {
            return Vec::new();
        };
        let mut observer = Observer::new(self, pool, plan, shared, now);
        observer.settle_failed();
        observer.changes
    }

    /// A turn of a session was served, for the strategy `headroom`: what faded of it since the turn
    /// `before` is made up, and all of it where it was not before. As often as its binding is
    /// written. Turns that are not served count nothing: a client could repeat them as often as it
    /// likes.
    pub(super) fn carry(
        &self,
        credential: &Credential,
        before: Option<Timestamp>,
        shared: &impl SharedData,
        now: Timestamp,
    ) {
        if self.config.routing.strategy == Strategy::Headroom
            && let Some(before) = before
        {
            self.headroom().carry(credential, now.since(before), shared, now);
        }
    }

    /// Learns what a provider tells of its limits while a response passes.
    pub fn observe_limits(
        &self,
        plan: &Plan,
        headers: &Headers,
        shared: &impl SharedData,
        now: Timestamp,
    ) {
        let serving = plan.current.or(plan.next);
        if let Some((pool, id)) = self.pool_of(plan).zip(serving)
            && let Some(credential) = pool.credential(id)
        {
            self.headroom().learn(credential, headers, plan.subject().model, shared, now);
        }
    }

    /// Records that a response broke off after it had begun. A stream that its home cuts off again
    /// and again is a reason for its session to move; it proves nothing about the credential.
    pub fn observe_cut(&self, plan: &Plan, shared: &impl SharedData, now: Timestamp) {
        if let Some((key, current)) = plan.binding.zip(plan.current) {
            let rule = self.pool_of(plan).map_or(HomeRule::Kept, |pool| self.home_rule(pool));
            self.bindings.cut(shared, key, current, rule, now);
        }
    }
}

impl<'a, 'c, S: SharedData> Observer<'a, 'c, S> {
    pub(super) fn new(
        router: &'c Router,
        pool: &'c Pool,
        plan: &'a mut Plan,
        shared: &'a S,
        now: Timestamp,
    ) -> Self {
        Self { router, pool, plan, shared, now, is_written: true, changes: Vec::new() }
    }

    /// Observes how the attempt on a credential ended.
    pub(super) fn observe(
        mut self,
        credential: &'c Credential,
        response: &Response<'_>,
    ) -> Verdict<'c> {
        let reading = self.read(response);
        self.learn_room(credential, response);
        let mut next = None;
        let result = match reading.class {
            Class::Success => {
                self.settle_served(credential);
                self.learn_state(credential, response);
                AttemptResult::Served
            }
            Class::NotHere => {
                next = self.look_elsewhere(credential, &reading, response);
                match next {
                    None if self.plan.attempts < 2 => AttemptResult::ClientError,
                    _ => AttemptResult::Failed,
                }
            }
            class if fails_over(class, response) => {
                next = self.fail(credential, &reading, response);
                AttemptResult::Failed
            }
            _ => AttemptResult::ClientError,
        };
        self.plan.result = Some(result);
        self.plan.next = next.map(|next| next.fingerprint);
        if result == AttemptResult::Failed && next.is_none() {
            self.settle_failed();
        }
        let observed = match self.is_written {
            true => Observed::Class(reading.class),
            false => Observed::Contended,
        };
        let has_left_group = result == AttemptResult::Served && self.has_left_group(credential);
        Verdict { observed, next, changes: self.changes, has_left_group }
    }

    /// Learns what a response tells of the limits of its credential. Of many that are served it is
    /// enough to read one now and then.
    ///
    /// Anthropic's limits for counting tokens are others than those for messages, and what is told
    /// of them has the same names.
    fn learn_room(&mut self, credential: &Credential, response: &Response<'_>) {
        let model = self.plan.subject().model;
        if let Response::Received { status, headers, .. } = response
            && self.plan.operation != Operation::CountTokens
            && (*status >= 400 || self.shared.is_due(&credential.load_key, model, self.now))
        {
            let headroom = self.router.headroom();
            self.is_written &= headroom.learn(credential, headers, model, self.shared, self.now);
        }
    }

    /// Whether a credential refused a request because it takes no more at once. Where requests in
    /// flight are counted, that is kept in place of a cooldown: what it serves, it goes on to serve.
    fn learns_ceiling(&mut self, credential: &Credential, fault: &Fault) -> bool {
        let (headroom, shared, now) = (self.router.headroom(), self.shared, self.now);
        if fault.class != Class::RateLimit || fault.wait.is_some() {
            return false;
        }
        let in_flight = headroom.in_flight(self.pool, credential, shared, now);
        // A request that is alone is not one too many.
        let Some(in_flight) = in_flight.filter(|count| *count > 1) else { return false };
        let record = self.router.cooldowns().record(shared, credential).unwrap_or_default();
        let is_concurrent = now.is_within(CONCURRENT, record.served);
        if is_concurrent {
            self.is_written &= headroom.learn_ceiling(credential, in_flight, shared, now);
        }
        is_concurrent
    }

    /// What a response means: by the operator's rules and statuses, else by the provider's tables.
    fn read(&self, response: &Response<'_>) -> Reading {
        let target = self.plan.target(self.pool);
        let context = Context {
            api: self.plan.api,
            provider: target.provider,
            model: &target.canonical_model,
        };
        let config = &self.router.config.cooldown;
        let mut reading = match response {
            Response::ErrorEvent(reading) => return *reading,
            Response::Failed(_) => signals::read(0, &Headers::default(), b"", &context, self.now),
            Response::Received { status, headers, body } => {
                if let Some(reading) = Rule::read(&config.rules, *status, headers, body, &context) {
                    return reading;
                }
                signals::read(*status, headers, body, &context, self.now)
            }
        };
        if let Some(class) = config.class_of_status(response.status())
            && class != reading.class
        {
            reading.class = class;
            reading.scope = class.usual_scope();
            return reading;
        }
        // What a path names and the provider does not know is elsewhere, however it says so.
        let is_missing = matches!(
            reading.class,
            Class::RequestFault | Class::NotFound | Class::NotSupported | Class::Elsewhere
        );
        if is_missing && response.status() == 404 && self.plan.state.is_by_path {
            reading.class = Class::NotHere;
        }
        reading
    }

    /// Notes a failure, and chooses the next credential.
    fn fail(
        &mut self,
        credential: &'c Credential,
        reading: &Reading,
        response: &Response<'_>,
    ) -> Option<&'c Credential> {
        if self.is_repeated_on(credential, response) {
            self.plan.is_repeated = true;
            return Some(credential);
        }
        self.note_failure(credential, reading, response);
        if self.may_follow(response) {
            let failed = Some((credential, reading.class));
            self.router.take_next(self.pool, self.plan, failed, self.shared, self.now)
        } else {
            None
        }
    }

    /// What a request needs is not here: nothing was done, so it may be elsewhere, unless it is
    /// known who has it. That no credential has it any more, the client has to hear: it can begin
    /// anew.
    fn look_elsewhere(
        &mut self,
        credential: &'c Credential,
        reading: &Reading,
        response: &Response<'_>,
    ) -> Option<&'c Credential> {
        self.plan.state.was_not_here = true;
        self.plan.state.was_unreadable = is_about_ciphertext(reading.code);
        self.withdraw(credential);
        let (pins, reference) = (&self.router.pins, self.plan.state.references.first().copied());
        let is_gone = self.plan.state.is_pinned && self.plan.state.is_sole;
        if let Some(reference) = reference.filter(|_| is_gone) {
            pins.forget(self.shared, reference, credential.fingerprint, self.now);
        }
        let may_search = self.plan.state.may_search || self.plan.state.was_unreadable;
        if self.plan.state.is_pinned || !may_search {
            return None;
        }
        let failed = Some((credential, Class::NotHere));
        let next = if self.may_follow(response) {
            self.router.take_next(self.pool, self.plan, failed, self.shared, self.now)
        } else {
            None
        };
        let said_all_so = next.is_none() && self.plan.failures.is_empty() && self.plan.attempts > 1;
        if let Some(reference) = reference.filter(|_| said_all_so) {
            let pool = self.pool.fingerprint;
            self.is_written &= pins.note_nowhere(self.shared, reference, pool, self.now);
        }
        next
    }

    /// Takes a choice back that has failed before it served. A home that all Envoys find was not
    /// chosen.
    fn withdraw(&mut self, credential: &Credential) {
        if let Some(key) = self.plan.binding
            && self.router.home_rule(self.pool) != HomeRule::Common
        {
            let (bindings, id) = (&self.router.bindings, credential.fingerprint);
            self.is_written &= bindings.withdraw(self.shared, key, id, self.now);
        }
    }

    /// Whether credentials did not have what the request needs that were asked before the one that
    /// served it: they have not failed.
    fn has_searched(&self) -> bool {
        self.plan.failures.is_empty() && self.plan.attempts > 1 + u8::from(self.plan.is_repeated)
    }

    /// Whether the same credential is tried once more: its kept connection was closed as it was
    /// used again, or what failed lies below all credentials of the pool.
    fn is_repeated_on(&self, credential: &Credential, response: &Response<'_>) -> bool {
        let Response::Failed(failure) = response else {
            return false;
        };
        let is_below = failure.is_before_sending() && self.pool.shares_endpoint(credential);
        let is_stale = *failure == Failure::Stale && self.plan.may_be_repeated();
        self.plan.attempts > 0 && !self.plan.is_repeated && (is_stale || is_below)
    }

    /// Notes that the credential failed: with a cooldown if that is proven, else in the plan.
    fn note_failure(
        &mut self,
        credential: &'c Credential,
        reading: &Reading,
        response: &Response<'_>,
    ) {
        self.withdraw(credential);
        let is_proof = reading.evidence == Evidence::Proof && reading.class.cools_down();
        let mut fault = self.fault(reading, response, is_proof);
        if let Response::Received { headers, .. } = response
            && (fault.class, fault.wait) == (Class::RateLimit, None)
        {
            // The provider says that nothing is left, but not until when: a guess all the same.
            let model = self.plan.subject().model;
            fault.wait = self.router.headroom().used_up(headers, model, self.now);
        }
        if is_proof {
            self.learn(credential, &fault, Grounds::Proof);
        }
        let is_learned =
            is_proof || (!reading.is_of_a_time && self.learns_ceiling(credential, &fault));
        // Every provider closes connections that are kept for long. What breaks below several
        // credentials is none of theirs; silence may be.
        let is_innocent = match response {
            Response::Failed(Failure::Stale) => true,
            Response::Failed(Failure::Timeout) => false,
            Response::Failed(_) => self.pool.shares_endpoint(credential),
            _ => false,
        };
        if !is_innocent {
            let credential = credential.fingerprint;
            self.plan.add_failure(FailedAttempt { credential, fault, is_learned });
        }
    }

    fn fault(&self, reading: &Reading, response: &Response<'_>, is_proof: bool) -> Fault {
        let (code, scope) = match response {
            // Without a connection every model is out of reach.
            Response::Failed(failure) if failure.is_before_sending() => {
                (failure.as_str(), Scope::Credential)
            }
            Response::Failed(failure) => (failure.as_str(), reading.scope),
            _ => (reading.code, reading.scope),
        };
        Fault {
            class: reading.class,
            key: self.router.cooldowns().key(scope, self.plan.subject(), is_proof),
            status: response.status(),
            wait: reading.wait,
            long: reading.long,
            code: code.to_owned(),
        }
    }

    /// Whether another credential may be tried after this failure: there are attempts left, it is
    /// not too late, and nothing is repeated that must not be.
    fn may_follow(&self, response: &Response<'_>) -> bool {
        let is_refused = match response {
            // A CDN that could not connect to the origin sent it nothing.
            Response::Received { status: 521 | 523 | 525 | 526, .. } => true,
            Response::Received { status, .. } => matches!(status, 400..=499) && *status != 408,
            Response::ErrorEvent(_) => false,
            Response::Failed(failure) => failure.is_before_sending(),
        };
        let plan = &self.plan;
        let attempts = plan.attempts.saturating_sub(u8::from(plan.is_repeated));
        plan.attempts > 0
            && attempts < plan.max_attempts
            && self.now.since(plan.began) < self.router.config.failover.give_up_after
            && (is_refused || plan.may_be_repeated())
    }

    /// The request was served: what failed before it did fail.
    fn settle_served(&mut self, credential: &'c Credential) {
        let cooldowns = self.router.cooldowns();
        let subject = self.plan.subject();
        let ended = cooldowns.succeed(self.shared, credential, subject, self.plan.sent, self.now);
        self.is_written &= ended.written;
        self.changes.extend(ended.result.into_iter().map(|change| (credential, change)));
        for failed in self.pending() {
            if let Some(other) = self.pool.credential(failed.credential) {
                self.learn(other, &failed.fault, Grounds::SecondOpinion);
            }
        }
        if let Some(key) = self.plan.binding {
            let (rule, id) = (self.router.home_rule(self.pool), credential.fingerprint);
            let mut failed = weights(self.plan);
            if rule == HomeRule::Common && self.has_searched() {
                failed.push((id, FAILURES_TO_MOVE));
            }
            let bindings = &self.router.bindings;
            let confirmed = bindings.confirm(self.shared, key, id, &failed, rule, self.now);
            self.is_written &= confirmed.written;
            self.router.carry(credential, confirmed.result, self.shared, self.now);
        }
    }

    /// Learns who has the state that the request refers to or has created, and which group the
    /// credential belongs to.
    fn learn_state(&mut self, credential: &'c Credential, response: &Response<'_>) {
        let Response::Received { headers, body, .. } = response else { return };
        if let Some(group) = GroupId::of_response(headers, self.router.seed) {
            self.is_written &= group::learn(credential, group, self.shared);
        }
        let state = &self.plan.state;
        let tenant = state.tenant;
        let created = state.creates.map(|kind| pins::created(kind, body)).unwrap_or_default();
        let created = created.iter().filter(|id| self.router.config.pins.follows(id.kind));
        let created = created.map(|id| Reference::of(id, self.router.seed, tenant));
        // What was followed is used; what was looked for is found.
        let is_found = state.is_pinned || (state.may_search && self.plan.attempts > 1);
        let found = state.references.first().copied().filter(|_| is_found);
        let owner = (self.pool.fingerprint, credential.fingerprint);
        let may_serve = |pin: Pin| {
            let pools = &self.router.config.pools;
            let pool = pools.iter().find(|pool| pool.fingerprint == pin.pool);
            pool.is_some_and(|pool| availability::bound(pool, pin.credential).is_some())
        };
        let all: Vec<_> = created.chain(found).collect();
        for reference in all {
            let pins = &self.router.pins;
            self.is_written &= pins.pin(self.shared, reference, owner, self.now, may_serve);
        }
    }

    fn has_left_group(&self, credential: &Credential) -> bool {
        let state = &self.plan.state;
        let home = state.home.filter(|_| state.has_ciphertext);
        let home = home.and_then(|home| self.pool.credential(home));
        home.filter(|home| home.fingerprint != credential.fingerprint).is_some_and(|home| {
            let group = group::of(home, self.shared);
            group.is_none() || group != group::of(credential, self.shared)
        })
    }

    /// The request failed everywhere, as far as it was tried.
    fn settle_failed(&mut self) {
        let is_alike = is_alike(&self.plan.failures);
        let grounds = if is_alike { Grounds::Everywhere } else { Grounds::Alone };
        for failed in self.pending() {
            if let Some(credential) = self.pool.credential(failed.credential) {
                self.learn(credential, &failed.fault, grounds);
            }
        }
        if let Some(key) = self.plan.binding.filter(|_| !is_alike) {
            let failed = weights(self.plan);
            let rule = self.router.home_rule(self.pool);
            let bindings = &self.router.bindings;
            self.is_written &= bindings.fail(self.shared, key, &failed, rule, self.now);
        }
        self.plan.failures.iter_mut().for_each(|failed| failed.is_learned = true);
    }

    /// The failures that wait for the fate of the request.
    fn pending(&self) -> Vec<FailedAttempt> {
        self.plan.failures.iter().filter(|failed| !failed.is_learned).cloned().collect()
    }

    fn learn(&mut self, credential: &'c Credential, fault: &Fault, grounds: Grounds) {
        // No client can cause that Envoy finds no host: such failures add up whatever the session.
        let is_envoys = fault.code == Failure::NoHost.as_str();
        let session = if is_envoys { self.now.as_millis() as u32 } else { self.plan.session() };
        let cooldowns = self.router.cooldowns();
        let learned = cooldowns.learn(self.shared, credential, fault, grounds, session, self.now);
        self.is_written &= learned.written;
        self.changes.extend(learned.result.map(|change| (credential, change)));
    }
}

/// Whether several credentials failed in the same way, and none of them provably.
fn is_alike(failures: &[FailedAttempt]) -> bool {
    let mut classes = failures.iter().map(|failed| failed.fault.class);
    let first = classes.next();
    failures.len() > 1
        && classes.all(|class| Some(class) == first)
        && failures.iter().all(|failed| !failed.is_learned)
}

/// How much the failures of a request count against the home of its session. A limit is no reason
/// to leave for good, and a home that cannot count tokens has the session's prompts cached all the
/// same.
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

/// Whether a code means that a credential cannot read what another one wrote.
fn is_about_ciphertext(code: &str) -> bool {
    code.contains("encrypted") || code.contains("signature")
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
