//! Claude Code's session inside `metadata.user_id`.
//!
//! Up to 2.1.77 the field reads `user_<hash>_account_<uuid or nothing>_session_<uuid>`; since 2.1.78 it is a JSON object
//! in a string, `{"device_id":…,"account_uuid":…,"session_id":…}`.

use crate::json::Value;

/// The session id in a `metadata.user_id`; `None` if it is not Claude Code's.
pub(super) fn session_of(user_id: &[u8]) -> Option<Vec<u8>> {
    old_form(user_id).map(<[u8]>::to_vec).or_else(|| json_form(user_id))
}

/// The reference's expression `_session_([a-f0-9-]+)$`. The marker's last byte is not of the class, so the group can
/// only be the longest tail that is.
fn old_form(user_id: &[u8]) -> Option<&[u8]> {
    let is_of_class = |byte: &u8| matches!(byte, b'a'..=b'f' | b'0'..=b'9' | b'-');
    let start = user_id.iter().rposition(|byte| !is_of_class(byte))? + 1;
    let (before, id) = user_id.split_at_checked(start)?;
    (!id.is_empty() && before.ends_with(b"_session_")).then_some(id)
}

/// Counts only if the very first byte opens an object: the reference does not skip blanks here.
fn json_form(user_id: &[u8]) -> Option<Vec<u8>> {
    if user_id.first() != Some(&b'{') {
        return None;
    }
    let id = Value::document(user_id)?.get("session_id")?.text().into_owned();
    (!id.is_empty()).then_some(id)
}
