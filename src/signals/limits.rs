//! The limits that Codex tells on a WebSocket: in a message at the beginning of every turn, in place
//! of headers. Read as the headers of a response would be. C

use crate::json::Value;
use crate::request::Headers;

/// Members of a window, and the ends of the headers that tell the same.
const FIELDS: [(&str, &str); 4] = [
    ("used_percent", "-used-percent"),
    ("window_minutes", "-window-minutes"),
    ("reset_at", "-reset-at"),
    ("reset_after_seconds", "-reset-after-seconds"),
];

/// The headers that would tell what this message tells of limits; `None` if it is about something else.
#[inline(never)]
pub(super) fn told_by(message: &[u8]) -> Option<Headers> {
    let event = Value::document(message)?;
    if !says(event, "type", &["codex.rate_limits"]) {
        return None;
    }
    let mut told = Headers::default();
    // A turn with the model that has its own limit may tell that in place of the account's.
    if says(event, "metered_limit_name", &["", "codex", "premium"]) {
        tell("x-codex-", event.get("rate_limits"), &mut told);
    }
    let others = event.get("additional_rate_limits");
    tell("x-codex-bengalfox-", others.and_then(|it| it.get("GPT-5.3-Codex-Spark")), &mut told);
    Some(told)
}

/// Whether a member is one of these words; one that is not there is empty.
#[inline(never)]
fn says(event: Value<'_>, member: &str, words: &[&str]) -> bool {
    let text = event.get(member).map(Value::text).unwrap_or_default();
    words.iter().any(|word| word.as_bytes() == text.as_ref())
}

#[inline(never)]
fn tell(prefix: &str, limits: Option<Value<'_>>, told: &mut Headers) {
    for window in ["primary", "secondary"] {
        let members = limits.and_then(|limits| limits.get(window));
        for (member, end) in FIELDS {
            if let Some(value) = members.and_then(|members| members.get(member)) {
                told.push([prefix, window, end].concat(), &value.text());
            }
        }
    }
}
