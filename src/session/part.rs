//! The parts of a message in any API: a text, or something to look at, listen to or read.

use std::borrow::Cow;

use crate::json::{Kind, Value};

/// A part of a message that somebody made.
pub(super) enum Part<'a> {
    Text(Cow<'a, [u8]>),
    /// The longest string of anything else.
    Payload(Cow<'a, [u8]>),
}

impl<'a> Part<'a> {
    /// `None` for tools and their results, and for what marks the end of a cached prefix.
    #[inline(never)]
    fn of(part: Value<'a>) -> Option<Self> {
        if part.kind() == Kind::String {
            return Some(Self::Text(part.text()));
        }
        let (mut text, mut is_tools) = (None, false);
        each_member(part, &mut |name, value| {
            is_tools |= is_of_tools(name) || (name == b"type" && is_of_tools(&value.text()));
            if name == b"text" && value.kind() == Kind::String {
                text = text.or(Some(value));
            }
        });
        match text {
            _ if is_tools => None,
            Some(text) => Some(Self::Text(text.text())),
            None => longest_string(part, 4).map(Self::Payload),
        }
    }
}

/// Members of an object that are looked at. A message and a part have a dozen.
const MOST_MEMBERS: usize = 64;

/// The parts of a content: of an array its elements, as many as are `left`, else the content
/// itself.
#[inline(never)]
pub(super) fn each_part<'a>(content: Value<'a>, left: &mut usize, visit: &mut dyn FnMut(Part<'a>)) {
    if content.kind() == Kind::Array {
        for element in content.elements().take(*left) {
            *left -= 1;
            Part::of(element).into_iter().for_each(&mut *visit);
        }
    } else if let Some(part) = Part::of(content) {
        visit(part);
    }
}

#[inline(never)]
pub(super) fn each_member<'a>(value: Value<'a>, visit: &mut dyn FnMut(&[u8], Value<'a>)) {
    value.members().take(MOST_MEMBERS).for_each(|(name, member)| visit(&name, member));
}

/// `tool_result`, `toolResult`, `functionResponse`, `function_call_output`, …
fn is_of_tools(name: &[u8]) -> bool {
    name.starts_with(b"tool") || name.starts_with(b"function") || name.ends_with(b"_tool_result")
}

/// The payload of a part: data, an address or an id. What says how to read it does not count.
fn longest_string(value: Value<'_>, levels: u32) -> Option<Cow<'_, [u8]>> {
    let mut longest = None;
    each_member(value, &mut |name, member| {
        let is_payload = match name {
            b"type" | b"detail" | b"format" | b"media_type" | b"mime_type" | b"mimeType" => false,
            name => !name.starts_with(b"cache"),
        };
        let string = match member.kind() {
            Kind::String if is_payload => Some(member.text()),
            Kind::Object if is_payload && levels > 0 => longest_string(member, levels - 1),
            _ => None,
        };
        let is_longer = |string: &Cow<'_, [u8]>| {
            longest.as_ref().is_none_or(|longest: &Cow<'_, [u8]>| {
                (longest.len(), longest.as_ref()) < (string.len(), string.as_ref())
            })
        };
        if let Some(string) = string.filter(is_longer) {
            longest = Some(string);
        }
    });
    longest
}
