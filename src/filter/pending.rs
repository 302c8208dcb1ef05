//! An error whose meaning depends on its body, and as much of that as was heard.

use super::host;
use crate::request::Headers;
use crate::router::Plan;

/// Bytes of an error's body that are result: enough for any provider's message.
const LIMIT: usize = 8 << 10;

pub(super) struct PendingError {
    pub(super) plan: Plan,
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) message: Vec<u8>,
}

impl PendingError {
    pub(super) fn new(plan: Plan, status: u16, headers: Headers) -> Self {
        Self { plan, status, headers, message: Vec::new() }
    }

    /// Hears a piece of the body that passes; tells whether that is enough.
    pub(super) fn read_piece(&mut self, size: usize, end_of_stream: bool) -> bool {
        let wanted = LIMIT.saturating_sub(self.message.len()).min(size);
        self.message.extend_from_slice(&host::response_body(wanted));
        end_of_stream || self.message.len() >= LIMIT
    }

    /// Hears a body that is held and has grown to this size; tells whether that is enough.
    pub(super) fn read_held(&mut self, size: usize, end_of_stream: bool) -> bool {
        let is_enough = end_of_stream || size >= LIMIT;
        if is_enough {
            self.message = host::response_body(size.min(LIMIT));
        }
        is_enough
    }
}
