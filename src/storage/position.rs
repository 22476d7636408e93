//! How far a store has come: the numbers that every commit carries on.

use super::mark::Mark;

/// How far the store has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) commit: u64,
    pub(super) last_batch: u64,
    pub(super) dropped_through: u64,
    pub(super) journal_bytes: u64,
    pub(super) last_ledger: u64,
    /// `None` in a store of an older version, which has no ledger until the first commit that needs one.
    pub(super) ledger_dropped_through: Option<u64>,
}

impl Position {
    pub(super) fn to_mark(self) -> Mark {
        Mark { commit: self.commit, batch: self.last_batch }
    }
}
