//! Where members are, and how deep, in a document of which only the end is there.
//!
//! The end of a long response is kept, its beginning is not. In a text the quotation marks of a
//! name are escaped, so that a name which is not is a member's. And what is open at a place shows
//! behind it: every object and array around it is closed up to the end of the document.

use super::block::{BLOCK, Block, escaped, parity};
use crate::steps;

/// The places of a name, given with its quotation marks, where it is not within a text.
pub fn places_of(name: &[u8], bytes: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let [first, second, ..] = name else { return places };
    for start in (0..bytes.len()).step_by(BLOCK) {
        steps::count(BLOCK);
        let rest = bytes.get(start..).unwrap_or_default();
        let next = block_of(rest.get(1..).unwrap_or_default());
        let mut begins = block_of(rest).equal(*first) & next.equal(*second);
        while begins != 0 {
            let at = start + begins.trailing_zeros() as usize;
            begins &= begins - 1;
            let is_escaped = at > 0 && bytes.get(at - 1) == Some(&b'\\');
            if !is_escaped && bytes.get(at..).is_some_and(|rest| rest.starts_with(name)) {
                places.push(at);
            }
        }
    }
    places
}

/// The block with which bytes begin, filled up with zeros.
fn block_of(bytes: &[u8]) -> Block {
    if let Some(block) = bytes.first_chunk() {
        return Block::of(block);
    }
    let mut block = [0; BLOCK];
    if let Some(place) = block.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    Block::of(&block)
}

/// How many objects and arrays are closed in these bytes, less those that are opened. The bytes
/// begin outside of texts; `None` if they end within one.
pub fn closed_in(bytes: &[u8]) -> Option<i32> {
    steps::count(bytes.len());
    let mut walk = Walk::default();
    for start in (0..bytes.len()).step_by(BLOCK) {
        walk.pass(&block_of(bytes.get(start..).unwrap_or_default()));
    }
    (!walk.is_in_text).then_some(walk.closed)
}

#[derive(Default)]
struct Walk {
    closed: i32,
    is_in_text: bool,
    is_escaped: bool,
}

impl Walk {
    fn pass(&mut self, block: &Block) {
        let backslashes = block.equal(b'\\');
        let quotes = block.equal(b'"') & !escaped(backslashes, &mut self.is_escaped);
        let in_text = if self.is_in_text { !parity(quotes) } else { parity(quotes) };
        let closed = (block.closing() & !in_text).count_ones() as i32;
        let opened = (block.opening() & !in_text).count_ones() as i32;
        self.closed = self.closed.saturating_add(closed - opened);
        self.is_in_text = in_text >> 63 == 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_a_place_is_closed_behind_it() {
        for (rest, expected) in [
            ("", Some(0)),
            (r#""a":1}"#, Some(1)),
            (r#""a":{"b":[1]}},{"c":[]}]}"#, Some(3)),
            (r#""a":"}\"}\\"}"#, Some(1)),
            (r#""a":"x"#, None),
            (r#""a":[{"#, Some(-2)),
        ] {
            assert_eq!(closed_in(rest.as_bytes()), expected, "{rest}");
        }
    }

    #[test]
    fn a_name_is_found_wherever_it_is_but_in_a_text() {
        let name = br#""usage""#;
        for before in 0..150 {
            let spaces = " ".repeat(before);
            for (text, expected) in [
                (format!(r#"{spaces}"usage":1,"usage""#), vec![before, before + 10]),
                (format!(r#"{spaces}\"usage":1"#), vec![]),
                (format!(r#"{spaces}"usage\""#), vec![]),
                (format!(r#"{spaces}"usag"#), vec![]),
            ] {
                assert_eq!(places_of(name, text.as_bytes()), expected, "{text}");
            }
        }
    }

    #[test]
    fn texts_that_are_longer_than_a_block_hide_their_brackets() {
        for length in 0..200 {
            let text = r#"}\"\\"#.repeat(length);
            let rest = format!(r#""a":"{text}","b":[]}}"#);
            assert_eq!(closed_in(rest.as_bytes()), Some(1), "{length}");
        }
    }
}
