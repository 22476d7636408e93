//! How much sells: the rate of sales of one product at one location, weighted so that what is long ago counts less.
//!
//! A sum of units that halves every [`DEMAND_HALF_LIFE_MS`]. At a steady rate it settles at rate × half-life / ln 2, so
//! the rate is read back from it. The weights are anchored to windows of one half-life and an event is weighted when it
//! comes, not each time the sum ages: Cormode et al. 2009, "Forward Decay: A Practical Time Decay Model for Streaming
//! Systems". So the weights may be straight lines within a window, and frequent events add up no error.

use crate::limits::DEMAND_HALF_LIFE_MS;

/// The sum is kept in thousandths of a unit, so that single units still count after several halvings.
const MILLI: u64 = 1_000;
/// A line from 1 at a window's start to 1/2 at its end, times this, is a whole number at every millisecond.
const LINE: u64 = 2 * DEMAND_HALF_LIFE_MS;
const MS_PER_HOUR: u128 = 3_600_000;
/// ln 2 in millionths.
const LN_2_MICRO: u128 = 693_147;
const MICRO: u128 = 1_000_000;

/// The rate of sales of one product at one location, as one replica sees it.
///
/// A steady rate reads back within 10 % after several half-lives, if sales come much more often than the half-life;
/// rarer ones read as their average over time, each as about 41 units per hour and unit at first. Noting and reading
/// take constant time; the size is 24 bytes.
///
/// Threads read the clock in no fixed order, so a time that is behind by up to one half-life counts as the latest one
/// seen. A clock that is set back further ages the sum by the step: no step raises the rate, or keeps it alive.
///
/// ```
/// use stockmesh_proto::demand::Demand;
///
/// let mut demand = Demand::default();
/// // Two units every second, for ten minutes.
/// for second in 0..600 {
///     demand.note(2, second * 1_000);
/// }
/// let per_hour = demand.per_hour(600_000);
/// assert!((6_480..=7_920).contains(&per_hour), "7200 within 10 %, but {per_hour}");
/// // Nothing for ten minutes.
/// assert!(demand.per_hour(1_200_000) < 10);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// What the sum was at the start of the window, in thousandths of a unit. Events within the window are put in as
    /// what would have shrunk to them by now.
    milli_units: u64,
    /// How far the window has gone: less than a half-life.
    phase_ms: u64,
    latest_ms: u64,
}

impl Demand {
    /// Counts `units` that were sold, or would have been if they had been there, at `now_ms`.
    pub fn note(&mut self, units: u64, now_ms: u64) {
        *self = self.aged(now_ms);
        let milli = u128::from(units.saturating_mul(MILLI));
        let at_start = milli * u128::from(LINE) / u128::from(LINE - self.phase_ms);
        self.milli_units = self.milli_units.saturating_add(u64::try_from(at_start).unwrap_or(u64::MAX));
    }

    /// The rate at `now_ms`, in units per hour, rounded down. Zero if nothing sold for long.
    pub fn per_hour(self, now_ms: u64) -> u64 {
        let aged = self.aged(now_ms);
        let milli = u128::from(aged.milli_units) * u128::from(LINE - aged.phase_ms) / u128::from(LINE);
        let rate = milli * LN_2_MICRO * MS_PER_HOUR / (MICRO * u128::from(MILLI) * u128::from(DEMAND_HALF_LIFE_MS));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// The same sum with its window moved on to `now_ms`.
    fn aged(self, now_ms: u64) -> Self {
        let set_back = self.latest_ms.saturating_sub(now_ms) > DEMAND_HALF_LIFE_MS;
        if now_ms < self.latest_ms && !set_back {
            return self;
        }
        let elapsed_ms = now_ms.abs_diff(self.latest_ms);
        // Both parts are less than a half-life: the sum cannot overflow.
        let phase_ms = self.phase_ms + elapsed_ms % DEMAND_HALF_LIFE_MS;
        let halvings = elapsed_ms / DEMAND_HALF_LIFE_MS + phase_ms / DEMAND_HALF_LIFE_MS;
        let milli_units = u32::try_from(halvings).ok().and_then(|bits| self.milli_units.checked_shr(bits)).unwrap_or(0);
        Self { milli_units, phase_ms: phase_ms % DEMAND_HALF_LIFE_MS, latest_ms: now_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes `units` every `every_ms` from a start that falls into no window's start, and reads at each event.
    fn steady(units: u64, every_ms: u64, mut check: impl FnMut(u64, u64)) {
        let start_ms = 1_700_000_012_345;
        let mut demand = Demand::default();
        let mut elapsed_ms = 0;
        while elapsed_ms < 20 * DEMAND_HALF_LIFE_MS {
            demand.note(units, start_ms + elapsed_ms);
            elapsed_ms += every_ms;
            check(elapsed_ms, demand.per_hour(start_ms + elapsed_ms - every_ms / 2));
        }
    }

    #[test]
    fn a_steady_rate_reads_back_within_a_tenth() {
        for (units, every_ms) in [(1, 1_000), (1, 5_000), (3, 700), (1_000, 10), (1, 3), (1_000_000_000_000, 250)] {
            let expected = units * 3_600_000 / every_ms;
            let mut reads = 0;
            steady(units, every_ms, |elapsed_ms, per_hour| {
                if elapsed_ms > 8 * DEMAND_HALF_LIFE_MS {
                    reads += 1;
                    assert!(
                        per_hour.abs_diff(expected) <= expected / 10,
                        "{per_hour}, not {expected}: {elapsed_ms} ms"
                    );
                }
            });
            assert!(reads > 100);
        }
    }

    #[test]
    fn the_rate_follows_a_change_within_a_few_half_lives() {
        let mut demand = Demand::default();
        for second in 0..1_200 {
            demand.note(if second < 600 { 10 } else { 1 }, second * 1_000);
        }
        assert!(demand.per_hour(1_200_000).abs_diff(3_600) <= 400, "{}", demand.per_hour(1_200_000));
    }

    #[test]
    fn each_half_life_halves_the_rate() {
        let mut demand = Demand::default();
        demand.note(1_000_000, 17);
        let first = demand.per_hour(17);
        for halvings in 1..=10 {
            let now = demand.per_hour(17 + halvings * DEMAND_HALF_LIFE_MS);
            assert!(now.abs_diff(first >> halvings) <= 1, "{now} after {halvings}");
        }
        let rates: Vec<u64> = (0..300).map(|second| demand.per_hour(17 + second * 1_000)).collect();
        assert!(rates.is_sorted_by(|earlier, later| earlier > later));
        assert_eq!(demand.per_hour(17 + 64 * DEMAND_HALF_LIFE_MS), 0);
        assert_eq!(demand.per_hour(u64::MAX), 0);
    }

    #[test]
    fn a_clock_that_steps_back_neither_raises_the_rate_nor_keeps_it_alive() {
        let mut demand = Demand::default();
        let latest_ms = 100 * DEMAND_HALF_LIFE_MS + 59_000;
        demand.note(100, latest_ms - 30_000);
        demand.note(100, latest_ms);
        let before = demand.per_hour(latest_ms);
        for back_ms in [1, 30_000, 60_000, 60_001, 90_000, latest_ms] {
            let mut stepped = demand;
            assert!(stepped.per_hour(latest_ms - back_ms) <= before, "read {back_ms} ms earlier");
            stepped.note(0, latest_ms - back_ms);
            assert!(stepped.per_hour(latest_ms - back_ms) <= before, "noted {back_ms} ms earlier");
            assert!(stepped.per_hour(latest_ms) <= before, "read after both steps");
        }
        // A clock that was a day ahead: the demand of then is gone, and new demand counts.
        let mut ahead = Demand::default();
        ahead.note(1_000, 86_400_000);
        assert_eq!(ahead.per_hour(1_000), 0);
        ahead.note(1, 1_000);
        ahead.note(1, 2_000);
        assert!((70..=90).contains(&ahead.per_hour(2_000)), "{}", ahead.per_hour(2_000));
    }

    #[test]
    fn threads_whose_clocks_differ_by_a_little_age_nothing() {
        let mut demand = Demand::default();
        for event in 0..100_000 {
            demand.note(1, 1_000_000 + event % 2);
        }
        let mut at_once = Demand::default();
        at_once.note(100_000, 1_000_001);
        assert!(
            demand.per_hour(1_000_001).abs_diff(at_once.per_hour(1_000_001)) <= at_once.per_hour(1_000_001) / 1_000
        );
    }

    #[test]
    fn the_largest_figures_saturate() {
        let mut demand = Demand::default();
        for now_ms in [0, 59_999, u64::MAX, 0, u64::MAX - 1, u64::MAX] {
            demand.note(u64::MAX, now_ms);
            demand.note(3, now_ms);
            assert!(demand.per_hour(now_ms) > u64::MAX / 100, "{now_ms}");
        }
        assert_eq!(Demand::default().per_hour(u64::MAX), 0);
    }
}
