//! Where values begin and end.

use std::borrow::Cow;

use super::{Kind, Value, text};

/// Iterator over the members of an object: the unescaped key and the value.
pub struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    pub(super) fn new(object: &'a [u8]) -> Self {
        Self { rest: object.get(1..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key_start = self.rest.iter().position(|byte| matches!(byte, b'"' | b'}'))?;
        if self.rest.get(key_start) != Some(&b'"') {
            self.rest = b"";
            return None;
        }
        let (key, rest) = split_string(self.rest.get(key_start..)?)?;
        // Whatever is between key and value is passed over, the colon included: a tolerant
        // reader needs only the first byte that can begin a value.
        let value_start = rest.iter().position(|&byte| kind_of(byte).is_some())?;
        let (value, rest) = split_value(rest.get(value_start..)?)?;
        self.rest = rest;
        Some((text::unescape(without_quotes(key)), value))
    }
}

/// Iterator over the elements of an array, or over the values of an object.
pub struct Elements<'a> {
    rest: &'a [u8],
    keyed: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn new(container: &'a [u8]) -> Self {
        Self {
            rest: container.get(1..).unwrap_or_default(),
            keyed: container.first() == Some(&b'{'),
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.keyed {
            let key_start = memchr::memchr(b'"', self.rest)?;
            (_, self.rest) = split_string(self.rest.get(key_start..)?)?;
        }
        let value_start = self.rest.iter().position(|&byte| kind_of(byte).is_some())?;
        let (value, rest) = split_value(self.rest.get(value_start..)?)?;
        // The byte behind a value is a separator. The reference passes over it without a look, so
        // that where the comma is missing the first byte of the next value is lost.
        self.rest = rest.get(1..).unwrap_or_default();
        Some(value)
    }
}

/// The bytes between a string's quotes.
pub(super) fn without_quotes(string: &[u8]) -> &[u8] {
    string.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default()
}

/// The kind of value that a byte begins; `None` for a byte that begins none.
fn kind_of(first: u8) -> Option<Kind> {
    Some(match first {
        b'"' => Kind::String,
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        // Spellings of numbers that JSON does not know, but the reference reads: `+5`, `Infinity`,
        // `NaN`.
        b'0'..=b'9' | b'-' | b'+' | b'i' | b'I' | b'N' => Kind::Number,
        _ => return None,
    })
}

/// Splits the value that begins at the first byte from what follows it. `None` if it is a string
/// without an end.
fn split_value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let kind = match kind_of(*bytes.first()?)? {
        Kind::Null if bytes.get(1).is_some_and(|&second| second != b'u') => Kind::Number, // `nan`
        kind => kind,
    };
    let (raw, rest) = match kind {
        Kind::String => split_string(bytes)?,
        Kind::Object | Kind::Array => bytes.split_at(container_length(bytes)),
        Kind::Number => {
            split_before(bytes, |byte| byte <= b' ' || matches!(byte, b',' | b']' | b'}'))
        }
        Kind::Null | Kind::True | Kind::False => {
            split_before(bytes, |byte| !byte.is_ascii_lowercase())
        }
    };
    Some((Value { kind, raw }, rest))
}

fn split_before(bytes: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len()))
}

/// Splits the string that begins at the first byte, quotes included, from what follows it. `None`
/// if it has no end.
///
/// Escapes are many in prompts, quotes are few: so quotes are searched for, and only before one the
/// backslashes are counted. A quote behind an odd number of them belongs to the string.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 1;
    loop {
        let quote = from + memchr::memchr(b'"', bytes.get(from..)?)?;
        let before = bytes.get(from..quote)?.iter().rev();
        let backslashes = before.take_while(|&&byte| byte == b'\\').count();
        if backslashes % 2 == 0 {
            return bytes.split_at_checked(quote + 1);
        }
        from = quote + 1;
    }
}

/// The length of the object or array that begins at the first byte; all there is, if it has no end.
/// Brackets are only counted, not paired: that is enough for valid JSON, and needs no memory for
/// the depth.
fn container_length(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => match bytes.get(at..).and_then(split_string) {
                Some((string, _)) => {
                    at += string.len();
                    continue;
                }
                None => return bytes.len(),
            },
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
