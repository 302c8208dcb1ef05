//! Rules for what is there when all is over: counters, memory, and nothing else.

use super::facts::Facts;
use super::{Rule, Verdict};
use crate::history::{End, Ending};

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
    let (mut decided, mut served, mut unknown) = (0, 0, 0);
    for request in &facts.history.requests {
        match &request.end {
            End::Answered(answer) if answer.decision.is_empty() => unknown += 1,
            End::Answered(answer) => {
                decided += 1;
                let arrival = facts.answered(request);
                match arrival {
                    Some(arrival) if arrival.did.is_served() && answer.is_whole => served += 1,
                    // An error that no attempt before it can have been served.
                    Some(arrival) if arrival.has_failed() && answer.status >= 400 => {}
                    None => {}
                    Some(_) => unknown += 1,
                }
            }
            End::Broken(_) | End::Aborted(_) | End::Hung => unknown += 1,
        }
    }
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
