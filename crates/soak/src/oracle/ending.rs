//! Rules for what is there when all is over: counters, memory, and nothing else.

use super::facts::Facts;
use super::{Rule, Setting, Verdict};
use crate::history::{End, Ending, History};

/// So much may memory grow: allocators round, tables of Envoy and of V8 double.
const GROWTH: u64 = 32 << 20;

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    counters(facts, verdict);
    let Ending { memory_before, memory_after, left, complaints, .. } = &facts.history.ending;
    verdict.judged(Rule::Memory);
    if *memory_after > memory_before + memory_before / 5 + GROWTH {
        let story = format!("{memory_before} bytes after the warm-up, {memory_after} at the end");
        verdict.breaks(Rule::Memory, None, story);
    }
    verdict.judged(Rule::Left);
    for (name, count) in left {
        verdict.breaks(Rule::Left, None, format!("{name}: {count}"));
    }
    verdict.judged(Rule::Log);
    for line in complaints {
        verdict.breaks(Rule::Log, None, line.clone());
    }
}

/// What is known for certain is the least, and what a client cannot know on top of it is the most:
/// whether a request that it gave up had reached the filter, and how it would have ended.
fn counters(facts: &Facts<'_>, verdict: &mut Verdict) {
    let ending = &facts.history.ending;
    if ending.reloads > 0 {
        // A VM that traps loses what it has counted in the last second.
        return;
    }
    let Known { decided, served, unknown } = Known::from_facts(facts);
    for (name, counted, least) in [
        ("streams", ending.counted_requests, decided),
        ("attempts that were served", ending.counted_successes, served),
    ] {
        verdict.judged(Rule::Counters);
        if counted < least || counted > least + unknown {
            let story = format!("{name}: {counted} counted, {least} to {} seen", least + unknown);
            verdict.breaks(Rule::Counters, None, story);
        }
    }
}

/// What clients and providers know of the counters.
#[derive(Default)]
pub(crate) struct Known {
    /// Streams that the filter has decided for certain.
    pub(crate) decided: u64,
    /// Attempts that were served for certain.
    pub(crate) served: u64,
    /// What may be counted on top of each.
    unknown: u64,
}

impl Known {
    pub(crate) fn of(history: &History, setting: Setting) -> Self {
        Self::from_facts(&Facts::new(history, setting))
    }

    fn from_facts(facts: &Facts<'_>) -> Self {
        let mut known = Self::default();
        for request in &facts.history.requests {
            match &request.end {
                End::Answered(answer) if answer.decision.is_empty() => known.unknown += 1,
                End::Answered(answer) => {
                    known.decided += 1;
                    let arrival = facts.answered(request);
                    match arrival {
                        Some(it) if it.did.is_served() && answer.is_whole => known.served += 1,
                        // An error that no attempt before it can have been served.
                        Some(it) if it.has_failed() && answer.status >= 400 => {}
                        None => {}
                        Some(_) => known.unknown += 1,
                    }
                }
                End::Broken(_) | End::Aborted(_) | End::Hung => known.unknown += 1,
            }
        }
        known
    }
}
