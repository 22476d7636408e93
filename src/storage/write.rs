//! Lays a transaction out in the engine's tables.

use redb::{Database, Durability, Table, TableDefinition, WriteTransaction};

use super::position::Position;
use super::row::{self, ROW_PAYLOAD_BYTES_MAX, RowHeader, RowKind};
use super::transaction::Transaction;

/// Batches by (number, part).
pub(super) const JOURNAL: TableDefinition<'static, (u64, u16), &[u8]> = TableDefinition::new("journal");
/// Snapshots by (shard, part).
pub(super) const SNAPSHOTS: TableDefinition<'static, (u16, u16), &[u8]> = TableDefinition::new("snapshots");
/// Entries of the ledger by (number, part).
pub(super) const LEDGER: TableDefinition<'static, (u64, u16), &[u8]> = TableDefinition::new("ledger");
/// Small values by key.
pub(super) const SETTINGS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("settings");

/// The setting that says through which batch the journal was dropped. Every store has it from its first commit on, so
/// that a journal that lost its head, or all of itself, is told from one that was folded.
pub(super) const DROPPED_KEY: &str = "storage.dropped";

/// The same for the ledger. A store has it from its first commit on, or, if an older version laid it out, from the first
/// commit that touches the ledger.
pub(super) const LEDGER_DROPPED_KEY: &str = "storage.ledger-dropped";

/// Writes everything into an uncommitted transaction and returns it with the position it leads to.
pub(super) fn apply(
    database: &Database,
    transaction: &Transaction,
    mut position: Position,
) -> Result<(WriteTransaction, Position), redb::Error> {
    let write = begin(database)?;
    if transaction.batch.is_some() || transaction.drop_journal_through.is_some() {
        write_journal(&write, transaction, &mut position)?;
    }
    if !transaction.snapshots.is_empty() {
        write_snapshots(&write, transaction, position.commit)?;
    }
    let ledger_begins = transaction.touches_ledger() && position.ledger_dropped_through.is_none();
    if transaction.touches_ledger() {
        write_ledger(&write, transaction, &mut position)?;
    }
    // A commit that leaves no row behind could be rolled back unseen.
    let leaves_no_row = transaction.batch.is_none() && transaction.snapshots.is_empty() && transaction.ledger.is_none();
    let drops = transaction.drop_journal_through.is_some() || transaction.drop_ledger_through.is_some();
    if leaves_no_row || drops || ledger_begins || !transaction.settings.is_empty() {
        write_settings(&write, transaction, position)?;
    }
    Ok((write, position))
}

/// Writes what every store has from its first commit on: its tables, empty, and where its journal and ledger begin.
pub(super) fn lay_out(database: &Database, position: Position) -> Result<WriteTransaction, redb::Error> {
    let write = begin(database)?;
    write.open_table(JOURNAL)?;
    write.open_table(SNAPSHOTS)?;
    write.open_table(LEDGER)?;
    write_settings(&write, &Transaction::default(), position)?;
    Ok(write)
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    // One phase: a commit is one sync, and after a crash the newer of two commit slots counts if the checksums of all
    // its pages hold. Two phases would cost a second sync in every commit, and protect only against somebody who chooses
    // the data, knows the file's bytes, and orders the writes of a crash. Whoever can do that can write the file. Quick
    // repair implies two phases, and a start reads the whole file anyway. Both stay off, which is the engine's default.
    write.set_two_phase_commit(false);
    write.set_quick_repair(false);
    Ok(write)
}

fn write_journal(
    write: &WriteTransaction,
    transaction: &Transaction,
    position: &mut Position,
) -> Result<(), redb::Error> {
    let mut journal = write.open_table(JOURNAL)?;
    if let Some(batch) = &transaction.batch {
        let header = first_part(RowKind::Journal, batch.number, position.commit);
        let written_bytes = write_parts(&mut journal, batch.number, header, &batch.payload)?;
        position.last_batch = batch.number;
        position.journal_bytes = position.journal_bytes.saturating_add(written_bytes);
    }
    if let Some(through) = transaction.drop_journal_through
        && through > position.dropped_through
    {
        let mut dropped_bytes = 0;
        journal.retain_in((0, 0)..=(through, u16::MAX), |_, row| {
            dropped_bytes += length_bytes(row);
            false
        })?;
        position.dropped_through = through;
        position.journal_bytes = position.journal_bytes.saturating_sub(dropped_bytes);
    }
    Ok(())
}

/// The ledger is written with the journal, so that no crash parts an entry from the batch it came with (rule D8).
fn write_ledger(
    write: &WriteTransaction,
    transaction: &Transaction,
    position: &mut Position,
) -> Result<(), redb::Error> {
    // Makes the table in a store that an older version laid out.
    let mut ledger = write.open_table(LEDGER)?;
    if let Some(payload) = &transaction.ledger {
        // That there is a next number was checked before the transaction was begun.
        let number = position.last_ledger.saturating_add(1);
        let header = first_part(RowKind::Ledger, number, position.commit);
        write_parts(&mut ledger, number, header, payload)?;
        position.last_ledger = number;
    }
    let dropped_through = position.ledger_dropped_through.get_or_insert(0);
    if let Some(through) = transaction.drop_ledger_through
        && through > *dropped_through
    {
        ledger.retain_in((0, 0)..=(through, u16::MAX), |_, _| false)?;
        *dropped_through = through;
    }
    Ok(())
}

fn write_snapshots(write: &WriteTransaction, transaction: &Transaction, commit: u64) -> Result<(), redb::Error> {
    let mut snapshots = write.open_table(SNAPSHOTS)?;
    for (shard, payload) in &transaction.snapshots {
        // The whole old snapshot goes first: it may have had more parts than the new one.
        snapshots.retain_in((*shard, 0)..=(*shard, u16::MAX), |_, _| false)?;
        let header = first_part(RowKind::Snapshot, u64::from(*shard), commit);
        write_parts(&mut snapshots, *shard, header, payload)?;
    }
    Ok(())
}

fn write_settings(write: &WriteTransaction, transaction: &Transaction, position: Position) -> Result<(), redb::Error> {
    let mut settings = write.open_table(SETTINGS)?;
    let dropped_through = position.dropped_through.to_le_bytes();
    put_setting(&mut settings, DROPPED_KEY, &dropped_through, position.commit)?;
    if let Some(through) = position.ledger_dropped_through {
        put_setting(&mut settings, LEDGER_DROPPED_KEY, &through.to_le_bytes(), position.commit)?;
    }
    for (key, value) in &transaction.settings {
        match value {
            Some(value) => put_setting(&mut settings, key, value, position.commit)?,
            None => drop(settings.remove(key.as_ref())?),
        }
    }
    Ok(())
}

fn put_setting(
    settings: &mut Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: &[u8],
    commit: u64,
) -> Result<(), redb::Error> {
    // The key is in the payload, so that the checksum covers it.
    let key_bytes = u8::try_from(key.len()).map_err(|_| redb::Error::ValueTooLarge(key.len()))?;
    let payload = [&[key_bytes], key.as_bytes(), value].concat();
    let mut row = vec![0; row::row_bytes(payload.len())];
    if !row::encode(first_part(RowKind::Setting, 0, commit), &payload, &mut row) {
        return Err(redb::Error::ValueTooLarge(value.len()));
    }
    settings.insert(key, row.as_slice())?;
    Ok(())
}

fn first_part(kind: RowKind, number: u64, commit: u64) -> RowHeader {
    RowHeader { kind, number, commit, part: 0, part_count: 1 }
}

/// Splits a payload into rows, encodes each in the engine's own page, and returns what they take.
fn write_parts<N, K>(
    table: &mut Table<'_, K, &'static [u8]>,
    number: N,
    mut header: RowHeader,
    payload: &[u8],
) -> Result<u64, redb::Error>
where
    N: Copy,
    K: redb::Key + for<'k> redb::Value<SelfType<'k> = (N, u16)> + 'static,
{
    let too_large = || redb::Error::ValueTooLarge(payload.len());
    header.part_count = row::part_count(payload.len()).ok_or_else(too_large)?;
    let mut written_bytes = 0;
    for part in 0..header.part_count {
        header.part = part;
        let start = usize::from(part) * ROW_PAYLOAD_BYTES_MAX;
        let rest = payload.get(start..).unwrap_or_default();
        let piece = rest.get(..ROW_PAYLOAD_BYTES_MAX).unwrap_or(rest);
        let mut row = table.insert_reserve((number, part), row::row_bytes(piece.len()))?;
        if !row::encode(header, piece, row.as_mut()) {
            return Err(too_large());
        }
        written_bytes += length_bytes(row.as_mut());
    }
    Ok(written_bytes)
}

pub(super) fn length_bytes(row: &[u8]) -> u64 {
    u64::try_from(row.len()).unwrap_or(u64::MAX)
}
