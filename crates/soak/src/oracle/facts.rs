//! What follows directly from the history: who asked whom, and in which times a credential may have
//! been left alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::Setting;
use crate::gateway::{COOLDOWN_MAX, COOLDOWN_TOLD};
use crate::history::{Arrival, Did, End, History, Name, Request, SECOND, State, Time, Update};
use crate::run::seconds;
use crate::world;

/// Workers take an update a little later than Envoy says that it is there.
pub(super) const GRACE: Time = 2 * SECOND;

/// So long after a port was opened again connections may still fail: the connect timeout.
const CONNECTING: Time = 3 * SECOND;

/// No failure matters for longer: a request takes a minute at most, and a cooldown less.
const LONGEST: Time = 120 * SECOND;

/// What a client has left reaches the filter at some time after the provider has sent it.
const ON_ITS_WAY: Time = 2 * SECOND;

/// When the filter has learned at the latest how an attempt ended: before its client knows, if that
/// waits for it.
pub(super) fn known(request: &Request, arrival: &Arrival) -> Time {
    let waits = matches!(&request.end, End::Answered(answer) if !answer.is_left);
    request.ended.max(arrival.done) + if waits { 0 } else { ON_ITS_WAY }
}

/// The history with its order.
pub(super) struct Facts<'h> {
    pub(super) history: &'h History,
    pub(super) setting: Setting,
    arrivals: HashMap<u64, Vec<&'h Arrival>>,
    requests: HashMap<u64, &'h Request>,
    failures: BTreeMap<Name, Vec<Failure>>,
    /// The times in which a credential may wait for an announced end.
    told: BTreeMap<Name, Vec<(Time, Time)>>,
    /// Of each credential and model: when a request that was served was decided at the earliest,
    /// and when its client knew.
    successes: BTreeMap<(Name, &'h str), Vec<(Time, Time)>>,
}

/// A time from which a credential may be left alone.
struct Failure {
    model: Option<String>,
    from: Time,
    /// When at the latest the filter has learned it.
    learned: Time,
    /// For how long it may be left alone from then on.
    longest: Time,
}

impl<'h> Facts<'h> {
    pub(super) fn new(history: &'h History, setting: Setting) -> Self {
        let mut facts = Self {
            history,
            setting,
            arrivals: HashMap::new(),
            requests: history.requests.iter().map(|request| (request.id, request)).collect(),
            failures: BTreeMap::new(),
            told: BTreeMap::new(),
            successes: BTreeMap::new(),
        };
        for arrival in &history.arrivals {
            if let Some(id) = arrival.request {
                facts.arrivals.entry(id).or_default().push(arrival);
            }
        }
        for arrival in &history.arrivals {
            let Some(credential) = arrival.credential() else {
                continue;
            };
            let request = arrival.request.and_then(|id| facts.requests.get(&id));
            let ended = request.map_or(arrival.done, |request| known(request, arrival));
            // Which model a hostile body names is a question of reading: it counts for all.
            let is_hostile = request.is_some_and(|request| request.may_be_refused);
            if arrival.has_failed() {
                let longest = match arrival.did {
                    Did::Answered { retry_after: Some(wait), .. } => wait.min(COOLDOWN_TOLD),
                    _ => COOLDOWN_MAX,
                };
                if let Did::Answered { status: 429, retry_after: Some(wait), .. } = arrival.did {
                    let end = ended + wait.min(COOLDOWN_TOLD) * SECOND;
                    facts.told.entry(credential).or_default().push((arrival.at, end));
                }
                let failure = Failure {
                    model: (!is_hostile).then(|| arrival.model.clone()),
                    from: arrival.at,
                    learned: ended,
                    longest: longest.max(COOLDOWN_MAX) * SECOND,
                };
                facts.failures.entry(credential).or_default().push(failure);
            } else if arrival.did.is_served() && !is_hostile {
                let key = (credential, arrival.model.as_str());
                if let Some(sent) = facts.decided(arrival) {
                    facts.successes.entry(key).or_default().push((sent, ended));
                }
            }
        }
        for closed in &history.closed {
            for credential in facts.behind(closed.credential) {
                let failure = Failure {
                    model: None,
                    from: closed.from,
                    learned: closed.to + CONNECTING,
                    longest: COOLDOWN_MAX * SECOND,
                };
                facts.failures.entry(credential).or_default().push(failure);
            }
        }
        for failures in facts.failures.values_mut() {
            failures.sort_by_key(|failure| failure.from);
        }
        for sent in facts.successes.values_mut() {
            sent.sort_unstable();
        }
        facts
    }

    /// The credentials behind the same port.
    fn behind(&self, credential: Name) -> Vec<Name> {
        match world::pool_of(credential) {
            Some(pool) if self.setting.shares_port => pool.credentials.to_vec(),
            _ => vec![credential],
        }
    }

    /// What of a request reached providers, in order.
    pub(super) fn arrivals(&self, request: u64) -> &[&'h Arrival] {
        self.arrivals.get(&request).map_or(&[], Vec::as_slice)
    }

    pub(super) fn request(&self, id: u64) -> Option<&'h Request> {
        self.requests.get(&id).copied()
    }

    /// When the decision for an attempt was made at the earliest. One that repeats an attempt on the
    /// same credential, because its connection broke, was decided with that.
    pub(super) fn decided(&self, arrival: &Arrival) -> Option<Time> {
        let id = arrival.request?;
        let before = self.arrivals(id).iter().filter(|other| {
            other.number < arrival.number && other.credential() != arrival.credential()
        });
        let before = before.map(|other| other.done).max();
        Some(before.unwrap_or(self.request(id)?.began))
    }

    /// The arrival that a client got the response of.
    pub(super) fn answered(&self, request: &Request) -> Option<&'h Arrival> {
        let End::Answered(answer) = &request.end else {
            return None;
        };
        let number = answer.arrival?;
        self.arrivals(request.id).iter().find(|arrival| arrival.number == number).copied()
    }

    /// Whether a credential may have been left alone for a model at some time of a span.
    pub(super) fn may_be_blocked(
        &self,
        credential: Name,
        model: &str,
        from: Time,
        to: Time,
    ) -> bool {
        let failures = self.failures.get(credential).map_or(&[][..], Vec::as_slice);
        let first = failures.partition_point(|failure| failure.from + LONGEST < from);
        failures.iter().skip(first).take_while(|failure| failure.from <= to).any(|failure| {
            failure.learned + failure.longest >= from
                && self.end(credential, failure, model) >= from
        })
    }

    /// When the cooldown after a failure has ended at the latest: after a success of a request that
    /// was sent when the failure was known.
    fn end(&self, credential: Name, failure: &Failure, model: &str) -> Time {
        let longest = failure.learned + failure.longest;
        let model = failure.model.as_deref().unwrap_or(model);
        let Some(sent) = self.successes.get(&(credential, model)) else {
            return longest;
        };
        // The provider sees a request later than it was sent, so what counts is its decision.
        let next = sent.partition_point(|(decided, _)| *decided <= failure.learned);
        // Several may be under way at once: the first to be known ends it.
        let known = sent.iter().skip(next).take(20).map(|(_, known)| *known).min();
        known.map_or(longest, |known| known.min(longest))
    }

    /// Whether a credential may wait for an announced end at some time of a span.
    pub(super) fn may_be_told(&self, credential: Name, from: Time, to: Time) -> bool {
        let told = self.told.get(credential).map_or(&[][..], Vec::as_slice);
        told.iter().any(|(began, end)| *began <= to && *end >= from)
    }

    /// Whether a port of a pool was closed at some time of a span, or had just been.
    pub(super) fn may_be_closed(&self, pool: &str, from: Time, to: Time) -> bool {
        let mut closed = self.history.closed.iter().filter(|closed| closed.pool == pool);
        closed.any(|closed| closed.from <= to && closed.to + CONNECTING >= from)
    }

    /// The updates that touch a span, with their grace.
    pub(super) fn updates(&self, from: Time, to: Time) -> impl Iterator<Item = &'h Update> {
        let all = self.history.updates.iter();
        all.filter(move |update| update.began <= to && update.settled + GRACE >= from)
    }

    /// Whether an update of a pool was under way in a span.
    pub(super) fn is_updated(&self, pool: &str, from: Time, to: Time) -> bool {
        let is_of_pool = |name: &Name| world::pool_of(name).is_some_and(|it| it.name == pool);
        self.updates(from, to).any(|update| update.changes.iter().any(is_of_pool))
    }

    /// Whether the listener was being replaced in a span.
    pub(super) fn is_replaced(&self, from: Time, to: Time) -> bool {
        self.updates(from, to).any(|update| update.is_listener)
    }

    /// Whether a VM trapped in a span.
    pub(super) fn has_trapped(&self, from: Time, to: Time) -> bool {
        self.updates(from, to).any(|update| update.is_trap)
    }

    /// The state of a credential that is in force all the time of a span; `Err` if it changes.
    pub(super) fn state(&self, name: Name, from: Time, to: Time) -> Result<Option<State>, ()> {
        if self.updates(from, to).any(|update| update.changes.contains(&name)) {
            return Err(());
        }
        let before = self.history.updates.iter().rev().find(|update| update.began < from);
        Ok(before.and_then(|update| update.states.get(name).copied()))
    }

    /// The attempts that the filter itself speaks of.
    pub(super) fn testimony(&self, request: &Request) -> Vec<String> {
        let End::Answered(answer) = &request.end else {
            return Vec::new();
        };
        let words = answer.decision.split(' ');
        let credentials = words.filter_map(|word| {
            let credential = word.strip_prefix("credential=").or(word.strip_prefix("then="))?;
            Some(credential.split('(').next().unwrap_or_default().to_owned())
        });
        credentials.collect()
    }

    /// What happened to a request, on a few lines.
    pub(super) fn story(&self, request: &Request) -> String {
        let mut story = format!(
            "session {} ({}, {}, {}), {} {}, {} bytes, {:.3} s to {:.3} s: ",
            request.session,
            request.named_by,
            request.protocol,
            request.manner,
            request.pool,
            request.model.get(..40).unwrap_or(&request.model),
            request.body.length,
            seconds(request.began),
            seconds(request.ended),
        );
        let _ = match &request.end {
            End::Answered(answer) => write!(
                story,
                "{} from arrival {:?}, {} bytes, whole: {}, left: {} [{}] {}",
                answer.status,
                answer.arrival,
                answer.body.length,
                answer.is_whole,
                answer.is_left,
                answer.decision,
                answer.text.get(..200).unwrap_or(&answer.text),
            ),
            other => write!(story, "{other:?}"),
        };
        for arrival in self.arrivals(request.id) {
            let _ = write!(
                story,
                "\n    {}. {:.3} s at {:?} with the key of {:?} (reused: {}, fault: {}, body: {:?}): {:?}, {:.3} s",
                arrival.number,
                seconds(arrival.at),
                arrival.port,
                arrival.key,
                arrival.is_reused,
                arrival.fault.unwrap_or("none"),
                arrival.body.map(|body| body.length),
                arrival.did,
                seconds(arrival.done),
            );
        }
        if let Some(line) = self.history.ending.access_log.get(&request.id) {
            let _ = write!(story, "\n    access log: {line}");
        }
        for update in self.updates(request.began, request.ended) {
            let _ = write!(
                story,
                "\n    update {:.3} s to {:.3} s: {:?}, listener: {}, then {:?}",
                seconds(update.began),
                seconds(update.settled),
                update.changes,
                update.is_listener,
                update.states,
            );
        }
        story
    }
}
