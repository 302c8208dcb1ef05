//! Points in time, as the core sees them: an argument of every decision, never read from a clock.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// How far two workers, or two clocks, may disagree on what time it is.
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

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

    /// Whether less than this has passed since an earlier time; not if that is
    /// [to come](Self::is_to_come).
    #[inline(never)]
    pub fn is_within(self, span: Duration, earlier: Self) -> bool {
        self.since(earlier) < span && !earlier.is_to_come(self)
    }

    /// Whether it is later than now by more than clocks disagree: it is from before the clock was
    /// set back.
    #[inline(never)]
    pub fn is_to_come(self, now: Self) -> bool {
        self > now + CLOCK_TOLERANCE
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
    fn what_is_to_come_has_not_just_been() {
        let (now, span) = (Timestamp::from_secs(10), Duration::from_secs(2));
        for (earlier, expected) in
            [(8000, false), (8001, true), (70_000, true), (70_001, false), (u64::MAX, false)]
        {
            assert_eq!(now.is_within(span, Timestamp::from_millis(earlier)), expected, "{earlier}");
        }
    }

    #[test]
    fn seconds_and_milliseconds_agree() {
        let later = Timestamp::from_secs(2);
        assert_eq!(later, Timestamp::from_millis(500) + Duration::from_millis(1500));
        assert_eq!(later.since(Timestamp::from_millis(500)), Duration::from_millis(1500));
    }
}
