//! How long strings, objects and arrays are, without a look at what is in them.
//!
//! Clients decide what is skipped, so it must cost little whatever it is: text is left with
//! `memchr`; what is dense in quotes, escapes or brackets is taken in blocks of 64 bytes; what is
//! short is walked through.

use super::block::{BLOCK, Block, escaped, parity};
use crate::steps;

/// Bytes of a container that are walked through: most have no more.
const SHORT: usize = 24;

/// The same for a string. Names are short, and a call of `memchr` costs more than they do.
const SHORT_STRING: usize = 16;

/// Where a walk through a container is.
enum Walk {
    /// It ends with this byte.
    Ends(usize),
    /// Between strings.
    Outside,
    /// In a string, of which the next byte may be escaped.
    InString { is_escaped: bool },
}

/// The length of the object or array that begins at the first byte; all there is, if it has no end.
/// Brackets are only counted, not paired: that is enough for valid JSON, and needs no memory for
/// the depth.
#[inline(never)]
pub(super) fn container_length(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let short = bytes.get(..SHORT).unwrap_or(bytes);
    let mut walk = through(short, &mut depth);
    let mut at = short.len();
    steps::count(at);
    loop {
        match walk {
            Walk::Ends(end) => return end + 1,
            Walk::InString { is_escaped } => match string_end(bytes, at, is_escaped) {
                Some(quote) => at = quote + 1,
                None => return bytes.len(),
            },
            Walk::Outside => {}
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let before = at;
        steps::count(rest.len().min(BLOCK));
        (walk, at) = match rest.first_chunk() {
            Some(block) => (through_block(block, &mut depth), at + BLOCK),
            None if rest.is_empty() => return bytes.len(),
            None => (through(rest, &mut depth), bytes.len()),
        };
        if let Walk::Ends(end) = walk {
            return before + end + 1;
        }
    }
}

/// Walks through bytes that begin outside of strings.
#[inline(never)]
fn through(bytes: &[u8], depth: &mut usize) -> Walk {
    let mut rest = bytes.iter().enumerate();
    while let Some((at, &byte)) = rest.next() {
        match byte {
            b'"' => {
                if let Some(is_escaped) = leave_string(rest.by_ref().map(|(_, &byte)| byte)) {
                    return Walk::InString { is_escaped };
                }
            }
            b'{' | b'[' | b'(' => *depth += 1,
            b'}' | b']' | b')' if *depth <= 1 => return Walk::Ends(at),
            b'}' | b']' | b')' => *depth -= 1,
            _ => {}
        }
    }
    Walk::Outside
}

/// Takes what is left of a string. If there is more of it, whether the next byte is escaped.
fn leave_string(mut rest: impl Iterator<Item = u8>) -> Option<bool> {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return None,
            b'\\' if rest.next().is_none() => return Some(true),
            _ => {}
        }
    }
    Some(false)
}

/// The same for a block.
fn through_block(bytes: &[u8; BLOCK], depth: &mut usize) -> Walk {
    let block = Block::of(bytes);
    let backslashes = block.equal(b'\\');
    let mut is_escaped = false;
    let escaped = escaped(backslashes, &mut is_escaped);
    // From each opening quote up to the closing one.
    let in_string = parity(block.equal(b'"') & !escaped);
    if backslashes & !in_string != 0 {
        // Outside of strings a backslash escapes nothing: that is no JSON.
        return through(bytes, depth);
    }
    let opening = block.opening() & !in_string;
    let mut closing = block.closing() & !in_string;
    let (opened, closed) = (opening.count_ones() as usize, closing.count_ones() as usize);
    if closed >= *depth {
        for number in 1..=closed {
            let at = closing.trailing_zeros();
            let opened_before = (opening & ((1 << at) - 1)).count_ones() as usize;
            if *depth + opened_before == number {
                return Walk::Ends(at as usize);
            }
            closing &= closing - 1;
        }
    }
    *depth = *depth + opened - closed;
    match in_string >> 63 {
        0 => Walk::Outside,
        _ => Walk::InString { is_escaped },
    }
}

/// The length of the string that begins at the first byte, quotes included; `None` if it has no end.
#[inline]
pub(super) fn string_length(bytes: &[u8]) -> Option<usize> {
    let short = bytes.get(1..SHORT_STRING).or_else(|| bytes.get(1..))?;
    let place = short.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(short.len());
    steps::count(place + 1);
    match short.get(place) {
        Some(b'"') => Some(place + 2),
        _ => string_end(bytes, place + 1, false).map(|quote| quote + 1),
    }
}

/// Where the string ends that goes on at `from`: the place of its closing quote.
///
/// In most texts quotes are rare, so they are searched for, and only before one the backslashes are
/// counted. Where one quote was escaped there are more: then blocks are cheaper, until one has no
/// quote.
#[inline(never)]
pub(super) fn string_end(bytes: &[u8], mut from: usize, mut is_escaped: bool) -> Option<usize> {
    loop {
        let rest = bytes.get(from..)?;
        let Some(quote) = memchr::memchr(b'"', rest) else {
            steps::count(rest.len());
            return None;
        };
        let before = rest.get(..quote)?.iter().rev();
        let backslashes = before.take_while(|&&byte| byte == b'\\').count();
        steps::count(quote + 1 + backslashes);
        // A run that reaches back to the beginning may begin with an escaped one.
        let is_odd = (backslashes % 2 == 1) != (is_escaped && backslashes == quote);
        if !is_odd {
            return Some(from + quote);
        }
        from += quote + 1;
        is_escaped = false;
        while let Some(block) = bytes.get(from..).and_then(|rest| rest.first_chunk()) {
            steps::count(BLOCK);
            let block = Block::of(block);
            let quotes = block.equal(b'"');
            let closing = quotes & !escaped(block.equal(b'\\'), &mut is_escaped);
            if closing != 0 {
                return Some(from + closing.trailing_zeros() as usize);
            }
            from += BLOCK;
            if quotes == 0 {
                break;
            }
        }
    }
}
