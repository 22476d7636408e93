//! What stock may be, as far as callers know: units that are certain, and what may count or not.

use std::collections::{BTreeMap, BTreeSet};

use stockmesh::ReplicaId;

/// Units that are certain, and amounts of which each may be added or not.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Certain.
    pub certain: i128,
    /// Each may count.
    pub possible: Vec<i64>,
    /// What replicas acknowledged at one place before they were set back. Their counters only grow: if one write counts,
    /// all count that had been acknowledged before it began.
    pub set_back: BTreeMap<ReplicaId, Vec<Acknowledged>>,
    /// Nothing can be said.
    pub is_unbounded: bool,
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// When it began, in the order of all that was noted.
    pub begun: u64,
    /// When it was acknowledged.
    pub heard: u64,
    /// What it adds.
    pub units: i64,
}

impl Sum {
    /// Whether these units can come of it.
    #[must_use]
    pub fn allows(&self, units: i128) -> bool {
        if self.is_unbounded {
            return true;
        }
        let mut sums = with_any(BTreeSet::from([self.certain]), &self.possible);
        for writes in self.set_back.values() {
            let counted = prefixes(writes);
            sums = sums.iter().flat_map(|sum| counted.iter().map(move |more| sum + more)).collect();
        }
        sums.contains(&units)
    }
}

/// Each of the sums, and each with any of these units added.
fn with_any(mut sums: BTreeSet<i128>, units: &[i64]) -> BTreeSet<i128> {
    for possible in units {
        let more: Vec<i128> = sums.iter().map(|sum| sum + i128::from(*possible)).collect();
        sums.extend(more);
    }
    sums
}

/// What may have counted of one replica's writes at one place: those that were acknowledged before the last that counts
/// began, and any that were under way then.
fn prefixes(writes: &[Acknowledged]) -> BTreeSet<i128> {
    let mut sums = BTreeSet::from([0]);
    for last in writes {
        let counted: i128 =
            writes.iter().filter(|write| write.heard < last.begun).map(|write| i128::from(write.units)).sum();
        let under_way = writes.iter().filter(|write| write.begun <= last.begun && write.heard >= last.begun);
        let under_way: Vec<i64> = under_way.map(|write| write.units).collect();
        sums.extend(with_any(BTreeSet::from([counted]), &under_way));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(sum: &Sum) -> Vec<i128> {
        (-100..100).filter(|units| sum.allows(*units)).collect()
    }

    #[test]
    fn any_of_what_is_possible_counts() {
        let sum = Sum { certain: 10, possible: vec![3, -1], ..Sum::default() };
        assert_eq!(allowed(&sum), [9, 10, 12, 13]);
    }

    #[test]
    fn of_what_was_acknowledged_before_a_loss_the_last_is_lost_first() {
        let acknowledged = |begun, heard, units| Acknowledged { begun, heard, units };
        let writes =
            vec![acknowledged(1, 2, 1), acknowledged(3, 6, 10), acknowledged(4, 5, 20), acknowledged(7, 8, 40)];
        let sum = Sum { set_back: BTreeMap::from([(ReplicaId::from_random(1), writes)]), ..Sum::default() };
        // Without the first nothing counts. The two that overlap may each be there without the other.
        assert_eq!(allowed(&sum), [0, 1, 11, 21, 31, 71]);
    }
}
