//! Claude Code's session inside `metadata.user_id`.
//!
//! Up to 2.1.77 the field reads `user_<hash>_account_<uuid or nothing>_session_<uuid>`; since
//! 2.1.78 it is a JSON object in a string, `{"device_id":…,"account_uuid":…,"session_id":…}`.

use crate::json::{Kind, Value};

/// The session id as the reference finds it. The old form is tried first, on the text as it is; the
/// JSON form counts only if the very first byte opens an object; its session id may be of any type.
pub(super) fn reference_session(user_id: &[u8]) -> Option<Vec<u8>> {
    if let Some(id) = old_form(user_id) {
        return Some(id.to_vec());
    }
    let id = json_form(user_id)?.text().into_owned();
    (!id.is_empty()).then_some(id)
}

/// The session id of a field that is a string, white space around it ignored. What begins like JSON
/// is only read as JSON.
pub(super) fn session(user_id: &[u8]) -> Option<Vec<u8>> {
    let user_id = user_id.trim_ascii();
    if user_id.first() == Some(&b'{') {
        return json_form(user_id)
            .filter(|id| id.kind() == Kind::String)
            .map(|id| id.text().into_owned());
    }
    old_form(user_id).map(<[u8]>::to_vec)
}

/// The expression `_session_([a-f0-9-]+)$`. The marker's last byte is not of the class, so the
/// group can only be the longest tail that is.
fn old_form(user_id: &[u8]) -> Option<&[u8]> {
    let is_of_class = |byte: &u8| matches!(byte, b'a'..=b'f' | b'0'..=b'9' | b'-');
    let start = user_id.iter().rposition(|byte| !is_of_class(byte))? + 1;
    let (before, id) = user_id.split_at_checked(start)?;
    (!id.is_empty() && before.ends_with(b"_session_")).then_some(id)
}

fn json_form(user_id: &[u8]) -> Option<Value<'_>> {
    if user_id.first() != Some(&b'{') {
        return None;
    }
    Value::document(user_id)?.get("session_id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_form_is_its_regular_expression() {
        let expression = regex::bytes::Regex::new(r"(?-u)_session_([a-f0-9-]+)$").unwrap();
        for text in [
            "user_1_account__session_0a-1b",
            "_session_a",
            "_session_",
            "_session_A",
            "_session_a ",
            "_session_a\n",
            "_session_x_session_b",
            "_session_b_session_",
            "session_a",
            "abc",
            "",
            "_session_٣",
        ] {
            let expected = expression.captures(text.as_bytes()).map(|groups| groups[1].to_vec());
            assert_eq!(old_form(text.as_bytes()).map(<[u8]>::to_vec), expected, "{text:?}");
        }
    }

    #[test]
    fn the_recommended_rules_are_stricter_about_json_and_laxer_about_blanks() {
        for (text, reference, recommended) in [
            (r#"{"session_id":"s"}"#, Some("s"), Some("s")),
            (r#" {"session_id":"s"}"#, None, Some("s")),
            (r#"{"session_id":7}"#, Some("7"), None),
            (r#"{"x":"_session_a"}_session_b"#, Some("b"), None),
            (" _session_a ", None, Some("a")),
            (r#"{"session_id":""}"#, None, Some("")),
        ] {
            assert_eq!(reference_session(text.as_bytes()), reference.map(|id| id.into()), "{text}");
            assert_eq!(session(text.as_bytes()), recommended.map(|id| id.into()), "{text}");
        }
    }
}
