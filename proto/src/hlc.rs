//! Hybrid logical clock: stamps that follow the wall clock, yet never run backwards.
//!
//! Kulkarni et al. 2014, "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases".
//! 48 bits of milliseconds since 1970 and 16 bits of counter (rule C1).

use std::fmt;

use serde::{Deserialize, Serialize};

const COUNTER_BITS: u32 = 16;

/// A stamp of the hybrid logical clock. Greater means later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of these bits: 48 of milliseconds, 16 of counter.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the stamp.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The stamp's milliseconds since 1970.
    pub fn milliseconds(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// How far the stamp runs ahead of a clock that shows `now_ms`, in milliseconds; zero if it doesn't.
    pub fn ahead_ms(self, now_ms: u64) -> u64 {
        self.milliseconds().saturating_sub(now_ms)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}+{}", self.milliseconds(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// The clock cannot issue a greater stamp: 48 bits of milliseconds are used up (in the year 10889, or by a stamp that
/// was forged). Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hybrid logical clock is used up; nothing was changed")]
pub struct ClockExhausted;

/// Issues stamps, each greater than all it issued or saw. It reads no clock: the time is an argument.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    latest: Stamp,
}

impl Clock {
    /// A clock that goes on after `latest`, the highest stamp ever issued or seen.
    pub fn resume(latest: Stamp) -> Self {
        Self { latest }
    }

    /// The highest stamp issued or seen.
    pub fn latest(&self) -> Stamp {
        self.latest
    }

    /// A stamp for a new write (rule C2): the wall clock's milliseconds, or one more than the highest ever seen.
    ///
    /// # Errors
    /// If no greater stamp exists.
    pub fn tick(&mut self, now_ms: u64) -> Result<Stamp, ClockExhausted> {
        let wall = now_ms.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS;
        let next = self.latest.0.checked_add(1).ok_or(ClockExhausted)?;
        self.latest = Stamp(next.max(wall));
        Ok(self.latest)
    }

    /// Takes note of a stamp that was accepted from elsewhere.
    pub fn observe(&mut self, stamp: Stamp) {
        self.latest = self.latest.max(stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_even_if_the_wall_clock_falls() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000).unwrap();
        let second = clock.tick(10).unwrap();
        assert!(second > first);
        assert_eq!(second.milliseconds(), 1_000);
        assert_eq!(clock.tick(2_000).unwrap().milliseconds(), 2_000);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::resume(Stamp::from_bits((5 << 16) | 0xffff));
        assert_eq!(clock.tick(0).unwrap(), Stamp::from_bits(6 << 16));
        let mut spent = Clock::resume(Stamp::from_bits(u64::MAX));
        assert_eq!(spent.tick(0), Err(ClockExhausted));
        assert_eq!(spent.latest(), Stamp::from_bits(u64::MAX));
    }

    #[test]
    fn ahead_is_measured_against_the_given_clock() {
        let stamp = Stamp::from_bits(5_000 << 16);
        assert_eq!((stamp.ahead_ms(4_000), stamp.ahead_ms(6_000)), (1_000, 0));
    }
}
