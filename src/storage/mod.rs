//! Durable storage: a journal of batches, the snapshots they are folded into, and a ledger that only grows at its end.
//!
//! This layer deals in numbered byte strings. It does not know what they mean, and promises three things of them: a commit
//! that was confirmed is there after any crash; a commit that was not is there wholly or not at all; and what is handed
//! back on load is what was written, or the loss is named. It never presents an older or emptier store as a whole one.
//!
//! # What is assumed of the disk
//! - When a sync has returned without error, everything written before it survives a loss of power.
//! - Until then each write may be kept, dropped or torn anywhere, in any order. The engine alone relies on more: that the
//!   one byte of its header that selects the valid commit is written whole.
//! - Bytes may change at rest. Every row carries its own checksum, and the engine's tree is verified at open.
//! - After a failed write or sync nothing is assumed of the file any more; it must be opened anew.
//!
//! # Reading order
//! [`Disk`] is the seam to the medium, and `FaultyDisk` the one that tests put there. `row` is the envelope of all that is
//! stored, [`Mark`] the witness outside the store. [`Transaction`] is what goes in, `write` lays it out, [`Engine`]
//! commits it, `load` reads it back, [`LedgerView`] pages through what is too large to be loaded, and [`DataDirectory`] is where all of it lies.

mod assembly;
mod directory;
mod disk;
mod engine;
#[cfg(any(test, feature = "testing"))]
mod fault;
mod guard;
mod ledger;
mod load;
mod mark;
mod position;
mod row;
#[cfg(test)]
mod tests;
mod transaction;
mod write;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use directory::DataDirectory;
pub use disk::{Disk, FileDisk, MemoryDisk};
pub use engine::Engine;
#[cfg(any(test, feature = "testing"))]
pub use fault::{FaultMode, FaultyDisk};
pub use ledger::LedgerView;
pub use load::{Damage, LoadReport, StoredRow};
pub use mark::Mark;
pub use row::{ROW_BYTES_MAX, ROW_PAYLOAD_BYTES_MAX};
pub(crate) use transaction::check_setting;
pub use transaction::{
    Batch, CommitFigures, Refusal, SETTING_KEY_BYTES_MAX, SETTING_VALUE_BYTES_MAX, Stored, Transaction,
};

/// What went wrong in storage, and what that means for the data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The directory is in use, by this process or another. Nothing was read or changed.
    #[error("the data directory {} is in use by another store", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The medium failed while a store was opened or prepared. No confirmed commit is affected.
    #[error("cannot {action} in {}", path.display())]
    Directory {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The medium failed while the store was opened or read. No confirmed commit is affected.
    #[error("the disk failed while the store was opened or read")]
    Disk(#[source] io::Error),
    /// The file of the store is gone or empty although the mark knows of commits. What it held is lost here.
    #[error("the store is missing or empty, but commit {} with batch {} was durable", mark.commit, mark.batch)]
    Missing {
        /// What was durable.
        mark: Mark,
    },
    /// There is a store already where a new one was to be made. Nothing was changed.
    #[error("there is a store already")]
    Exists,
    /// The engine cannot open the file at all. What it held cannot be read here; the file was left for examination.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An entry of the ledger cannot be read. Those behind it may be: reading can go on at the number after it.
    #[error("entry {number} of the ledger is lost, at part {part}: {why}")]
    LedgerEntry {
        /// The entry.
        number: u64,
        /// The first part that is wrong.
        part: u16,
        /// What is wrong with it.
        why: String,
    },
    /// Entries are missing from the ledger. Those behind them may be read: reading can go on at the number after `to`.
    #[error("entries {from} to {to} are missing from the ledger")]
    LedgerGap {
        /// The first missing number.
        from: u64,
        /// The last missing number.
        to: u64,
    },
    /// The engine was closed while a view of it was still in use. Nothing is lost: open the store again to read on.
    #[error("the store was closed")]
    Closed,
    /// The transaction was not begun: nothing was written, and the store goes on working.
    #[error("refused, nothing was written: {0}")]
    Refused(#[from] Refusal),
    /// The transaction failed before its commit: nothing of it will be there after a reopen. The engine takes no more.
    #[error("nothing was committed, and the store must be opened anew: {cause}")]
    NotCommitted {
        /// The failure.
        cause: String,
    },
    /// The commit itself failed: after a reopen the transaction is there wholly or not at all. The engine takes no more.
    #[error("it is unknown whether the commit is durable, and the store must be opened anew: {cause}")]
    Indeterminate {
        /// The failure.
        cause: String,
    },
    /// An earlier commit failed: nothing was written, and nothing will be until the store is opened anew.
    #[error("nothing was written: the store must be opened anew because an earlier commit failed: {cause}")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
}
