//! `cargo xtask simulate`, which builds this program for speed.

use anyhow::Result;
use clap::Parser;

fn main() -> Result<()> {
    simulate::command::Arguments::parse().run()
}
