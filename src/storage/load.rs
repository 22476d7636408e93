//! Reads everything back, and names what is missing.

use redb::{Key, Range, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition};
use thiserror::Error;

use super::StorageError;
use super::assembly::{Assembled, Assembly};
use super::engine::{Engine, Phase};
use super::guard::{Failure, guarded};
use super::mark::{FoundMark, Mark};
use super::position::Position;
use super::row::{self, RowKind};
use super::write::{DROPPED_KEY, JOURNAL, LEDGER_DROPPED_KEY, SETTINGS, SNAPSHOTS, length_bytes};

/// More than this is not listed one by one; nobody reads on, and a wholly garbled journal must not fill the memory.
const DAMAGE_COUNT_MAX: usize = 1000;

/// Something the store holds, whole and as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredRow<'a> {
    /// A setting.
    Setting {
        /// Its key.
        key: &'a str,
        /// Its value.
        value: &'a [u8],
    },
    /// The snapshot of a shard.
    Snapshot {
        /// The shard.
        shard: u16,
        /// What was stored.
        payload: &'a [u8],
    },
    /// An entry of the journal.
    Batch {
        /// Its number.
        number: u64,
        /// What was stored.
        payload: &'a [u8],
    },
}

/// One thing that is not as it was written. What it covers is lost here; everything else was delivered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Batches are missing from the journal.
    #[error("batches {from} to {to} are missing from the journal")]
    JournalGap {
        /// The first missing number.
        from: u64,
        /// The last missing number.
        to: u64,
    },
    /// A batch cannot be read.
    #[error("batch {number} of the journal is lost, at part {part}: {why}")]
    JournalRow {
        /// The batch.
        number: u64,
        /// The first part that is wrong.
        part: u16,
        /// What is wrong with it.
        why: String,
    },
    /// A shard's snapshot cannot be read.
    #[error("the snapshot of shard {shard} is lost, at part {part}: {why}")]
    SnapshotRow {
        /// The shard.
        shard: u16,
        /// The first part that is wrong.
        part: u16,
        /// What is wrong with it.
        why: String,
    },
    /// Entries are missing from the beginning of the ledger, or from its end.
    #[error("entries {from} to {to} are missing from the ledger")]
    LedgerGap {
        /// The first missing number.
        from: u64,
        /// The last missing number.
        to: u64,
    },
    /// The newest entry of the ledger cannot be read. Older ones are judged when they are read.
    #[error("entry {number} of the ledger is lost, at part {part}: {why}")]
    LedgerRow {
        /// The entry.
        number: u64,
        /// The first part that is wrong.
        part: u16,
        /// What is wrong with it.
        why: String,
    },
    /// A setting cannot be read.
    #[error("the setting {key:?} is lost: {why}")]
    SettingsRow {
        /// Its key, as found.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The engine itself found damage; it may cover anything.
    #[error("{0}")]
    Engine(String),
    /// The store is older than it was: everything in between is lost here.
    #[error(
        "the store was at commit {} with batch {}, and is now at commit {} with batch {}",
        mark.commit, mark.batch, last.commit, last.batch
    )]
    RolledBack {
        /// How far it was.
        mark: Mark,
        /// How far it is.
        last: Mark,
    },
}

/// What loading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The number of the last commit found.
    pub last_commit: u64,
    /// The number of the last batch, 0 if there was never one. The next is one more.
    pub last_batch: u64,
    /// The oldest batch that the journal should still hold.
    pub oldest_batch: Option<u64>,
    /// What the journal's rows take.
    pub journal_bytes: u64,
    /// The number of the last entry of the ledger, 0 if there was never one. The next is one more.
    pub last_ledger: u64,
    /// The oldest entry that the ledger should still hold.
    pub first_ledger: Option<u64>,
    /// What is lost. Empty means that everything ever committed is there, but for entries of the ledger before the
    /// newest, which are judged when they are read.
    pub damage: Vec<Damage>,
}

impl Engine {
    /// Delivers everything the store holds but the ledger: settings by key, snapshots by shard, then the journal in
    /// order.
    ///
    /// The ledger can be large, so only its ends are looked for and its newest entry is read; [`Engine::ledger`] gives the
    /// rest.
    ///
    /// Memory holds one payload at a time. Damaged payloads are reported and left out. If there is any damage, the engine
    /// takes no commits, now or later, and changes no byte of the file.
    ///
    /// # Errors
    /// Only if the disk fails. Then nothing that was delivered may be relied on to be all.
    pub fn load(&mut self, deliver: &mut dyn FnMut(StoredRow<'_>)) -> Result<LoadReport, StorageError> {
        let mut loader = Loader { deliver, damage: Vec::new(), unlisted_count: 0, position: Position::default() };
        if let Some(why) = &self.integrity {
            loader.report(Damage::Engine(why.clone()));
        }
        match self.begin_read() {
            Ok(view) => {
                loader.read_settings(&view)?;
                loader.read_snapshots(&view)?;
                loader.read_journal(&view)?;
                loader.read_ledger(&view, self.position.last_ledger)?;
            }
            Err(failure) => loader.engine_failed("opening a view", failure)?,
        }
        let bound = self.found_mark.bound().max(self.position.to_mark());
        let position = loader.position;
        let damage = loader.conclude(bound);
        // Whatever was known before this call, a poisoned engine stays so.
        if !matches!(self.phase, Phase::Poisoned(_)) {
            self.position = position;
            self.enter(damage.is_empty())?;
        }
        let figures = self.figures();
        Ok(LoadReport {
            last_commit: position.commit,
            last_batch: position.last_batch,
            oldest_batch: figures.oldest_batch,
            journal_bytes: position.journal_bytes,
            last_ledger: position.last_ledger,
            first_ledger: figures.first_ledger,
            damage,
        })
    }

    fn enter(&mut self, intact: bool) -> Result<(), StorageError> {
        if !intact {
            self.phase = Phase::Damaged;
            return self.leave_as_found();
        }
        self.phase = Phase::Ready;
        let present = self.position.to_mark();
        if self.found_mark == FoundMark::Known(present) {
            return Ok(());
        }
        // A store that holds nothing but its own layout was just made, and has no mark yet.
        if !matches!(self.found_mark, FoundMark::Known(_)) && present.commit > 1 {
            tracing::warn!(found = ?self.found_mark, "the mark is written anew; a rollback before now would go unnoticed");
        }
        self.mark.renew(present).map_err(StorageError::Disk)?;
        self.found_mark = FoundMark::Known(present);
        Ok(())
    }
}

/// Judges what a view holds, table by table.
pub(super) struct Loader<'a> {
    deliver: &'a mut dyn FnMut(StoredRow<'_>),
    damage: Vec<Damage>,
    unlisted_count: usize,
    pub(super) position: Position,
}

impl Loader<'_> {
    pub(super) fn report(&mut self, damage: Damage) {
        tracing::error!(%damage, "the store is damaged");
        if self.damage.len() < DAMAGE_COUNT_MAX {
            self.damage.push(damage);
        } else {
            self.unlisted_count += 1;
        }
    }

    /// Notes what the engine could not read; a failing disk ends the load instead.
    pub(super) fn engine_failed(&mut self, doing: &str, failure: Failure) -> Result<(), StorageError> {
        match failure.while_opening() {
            StorageError::Damaged(why) => self.report(Damage::Engine(format!("{doing}: {why}"))),
            other => return Err(other),
        }
        Ok(())
    }

    pub(super) fn saw_commit(&mut self, commit: u64) {
        self.position.commit = self.position.commit.max(commit);
    }

    fn read_settings(&mut self, view: &ReadTransaction) -> Result<(), StorageError> {
        let mut dropped_found = false;
        self.read_table(view, SETTINGS, "the settings", |loader, key, row| {
            dropped_found |= loader.take_setting(key, row);
        })?;
        if !dropped_found {
            self.report(Damage::SettingsRow {
                key: DROPPED_KEY.to_owned(),
                why: "it is missing, so it is unknown where the journal should begin".to_owned(),
            });
        }
        Ok(())
    }

    /// Judges one setting, and delivers it unless it is this layer's own. Says whether it was the one that every store has.
    fn take_setting(&mut self, key: &str, row: &[u8]) -> bool {
        let (commit, value) = match decode_setting(key, row) {
            Ok(setting) => setting,
            Err(why) => {
                let key = key.to_owned();
                self.report(Damage::SettingsRow { key, why });
                return false;
            }
        };
        self.saw_commit(commit);
        let own = key == DROPPED_KEY || key == LEDGER_DROPPED_KEY;
        if !own {
            (self.deliver)(StoredRow::Setting { key, value });
            return false;
        }
        let Ok(number) = value.try_into().map(u64::from_le_bytes) else {
            return false;
        };
        if key == LEDGER_DROPPED_KEY {
            self.position.ledger_dropped_through = Some(number);
            self.position.last_ledger = number;
            return false;
        }
        self.position.dropped_through = number;
        self.position.last_batch = number;
        true
    }

    fn read_snapshots(&mut self, view: &ReadTransaction) -> Result<(), StorageError> {
        let mut assembly = Assembly::new(RowKind::Snapshot);
        self.read_table(view, SNAPSHOTS, "the snapshots", |loader, (shard, part), row| {
            let number = u64::from(shard);
            if assembly.ends_before(number) {
                assembly.finish(|assembled| loader.take_snapshot(&assembled));
            }
            assembly.feed(number, part, row);
        })?;
        assembly.finish(|assembled| self.take_snapshot(&assembled));
        Ok(())
    }

    fn take_snapshot(&mut self, assembled: &Assembled<'_>) {
        match assembled {
            Assembled::Whole { number, commit, payload } => {
                self.saw_commit(*commit);
                // The number came from a shard of 16 bits.
                if let Ok(shard) = u16::try_from(*number) {
                    (self.deliver)(StoredRow::Snapshot { shard, payload });
                }
            }
            Assembled::Lost { number, fault } => self.report(Damage::SnapshotRow {
                shard: u16::try_from(*number).unwrap_or(u16::MAX),
                part: fault.part,
                why: fault.why.clone(),
            }),
        }
    }

    fn read_journal(&mut self, view: &ReadTransaction) -> Result<(), StorageError> {
        let mut assembly = Assembly::new(RowKind::Journal);
        let mut commit_before = 0;
        self.read_table(view, JOURNAL, "the journal", |loader, (number, part), row| {
            if assembly.ends_before(number) {
                assembly.finish(|assembled| loader.take_batch(&assembled, &mut commit_before));
            }
            loader.position.journal_bytes = loader.position.journal_bytes.saturating_add(length_bytes(row));
            assembly.feed(number, part, row);
        })?;
        assembly.finish(|assembled| self.take_batch(&assembled, &mut commit_before));
        Ok(())
    }

    fn take_batch(&mut self, assembled: &Assembled<'_>, commit_before: &mut u64) {
        match assembled {
            Assembled::Whole { number, commit, payload } => {
                self.expect_batch(*number);
                if commit <= commit_before {
                    self.report(Damage::JournalRow {
                        number: *number,
                        part: 0,
                        why: "it was written before the batch that precedes it".to_owned(),
                    });
                }
                *commit_before = *commit;
                self.saw_commit(*commit);
                (self.deliver)(StoredRow::Batch { number: *number, payload });
            }
            Assembled::Lost { number, fault } => {
                self.expect_batch(*number);
                self.report(Damage::JournalRow { number: *number, part: fault.part, why: fault.why.clone() });
            }
        }
    }

    /// Checks that a batch continues the journal, and moves its end.
    fn expect_batch(&mut self, number: u64) {
        let expected = self.position.last_batch.saturating_add(1);
        if number < expected {
            self.report(Damage::Engine(format!("the journal holds batch {number} although it was dropped")));
        } else if number > expected {
            let to = number.saturating_sub(1);
            self.report(Damage::JournalGap { from: expected, to });
        }
        self.position.last_batch = self.position.last_batch.max(number);
    }

    /// Reads a table row by row. An engine failure is noted and ends the table, as what follows cannot be reached.
    fn read_table<K: Key + 'static>(
        &mut self,
        view: &ReadTransaction,
        definition: TableDefinition<'static, K, &'static [u8]>,
        name: &str,
        mut take: impl for<'k> FnMut(&mut Self, K::SelfType<'k>, &[u8]),
    ) -> Result<(), StorageError> {
        let opened = guarded(|| {
            let table: ReadOnlyTable<K, &'static [u8]> = view.open_table(definition)?;
            Ok((table.len()?, table.range::<K::SelfType<'_>>(..)?))
        });
        let (row_count, mut rows): (u64, Range<'_, K, &'static [u8]>) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.engine_failed(&format!("reading {name}"), failure),
        };
        let mut found_count: u64 = 0;
        loop {
            // The engine's calls are inside the guard and the caller's outside, so that a panic of the caller's is not
            // taken for damage.
            let step = guarded(|| {
                let Some(entry) = rows.next() else { return Ok(None) };
                let (key, row) = entry?;
                let key_bytes = K::as_bytes(&key.value()).as_ref().to_vec();
                Ok(Some((key_bytes, row.value().to_vec())))
            });
            match step {
                Ok(Some((key, row))) => {
                    found_count = found_count.saturating_add(1);
                    take(self, K::from_bytes(&key), &row);
                }
                Ok(None) => break,
                Err(failure) => return self.engine_failed(&format!("reading {name}"), failure),
            }
        }
        if found_count != row_count {
            let why = format!("{name} should have {row_count} rows and have {found_count}");
            self.report(Damage::Engine(why));
        }
        Ok(())
    }

    fn conclude(mut self, mark: Mark) -> Vec<Damage> {
        let last = self.position.to_mark();
        if last.max(mark) != last {
            self.report(Damage::RolledBack { mark, last });
        }
        if self.unlisted_count > 0 {
            let more = format!("{} more are not listed", self.unlisted_count);
            self.damage.push(Damage::Engine(more));
        }
        self.damage
    }
}

fn decode_setting<'a>(key: &str, row: &'a [u8]) -> Result<(u64, &'a [u8]), String> {
    let (header, payload) = row::decode(row).map_err(|error| error.to_string())?;
    let elsewhere = || "it is a row that belongs elsewhere".to_owned();
    let (key_bytes, rest) = payload.split_first().ok_or_else(elsewhere)?;
    let (written_key, value) = rest.split_at_checked(usize::from(*key_bytes)).ok_or_else(elsewhere)?;
    let whole = (header.kind, header.part_count) == (RowKind::Setting, 1);
    if !whole || written_key != key.as_bytes() {
        return Err(elsewhere());
    }
    Ok((header.commit, value))
}
