//! Leaves out events of a plan for as long as the same invariant stays broken.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::{Plan, Size};
use crate::run::{Report, run};

/// The events that a failure needs, as far as is found out in the time given, and the last run that failed. Nothing if the seed
/// does not fail.
#[must_use]
pub fn minimise(
    seed: u64,
    size: Size,
    limit: Duration,
    mut told: impl FnMut(usize),
) -> Option<(BTreeSet<usize>, Report)> {
    let begun = Instant::now();
    let mut keep: BTreeSet<usize> = (0..Plan::generate(seed, size).events.len()).collect();
    let mut last = run(seed, size, true, Some(&keep));
    let checker = last.broken.as_ref()?.checker;
    let mut portion = keep.len().div_ceil(2);
    while portion > 0 {
        let all: Vec<usize> = keep.iter().copied().collect();
        for part in all.chunks(portion) {
            let fewer: BTreeSet<usize> = keep.iter().filter(|place| !part.contains(place)).copied().collect();
            if fewer.len() == keep.len() {
                continue;
            }
            if begun.elapsed() >= limit {
                return Some((keep, last));
            }
            let report = run(seed, size, true, Some(&fewer));
            if report.broken.as_ref().is_some_and(|broken| broken.checker == checker) {
                (keep, last) = (fewer, report);
                told(keep.len());
            }
        }
        portion = if portion == 1 { 0 } else { portion.div_ceil(2) };
    }
    Some((keep, last))
}
