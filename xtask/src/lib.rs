//! The tools behind `cargo xtask`, as a library, so that tests and benchmarks use the same Envoy and the same
//! simulated providers as the demo.

pub mod provider;
