//! What a breakpoint of a prompt says about the life of what comes before it.

use memchr::memmem;

use crate::steps;

/// Bytes of a breakpoint that are looked at: it is a small object.
const LONGEST: usize = 256;

/// Whether a breakpoint of this name asks for one hour.
///
/// A breakpoint ends at the next brace. So no byte belongs to two of them, and the time is linear
/// in the body, whatever it holds.
pub(super) fn asks_for_an_hour(body: &[u8], name: &'static [u8]) -> bool {
    behind(body, name).filter_map(object).any(|breakpoint| {
        behind(breakpoint, br#""ttl""#).filter_map(value).any(|value| value.starts_with(br#""1h""#))
    })
}

/// What follows each place where a member's name stands in quotation marks: inside a text its marks
/// would be escaped.
fn behind<'b>(bytes: &'b [u8], name: &'static [u8]) -> impl Iterator<Item = &'b [u8]> {
    steps::count(bytes.len());
    memmem::find_iter(bytes, name).filter_map(move |at| bytes.get(at + name.len()..))
}

/// The members of a breakpoint, from what follows its name.
fn object(behind_name: &[u8]) -> Option<&[u8]> {
    let members = value(behind_name)?.strip_prefix(b"{")?;
    let near = members.get(..LONGEST).unwrap_or(members);
    let end = near.iter().position(|byte| matches!(byte, b'{' | b'}')).unwrap_or(near.len());
    steps::count(end);
    near.get(..end)
}

/// The value of a member, from what follows its name.
fn value(behind_name: &[u8]) -> Option<&[u8]> {
    let near = behind_name.get(..LONGEST).unwrap_or(behind_name);
    let colon = near.trim_ascii_start();
    let value = colon.strip_prefix(b":")?.trim_ascii_start();
    steps::count(near.len() - value.len());
    behind_name.get(near.len() - value.len()..)
}
