//! The scenarios: requests that meet, and what holds after every order of their reads and writes.

mod answers;
mod decisions;
mod state;

use session_affinity::group;
use session_affinity::outcome::Outcome;

use crate::requests::{After, Answer, LATER, Scenario, Seen, Work, alone_on_a_copy};

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [decisions::SCENARIOS, answers::SCENARIOS, state::SCENARIOS].into_iter().flatten()
}

pub(super) const PLAIN: [&str; 3] = ["{}"; 3];
pub(super) const ALL: Option<u32> = None;

pub(super) fn together(after: &After<'_>) -> bool {
    after.seen.iter().all(|it| it.served() == after.seen[0].served())
}

pub(super) fn apart(after: &After<'_>) -> bool {
    let mut served: Vec<_> = after.seen.iter().filter_map(Seen::served).collect();
    served.sort_unstable();
    served.dedup();
    served.len() == after.seen.len()
}

/// Three sessions are placed at three credentials.
pub(super) fn chosen_apart(after: &After<'_>) -> bool {
    let mut chosen: Vec<_> = after.seen.iter().filter_map(|it| it.first).collect();
    chosen.sort_unstable();
    chosen == ["a", "b", "c"]
}

pub(super) fn anything(_: &After<'_>) -> bool {
    true
}

/// Every session has a credential of its own, which counts it.
pub(super) fn apart_and_counted(after: &After<'_>) -> bool {
    let counts = |id| {
        let headroom = after.router.headroom();
        let record = headroom.record(after.credential(id), after.shared);
        // Some seconds have passed since they began.
        (0.9..1.01).contains(&record.begun(LATER)) && (0.9..1.01).contains(&record.carried(LATER))
    };
    apart(after) && ["a", "b", "c"].into_iter().all(counts)
}

pub(super) fn all_are_placed(after: &After<'_>) -> bool {
    after.seen.iter().all(|it| it.first.is_some())
}

/// Of those that come while no credential is ready, one probes the one that is ready first.
pub(super) fn one_probe(after: &After<'_>) -> bool {
    let to = |id| after.seen.iter().filter(|it| it.is_probe && it.first == Some(id)).count();
    to("c") == 1 && to("a") == after.seen.len() - 1
}

/// A home and a substitute that served at once are both kept.
pub(super) fn both_are_kept(after: &After<'_>) -> bool {
    let bound = after.bound.unwrap();
    let kept = [bound.home.served, bound.substitute.unwrap().served];
    let has_moved = |it: &Seen| it.served() == Some(if it.sent.len() > 1 { "b" } else { "a" });
    after.seen.iter().all(has_moved) && kept == [Some(LATER); 2]
}

/// Every failure of the home counts: the session stays away from it.
pub(super) fn all_failures_count(after: &After<'_>) -> bool {
    let bound = after.bound.unwrap();
    after.seen.iter().all(|it| it.sent.len() == 2)
        && usize::from(bound.failures) == after.seen.len()
        && bound.avoid_until > LATER
}

/// What three answers have told of their credential is all known.
pub(super) fn all_is_known(after: &After<'_>) -> bool {
    let a = after.credential("a");
    let record = after.router.headroom().record(a, after.shared);
    let names: Vec<_> = record.windows(LATER).filter_map(|window| window.name()).collect();
    ["5h", "7d"].iter().all(|name| names.contains(name)) && group::of(a, after.shared).is_some()
}

/// The same, unless `b` said that it is gone, or no one looked any more when all had said so.
pub(super) fn found_unless_gone(after: &After<'_>) -> bool {
    let said_so = |it: &Seen| it.sent == [("b", 404, None)];
    found_at_b(after)
        || after.seen.iter().any(said_so)
        || after.seen.iter().all(|it| it.served().is_none())
}

/// Whoever asks for the response from now on is sent to `b`.
pub(super) fn found_at_b(after: &After<'_>) -> bool {
    let asks = alone_on_a_copy(after.router, after.shared, &Work::Refer("9", "resp_0", &[]));
    (asks.outcome, asks.first) == (Some(Outcome::Pinned), Some("b"))
}

pub(crate) const LIMITED: Answer = ("a", 429, Some(60));
pub(super) const LONGER: Answer = ("a", 429, Some(3_600));
pub(super) const FAILS: &[Answer] = &[("a", 500, None)];
/// A refusal that names no time, of a credential that has just served.
pub(super) const CROWDED: &[Answer] = &[("a", 429, None)];
pub(super) const NONE_IS_READY: &[Answer] =
    &[("a", 503, Some(9)), ("b", 503, Some(8)), ("c", 529, Some(7))];
pub(super) const ALL_LIMITED: &[Answer] =
    &[("a", 429, Some(86_400)), ("b", 429, Some(86_400)), ("c", 429, Some(86_400))];

pub(super) type Header = (&'static str, &'static str);
pub(super) const FIVE_HOURS: [Header; 2] = [
    ("anthropic-ratelimit-unified-5h-utilization", "0.42"),
    ("anthropic-ratelimit-unified-5h-reset", "1010000"),
];
pub(super) const WEEK: [Header; 2] = [
    ("anthropic-ratelimit-unified-7d-utilization", "0.83"),
    ("anthropic-ratelimit-unified-7d-reset", "1500000"),
];
pub(super) const OF_GROUP: [Header; 2] =
    [("anthropic-organization-id", "o"), ("anthropic-workspace-id", "w")];
