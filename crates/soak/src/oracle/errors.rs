//! Rules for errors that clients get: each has a cause, and could not be avoided.

use super::facts::Facts;
use super::{Rule, Tolerance, Verdict, attempts};
use crate::gateway::MAX_ATTEMPTS;
use crate::history::{Answer, Arrival, Did, End, Name, Request};
use crate::world;

/// A longer body may still be on its way when an attempt fails.
const SHORT_BODY: u64 = 32 << 10;

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    for request in &facts.history.requests {
        match &request.end {
            End::Hung => {
                verdict.breaks(Rule::Hang, Some(request.id), facts.story(request));
            }
            End::Aborted(_) => {}
            End::Broken(_) => broken(facts, request, verdict),
            End::Answered(answer) => answered(facts, request, answer, verdict),
        }
    }
}

/// What excuses every error that comes out of the gateway.
fn excuse(facts: &Facts<'_>, request: &Request) -> Option<Tolerance> {
    let (from, to) = (request.began, request.ended);
    if facts.has_trapped(from, to) {
        Some(Tolerance::Trap)
    } else if facts.is_replaced(from, to) {
        Some(Tolerance::ListenerReplaced)
    } else if facts.is_updated(request.pool, from, to) {
        Some(Tolerance::UpdateRace)
    } else {
        None
    }
}

/// No response at all: nothing that a provider does may lead to that.
fn broken(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    verdict.judged(Rule::Cause);
    let arrivals = facts.arrivals(request.id);
    let is_early = arrivals.iter().any(|arrival| is_early(arrival));
    if is_early {
        verdict.tolerates(Tolerance::EarlyAnswer);
    } else if request.may_be_refused && arrivals.is_empty() {
        verdict.tolerates(Tolerance::Hostile);
    } else if let Some(excuse) = excuse(facts, request) {
        verdict.tolerates(excuse);
    } else {
        verdict.breaks(Rule::Cause, Some(request.id), facts.story(request));
    }
}

fn answered(facts: &Facts<'_>, request: &Request, answer: &Answer, verdict: &mut Verdict) {
    verdict.judged(Rule::Cause);
    let arrival = facts.answered(request);
    if answer.status < 400 {
        half(facts, request, answer, arrival, verdict);
        return;
    }
    let arrivals = facts.arrivals(request.id);
    let is_refusal = answer.status == 429 && arrival.is_none();
    if is_refusal {
        refusal(facts, request, verdict);
        return;
    }
    let is_caused = arrivals.iter().any(|it| it.has_failed() || has_refused(it) || it.lacks_state);
    if !is_caused {
        let is_closed = facts.may_be_closed(request.pool, request.began, request.ended);
        let tolerance = match excuse(facts, request) {
            _ if is_closed => Some(Tolerance::PortClosed),
            _ if request.may_be_refused && arrivals.is_empty() && answer.status < 500 => {
                Some(Tolerance::Hostile)
            }
            excuse => excuse,
        };
        match tolerance {
            Some(tolerance) => verdict.tolerates(tolerance),
            None => verdict.breaks(Rule::Cause, Some(request.id), facts.story(request)),
        }
        if !is_closed {
            return;
        }
    }
    if facts.setting.fails_over && !arrival.is_some_and(|it| is_final(facts, it)) {
        avoidable(facts, request, verdict);
    }
}

/// A response that ended too early.
fn half(
    facts: &Facts<'_>,
    request: &Request,
    answer: &Answer,
    arrival: Option<&Arrival>,
    verdict: &mut Verdict,
) {
    if answer.is_whole || answer.is_left {
        return;
    }
    match arrival {
        Some(arrival) if arrival.has_failed() => {}
        Some(arrival) if is_early(arrival) => verdict.tolerates(Tolerance::EarlyAnswer),
        _ => match excuse(facts, request) {
            Some(excuse) => verdict.tolerates(excuse),
            None => verdict.breaks(Rule::Cause, Some(request.id), facts.story(request)),
        },
    }
}

fn is_early(arrival: &Arrival) -> bool {
    matches!(arrival.did, Did::Answered { is_early: true, .. })
}

/// Whether a client gets an answer although it is an error.
fn is_final(facts: &Facts<'_>, arrival: &Arrival) -> bool {
    // That state is elsewhere is only known from the body.
    has_refused(arrival) || (arrival.lacks_state && !facts.setting.envoy.retries_held)
}

/// The provider said that the request is at fault, and not where it was sent.
fn has_refused(arrival: &Arrival) -> bool {
    matches!(arrival.did, Did::Answered { status: 400, .. }) && !arrival.lacks_state
}

/// The credentials that take new sessions all the time of a request.
pub(super) fn active<'f>(
    facts: &'f Facts<'_>,
    request: &'f Request,
) -> impl Iterator<Item = Name> + 'f {
    let pools = world::POOLS.iter().chain(&world::REPLICAS);
    let pool = pools.filter(|pool| pool.name == request.pool);
    let credentials = pool.flat_map(|pool| pool.credentials.iter().copied());
    credentials.filter(|name| facts.state(name, request.began, request.ended) == Ok(None))
}

/// The filter said that all credentials wait for an announced end, or that one does, in place of the
/// refused key that was asked last.
fn refusal(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    verdict.judged(Rule::Refusal);
    if facts.is_updated(request.pool, request.began, request.ended) {
        verdict.tolerates(Tolerance::UpdateRace);
        return;
    }
    let last = facts.arrivals(request.id).last();
    let is_dead = last.is_some_and(|it| matches!(it.did, Did::Answered { status: 401, .. }));
    let is_told = |name: Name| facts.may_be_told(name, request.began, request.ended);
    if is_dead && active(facts, request).any(is_told) {
        return;
    }
    if let Some(ready) = has_announced_nothing(facts, request) {
        let story = format!("{ready} has announced nothing: {}", facts.story(request));
        verdict.breaks(Rule::Refusal, Some(request.id), story);
    }
}

/// A credential that could have been asked: it had announced no limit.
fn has_announced_nothing(facts: &Facts<'_>, request: &Request) -> Option<Name> {
    let is_told = |name: Name| facts.may_be_told(name, request.began, request.ended);
    if facts.owner(request).is_some_and(|owner| is_told(owner.name)) {
        // Nobody else can serve it.
        return None;
    }
    active(facts, request).find(|credential| !is_told(credential))
}

/// Whether nothing explains that a request was sent to nobody.
pub(super) fn is_without_reason(facts: &Facts<'_>, request: &Request) -> bool {
    has_announced_nothing(facts, request).is_some()
        && excuse(facts, request).is_none()
        && !facts.may_be_closed(request.pool, request.began, request.ended)
}

fn avoidable(facts: &Facts<'_>, request: &Request, verdict: &mut Verdict) {
    let arrivals = facts.arrivals(request.id);
    let testimony = facts.testimony(request);
    let seen = arrivals.len() - attempts::stale(arrivals).min(1);
    if seen.max(testimony.len()) >= MAX_ATTEMPTS {
        return;
    }
    verdict.judged(Rule::Avoidable);
    let asked = |name: Name| {
        arrivals.iter().any(|arrival| arrival.credential() == Some(name))
            || testimony.iter().any(|other| other == name)
    };
    let owner = facts.owner(request);
    let ready = active(facts, request)
        .filter(|name| !asked(name) && owner.is_none_or(|owner| owner.name == *name))
        .find(|name| !facts.may_be_told(name, request.began, request.ended));
    let Some(ready) = ready else {
        return;
    };
    // What failed before the upload had ended.
    let is_on_its_way = request.is_slow_upload || request.body.length > SHORT_BODY;
    let is_early = arrivals.iter().any(|arrival| is_early(arrival));
    let is_unseen = seen < testimony.len() || arrivals.is_empty();
    if is_early || (is_on_its_way && is_unseen) {
        verdict.tolerates(Tolerance::EarlyAnswer);
    } else if let Some(excuse) = excuse(facts, request) {
        verdict.tolerates(excuse);
    } else if owner.is_some() && facts.was_missed(request) {
        verdict.tolerates(Tolerance::Nowhere);
    } else if owner.is_some() && !facts.has_kept(request.began) {
        verdict.tolerates(Tolerance::Unread);
    } else {
        let story = format!("{ready} was not asked: {}", facts.story(request));
        verdict.breaks(Rule::Avoidable, Some(request.id), story);
    }
}
