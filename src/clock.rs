//! The wall clock: the one place that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use stockmesh_proto::operation::Books;

use crate::limits::CLOCK_PLAUSIBLE_MS;

/// The time by which requests are remembered and forgotten. A clock that lost its time, as one without a battery does,
/// says nothing about what is old: the latest time that is known counts in its place.
pub(crate) fn time_to_remember(now_ms: u64, books: &Books) -> u64 {
    if now_ms < CLOCK_PLAUSIBLE_MS { books.latest_ms().unwrap_or(now_ms) } else { now_ms }
}

/// Milliseconds since 1970, shifted by a fixed offset. Tests shift it to play a node whose clock is off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WallClock {
    offset_ms: i64,
    /// The number of a simulated node, whose clock the simulator sets.
    #[cfg(feature = "testing")]
    simulated: Option<u32>,
}

impl WallClock {
    /// A clock that is off by `offset_ms`.
    #[cfg(feature = "testing")]
    pub(crate) fn shifted(offset_ms: i64) -> Self {
        Self { offset_ms, simulated: None }
    }

    /// The clock of a simulated node.
    #[cfg(feature = "testing")]
    pub(crate) fn simulated(node: u32) -> Self {
        Self { offset_ms: 0, simulated: Some(node) }
    }

    /// Now. A system clock before 1970 reads as 1970.
    pub(crate) fn now_ms(self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now_ms) = self.simulated.and_then(crate::simulation::wall_ms) {
            return now_ms;
        }
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_add_signed(self.offset_ms)
    }
}
