//! What the terminal shows of the steps.

use std::fmt::Display;
use std::io::Write;

/// One line of progress, plain, because its readers are mostly logs of CI.
pub(super) fn report(topic: &str, text: impl Display) {
    // A reader that has gone is no reason to leave the stack up.
    let _ = writeln!(std::io::stdout(), "{topic:<8} {text}");
}
