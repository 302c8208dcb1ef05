//! An error whose meaning depends on its body, and as much of that as was read.

use super::host;
use crate::request::Headers;
use crate::response::Response;
use crate::router::Plan;
use crate::signals::inflate;

/// Bytes of an error's body that are read: enough for any provider's message.
const LIMIT: usize = 8 << 10;

pub(super) struct PendingError {
    pub(super) plan: Plan,
    pub(super) status: u16,
    pub(super) headers: Headers,
    body: Vec<u8>,
}

impl PendingError {
    pub(super) fn new(plan: Plan, status: u16, headers: Headers) -> Self {
        Self { plan, status, headers, body: Vec::new() }
    }

    /// Reads a piece of the body that passes; returns whether that is enough.
    pub(super) fn read_piece(&mut self, size: usize, end_of_stream: bool) -> bool {
        let wanted = LIMIT.saturating_sub(self.body.len()).min(size);
        self.body.extend_from_slice(&host::response_body(0, wanted));
        end_of_stream || self.body.len() >= LIMIT
    }

    /// Reads a body that is held and has grown to this size; returns whether that is enough.
    pub(super) fn read_held(&mut self, size: usize, end_of_stream: bool) -> bool {
        let is_enough = end_of_stream || size >= LIMIT;
        if is_enough {
            self.body = host::response_body(0, size.min(LIMIT));
        }
        is_enough
    }

    /// Calls `observe` with the plan and the response.
    pub(super) fn observe<T>(&mut self, observe: impl FnOnce(&mut Plan, &Response<'_>) -> T) -> T {
        let encoding = self.headers.text("content-encoding");
        let body = inflate::error_body(&self.body, encoding);
        let response =
            Response::Received { status: self.status, headers: &self.headers, body: &body };
        observe(&mut self.plan, &response)
    }
}
