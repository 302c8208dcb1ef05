//! How deep a place is in a document of which only the end is there.
//!
//! The end of a long response is kept, its beginning is not. What is open at a place of it shows
//! behind it: every object and array around the place is closed up to the end of the document.

use super::block::{BLOCK, Block, escaped, parity};
use crate::steps;

/// How many objects and arrays are closed in these bytes, less those that are opened. The bytes
/// begin outside of texts; `None` if they end within one.
pub fn closed_in(bytes: &[u8]) -> Option<i32> {
    steps::count(bytes.len());
    let mut walk = Walk::default();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().for_each(|block| walk.pass(block));
    if !rest.is_empty() {
        let mut last = [b' '; BLOCK];
        last.iter_mut().zip(rest).for_each(|(place, &byte)| *place = byte);
        walk.pass(&last);
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
    fn pass(&mut self, bytes: &[u8; BLOCK]) {
        let block = Block::of(bytes);
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
    fn texts_that_are_longer_than_a_block_hide_their_brackets() {
        for length in 0..200 {
            let text = r#"}\"\\"#.repeat(length);
            let rest = format!(r#""a":"{text}","b":[]}}"#);
            assert_eq!(closed_in(rest.as_bytes()), Some(1), "{length}");
        }
    }
}
