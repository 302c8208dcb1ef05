//! The real module in the host of this crate: what each path costs, and what needs thousands of
//! streams.
//!
//! They need `dist/session_affinity.wasm`, which `cargo xtask dist` builds: `cargo xtask test` and
//! `cargo xtask cost` do so before they run them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod cost;
mod explain;
mod many;
mod messages;
mod observe;
mod paths;
mod streams;
mod support;
mod table;
mod usage;
