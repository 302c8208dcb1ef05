//! The rule that sparing refuses nothing: while the providers of all credentials say that their
//! limits are nearly used, requests are served all the same.
//!
//! What was told last counts, as the provider wrote it. The filter reads it now and then, so it may
//! know less; that makes no difference to a rule which says what must not come of it.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Rule, Verdict, errors};
use crate::history::{End, Name, Request, Time};
use crate::limits::SPARED;

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    if !facts.setting.spares {
        return;
    }
    let told = facts.history.arrivals.iter().filter_map(|arrival| {
        let (credential, used) = arrival.credential().zip(arrival.used)?;
        Some((arrival.done, credential, used))
    });
    let mut told: Vec<(Time, Name, u8)> = told.collect();
    told.sort_unstable();
    let mut told = told.into_iter().peekable();
    let mut requests: Vec<&Request> = facts.history.requests.iter().collect();
    requests.sort_by_key(|request| request.began);
    let mut last: BTreeMap<Name, u8> = BTreeMap::new();
    for request in requests {
        while let Some((_, credential, used)) = told.next_if(|(at, ..)| *at < request.began) {
            last.insert(credential, used);
        }
        let is_near = |name| last.get(name).is_some_and(|used| *used >= SPARED);
        let mut active = errors::active(facts, request).peekable();
        if request.may_be_refused || active.peek().is_none() || !active.all(is_near) {
            continue;
        }
        verdict.judged(Rule::Spare);
        let is_refused = matches!(&request.end, End::Answered(answer) if answer.status >= 400)
            && facts.arrivals(request.id).is_empty();
        if is_refused && errors::is_without_reason(facts, request) {
            verdict.breaks(Rule::Spare, Some(request.id), facts.story(request));
        }
    }
}
