//! What the two roles of the filter share, and what access logs can show: filter states, which no
//! upstream ever sees.

use super::{host, hygiene};
use crate::response::Response;
use crate::router::Plan;

/// What was decided, and what came of it, in words.
const DECISION: &str = "session_affinity.decision";

/// What the response has cost, in words.
const USAGE: &str = "session_affinity.usage";

/// The plan of the request. It goes to the filter on the cluster, and comes back.
const PLAN: &str = "session_affinity.plan";

/// The response to the first attempt, if that was an error. A client gets it where no other
/// credential has the state that its request needs.
const FIRST_RESPONSE: &str = "session_affinity.first_response";

/// Bytes of an error's body that are kept. A longer one was not read to its end.
const LONGEST_BODY: usize = (8 << 10) - 1;

pub(super) fn set_usage(words: &str) {
    host::set_filter_state(USAGE, words.as_bytes());
}

pub(super) fn set_decision(words: &[u8]) {
    host::set_filter_state(DECISION, words);
}

/// The words of the decision, and of what came of it so far.
pub(super) fn decision() -> Vec<u8> {
    host::filter_state(DECISION)
}

/// Whether a filter in a listener has decided the stream.
pub(super) fn is_decided() -> bool {
    !decision().is_empty()
}

/// The current plan; `None` for a stream that has none.
pub(super) fn plan() -> Option<Plan> {
    Plan::decode(&host::filter_state(PLAN))
}

/// Keeps the response to the first attempt, if it is whole.
pub(super) fn set_first_response(response: &Response<'_>, hides_account: bool) {
    let Response::Received { status, headers, body } = response else { return };
    if body.len() > LONGEST_BODY {
        return;
    }
    let mut message = status.to_le_bytes().to_vec();
    for (name, value) in headers.iter().filter(|(name, _)| hygiene::may_be_given(name)) {
        if hides_account && hygiene::names_account(name) {
            continue;
        }
        for text in [name.as_bytes(), value] {
            let Ok(length) = u16::try_from(text.len()) else { return };
            message.extend_from_slice(&length.to_le_bytes());
            message.extend_from_slice(text);
        }
    }
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(body);
    host::set_filter_state(FIRST_RESPONSE, &message);
}

/// A response that was kept.
pub(super) struct FirstResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// The response to the first attempt.
pub(super) fn first_response() -> Option<FirstResponse> {
    let message = host::filter_state(FIRST_RESPONSE);
    let (status, mut rest) = message.split_first_chunk::<2>()?;
    let mut headers = Vec::new();
    loop {
        let name = take_text(&mut rest)?;
        if name.is_empty() {
            let (status, body) = (u16::from_le_bytes(*status), rest.to_vec());
            return Some(FirstResponse { status, headers, body });
        }
        headers.push((String::from_utf8(name.to_vec()).ok()?, take_text(&mut rest)?.to_vec()));
    }
}

fn take_text<'m>(message: &mut &'m [u8]) -> Option<&'m [u8]> {
    let (length, rest) = message.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *message = rest;
    Some(text)
}

/// Whether there is a plan, readable or not.
pub(super) fn has_plan() -> bool {
    !host::filter_state(PLAN).is_empty()
}

/// The request ends here, whatever its attempts are doing: nothing follows from how they end.
pub(super) fn remove_plan() {
    host::set_filter_state(PLAN, b"");
}

/// Keeps the plan for the next filter that sees the stream.
pub(super) fn set_plan(plan: &Plan) {
    host::set_filter_state(PLAN, &plan.encode());
}
