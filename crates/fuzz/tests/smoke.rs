//! A smoke test of the fuzz targets, with the stable compiler: what fuzzing found, and changes of it
//! at random, the same ones every time. `FUZZ_ROUNDS` is how often each target changes an input;
//! `cargo xtask ci` takes more than the default.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fuzz_targets::{ALL, Target, corpus};

const ROUNDS: u64 = 500;

/// An input does not grow beyond this.
const LONGEST: usize = 4 << 10;

/// Bytes on which parsers turn.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b":",
    b",",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff",
    b"\\u0061",
    b"null",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"data: ",
    b"/../",
    b"%2e%2e",
    b"\"model\":",
    b"\"id\":\"",
    b"\xef\xbb\xbf",
];

#[test]
fn what_fuzzing_found_and_changes_of_it_find_nothing() {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for target in ALL {
        let corpus = corpus::read(target.name).unwrap();
        assert!(corpus.len() > 20, "{}: {} inputs", target.name, corpus.len());
        corpus.iter().for_each(|input| check(target, input));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let input = &corpus[random.below(corpus.len())];
            if input.len() <= LONGEST {
                let other = &corpus[random.below(corpus.len())];
                check(target, &changed(input, other, &mut random));
            }
        }
    }
}

#[test]
fn every_target_has_a_program_a_corpus_and_a_row_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for Target { name, .. } in ALL {
        let program =
            std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run({name:?}, bytes)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert_eq!(page.matches(&format!("\n| `{name}` |")).count(), 2, "{name}");
    }
    let programs = std::fs::read_dir(folder.join("fuzz_targets")).unwrap();
    assert_eq!(programs.count(), ALL.len());
}

/// Runs a target, and shows the input that it does not pass.
fn check(target: Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{}: {}", target.name, input.escape_ascii());
    }
}

/// One to four changes of an input: bytes, pieces, cuts, and parts of another one.
fn changed(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            _ => {
                let start = random.below(other.len() + 1);
                let end = (start + random.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[start..end].iter().copied()));
            }
        }
    }
    bytes
}

/// The generator `splitmix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound.max(1) as u64) as usize
    }
}
