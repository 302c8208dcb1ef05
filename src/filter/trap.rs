//! A trap on demand, to show what one costs. Only in builds with the feature `trap`.

use crate::request::Headers;

/// Traps the VM if the request asks for it.
#[expect(clippy::panic, reason = "to trap is what it is for")]
pub(super) fn trap_on_demand(headers: &Headers) {
    if headers.first("x-trap") == Some(b"now") {
        panic!("a request asked for a trap");
    }
}
