//! How long a group waits for more work.
//!
//! Writers that were just answered write again a moment later. A group that began with the first of them would leave
//! the others for the next, so that many a writer waits through two syncs. So where several wrote lately, a group waits
//! as long as work keeps coming, a matter of microseconds. A lone writer is never kept waiting.

use std::time::Instant;

use crate::limits::{GATHER_PAUSE_MAX, GATHER_TIME_MAX};
use crate::sync::thread;

/// Pieces of work that must be expected before it is worth waiting for any.
const EXPECTED_MIN: usize = 3;

/// How much work the last groups had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathering {
    last: usize,
    expected: usize,
}

impl Gathering {
    pub(super) fn begin(self) -> Round {
        Round { before: self, count: 0, waited_in_vain: false, begun: None }
    }
}

/// A group that is being gathered.
#[derive(Debug)]
pub(super) struct Round {
    before: Gathering,
    count: usize,
    waited_in_vain: bool,
    begun: Option<Instant>,
}

impl Round {
    /// Counts a piece of work. Returns how many there are.
    pub(super) fn count_one(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    /// The next piece of work, if there is one or one comes soon by the clock given.
    pub(super) fn next<T>(&mut self, mut take: impl FnMut() -> Option<T>, clock: impl Fn() -> Instant) -> Option<T> {
        let ready = take();
        let expected = self.before.expected;
        if ready.is_some() || expected < EXPECTED_MIN || self.count >= expected {
            return ready;
        }
        let now = clock();
        let end = (*self.begun.get_or_insert(now) + GATHER_TIME_MAX).min(now + GATHER_PAUSE_MAX);
        while clock() < end {
            thread::yield_now();
            let ready = take();
            if ready.is_some() {
                return ready;
            }
        }
        self.waited_in_vain = true;
        None
    }

    /// What the next group may expect: what this one had, and if nobody was waited for in vain, also those who were
    /// answered in the group before.
    pub(super) fn end(self) -> Gathering {
        let expected = if self.waited_in_vain { self.count } else { self.count + self.before.last };
        Gathering { last: self.count, expected }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    /// One group, with work that is there at once and work that is there only when it is asked for again.
    fn group(before: Gathering, mut ready: usize, mut late: usize) -> (usize, Gathering) {
        let mut round = before.begin();
        round.count_one();
        let mut was_in_vain = false;
        // A clock of its own, so that a loaded machine cannot decide the outcome: a microsecond a look.
        let time = Cell::new(Instant::now());
        let clock = || {
            time.set(time.get() + Duration::from_micros(1));
            time.get()
        };
        let mut take = || {
            if ready > 0 {
                ready -= 1;
                return Some(());
            }
            was_in_vain = !was_in_vain;
            if was_in_vain || late == 0 {
                return None;
            }
            late -= 1;
            Some(())
        };
        while round.next(&mut take, clock).is_some() {
            round.count_one();
        }
        (round.count, round.end())
    }

    #[test]
    fn a_lone_writer_is_not_kept_waiting() {
        let mut gathering = Gathering::default();
        for _ in 0..10 {
            let (count, after) = group(gathering, 0, 5);
            assert_eq!((count, after.expected <= 2), (1, true), "nothing is waited for");
            gathering = after;
        }
    }

    #[test]
    fn writers_that_alternate_come_together() {
        let (first, gathering) = group(Gathering::default(), 19, 44);
        assert_eq!(first, 20, "nobody is expected yet");
        let (second, gathering) = group(gathering, 43, 0);
        assert_eq!(second, 44);
        let (third, _) = group(gathering, 9, 60);
        assert_eq!(third, 64, "those of both groups are waited for, and no more");
    }
}
