//! Folding: the journal becomes snapshots, shard by shard, in the commits that go on meanwhile (rule D2).

use std::collections::VecDeque;

use stockmesh_proto::limits::CHUNK_BYTES_TARGET;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{SnapshotRecord, WireError};
use stockmesh_proto::{ShardIndex, VersionVector};

use crate::limits::{FOLD_STEP_BYTES_TARGET, JOURNAL_BYTES_MAX};
use crate::storage::Transaction;
use crate::table::Table;

/// Length of a journal beyond which it is folded.
fn journal_bytes_max() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(bytes) = crate::simulation::journal_bytes_max() {
        return bytes;
    }
    JOURNAL_BYTES_MAX
}

/// Shards that are still to be folded before the journal can be cut.
#[derive(Debug)]
pub(super) struct Fold {
    /// Whether batches touched a shard since its last snapshot.
    dirty: Vec<bool>,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    shards: VecDeque<ShardIndex>,
    /// The journal up to here is superfluous once every shard of the round is folded.
    through: u64,
}

impl Fold {
    /// All shards count as touched when a store is opened: the journal may hold writes of any.
    pub(super) fn new(table: &Table) -> Self {
        Self { dirty: vec![true; usize::from(table.count().get())], round: None }
    }

    pub(super) fn touch(&mut self, shard: ShardIndex) {
        if let Some(dirty) = self.dirty.get_mut(shard.as_usize()) {
            *dirty = true;
        }
    }

    /// Begins a round if the journal is long enough and none is under way.
    pub(super) fn begin_if_due(&mut self, journal_bytes: u64, last_batch: u64, table: &Table) {
        if journal_bytes > journal_bytes_max() {
            self.begin(last_batch, table);
        }
    }

    /// Begins a round unless one is under way.
    pub(super) fn begin(&mut self, last_batch: u64, table: &Table) {
        let dirty = |shard: &ShardIndex| self.dirty.get(shard.as_usize()).copied().unwrap_or(true);
        if self.round.is_none() {
            self.round = Some(Round { shards: table.count().indexes().filter(dirty).collect(), through: last_batch });
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// Adds the next snapshots to a transaction that contains, or comes after, everything the table holds.
    pub(super) fn step(&mut self, table: &Table, batch: u64, transaction: &mut Transaction) -> Result<(), WireError> {
        let Some(round) = &mut self.round else { return Ok(()) };
        let mut bytes = 0;
        while bytes < FOLD_STEP_BYTES_TARGET {
            let Some(shard) = round.shards.pop_front() else { break };
            let payload = snapshot(table, shard, batch)?;
            bytes += payload.len();
            transaction.snapshots.push((shard.0, payload));
            if let Some(dirty) = self.dirty.get_mut(shard.as_usize()) {
                *dirty = false;
            }
        }
        if round.shards.is_empty() {
            transaction.drop_journal_through = Some(round.through);
            self.round = None;
        }
        Ok(())
    }
}

/// One shard's snapshot: records of bounded size, each with its length before it.
pub(crate) fn snapshot(table: &Table, shard: ShardIndex, batch: u64) -> Result<Vec<u8>, WireError> {
    let nothing = VersionVector::new();
    let fingerprint = table.summary(shard).fingerprint;
    let mut payload = Vec::new();
    let mut next = None;
    loop {
        let chunk = table.extract(shard, &nothing, next.as_ref(), CHUNK_BYTES_TARGET);
        let (version, products) = (chunk.version, chunk.products);
        let record = SnapshotRecord { shard, batch, products, version, fingerprint }.encode()?;
        let length = u32::try_from(record.len()).map_err(|error| WireError::Encode(error.to_string()))?;
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(&record);
        next = chunk.next;
        if next.is_none() {
            return Ok(payload);
        }
    }
}
