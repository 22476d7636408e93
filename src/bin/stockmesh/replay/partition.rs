//! Which node is cut off when.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// One cut-and-heal cycle. Positions are counts of rows read; what nodes commit trails them by some batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cut {
    /// Index of the node, from 0.
    #[serde(skip)]
    pub(super) index: usize,
    /// Name of the node.
    pub(super) node: String,
    /// After how many rows the node is cut off.
    pub(super) cut_after_rows: u64,
    /// After how many rows it is linked again.
    pub(super) healed_after_rows: u64,
}

/// Divides the rows among the cycles; each is cut in the middle half of its share, so that no two overlap.
pub(super) fn plan(rows: u64, cycles: u32, nodes: u16, seed: u64) -> Vec<Cut> {
    let mut random = StdRng::seed_from_u64(seed);
    let quarters = u128::from(cycles) * 4;
    let position = |quarter: u128| {
        let row = u128::from(rows) * quarter / quarters.max(1);
        u64::try_from(row).unwrap_or(rows)
    };
    (0..u128::from(cycles))
        .map(|cycle| {
            let index = usize::from(random.random_range(0..nodes.max(1)));
            Cut {
                index,
                node: format!("node-{}", index + 1),
                cut_after_rows: position(cycle * 4 + 1),
                healed_after_rows: position(cycle * 4 + 3),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_apart_and_follow_the_seed() {
        let cuts = plan(541_909, 5, 8, 7);
        assert_eq!(cuts.len(), 5);
        assert_eq!(cuts, plan(541_909, 5, 8, 7));
        for cut in &cuts {
            assert!(cut.index < 8 && cut.cut_after_rows < cut.healed_after_rows);
        }
        for pair in cuts.windows(2) {
            assert!(pair[0].healed_after_rows < pair[1].cut_after_rows);
        }
        assert!(cuts[4].healed_after_rows < 541_909);
        let others: Vec<_> = (0..20).map(|seed| plan(100, 5, 8, seed)).collect();
        assert!(others.iter().any(|other| *other != others[0]));
    }

    #[test]
    fn few_rows_and_many_cycles_stay_in_range() {
        assert!(plan(0, 3, 2, 1).iter().all(|cut| cut.healed_after_rows == 0));
        assert!(plan(5, 1_000, 2, 1).iter().all(|cut| cut.healed_after_rows <= 5));
        assert!(plan(u64::MAX, 1_000, 2, 1).iter().all(|cut| cut.cut_after_rows < cut.healed_after_rows));
        assert!(plan(100, 0, 2, 1).is_empty());
    }
}
