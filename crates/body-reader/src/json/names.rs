//! Whether a name is anywhere in a document, for what a client may put at any depth.

use super::block::{BLOCK, Block};
use crate::steps;

/// The most names that are looked for at once.
pub const MOST_NAMES: usize = 3;

/// Whether one of these names, given with their quotation marks, is in the bytes. Within a text the
/// quotation marks would be escaped, and a name would end otherwise.
pub fn has_name(names: &[&[u8]], bytes: &[u8]) -> bool {
    let mut letters = [b'"'; MOST_NAMES];
    for (letter, name) in letters.iter_mut().zip(names.iter().cycle()) {
        *letter = name.get(1).copied().unwrap_or(b'"');
    }
    let mut at = 0;
    while let Some((block, next)) = block_at(bytes, at).zip(block_at(bytes, at + 1)) {
        steps::count(BLOCK);
        if block.has(b'"') && block.has_quoted(&next, letters) {
            let rest = bytes.get(at..).unwrap_or_default();
            if begins_at(block.quoted(&next, letters), names, rest) {
                return true;
            }
        }
        at += BLOCK;
    }
    steps::count(bytes.len() - at);
    begins_at(u64::MAX, names, bytes.get(at..).unwrap_or_default())
}

/// Whether a name begins at one of these places.
#[inline(never)]
fn begins_at(mut places: u64, names: &[&[u8]], bytes: &[u8]) -> bool {
    while places != 0 {
        let rest = bytes.get(places.trailing_zeros() as usize..).unwrap_or_default();
        if rest.first() == Some(&b'"') && names.iter().any(|name| rest.starts_with(name)) {
            return true;
        }
        places &= places - 1;
    }
    false
}

fn block_at(bytes: &[u8], at: usize) -> Option<Block> {
    bytes.get(at..)?.first_chunk().map(Block::of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&[u8]; 3] = [br#""signature""#, br#""redacted_thinking""#, br#""text""#];

    #[test]
    fn a_name_is_found_wherever_it_is() {
        for (name, before) in NAMES.iter().flat_map(|name| (0..200).map(move |at| (name, at))) {
            for (filling, behind) in [(b' ', 0), (b'"', 100), (b's', 1), (b'\\', 63)] {
                let text = [&vec![filling; before], *name, &vec![filling; behind]].concat();
                assert!(has_name(&NAMES, &text), "{before} {behind}");
                assert!(!has_name(&[*name], &text[..before + name.len() - 1]), "{before}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_says_what_a_search_for_each_name_says(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(br#""signature""#.to_vec()),
                    Just(br#""signature\""#.to_vec()),
                    Just(br#"\"text""#.to_vec()),
                    proptest::collection::vec(prop_oneof![Just(b'"'), Just(b't'), any::<u8>()], 0..90),
                ],
                0..8,
            ),
            count in 1..=MOST_NAMES,
        ) {
            let (bytes, names) = (parts.concat(), &NAMES[..count]);
            let expected = names.iter().any(|name| memchr::memmem::find(&bytes, name).is_some());
            prop_assert_eq!(has_name(names, &bytes), expected);
        }
    }
}
