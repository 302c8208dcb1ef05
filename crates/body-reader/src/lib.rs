//! Finds the few values that decide in megabytes of JSON.
//!
//! The reader is a crate of its own, so that it alone is compiled for speed: the rest of the module
//! runs for microseconds, and is compiled for size.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod body;
pub mod json;
pub mod second_model;
pub mod steps;
