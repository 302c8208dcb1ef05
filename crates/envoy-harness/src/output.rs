//! Writes results to stdout, where the reader may stop reading before the end, as `head` does.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// The reader of stdout has gone. A program ends then, and has not failed.
#[derive(Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nothing reads the output any more")
    }
}

impl std::error::Error for Closed {}

/// Writes text to stdout and passes it on at once.
///
/// # Errors
/// [`Closed`], or why stdout cannot be written to.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        written => written.context("cannot write to stdout"),
    }
}
