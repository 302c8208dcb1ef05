//! Rules for single attempts, and for those of one request.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Rule, Tolerance, Verdict};
use crate::gateway::MAX_ATTEMPTS;
use crate::history::{Arrival, Did, Digest, End, HTTP2, Name, Request};

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    for arrival in &facts.history.arrivals {
        key(facts, arrival, verdict);
        internal(arrival, verdict);
    }
    for request in &facts.history.requests {
        repeat(facts, request, verdict);
        first_byte(facts, request, verdict);
        bodies(facts, request, verdict);
    }
}

fn key(facts: &Facts<'_>, arrival: &Arrival, verdict: &mut Verdict) {
    verdict.judged(Rule::Key);
    let is_right = match (arrival.port, arrival.key) {
        (Some(port), Some(key)) => port == key,
        (None, Some(_)) => true,
        (_, None) => !facts.setting.has_keys,
    };
    if !is_right {
        let request = arrival.request.and_then(|id| facts.request(id));
        let story = request.map(|request| facts.story(request)).unwrap_or_default();
        let story = format!("at {:?} with the key of {:?}: {story}", arrival.port, arrival.key);
        verdict.breaks(Rule::Key, arrival.request, story);
    }
}

fn internal(arrival: &Arrival, verdict: &mut Verdict) {
    verdict.judged(Rule::Internal);
    if !arrival.leaks.is_empty() {
        verdict.breaks(Rule::Internal, arrival.request, arrival.leaks.join(", "));
    }
    if arrival.request.is_none() {
        let story = "a provider got a request that no client sent".to_owned();
        verdict.breaks(Rule::Internal, None, story);
    }
}

/// The attempts behind which the same credential was asked once more, without a response.
fn repeated<'a>(arrivals: &'a [&'a Arrival]) -> impl Iterator<Item = &'a Arrival> {
    let pairs = arrivals.iter().zip(arrivals.iter().skip(1));
    let again = pairs.filter(|(one, other)| {
        one.credential() == other.credential()
            && matches!(one.did, Did::Broke | Did::Left | Did::Waits)
    });
    again.map(|(one, _)| *one)
}

/// How often a request may have been sent twice to a credential.
pub(super) fn stale(arrivals: &[&Arrival]) -> usize {
    repeated(arrivals).count()
}

/// Whether the filter says that it met a connection that was kept: to the client, or in the log if
/// that has left.
fn is_said_stale(facts: &Facts<'_>, request: &Request) -> bool {
    let logged = facts.history.ending.access_log.get(&request.id);
    let says = |words: &str| words.contains("(stale,");
    logged.is_some_and(|line| says(line))
        || matches!(&request.end, End::Answered(answer) if says(&answer.decision))
}

fn repeat(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    let arrivals = facts.arrivals(request.id);
    if arrivals.is_empty() {
        return;
    }
    verdict.judged(Rule::Repeat);
    let mut sent: BTreeMap<Name, usize> = BTreeMap::new();
    for credential in arrivals.iter().filter_map(|arrival| arrival.credential()) {
        *sent.entry(credential).or_default() += 1;
    }
    let stale = stale(arrivals);
    let is_reused = repeated(arrivals).all(|arrival| arrival.is_reused);
    let twice: usize = sent.values().map(|count| count - 1).sum();
    if stale == 1 && twice == 1 && is_reused {
        verdict.tolerates(Tolerance::Stale);
    } else if stale == 1 && twice == 1 && is_said_stale(facts, request) {
        verdict.tolerates(Tolerance::Unused);
    } else if twice > 0 && facts.is_updated(request.pool, request.began, request.ended) {
        // The filter on the cluster does not know the credential any more, so Envoy asks it again.
        verdict.tolerates(Tolerance::UpdateRace);
    } else if twice > 0 {
        verdict.breaks(Rule::Repeat, Some(request.id), facts.story(request));
    }
    let most = if facts.setting.fails_over { MAX_ATTEMPTS } else { 1 };
    if arrivals.len() > most + stale.min(1) {
        let story = format!("more than {most} attempts: {}", facts.story(request));
        verdict.breaks(Rule::Repeat, Some(request.id), story);
    }
}

fn first_byte(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    let Some(answered) = facts.answered(request) else {
        return;
    };
    verdict.judged(Rule::FirstByte);
    let arrivals = facts.arrivals(request.id);
    // Where nobody has what a request refers to, the client gets the first answer, after the last.
    let mut answers = arrivals.iter().filter(|it| matches!(it.did, Did::Answered { .. }));
    let is_first = answers.next().is_some_and(|first| first.number == answered.number);
    if is_first && !answered.did.is_served() && arrivals.last().is_some_and(|it| it.lacks_state) {
        return;
    }
    let is_repeated = arrivals.iter().any(|arrival| arrival.number > answered.number);
    let is_updated = facts.is_updated(request.pool, request.began, request.ended);
    if is_repeated && is_first && !answered.did.is_served() && is_updated {
        verdict.tolerates(Tolerance::UpdateRace);
    } else if is_repeated {
        verdict.breaks(Rule::FirstByte, Some(request.id), facts.story(request));
    }
}

fn bodies(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    for arrival in facts.arrivals(request.id) {
        verdict.judged(Rule::Body);
        if arrival.body.is_some_and(|body| body != request.body) {
            let story = format!("another request body: {}", facts.story(request));
            verdict.breaks(Rule::Body, Some(request.id), story);
        }
    }
    let (End::Answered(answer), Some(arrival)) = (&request.end, facts.answered(request)) else {
        return;
    };
    verdict.judged(Rule::Body);
    let is_right = match &arrival.did {
        Did::Answered { status, body, .. } => {
            *status == answer.status && (!answer.is_whole || *body == answer.body)
        }
        // Half a response must not look like a whole one.
        Did::Cut { .. } => !answer.is_whole || answer.body == Digest::default(),
        Did::Broke | Did::Left | Did::Waits => !answer.is_whole,
    };
    let is_hidden = request.protocol == HTTP2 && !facts.setting.envoy.resets_with_error;
    if !is_right && is_hidden && matches!(arrival.did, Did::Cut { .. } | Did::Broke) {
        verdict.tolerates(Tolerance::OldEnvoy);
    } else if !is_right {
        let story = format!("another response body: {}", facts.story(request));
        verdict.breaks(Rule::Body, Some(request.id), story);
    }
}
