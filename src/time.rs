//! Points in time, as the core sees them: an argument of every decision, never read from a clock.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point in time: milliseconds since the Unix epoch.
///
/// Arithmetic saturates, so that no time in shared data or in a response, however absurd, can
/// overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself. In shared data it means "never".
    pub const EPOCH: Self = Self(0);

    /// The latest time there is.
    pub const MAX: Self = Self(u64::MAX);

    /// A time given in milliseconds since the epoch.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// A time given in seconds since the epoch.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that has passed since an earlier one; zero if that one is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::from_secs(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn seconds_and_milliseconds_agree() {
        let later = Timestamp::from_secs(2);
        assert_eq!(later, Timestamp::from_millis(500) + Duration::from_millis(1500));
        assert_eq!(later.since(Timestamp::from_millis(500)), Duration::from_millis(1500));
    }
}
