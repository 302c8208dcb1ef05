//! Where values begin and end.

use std::borrow::Cow;

use super::{Kind, Value, skip, text};
use crate::steps;

/// Iterator over the members of an object: the unescaped key and the value.
pub struct Members<'a>(RawMembers<'a>);

impl<'a> Members<'a> {
    pub(super) fn new(members: RawMembers<'a>) -> Self {
        Self(members)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key.text(), value))
    }
}

/// The key of a member as it was sent.
#[derive(Clone, Copy)]
pub(crate) struct RawKey<'a>(&'a [u8]);

impl<'a> RawKey<'a> {
    /// The key, unescaped.
    fn text(self) -> Cow<'a, [u8]> {
        text::unescape(self.0)
    }

    /// The key, unescaped, if it is short enough to be a name of at most so many bytes. A text with
    /// escapes is written into `scratch`.
    pub(crate) fn short_text<'s>(self, most: usize, scratch: &'s mut Vec<u8>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        let text = text::beginning(self.0, most + 1, scratch);
        (text.len() <= most).then_some(text)
    }
}

/// Iterator over the members of an object, keys as they were sent.
pub(crate) struct RawMembers<'a> {
    rest: &'a [u8],
}

impl<'a> RawMembers<'a> {
    pub(super) fn new(object: &'a [u8]) -> Self {
        Self { rest: object.get(1..).unwrap_or_default() }
    }
}

impl<'a> Iterator for RawMembers<'a> {
    type Item = (RawKey<'a>, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let key = from_first(self.rest, |byte| matches!(byte, b'"' | b'}'))?;
        if key.first() != Some(&b'"') {
            self.rest = b"";
            return None;
        }
        let (key, rest) = split_string(key)?;
        // Whatever is between key and value is passed over, the colon included: a tolerant
        // reader needs only the first byte that can begin a value.
        let (value, rest) = split_value(from_first(rest, begins_value)?)?;
        self.rest = rest;
        Some((RawKey(without_quotes(key)), value))
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
            let key = from_first(self.rest, |byte| byte == b'"')?;
            (_, self.rest) = split_string(key)?;
        }
        let (value, rest) = split_value(from_first(self.rest, begins_value)?)?;
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
#[inline(always)]
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
#[inline(always)]
fn split_value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let kind = match kind_of(*bytes.first()?)? {
        Kind::Null if bytes.get(1).is_some_and(|&second| second != b'u') => Kind::Number, // `nan`
        kind => kind,
    };
    let (raw, rest) = match kind {
        Kind::String => split_string(bytes)?,
        Kind::Object | Kind::Array => bytes.split_at(skip::container_length(bytes)),
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
    let length = bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len());
    steps::count(length + 1);
    bytes.split_at(length)
}

/// What begins with the first byte of a kind; `None` where there is none.
fn from_first(bytes: &[u8], is_it: impl Fn(u8) -> bool) -> Option<&[u8]> {
    let place = bytes.iter().position(|&byte| is_it(byte));
    steps::count(place.unwrap_or(bytes.len()) + 1);
    bytes.get(place?..)
}

fn begins_value(byte: u8) -> bool {
    kind_of(byte).is_some()
}

/// Splits the string that begins at the first byte, quotes included, from what follows it. `None`
/// if it has no end.
#[inline(always)]
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(skip::string_length(bytes)?)
}
