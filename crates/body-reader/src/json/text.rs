//! What a value says: strings unescaped, numbers in plain decimals, as the reference's parser
//! spells them.

use std::borrow::Cow;

use crate::steps;

/// The text of a string, given the bytes between its quotes. A lone surrogate becomes U+FFFD. A
/// string with an escape ends before a raw control character and before an escape that JSON does
/// not know; one without keeps all its bytes.
pub(super) fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', bytes).is_none() {
        steps::count(bytes.len());
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    unescape_into(bytes, usize::MAX, &mut out);
    Cow::Owned(out)
}

/// The first bytes of a string's text, at least so many if there are; given the bytes between its
/// quotes. What is not as it was sent is written into `scratch`.
pub(super) fn beginning<'s>(bytes: &'s [u8], most: usize, scratch: &'s mut Vec<u8>) -> &'s [u8] {
    let near = bytes.get(..most).unwrap_or(bytes);
    steps::count(near.len());
    if near.iter().all(is_plain) {
        return near;
    }
    if memchr::memchr(b'\\', bytes).is_none() {
        steps::count(bytes.len());
        return near;
    }
    scratch.clear();
    unescape_into(bytes, most, scratch);
    scratch
}

fn is_plain(byte: &u8) -> bool {
    *byte >= b' ' && *byte != b'\\'
}

/// Writes the text of a string with an escape; not much more than the first bytes of it, if `most`
/// are enough.
fn unescape_into(bytes: &[u8], most: usize, out: &mut Vec<u8>) {
    let mut rest = bytes;
    while out.len() < most {
        let near = rest.get(..most - out.len()).unwrap_or(rest);
        let plain = near.iter().position(|byte| !is_plain(byte)).unwrap_or(near.len());
        steps::count(plain + 1);
        out.extend_from_slice(rest.get(..plain).unwrap_or_default());
        rest = match rest.get(plain..).and_then(<[u8]>::split_first) {
            Some((b'\\', tail)) => match escape(tail, out) {
                Some(tail) => tail,
                None => return,
            },
            _ => return,
        };
    }
}

/// Reads what follows a backslash, and gives what follows the escape. `None` for an escape that is
/// cut or unknown.
fn escape<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&letter, rest) = bytes.split_first()?;
    out.push(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unicode_escape(rest, out),
        _ => return None,
    });
    Some(rest)
}

/// Reads what follows `\u`. After the first half of a surrogate pair any second `\u` escape is
/// consumed with it, even one that is no second half: the reference does so, and ids have to be the
/// same bytes.
fn unicode_escape<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (unit, mut rest) = code_unit(bytes)?;
    let mut units = [unit, 0];
    let mut used = 1;
    if matches!(unit, 0xd800..=0xdfff)
        && let Some((second, tail)) = rest.strip_prefix(b"\\u").and_then(code_unit)
    {
        units = [unit, second];
        used = 2;
        rest = tail;
    }
    let character = match char::decode_utf16(units.into_iter().take(used)).next() {
        Some(Ok(character)) => character,
        _ => char::REPLACEMENT_CHARACTER,
    };
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

/// Four hexadecimal digits; four bytes that are none count as zero.
fn code_unit(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(4)?;
    let mut unit = 0;
    for &digit in digits {
        match char::from(digit).to_digit(16) {
            Some(digit) => unit = unit * 16 + digit as u16,
            None => return Some((0, rest)),
        }
    }
    Some((unit, rest))
}

/// A number's text: an integer as it was sent, whatever its length; any other spelling as the
/// shortest plain decimal of its double. What cannot be read as a number counts as zero.
pub(super) fn plain_decimal(raw: &[u8]) -> Cow<'_, [u8]> {
    let digits = raw.strip_prefix(b"-").unwrap_or(raw);
    steps::count(raw.len());
    if digits.iter().all(u8::is_ascii_digit) {
        return Cow::Borrowed(raw);
    }
    let number =
        std::str::from_utf8(raw).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let text = if number == f64::INFINITY {
        "+Inf".to_owned()
    } else if number == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        number.to_string()
    };
    Cow::Owned(text.into_bytes())
}
