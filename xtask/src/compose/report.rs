//! What the terminal shows of the steps.

use std::fmt::Display;

/// One line of progress, plain, because its readers are mostly logs of CI.
pub(super) fn report(topic: &str, text: impl Display) {
    println!("{topic:<8} {text}");
}
