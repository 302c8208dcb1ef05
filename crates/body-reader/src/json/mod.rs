//! Reading JSON where it lies: no tree, no recursion, no copy of what is not asked for.
//!
//! A session id is a few dozen bytes in a body of up to megabytes, usually at its end. So the
//! reader walks the members of one object and jumps over every other value: brackets are counted in
//! blocks of 64 bytes, strings are left with `memchr`. Depth costs a counter, never stack, and a
//! value that is skipped is never checked.
//!
//! The reader is tolerant on purpose. It agrees with the reference's parser (gjson) on every valid
//! document, including what other parsers reject or decide differently: of two equal keys the first
//! counts, lone surrogates are read as U+FFFD, bytes that are not UTF-8 are kept. Of a broken
//! document it gives what precedes the break.

pub(crate) mod block;
#[cfg(test)]
mod differential;
mod ends;
mod names;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod scan;
mod skip;
mod text;

use std::borrow::Cow;

pub use ends::{closed_in, places_of};
pub use names::{MOST_NAMES, has_name};
use scan::RawMembers;
pub use scan::{Elements, Members};

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`, and what a tolerant reader takes for it.
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number, spelled in any way.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value of the document: its kind, and its bytes as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    kind: Kind,
    raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// The document's object or array: the first one in the bytes. What precedes it (a byte
    /// order mark, an SSE `data:`) is passed over, what follows it is not looked at. `None` where
    /// there is neither.
    pub fn document(bytes: &'a [u8]) -> Option<Self> {
        let start = memchr::memchr2(b'{', b'[', bytes)?;
        let raw = bytes.get(start..)?;
        let kind = if raw.first() == Some(&b'{') { Kind::Object } else { Kind::Array };
        Some(Self { kind, raw })
    }

    /// The kind of the value.
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// The value as text: a string unescaped, a number in plain decimals, an object or array as it
    /// was sent, `null` as nothing. Never fails; the bytes need not be UTF-8.
    pub fn text(self) -> Cow<'a, [u8]> {
        match self.kind {
            Kind::Null => Cow::Borrowed(b""),
            Kind::True => Cow::Borrowed(b"true"),
            Kind::False => Cow::Borrowed(b"false"),
            Kind::Number => text::plain_decimal(self.raw),
            Kind::String => text::unescape(scan::without_quotes(self.raw)),
            Kind::Array | Kind::Object => Cow::Borrowed(self.raw),
        }
    }

    /// The first bytes of its text, at least so many if there are. What a client writes may be
    /// megabytes, and what counts of it is short.
    pub fn text_up_to(self, most: usize) -> Vec<u8> {
        match self.kind {
            Kind::String => {
                let mut scratch = Vec::new();
                text::beginning(scan::without_quotes(self.raw), most, &mut scratch).to_vec()
            }
            _ => self.text().into_owned(),
        }
    }

    /// The members of an object, in the order they were sent; of any other value none.
    pub fn members(self) -> Members<'a> {
        Members::new(self.raw_members())
    }

    /// The members of an object, keys as they were sent.
    pub(crate) fn raw_members(self) -> RawMembers<'a> {
        RawMembers::new(if self.kind == Kind::Object { self.raw } else { b"" })
    }

    /// The elements of an array or the values of an object, in the order they were sent; of any
    /// other value none.
    pub fn elements(self) -> Elements<'a> {
        Elements::new(match self.kind {
            Kind::Array | Kind::Object => self.raw,
            _ => b"",
        })
    }

    /// The first member of that name.
    #[inline(never)]
    pub fn get(self, name: &str) -> Option<Self> {
        let mut scratch = Vec::new();
        self.raw_members()
            .find(|(key, _)| key.short_text(name.len(), &mut scratch) == Some(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(document: &str, name: &str) -> Option<String> {
        let value = Value::document(document.as_bytes())?.get(name)?;
        Some(String::from_utf8_lossy(&value.text()).into_owned())
    }

    #[test]
    fn the_first_of_two_equal_keys_counts() {
        assert_eq!(text_of(r#"{"a":"1","a":"2"}"#, "a").as_deref(), Some("1"));
    }

    #[test]
    fn keys_are_compared_after_unescaping() {
        assert_eq!(text_of(r#"{"\u0061":"1"}"#, "a").as_deref(), Some("1"));
    }

    #[test]
    fn values_that_are_not_strings_become_text() {
        let document = r#"{"i":123456789012345678901,"f":1e3,"h":1.50,"inf":-1e400,"z":-0.0,"t":true,"n":null,"o":{ "x" : 1 },"a":[1, 2]}"#;
        for (name, expected) in [
            ("i", "123456789012345678901"),
            ("f", "1000"),
            ("h", "1.5"),
            ("inf", "-Inf"),
            ("z", "-0"),
            ("t", "true"),
            ("n", ""),
            ("o", r#"{ "x" : 1 }"#),
            ("a", "[1, 2]"),
        ] {
            assert_eq!(text_of(document, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn escapes_are_read_as_the_reference_reads_them() {
        for (raw, expected) in [
            (r"a\n\t\/\\\u00e9", "a\n\t/\\é"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041!", "\u{fffd}!"),
            (r"cut\q here", "cut"),
        ] {
            assert_eq!(
                text_of(&format!(r#"{{"a":"{raw}"}}"#), "a").as_deref(),
                Some(expected),
                "{raw}"
            );
        }
    }

    #[test]
    fn a_document_cut_off_gives_what_stands_before_the_cut() {
        assert_eq!(text_of(r#"{"a":"1","b":"2"#, "a").as_deref(), Some("1"));
        assert_eq!(text_of(r#"{"a":"1","b":"2"#, "b"), None);
        assert_eq!(text_of(r#"{"a":[1,{"x":"#, "a").as_deref(), Some(r#"[1,{"x":"#));
    }

    #[test]
    fn what_stands_inside_other_values_does_not_count() {
        assert_eq!(
            text_of(r#"{"m":[{"a":"\"a\":\"0\""},"}]"],"a":"1"}"#, "a").as_deref(),
            Some("1")
        );
    }

    #[test]
    fn ten_thousand_levels_cost_no_stack() {
        let deep = format!(r#"{{"m":{}{},"a":"1"}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(text_of(&deep, "a").as_deref(), Some("1"));
    }

    #[test]
    fn elements_of_an_object_are_its_values() {
        let document = Value::document(br#"{"a":1,"b":"x"}"#).unwrap();
        let texts: Vec<_> = document.elements().map(|value| value.text().into_owned()).collect();
        assert_eq!(texts, [b"1".to_vec(), b"x".to_vec()]);
    }

    #[test]
    fn bytes_that_are_no_json_are_nothing() {
        assert_eq!(Value::document(b"hello"), None);
        assert_eq!(Value::document(b""), None);
        assert_eq!(text_of("{", "a"), None);
        assert_eq!(text_of("[[[", "a"), None);
    }
}
