//! What of a text somebody typed, and what of a system prompt lasts.

/// The longest name of a tag.
const TAG: usize = 64;

/// A text without its blocks `<…reminder…>…</…reminder…>`, in trimmed pieces. A block that is not
/// closed goes to the end of the text.
pub(super) fn without_reminders(text: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, behind) = reminder(rest).unwrap_or((rest, b""));
        pieces.push(piece.trim_ascii());
        rest = behind;
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// What stands before the first reminder, and what behind it.
fn reminder(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        at = next_tag(text, at)?;
        let (before, tag) = text.split_at_checked(at)?;
        let name = tag.iter().skip(1).take(TAG).take_while(|byte| is_of_name(**byte)).count();
        let name = tag.get(1..=name)?;
        if name.windows(8).any(|word| word == b"reminder") {
            return Some((before, behind(tag, name)));
        }
        at += 1;
    }
}

/// What stands behind the closing tag of that name.
fn behind<'t>(text: &'t [u8], name: &[u8]) -> &'t [u8] {
    let mut at = 0;
    while let Some(next) = next_tag(text, at) {
        let tag = text.get(next..).unwrap_or_default().strip_prefix(b"</");
        let closed = tag.and_then(|tag| tag.strip_prefix(name)?.strip_prefix(b">"));
        if let Some(behind) = closed {
            return behind;
        }
        at = next + 1;
    }
    b""
}

#[inline(never)]
fn next_tag(text: &[u8], from: usize) -> Option<usize> {
    Some(from + memchr::memchr(b'<', text.get(from..)?)?)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'.')
}

/// The first line of a trimmed text.
pub(super) fn first_line(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    text.get(..end).unwrap_or(text).trim_ascii_end()
}

/// The words of a system prompt that do not change from turn to turn: no times and dates, and
/// nothing of the block in which Claude Code accounts for a request.
pub(super) fn lasting(text: &[u8]) -> Vec<u8> {
    let mut words = Vec::new();
    if text.trim_ascii_start().starts_with(b"x-anthropic-billing-header:") {
        return words;
    }
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || b"<>\",;".contains(byte);
    for word in text.split(is_between).filter(|word| !word.is_empty() && !is_time(word)) {
        words.extend_from_slice(word);
        words.push(b' ');
    }
    words
}

/// `18:05`, `2026-11-25`, `2026-11-25T18:05:27.072+00:00`, `11/25/2026`: digits on both sides of a
/// separator, and enough of them.
fn is_time(word: &[u8]) -> bool {
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    word.windows(3).any(|at| match at {
        [left, separator, right] if left.is_ascii_digit() && right.is_ascii_digit() => {
            match separator {
                b':' => digits >= 3,
                b'-' | b'/' | b'.' => digits >= 6,
                _ => false,
            }
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Vec<String> {
        let pieces = without_reminders(text.as_bytes()).into_iter();
        pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    #[test]
    fn reminders_are_no_part_of_what_was_typed() {
        let none: [&str; 0] = [];
        assert_eq!(typed("Why?"), ["Why?"]);
        assert_eq!(typed("<system-reminder>\na\n</system-reminder>\n\nWhy? \n"), ["Why?"]);
        assert_eq!(typed("Why?\n<system_reminder id=\"1\">a</system_reminder>"), ["Why?"]);
        assert_eq!(typed("a <reminder>b</reminder> c"), ["a", "c"]);
        assert_eq!(typed("<system-reminder>\nnever closed"), none);
        assert_eq!(typed(""), none);
    }

    #[test]
    fn a_text_about_reminders_is_no_reminder() {
        for text in ["Set a reminder for 5", "a < reminder", "</system-reminder> x", "<p> reminder"]
        {
            assert_eq!(typed(text), [text]);
        }
    }

    #[test]
    fn times_do_not_last() {
        let words = |text: &str| lasting(text.as_bytes());
        assert_eq!(
            words("Now: 2026-11-25T18:05:27.072+00:00, 6:05 or 18:05:27. On 11/25/2026 in v2.1"),
            words("Now: or On in v2.1")
        );
        assert_eq!(words("Customer 4711 of 12"), words("Customer 4711  of 12"));
        assert_ne!(words("Customer 4711"), words("Customer 4712"));
        assert_eq!(words("x-anthropic-billing-header: cch=3f1a9;"), words(""));
    }
}
