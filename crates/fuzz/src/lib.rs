//! What must hold for any bytes that clients, providers, operators and other modules send: one
//! function for each parser, or for each way in which they work together.
//!
//! `fuzz/` runs them under libFuzzer. Here they are an ordinary library, so that the stable
//! compiler checks them, and a test replays what fuzzing has found.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a target reports a finding"
)]

mod any_bytes;
mod configuration;
pub mod corpus;
mod errors;
mod generator;
mod headers;
mod old_reader;
mod operator;
mod pieces;
mod pins;
mod records;
mod requests;
mod routers;
mod streams;
mod usage;
mod valid_json;
mod waits;

use arbitrary::{Arbitrary, Unstructured};

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, which is that of its file and of its corpus.
    pub name: &'static str,
    /// Panics if what must hold does not.
    pub run: fn(&[u8]),
}

/// Every target.
pub const ALL: [Target; 13] = [
    Target { name: "any_bytes", run: any_bytes::run },
    Target { name: "configuration", run: configuration::run },
    Target { name: "errors", run: errors::run },
    Target { name: "generator", run: generator::run },
    Target { name: "old_reader", run: old_reader::run },
    Target { name: "operator", run: operator::run },
    Target { name: "pins", run: pins::run },
    Target { name: "records", run: records::run },
    Target { name: "requests", run: requests::run },
    Target { name: "streams", run: streams::run },
    Target { name: "usage", run: usage::run },
    Target { name: "valid_json", run: valid_json::run },
    Target { name: "waits", run: waits::run },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or what must hold does not.
pub fn run(name: &str, bytes: &[u8]) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    (target.run)(bytes);
}

/// What a target takes, made of bytes as libFuzzer's macro does; `None` if there are too few.
fn input<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> Option<T> {
    let is_enough = bytes.len() >= T::size_hint(0).0;
    is_enough.then(|| T::arbitrary_take_rest(Unstructured::new(bytes)).ok()).flatten()
}
