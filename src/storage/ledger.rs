//! The ledger: what was appended stays, in order, until it is dropped from the front (rule D8).
//!
//! It may be far larger than memory, so it is neither read nor kept at open: only its ends are looked for, and its newest
//! entry is judged, because that one witnesses the last commit. Everything else is judged when it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, TableError};

use super::StorageError;
use super::assembly::{Assembled, Assembly};
use super::engine::{Engine, Phase};
use super::guard::{Failure, guarded};
use super::load::{Damage, Loader};
use super::row::RowKind;
use super::transaction::Refusal;
use super::write::{LEDGER, LEDGER_DROPPED_KEY};

/// Where the pages of a salvage close: large enough that finding the place costs little, small beside any memory.
const SALVAGE_PAGE_BYTES: usize = 1 << 20;

/// A salvage gives up after this many unreadable entries in a row: the tree is broken there, and the number at which it
/// claims to end may be nonsense that would take for ever to count to.
const SALVAGE_LOST_MAX: u64 = 10_000;

type LedgerTable = ReadOnlyTable<(u64, u16), &'static [u8]>;
/// A row under the number and part it was found at.
type FoundRow = ((u64, u16), Vec<u8>);
type LedgerRange = Range<'static, (u64, u16), &'static [u8]>;

/// The ledger as of one commit, whatever is committed after it.
///
/// It may be moved to another thread and may outlive the engine; then every read is [`StorageError::Closed`]. While it
/// lives the engine cannot use again what later commits free, so that the file grows: keep it for a while, not for ever.
#[derive(Debug)]
pub struct LedgerView {
    /// Keeps the commit it was opened in readable. `None` in a store that an older version laid out.
    table: Option<LedgerTable>,
    /// The engine goes on to serve pages that it has in memory after it was closed, and fails at others. So that a view
    /// does not work by chance, this is asked first.
    pub(super) closed: Arc<AtomicBool>,
    dropped_through: u64,
    first: Option<u64>,
    last: u64,
}

impl Engine {
    /// A view of the ledger as of the last commit. Of a damaged store too, as far as it can be read.
    ///
    /// # Errors
    /// [`StorageError::Refused`] before the engine was loaded, [`StorageError::Disk`] if the disk fails,
    /// [`StorageError::Damaged`] if the ledger cannot be found.
    pub fn ledger(&self) -> Result<LedgerView, StorageError> {
        if matches!(self.phase, Phase::Unloaded) {
            return Err(Refusal::NotLoaded.into());
        }
        let view = self.begin_read().map_err(while_reading)?;
        let opened = guarded(|| {
            let table = open_table(&view)?;
            let ends = table.as_ref().map(find_ends).transpose()?;
            Ok((table, ends.flatten()))
        });
        let (table, ends) = opened.map_err(while_reading)?;
        // Without the setting that says so, which is damage, the first entry found is the best guess at the beginning.
        let found = ends.map_or(0, |(first, _)| first.saturating_sub(1));
        let dropped_through = self.position.ledger_dropped_through.unwrap_or(found);
        let first = ends.map(|(first, _)| first);
        let last = ends.map_or(dropped_through, |(_, last)| last);
        Ok(LedgerView { table, closed: Arc::clone(&self.closed), dropped_through, first, last })
    }
}

impl LedgerView {
    /// The oldest entry held, `None` if there is none.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The number of the newest entry, also if it was dropped since; 0 if there was never one.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Entries with their numbers, in order and without a gap, from `from` on, or from the oldest if `from` was dropped.
    ///
    /// The page closes once its payloads exceed `bytes_target`: so it holds at least one entry, unless there is none. It
    /// also closes before what cannot be read, so that the error, which comes with the next page, takes no intact entry
    /// along.
    ///
    /// # Errors
    /// [`StorageError::LedgerEntry`] or [`StorageError::LedgerGap`] if what the page would begin with is lost; reading can
    /// go on behind it. [`StorageError::Disk`] if the disk fails or an earlier commit failed, [`StorageError::Closed`] if
    /// the engine was dropped.
    pub fn read(&self, from: u64, bytes_target: usize) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(StorageError::Closed);
        }
        let mut next = from.max(self.dropped_through.saturating_add(1));
        let Some(table) = self.table.as_ref().filter(|_| next <= self.last) else {
            return Ok(Vec::new());
        };
        let mut entries = Entries::open(table, next)?;
        let mut page = Vec::new();
        let mut page_bytes: usize = 0;
        while next <= self.last && page_bytes <= bytes_target {
            match entries.take(next, self.last) {
                Ok(payload) => {
                    // An empty entry takes room too: a page of nothing else must close some time.
                    page_bytes = page_bytes.saturating_add(payload.len().max(1));
                    page.push((next, payload));
                }
                Err(error) if page.is_empty() => return Err(error),
                Err(_) => break,
            }
            let Some(following) = next.checked_add(1) else { break };
            next = following;
        }
        Ok(page)
    }

    /// Hands every entry that can be read to `take`, in order, and returns how many cannot. Those are named in the log.
    ///
    /// # Errors
    /// What `take` returns, and those of [`read`](Self::read) that do not concern single entries.
    pub fn salvage<E: From<StorageError>>(
        &self,
        mut take: impl FnMut(u64, Vec<u8>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut next, mut lost, mut lost_in_row) = (0, 0_u64, 0_u64);
        loop {
            let (through, count) = match self.read(next, SALVAGE_PAGE_BYTES) {
                Ok(page) => {
                    let Some(last) = page.last().map(|(number, _)| *number) else { return Ok(lost) };
                    for (number, payload) in page {
                        take(number, payload)?;
                    }
                    (last, 0)
                }
                Err(error) => {
                    let (from, to) = match &error {
                        StorageError::LedgerEntry { number, .. } => (*number, *number),
                        StorageError::LedgerGap { from, to } => (*from, *to),
                        _ => return Err(error.into()),
                    };
                    tracing::warn!(%error, "left out of what is saved of the ledger");
                    (to, to.saturating_sub(from).saturating_add(1))
                }
            };
            lost = lost.saturating_add(count);
            // A gap is passed in one step, however wide it is.
            lost_in_row = if count == 0 { 0 } else { lost_in_row.saturating_add(1) };
            if lost_in_row > SALVAGE_LOST_MAX {
                let last = self.last;
                tracing::warn!(through, last, "too much of the ledger is unreadable: the rest is given up");
                return Ok(lost.saturating_add(last.saturating_sub(through)));
            }
            let Some(following) = through.checked_add(1) else { return Ok(lost) };
            next = following;
        }
    }
}

/// Walks over the rows of a ledger, entry by entry.
struct Entries {
    rows: LedgerRange,
    assembly: Assembly,
    /// The first row of the entry after the one that was taken last.
    ahead: Option<FoundRow>,
}

impl Entries {
    fn open(table: &LedgerTable, from: u64) -> Result<Self, StorageError> {
        let rows = guarded(|| Ok(table.range((from, 0)..)?)).map_err(|failure| while_reading_entry(failure, from))?;
        Ok(Self { rows, assembly: Assembly::new(RowKind::Ledger), ahead: None })
    }

    /// The entry of this number, which must be the next one there is, of a ledger that ends with `last`.
    fn take(&mut self, number: u64, last: u64) -> Result<Vec<u8>, StorageError> {
        loop {
            let row = match self.ahead.take() {
                Some(row) => Some(row),
                None => next_row(&mut self.rows).map_err(|failure| while_reading_entry(failure, number))?,
            };
            match row {
                Some(((found, part), row)) if found == number => self.assembly.feed(number, part, &row),
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        let mut taken = None;
        self.assembly.finish(|assembled| taken = Some(judge(&assembled)));
        taken.unwrap_or_else(|| {
            let following = self.ahead.as_ref().map(|((found, _), _)| found.saturating_sub(1));
            Err(StorageError::LedgerGap { from: number, to: following.unwrap_or(last) })
        })
    }
}

fn judge(assembled: &Assembled<'_>) -> Result<Vec<u8>, StorageError> {
    match assembled {
        Assembled::Whole { payload, .. } => Ok(payload.to_vec()),
        Assembled::Lost { number, fault } => {
            Err(StorageError::LedgerEntry { number: *number, part: fault.part, why: fault.why.clone() })
        }
    }
}

impl Loader<'_> {
    /// Finds the ends of the ledger and judges the newest entry, which may be all that the last commit left. This process
    /// has written entries up to `known`.
    pub(super) fn read_ledger(&mut self, view: &ReadTransaction, known: u64) -> Result<(), StorageError> {
        let opened = guarded(|| {
            let Some(table) = open_table(view)? else { return Ok(None) };
            let ends = find_ends(&table)?;
            Ok(Some((table, ends)))
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.engine_failed("reading the ledger", failure),
        };
        match (opened, self.position.ledger_dropped_through) {
            // Laid out by a version that knew of no ledger.
            (None, None) => {}
            (None, Some(_)) => self.report(Damage::Engine("the ledger is missing".to_owned())),
            (Some((table, ends)), dropped_through) => {
                if dropped_through.is_none() {
                    self.report(Damage::SettingsRow {
                        key: LEDGER_DROPPED_KEY.to_owned(),
                        why: "it is missing, so it is unknown where the ledger should begin".to_owned(),
                    });
                }
                if let Some((first, last)) = ends {
                    // Where it is unknown, that was reported, and the first is as good as any.
                    self.expect_first(first, dropped_through.unwrap_or_else(|| first.saturating_sub(1)));
                    self.position.last_ledger = self.position.last_ledger.max(last);
                    self.judge_newest(&table, last)?;
                }
            }
        }
        if self.position.last_ledger < known {
            self.report(Damage::LedgerGap { from: self.position.last_ledger.saturating_add(1), to: known });
        }
        Ok(())
    }

    fn expect_first(&mut self, first: u64, dropped_through: u64) {
        let expected = dropped_through.saturating_add(1);
        if first < expected {
            self.report(Damage::Engine(format!("the ledger holds entry {first} although it was dropped")));
        } else if first > expected {
            self.report(Damage::LedgerGap { from: expected, to: first.saturating_sub(1) });
        }
    }

    fn judge_newest(&mut self, table: &LedgerTable, number: u64) -> Result<(), StorageError> {
        let mut assembly = Assembly::new(RowKind::Ledger);
        let read = guarded(|| Ok(table.range((number, 0)..=(number, u16::MAX))?)).and_then(|mut rows| {
            while let Some(((number, part), row)) = next_row(&mut rows)? {
                assembly.feed(number, part, &row);
            }
            Ok(())
        });
        if let Err(failure) = read {
            return self.engine_failed("reading the ledger", failure);
        }
        assembly.finish(|assembled| match assembled {
            Assembled::Whole { commit, .. } => self.saw_commit(commit),
            Assembled::Lost { number, fault } => {
                self.report(Damage::LedgerRow { number, part: fault.part, why: fault.why });
            }
        });
        Ok(())
    }
}

/// `None` if an older version laid the store out, and nothing was entered since.
fn open_table(view: &ReadTransaction) -> Result<Option<LedgerTable>, redb::Error> {
    match view.open_table(LEDGER) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The numbers of the first and the last entry.
fn find_ends(table: &LedgerTable) -> Result<Option<(u64, u64)>, redb::Error> {
    let first = table.first()?.map(|(key, _)| key.value().0);
    let last = table.last()?.map(|(key, _)| key.value().0);
    Ok(first.zip(last))
}

fn next_row(rows: &mut LedgerRange) -> Result<Option<FoundRow>, Failure> {
    guarded(|| {
        let Some(entry) = rows.next() else { return Ok(None) };
        let (key, row) = entry?;
        Ok(Some((key.value(), row.value().to_vec())))
    })
}

/// Tells what was lost from what only cannot be read now: a caller skips the one, and must not skip the other.
fn while_reading(failure: Failure) -> StorageError {
    if let Failure::Engine(error) = &failure {
        match **error {
            redb::Error::DatabaseClosed => return StorageError::Closed,
            redb::Error::PreviousIo => return StorageError::Disk(std::io::Error::other(error.to_string())),
            _ => {}
        }
    }
    failure.while_opening()
}

fn while_reading_entry(failure: Failure, number: u64) -> StorageError {
    match while_reading(failure) {
        StorageError::Damaged(why) => StorageError::LedgerEntry { number, part: 0, why },
        other => other,
    }
}
