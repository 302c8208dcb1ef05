//! The rule that a request which refers to what one credential keeps goes there, and nowhere else.
//!
//! The filter knows who has a response when it has seen it pass; where another gateway has seen it, or
//! what this one had seen may be lost, it may look for it, and the rule does not count.

use super::facts::Facts;
use super::{Rule, Tolerance, Verdict};
use crate::history::{Did, End, Kept, Name, Request, State, Time};

/// Who has what a request refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) name: Name,
    /// Whether the filter must know.
    is_known: bool,
}

impl Facts<'_> {
    /// Who has what a request refers to; `None` if it refers to nothing.
    pub(super) fn owner(&self, request: &Request) -> Option<Owner> {
        let (creator, number) = match request.refers_to? {
            Kept::Here { request, attempt } => (request, attempt),
            Kept::Elsewhere { owner, .. } => return Some(Owner { name: owner, is_known: false }),
        };
        let arrivals = self.arrivals(creator);
        let arrival = arrivals.iter().find(|arrival| arrival.number == number)?;
        let name = arrival.credential()?;
        let is_seen = self.request(creator).is_some_and(|creator| {
            let (from, to) = (creator.began, creator.ended);
            !self.has_trapped(from, to) && !self.is_updated(creator.pool, from, to)
        });
        let is_whole = matches!(arrival.did, Did::Answered { .. });
        Some(Owner { name, is_known: is_seen && is_whole })
    }

    /// Whether a response that is kept had passed by this time.
    pub(super) fn has_kept(&self, by: Time) -> bool {
        self.history.requests.iter().any(|request| {
            request.ended <= by && matches!(&request.end, End::Answered(it) if it.is_kept)
        })
    }

    /// Whether a credential that was asked earlier did not have what a request refers to.
    pub(super) fn was_missed(&self, request: &Request) -> bool {
        let of_the_same = self.history.requests.iter().filter(|other| {
            other.session == request.session
                && other.refers_to == request.refers_to
                && other.began < request.began
        });
        let mut arrivals = of_the_same.flat_map(|other| self.arrivals(other.id));
        arrivals.any(|arrival| arrival.lacks_state)
    }
}

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    for request in &facts.history.requests {
        let Some(owner) = facts.owner(request) else {
            continue;
        };
        let arrivals = facts.arrivals(request.id);
        let (Some(last), true) = (arrivals.last(), owner.is_known) else {
            continue;
        };
        match facts.state(owner.name, request.began, last.at) {
            Ok(None | Some(State::Draining)) => {}
            Ok(Some(State::Disabled | State::Absent)) => continue,
            Err(()) => {
                verdict.tolerates(Tolerance::UpdateRace);
                continue;
            }
        }
        verdict.judged(Rule::Pin);
        if arrivals.iter().any(|arrival| arrival.credential() != Some(owner.name)) {
            let story = format!("{} has its state: {}", owner.name, facts.story(request));
            verdict.breaks(Rule::Pin, Some(request.id), story);
        }
    }
}
