//! What goes into a commit, and what comes of it.

use std::borrow::Cow;

use thiserror::Error;

use super::row::{ROW_PAYLOAD_BYTES_MAX, part_count};

/// The longest key of a setting.
pub const SETTING_KEY_BYTES_MAX: usize = 255;

/// The longest value of a setting: it shares one row with its key.
pub const SETTING_VALUE_BYTES_MAX: usize = ROW_PAYLOAD_BYTES_MAX - SETTING_KEY_BYTES_MAX - 1;

/// Keys with this beginning are this layer's own.
pub(super) const RESERVED_PREFIX: &str = "storage.";

/// One entry of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Exactly one more than the batch before; the first is 1.
    pub number: u64,
    /// What is to be kept. Split into rows as needed; about 2 GB at most.
    pub payload: Vec<u8>,
}

/// Settings to store: keys, and their values or that they are deleted.
pub type Stored = Vec<(Cow<'static, str>, Option<Vec<u8>>)>;

/// Everything one commit changes, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// An entry to append to the journal.
    pub batch: Option<Batch>,
    /// Shards and their new snapshots, each replacing the one before wholly.
    pub snapshots: Vec<(u16, Vec<u8>)>,
    /// Forget all batches up to this number, this transaction's own included.
    pub drop_journal_through: Option<u64>,
    /// An entry to append to the ledger. Its number is one more than that of the entry before; the first is 1.
    pub ledger: Option<Vec<u8>>,
    /// Forget all entries of the ledger up to this number, this transaction's own included.
    pub drop_ledger_through: Option<u64>,
    /// Small values by key; `None` deletes.
    pub settings: Stored,
}

impl Transaction {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_none()
            && self.snapshots.is_empty()
            && self.drop_journal_through.is_none()
            && !self.touches_ledger()
            && self.settings.is_empty()
    }

    pub(super) fn touches_ledger(&self) -> bool {
        self.ledger.is_some() || self.drop_ledger_through.is_some()
    }

    /// Judges everything that does not need the medium.
    pub(super) fn check(&self, last_batch: u64, last_ledger: u64) -> Result<(), Refusal> {
        let mut newest = last_batch;
        if let Some(batch) = &self.batch {
            newest = last_batch.checked_add(1).ok_or(Refusal::Exhausted)?;
            if batch.number != newest {
                return Err(Refusal::BatchNumber { expected: newest, found: batch.number });
            }
        }
        let mut newest_ledger = last_ledger;
        if self.ledger.is_some() {
            newest_ledger = last_ledger.checked_add(1).ok_or(Refusal::Exhausted)?;
        }
        let payloads = self.batch.iter().map(|batch| &batch.payload).chain(&self.ledger);
        for payload in payloads.chain(self.snapshots.iter().map(|(_, payload)| payload)) {
            if part_count(payload.len()).is_none() {
                return Err(Refusal::TooLarge(payload.len()));
            }
        }
        if let Some(through) = self.drop_journal_through
            && through > newest
        {
            return Err(Refusal::DropAhead { through, newest });
        }
        if let Some(through) = self.drop_ledger_through
            && through > newest_ledger
        {
            return Err(Refusal::DropLedgerAhead { through, newest: newest_ledger });
        }
        self.settings.iter().try_for_each(|(key, value)| {
            let value_bytes = value.as_ref().map_or(0, Vec::len);
            check_setting(key, value_bytes)
        })
    }
}

/// Whether a setting can be stored.
///
/// # Errors
/// If its key or value is too long, or the key is empty or reserved.
pub(crate) fn check_setting(key: &str, value_bytes: usize) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > SETTING_KEY_BYTES_MAX || key.starts_with(RESERVED_PREFIX) {
        return Err(Refusal::Key(key.to_owned()));
    }
    if value_bytes > SETTING_VALUE_BYTES_MAX {
        return Err(Refusal::TooLarge(value_bytes));
    }
    Ok(())
}

/// Where the store stands after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitFigures {
    /// The number of the last commit.
    pub commit: u64,
    /// The number of the last batch, 0 if there was never one.
    pub last_batch: u64,
    /// The oldest batch that the journal still holds.
    pub oldest_batch: Option<u64>,
    /// What the journal's rows take, without the engine's own overhead. Decides when to fold.
    pub journal_bytes: u64,
    /// The number of the last entry of the ledger, 0 if there was never one. The next is one more.
    pub last_ledger: u64,
    /// The oldest entry that the ledger still holds.
    pub first_ledger: Option<u64>,
}

/// Why a transaction was not begun. Nothing was written, and the store goes on working.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The journal has no gaps and no second version of an entry.
    #[error("the next batch is number {expected}, not {found}")]
    BatchNumber {
        /// The only number that would do.
        expected: u64,
        /// The number given.
        found: u64,
    },
    /// Only batches that exist can be dropped.
    #[error("cannot drop the journal through batch {through}: the newest is {newest}")]
    DropAhead {
        /// The number given.
        through: u64,
        /// The newest batch, this transaction's included.
        newest: u64,
    },
    /// Only entries of the ledger that exist can be dropped.
    #[error("cannot drop the ledger through entry {through}: the newest is {newest}")]
    DropLedgerAhead {
        /// The number given.
        through: u64,
        /// The newest entry, this transaction's included.
        newest: u64,
    },
    /// A payload or value of this many bytes is more than can be stored.
    #[error("{0} bytes are more than can be stored")]
    TooLarge(usize),
    /// The key of a setting is empty, too long or reserved.
    #[error("{0:?} is no key for a setting")]
    Key(String),
    /// All numbers have been used.
    #[error("the last possible number has been used")]
    Exhausted,
    /// What the store holds must be read once before anything is added.
    #[error("the store must be loaded first")]
    NotLoaded,
    /// Loading found damage. A damaged file is never written to; a new store can be built from what is left of it.
    #[error("the store is damaged")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let batch = |number| Transaction { batch: Some(Batch { number, payload: vec![] }), ..Transaction::default() };
        assert_eq!(batch(5).check(4, 0), Ok(()));
        for number in [0, 4, 6] {
            let refusal = Refusal::BatchNumber { expected: 5, found: number };
            assert_eq!(batch(number).check(4, 0), Err(refusal));
        }
        assert_eq!(batch(0).check(u64::MAX, 0), Err(Refusal::Exhausted));
        let dropping = |through| Transaction { drop_journal_through: Some(through), ..batch(5) };
        assert_eq!(dropping(5).check(4, 0), Ok(()));
        assert_eq!(dropping(6).check(4, 0), Err(Refusal::DropAhead { through: 6, newest: 5 }));
        let setting = |key: &'static str, length| Transaction {
            settings: vec![(key.into(), Some(vec![0; length]))],
            ..Transaction::default()
        };
        assert_eq!(setting("a", SETTING_VALUE_BYTES_MAX).check(0, 0), Ok(()));
        assert!(setting("a", SETTING_VALUE_BYTES_MAX + 1).check(0, 0).is_err());
        assert!(setting("", 0).check(0, 0).is_err());
        assert!(setting("storage.journal", 0).check(0, 0).is_err());
    }

    #[test]
    fn the_ledger_is_dropped_through_what_exists_only() {
        let dropping = |through| Transaction { drop_ledger_through: Some(through), ..Transaction::default() };
        let appending = |through| Transaction { ledger: Some(vec![]), ..dropping(through) };
        assert_eq!(dropping(4).check(0, 4), Ok(()));
        assert_eq!(dropping(5).check(0, 4), Err(Refusal::DropLedgerAhead { through: 5, newest: 4 }));
        assert_eq!(appending(5).check(0, 4), Ok(()));
        assert_eq!(appending(6).check(0, 4), Err(Refusal::DropLedgerAhead { through: 6, newest: 5 }));
        assert_eq!(appending(0).check(0, u64::MAX), Err(Refusal::Exhausted));
        assert!(!dropping(0).is_empty());
        assert!(!Transaction { ledger: Some(vec![]), ..Transaction::default() }.is_empty());
        assert!(Transaction::default().is_empty());
    }
}
