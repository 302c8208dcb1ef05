//! Counts the bytes that the scanners look at. Only tests count; elsewhere nothing is left of it.
//!
//! That no input makes a worker stand is a promise about work, and a clock cannot test it: so every
//! loop over bytes of clients and providers reports here how far it went.

/// Counts bytes that were looked at.
#[cfg(not(feature = "count"))]
#[inline(always)]
pub fn count(_bytes: usize) {}

#[cfg(feature = "count")]
pub use counter::{count, of};

#[cfg(feature = "count")]
mod counter {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    /// Counts bytes that were looked at.
    pub fn count(bytes: usize) {
        STEPS.set(STEPS.get() + bytes as u64);
    }

    /// The steps that some work takes.
    pub fn of<T>(work: impl FnOnce() -> T) -> u64 {
        let before = STEPS.get();
        std::hint::black_box(work());
        STEPS.get() - before
    }
}
