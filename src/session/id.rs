//! What may be an id.

/// Bytes of the longest id. Clients' own limits are lower; a longer text is a prompt or an attack.
const LONGEST: usize = 256;

/// The id in a text: without the white space around it. `None` if nothing is left, if it is too
/// long, or if the text holds a control character anywhere, also at its edges: such a value was not
/// made by a client that names its session.
pub(super) fn valid(text: &[u8]) -> Option<&[u8]> {
    let trimmed = match std::str::from_utf8(text) {
        Ok(text) if text.contains(char::is_control) => return None,
        Ok(text) => text.trim().as_bytes(),
        Err(_) if text.iter().any(u8::is_ascii_control) => return None,
        Err(_) => text.trim_ascii(),
    };
    (1..=LONGEST).contains(&trimmed.len()).then_some(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_trimmed_and_bounded_and_printable() {
        let longest = "x".repeat(LONGEST);
        let too_long = "x".repeat(LONGEST + 1);
        for (text, expected) in [
            ("a", Some("a")),
            ("  a b\u{a0} ", Some("a b")),
            ("héllo", Some("héllo")),
            (longest.as_str(), Some(longest.as_str())),
            (too_long.as_str(), None),
            ("", None),
            ("   ", None),
            ("a\n", None),
            ("\ta", None),
            ("a\u{0}b", None),
            ("a\u{7f}", None),
            ("a\u{85}", None),
        ] {
            assert_eq!(valid(text.as_bytes()), expected.map(str::as_bytes), "{text:?}");
        }
        assert_eq!(
            valid(b" caf\xe9 "),
            Some(b"caf\xe9".as_slice()),
            "not UTF-8, but an id all the same"
        );
        assert_eq!(valid(b"caf\xe9\n"), None);
    }
}
