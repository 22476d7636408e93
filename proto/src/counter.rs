//! The counters of a stock slot: a PN-counter and the pair of counters of holds.
//!
//! Shapiro et al. 2011, "A Comprehensive Study of Convergent and Commutative Replicated Data Types": each replica
//! writes its own slots only, each counter only grows, and the join is the pointwise maximum.

/// Four monotone counters, all written by one replica for one product at one location, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Units that came in.
    pub added: u64,
    /// Units that went out.
    pub removed: u64,
    /// Units that were held.
    pub held: u64,
    /// Held units that were released or sold.
    pub released: u64,
}

/// A counter would pass its limit. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter would exceed 2^64 - 1; nothing was changed")]
pub struct CounterOverflow;

impl Counters {
    /// The pointwise maximum (rule L1).
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            added: self.added.max(other.added),
            removed: self.removed.max(other.removed),
            held: self.held.max(other.held),
            released: self.released.max(other.released),
        }
    }

    /// Whether joining `other` would change nothing.
    pub fn dominates(self, other: Self) -> bool {
        self.join(other) == self
    }

    /// What the slot adds to the units on hand: may be below zero.
    pub fn on_hand(self) -> i128 {
        i128::from(self.added) - i128::from(self.removed)
    }

    /// What the slot adds to the units held.
    pub fn units_held(self) -> i128 {
        i128::from(self.held) - i128::from(self.released)
    }

    /// What the slot adds to the units that can be sold: on hand less held.
    pub fn available(self) -> i128 {
        self.on_hand() - self.units_held()
    }

    /// Counts all of `more` on top.
    ///
    /// # Errors
    /// If a counter would overflow.
    pub fn plus(self, more: Self) -> Result<Self, CounterOverflow> {
        let add = |counter: u64, units: u64| counter.checked_add(units).ok_or(CounterOverflow);
        Ok(Self {
            added: add(self.added, more.added)?,
            removed: add(self.removed, more.removed)?,
            held: add(self.held, more.held)?,
            released: add(self.released, more.released)?,
        })
    }

    /// Counts a change of the units on hand: `added` grows by what is above zero, `removed` by what is below.
    ///
    /// # Errors
    /// If a counter would overflow.
    pub fn adjusted(self, units: i64) -> Result<Self, CounterOverflow> {
        let mut changed = self;
        let counter = if units < 0 { &mut changed.removed } else { &mut changed.added };
        *counter = counter.checked_add(units.unsigned_abs()).ok_or(CounterOverflow)?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusting_counts_up_only() {
        let counters = Counters::default().adjusted(10).unwrap().adjusted(-13).unwrap();
        assert_eq!((counters.added, counters.removed, counters.on_hand()), (10, 13, -3));
        let full = Counters { added: u64::MAX, ..Counters::default() };
        assert_eq!(full.adjusted(1), Err(CounterOverflow));
        assert!(full.adjusted(-1).is_ok());
    }
}
