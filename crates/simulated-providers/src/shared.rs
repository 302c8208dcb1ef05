//! What all servers have in common.

use super::fault::FaultBook;
use super::record::RequestLog;

/// What arrived at any of them, and what shall go wrong.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) log: RequestLog,
    pub(super) faults: FaultBook,
}
