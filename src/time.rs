//! Two kinds of time which cannot be mixed up: a wall clock that may jump either way, and a tick that never goes back.
//!
//! Nothing here reads a clock. Shells read them and pass [`Now`] on as data, so that the same input always gives the
//! same answer. All arithmetic saturates: stamps come from strangers and from disks.
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;
use std::time::SystemTime;

/// A point of wall-clock time: milliseconds since 1970-01-01 00:00 UTC; may be negative; 0 also stands for "not known".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMillis(i64);

/// To the millisecond, rounded towards the past; at most to the ends of the range.
impl From<SystemTime> for WallMillis {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => {
                let nanos = i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX);
                Self(i64::try_from((-nanos).div_euclid(1_000_000)).unwrap_or(i64::MIN))
            }
        }
    }
}

/// Fails where the system has no such time.
impl TryFrom<WallMillis> for SystemTime {
    type Error = NoSystemTime;

    fn try_from(time: WallMillis) -> Result<Self, NoSystemTime> {
        let distance = Duration::from_millis(time.0.unsigned_abs());
        let there =
            if time.0 < 0 { Self::UNIX_EPOCH.checked_sub(distance) } else { Self::UNIX_EPOCH.checked_add(distance) };
        there.ok_or(NoSystemTime)
    }
}

/// The system's clock cannot show this [`WallMillis`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSystemTime;

impl fmt::Display for NoSystemTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system's clock has no such time")
    }
}

impl core::error::Error for NoSystemTime {}

impl WallMillis {
    /// The given number of milliseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    #[inline]
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    #[inline]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01 00:00 UTC, rounded towards the past.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment moved by `millis` (which may be negative), at most to the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment, negative when `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<i64> for WallMillis {
    fn from(millis: i64) -> Self {
        Self(millis)
    }
}

impl fmt::Debug for WallMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A point of monotonic time: milliseconds since some moment of this process; never goes back while it runs.
///
/// Negative ticks lie before that moment: an entry loaded from disk keeps the age that it had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(i64);

impl Tick {
    /// The given number of milliseconds since the process's own zero.
    #[must_use]
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the process's own zero.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This tick moved by `millis` (which may be negative), at most to the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this tick, negative when `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}ms", self.0)
    }
}

/// The two clocks, read together by a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// The wall clock; may have jumped since the last reading.
    pub wall: WallMillis,
    /// The monotonic clock; never less than at the last reading.
    pub tick: Tick,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(WallMillis::new(i64::MAX).saturating_add(1), WallMillis::new(i64::MAX));
        assert_eq!(WallMillis::new(i64::MIN).millis_since(WallMillis::new(1)), i64::MIN);
        assert_eq!(Tick::new(i64::MIN).saturating_add(-1), Tick::new(i64::MIN));
        assert_eq!(Tick::new(5).millis_since(Tick::new(7)), -2);
    }

    #[test]
    fn the_systems_time_comes_and_goes_to_the_millisecond() {
        let at = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        assert_eq!(WallMillis::from(at(2, 1_999_999)), WallMillis::new(2_001));
        assert_eq!(WallMillis::from(SystemTime::UNIX_EPOCH - Duration::from_nanos(1)), WallMillis::new(-1));
        assert_eq!(WallMillis::from(SystemTime::UNIX_EPOCH - Duration::from_millis(3)), WallMillis::new(-3));
        for millis in [0, 1, -1, 1_772_532_000_123, -86_400_001] {
            let time = WallMillis::new(millis);
            assert_eq!(SystemTime::try_from(time).map(WallMillis::from), Ok(time));
        }
    }

    #[test]
    fn seconds_round_towards_the_past() {
        assert_eq!(WallMillis::new(1999).as_secs(), 1);
        assert_eq!(WallMillis::new(-1).as_secs(), -1);
        assert_eq!(WallMillis::new(1_772_532_000_123).as_secs(), 1_772_532_000);
    }
}
