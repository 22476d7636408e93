//! Last-writer-wins registers.

use crate::hlc::Stamp;
use crate::id::Dot;

/// A value that the last write wins, by stamp of the hybrid logical clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<T> {
    /// The value.
    pub value: T,
    /// When it was written.
    pub stamp: Stamp,
    /// The write that set it.
    pub dot: Dot,
}

impl<T: Ord + Clone> Register<T> {
    /// Whether this write wins over `other` (rule L3): the greater of (stamp, replica, value, sequence). The sequence
    /// can only decide between two writes that no honest replica makes; with it the order is total whatever arrives.
    pub fn wins_over(&self, other: &Self) -> bool {
        let key = |register: &Self| (register.stamp, register.dot.replica);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.value.cmp(&other.value))
            .then_with(|| self.dot.sequence.cmp(&other.dot.sequence))
            .is_gt()
    }

    /// Whether this write takes the place of what a slot holds, if anything.
    pub fn wins(&self, current: Option<&Self>) -> bool {
        current.is_none_or(|current| self.wins_over(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;

    fn write(stamp: u64, replica: u64, value: u64, sequence: u64) -> Register<u64> {
        let dot = Dot { replica: ReplicaId::from_random(replica), sequence };
        Register { value, stamp: Stamp::from_bits(stamp), dot }
    }

    #[test]
    fn the_order_is_stamp_replica_value_sequence() {
        let rising = [write(1, 9, 9, 9), write(2, 1, 9, 9), write(2, 2, 1, 9), write(2, 2, 2, 1), write(2, 2, 2, 2)];
        for (index, winner) in rising.iter().enumerate() {
            assert!(!winner.wins_over(winner));
            assert!(winner.wins(None));
            for loser in &rising[..index] {
                assert!(winner.wins_over(loser) && !loser.wins_over(winner));
            }
        }
    }
}
