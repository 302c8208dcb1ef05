//! A real Envoy for tests, demo and benchmarks: found or installed, configured from the shipped `envoy.yaml`, run as a
//! child process, and talked to.
//!
//! Nothing here imitates Envoy. What it does with headers, bodies and upgrades is what the filter must live with, so the
//! stories are told on the binary that users run.

pub mod client;
pub mod find;
pub mod fixture;
pub mod process;
mod wheel;

pub use find::{Envoy, Version, find};
pub use fixture::Fixture;
