//! What all servers have in common.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::ciphertext::Foreign;
use super::fault::FaultBook;
use super::group::Groups;
use super::lock::locked;
use super::record::RequestLog;
use super::vendor::Vendor;

/// What arrived at any of them, what shall go wrong, and what they remember.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) log: RequestLog,
    pub(super) faults: FaultBook,
    pub(super) groups: Groups,
    pub(super) clock: Clock,
    foreign: Mutex<HashMap<Vendor, Foreign>>,
}

impl Shared {
    /// What a vendor does with ciphertext of another organization.
    pub(super) fn foreign(&self, vendor: Vendor) -> Foreign {
        let default = match vendor {
            Vendor::Anthropic => Foreign::Removed,
            Vendor::OpenAi | Vendor::Gemini => Foreign::Refused,
        };
        locked(&self.foreign).get(&vendor).copied().unwrap_or(default)
    }

    pub(super) fn set_foreign(&self, vendor: Vendor, foreign: Foreign) {
        locked(&self.foreign).insert(vendor, foreign);
    }
}

/// The time by which caches and objects expire.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Duration>);

impl Clock {
    pub(super) fn now(&self) -> Instant {
        Instant::now() + *locked(&self.0)
    }

    /// Lets this much time have passed.
    pub(super) fn pass(&self, time: Duration) {
        *locked(&self.0) += time;
    }
}
