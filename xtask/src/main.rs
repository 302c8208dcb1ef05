//! `cargo xtask`: builds, runs, shows and tests the filter.

fn main() {}
