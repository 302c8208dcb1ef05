//! The reader that this one replaced: it looks at every byte, is slow, and is easy to see to be
//! right. Tests and the fuzz target `old_reader` compare both.

#![allow(
    clippy::indexing_slicing,
    reason = "it is compiled for tests and fuzzing only, where a panic is a finding"
)]

use std::borrow::Cow;

use super::{Kind, Value, text};

/// Compares both readers on any bytes.
///
/// # Panics
/// If they differ.
pub fn compare(bytes: &[u8]) {
    let Some(document) = Value::document(bytes) else { return };
    let members: Vec<_> =
        document.members().map(|(key, value)| (key, value.kind, value.raw)).collect();
    let elements: Vec<_> = document.elements().map(|value| (value.kind, value.raw)).collect();
    let expected = if document.kind == Kind::Object { document.raw } else { b"" };
    assert_eq!(members, members_of(expected), "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(elements, elements_of(document.raw), "{:?}", String::from_utf8_lossy(bytes));
    for (key, value, _) in &members {
        if let Ok(name) = std::str::from_utf8(key) {
            let first =
                members.iter().find(|(other, ..)| other == key).map(|(_, kind, raw)| (*kind, *raw));
            assert_eq!(document.get(name).map(|value| (value.kind, value.raw)), first, "{value:?}");
        }
    }
    let length = super::skip::container_length(document.raw);
    assert_eq!(length, container_length(document.raw));
    for value in document.elements() {
        let whole = value.text();
        for most in [1, 7, 64, usize::MAX] {
            let near = value.text_up_to(most);
            assert!(whole.starts_with(&near) && near.len() >= most.min(whole.len()), "{whole:?}");
        }
    }
}

/// A value, and what follows it.
type Split<'a> = ((Kind, &'a [u8]), &'a [u8]);
type Member<'a> = (&'a [u8], (Kind, &'a [u8]), &'a [u8]);

type Named<'a> = (Cow<'a, [u8]>, Kind, &'a [u8]);

fn members_of(object: &[u8]) -> Vec<Named<'_>> {
    let mut rest = object.get(1..).unwrap_or_default();
    let mut members = Vec::new();
    while let Some((key, value, tail)) = member(rest) {
        members.push((text::unescape(&key[1..key.len() - 1]), value.0, value.1));
        rest = tail;
    }
    members
}

fn member(rest: &[u8]) -> Option<Member<'_>> {
    let start = rest.iter().position(|byte| matches!(byte, b'"' | b'}'))?;
    if rest[start] != b'"' {
        return None;
    }
    let (key, rest) = split_string(&rest[start..])?;
    let start = rest.iter().position(|&byte| kind_of(byte).is_some())?;
    let (value, rest) = split_value(&rest[start..])?;
    Some((key, value, rest))
}

fn elements_of(container: &[u8]) -> Vec<(Kind, &[u8])> {
    let is_object = container.first() == Some(&b'{');
    let mut rest = container.get(1..).unwrap_or_default();
    let mut elements = Vec::new();
    while let Some((value, tail)) = element(rest, is_object) {
        elements.push(value);
        rest = tail.get(1..).unwrap_or_default();
    }
    elements
}

fn element(mut rest: &[u8], is_keyed: bool) -> Option<Split<'_>> {
    if is_keyed {
        let start = rest.iter().position(|&byte| byte == b'"')?;
        (_, rest) = split_string(&rest[start..])?;
    }
    let start = rest.iter().position(|&byte| kind_of(byte).is_some())?;
    split_value(&rest[start..])
}

fn kind_of(first: u8) -> Option<Kind> {
    Some(match first {
        b'"' => Kind::String,
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        b'0'..=b'9' | b'-' | b'+' | b'i' | b'I' | b'N' => Kind::Number,
        _ => return None,
    })
}

fn split_value(bytes: &[u8]) -> Option<Split<'_>> {
    let kind = match kind_of(bytes[0])? {
        Kind::Null if bytes.get(1).is_some_and(|&second| second != b'u') => Kind::Number,
        kind => kind,
    };
    let length = match kind {
        Kind::String => split_string(bytes)?.0.len(),
        Kind::Object | Kind::Array => container_length(bytes),
        Kind::Number => bytes
            .iter()
            .position(|&byte| byte <= b' ' || matches!(byte, b',' | b']' | b'}'))
            .unwrap_or(bytes.len()),
        Kind::Null | Kind::True | Kind::False => {
            bytes.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(bytes.len())
        }
    };
    Some(((kind, &bytes[..length]), &bytes[length..]))
}

fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 1;
    loop {
        let quote = from + bytes.get(from..)?.iter().position(|&byte| byte == b'"')?;
        let before = bytes[from..quote].iter().rev();
        if before.take_while(|&&byte| byte == b'\\').count() % 2 == 0 {
            return bytes.split_at_checked(quote + 1);
        }
        from = quote + 1;
    }
}

fn container_length(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => match split_string(&bytes[at..]) {
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
