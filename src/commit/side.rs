//! What a group keeps beside the slots, in the same transaction: holds and the ledger (rules D6, D7).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::fingerprint::Fingerprint;
use stockmesh_proto::hold::{Hold, HoldId};
use stockmesh_proto::operation::Evaluation;
use stockmesh_proto::wire::{LedgerPart, LedgerRecord, LedgerRequest, WireError};
use tokio::time::Instant;
use tracing::warn;

use crate::limits::{CLOCK_PLAUSIBLE_MS, LEDGER_LOST_MAX, LEDGER_PAGE_BYTES, LEDGER_TRIM_EVERY, MOVEMENT_BYTES};
use crate::settings::Stored;
use crate::storage::{Engine, StorageError, Transaction};

/// The beginning of the keys of holds among the settings.
pub(crate) const HOLD_KEY_PREFIX: &str = "hold.";

/// Holds and ledger entries of a group that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Holds as they are now; nothing where one is forgotten.
    holds: BTreeMap<HoldId, Option<Hold>>,
    parts: Vec<LedgerPart>,
    time_ms: u64,
}

impl Side {
    /// Enters what a request did. Returns about how many bytes it takes.
    pub(super) fn add(&mut self, own: ReplicaId, evaluation: Evaluation, forgotten: Vec<HoldId>, now_ms: u64) -> usize {
        let Evaluation { outcomes, movements, holds, reference, .. } = evaluation;
        self.holds.extend(holds.into_iter().map(|hold| (hold.id, Some(hold))));
        self.holds.extend(forgotten.into_iter().map(|id| (id, None)));
        if movements.is_empty() && reference.is_none() {
            return 0;
        }
        let bytes = (1 + movements.len() + outcomes.len()) * MOVEMENT_BYTES;
        if self.parts.is_empty() {
            self.time_ms = now_ms;
        }
        if self.parts.last().is_none_or(|part| part.replica != own) {
            self.parts.push(LedgerPart { replica: own, requests: Vec::new() });
        }
        let (reference, content) = reference.unzip();
        let outcomes = if reference.is_some() { outcomes } else { Vec::new() };
        let request = LedgerRequest { reference, content: content.map(Fingerprint::from_bits), outcomes, movements };
        if let Some(part) = self.parts.last_mut() {
            part.requests.push(request);
        }
        bytes
    }

    /// Lays all of it into the group's transaction. `ledger` is the number of the entry, `oldest` that of the oldest
    /// entry whose references are remembered.
    pub(super) fn write(
        self,
        ledger: u64,
        oldest: Option<u64>,
        transaction: &mut Transaction,
    ) -> Result<(), WireError> {
        for (id, hold) in self.holds {
            let row = hold.map(|hold| hold.encode()).transpose()?;
            transaction.settings.push((Cow::Owned(format!("{HOLD_KEY_PREFIX}{id}")), row));
        }
        if !self.parts.is_empty() {
            let references_back = ledger.saturating_sub(oldest.unwrap_or(ledger));
            let record = LedgerRecord { time_ms: self.time_ms, references_back, parts: self.parts };
            transaction.ledger = Some(record.encode()?);
        }
        Ok(())
    }
}

/// Settings that delete the rows of holds.
pub(crate) fn delete_holds(ids: &[HoldId]) -> Stored {
    ids.iter().map(|id| (Cow::Owned(format!("{HOLD_KEY_PREFIX}{id}")), None)).collect()
}

/// Drops what the ledger need not keep any more, a page at a time.
#[derive(Debug)]
pub(super) struct Trimming {
    retention: Duration,
    next: Instant,
}

impl Trimming {
    pub(super) fn new(retention: Duration) -> Self {
        Self { retention, next: Instant::now() }
    }

    /// Through which entry the ledger can be dropped now, if any: what is older than the retention, but never what is
    /// needed to remember references. Looks once a minute, at one page.
    pub(super) fn due(&mut self, engine: &Engine, oldest_needed: Option<u64>, now_ms: u64) -> Option<u64> {
        let now = Instant::now();
        if now < self.next || engine.figures().first_ledger.is_none() || now_ms < CLOCK_PLAUSIBLE_MS {
            return None;
        }
        self.next = now + LEDGER_TRIM_EVERY;
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        match last_before(engine, oldest_needed, (now_ms, retention_ms)) {
            Ok((through, is_all)) => {
                if is_all {
                    // There may be more: the next commit goes on.
                    self.next = now;
                }
                through
            }
            Err(error) => {
                // It costs room, nothing else; whoever reads the ledger is told the same.
                warn!(%error, "the ledger cannot be trimmed");
                None
            }
        }
    }
}

/// The last entry of the first page that is old and not needed, and whether all of the page is.
fn last_before(
    engine: &Engine,
    oldest_needed: Option<u64>,
    (now_ms, retention_ms): (u64, u64),
) -> Result<(Option<u64>, bool), StorageError> {
    let view = engine.ledger()?;
    let (mut from, mut lost_count) = (0, 0);
    let page = loop {
        match view.read(from, LEDGER_PAGE_BYTES) {
            // What is lost at the front goes with the first entry behind it.
            Err(StorageError::LedgerEntry { number: lost, .. } | StorageError::LedgerGap { to: lost, .. })
                if lost_count < LEDGER_LOST_MAX =>
            {
                (from, lost_count) = (lost.saturating_add(1), lost_count + 1);
            }
            page => break page?,
        }
    };
    // Also what a clock dated that was far ahead; and what cannot be read goes with what stands before it.
    let is_old = |payload: &[u8]| {
        LedgerRecord::decode(payload).map_or(true, |record| record.time_ms.abs_diff(now_ms) > retention_ms)
    };
    let needed = |number: u64| oldest_needed.is_some_and(|oldest| number >= oldest);
    let old = page.iter().take_while(|(number, payload)| !needed(*number) && is_old(payload)).count();
    let through = old.checked_sub(1).and_then(|last| page.get(last)).map(|(number, _)| *number);
    Ok((through, old > 0 && old == page.len()))
}
