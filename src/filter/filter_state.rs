//! What the two roles of the filter share, and what access logs can show: filter states, which no
//! upstream ever sees.

use super::host;
use crate::router::Plan;

/// What was decided, and what came of it, in words.
const DECISION: &str = "session_affinity.decision";

/// The plan of the request. It goes to the filter on the cluster, and comes back.
const PLAN: &str = "session_affinity.plan";

pub(super) fn set_decision(words: &str) {
    host::set_filter_state(DECISION, words.as_bytes());
}

/// Adds to the words of the decision what came of it.
pub(super) fn extend_decision(words: &str) {
    let decision = host::filter_state(DECISION);
    host::set_filter_state(DECISION, &[&decision, words.as_bytes()].concat());
}

/// The current plan; `None` for a stream that has none.
pub(super) fn plan() -> Option<Plan> {
    Plan::decode(&host::filter_state(PLAN))
}

/// Keeps the plan for the next filter that sees the stream.
pub(super) fn set_plan(plan: &Plan) {
    host::set_filter_state(PLAN, &plan.encode());
}
