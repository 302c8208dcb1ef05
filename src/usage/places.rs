//! Where members of a name are in a part of a response, and how deep.

use memchr::{memchr, memrchr};

use crate::json::{closed_in, places_of};
use crate::steps;

/// A member that holds an object.
pub(super) struct Place<'a> {
    /// The object, and what follows it up to the end of the document.
    pub(super) object: &'a [u8],
    /// The objects and arrays around the member.
    pub(super) depth: i32,
}

/// What documents a part of a response consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// One, up to its end.
    Document,
    /// One in each line; what is behind the last line's end is none.
    Lines,
    /// One in each line, and one behind the last line's end.
    LinesAndRest,
}

/// The members of this name (with its quotation marks) that hold objects, the last one first. What
/// is within a text is none: there a quotation mark is escaped.
pub(super) fn members<'a>(text: &'a [u8], name: &str, ends: Ends) -> Vec<Place<'a>> {
    let text = match ends {
        Ends::Lines => text.get(..last_break(text)).unwrap_or_default(),
        Ends::Document | Ends::LinesAndRest => text,
    };
    let mut places = Vec::new();
    // The place that was found last, the end of its document, and its depth there; none if that
    // ends within a text, and with it all that is before.
    let mut behind: Option<(usize, usize, Option<i32>)> = None;
    for at in places_of(name.as_bytes(), text).into_iter().rev() {
        let part = |end: usize| text.get(at..end).unwrap_or_default();
        let (end, depth) = match behind {
            // In the same document only what is between them has to be looked at.
            Some((next, end, depth)) if ends == Ends::Document || !has_break(part(next)) => {
                (end, depth.and_then(|depth| Some(closed_in(part(next))? + depth)))
            }
            _ => {
                let end = at + end_of_document(part(text.len()), ends);
                (end, closed_in(part(end)))
            }
        };
        behind = Some((at, end, depth));
        let object = text.get(at + name.len()..end).and_then(value);
        places.extend(depth.zip(object).map(|(depth, object)| Place { object, depth }));
    }
    places
}

/// Whether the text has a line that begins so, but for the first one.
pub(super) fn has_line(text: &[u8], beginning: &[u8]) -> bool {
    steps::count(text.len());
    memchr::memchr_iter(b'\n', text)
        .any(|at| text.get(at + 1..).is_some_and(|line| line.starts_with(beginning)))
}

fn last_break(text: &[u8]) -> usize {
    let end = memrchr(b'\n', text).unwrap_or(0);
    steps::count(text.len() - end);
    end
}

fn has_break(text: &[u8]) -> bool {
    steps::count(text.len());
    memchr(b'\n', text).is_some()
}

fn end_of_document(rest: &[u8], ends: Ends) -> usize {
    let end = memchr(b'\n', rest).filter(|_| ends != Ends::Document).unwrap_or(rest.len());
    steps::count(end);
    end
}

/// The object that is the value, given what is behind the name.
fn value(behind: &[u8]) -> Option<&[u8]> {
    let value = behind.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    (value.first() == Some(&b'{')).then_some(value)
}
