//! Reads holds and references back (rules D6, D7).

use std::collections::BTreeMap;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::fingerprint::Fingerprint;
use stockmesh_proto::hold::Hold;
use stockmesh_proto::operation::Books;
use stockmesh_proto::wire::LedgerRecord;
use tracing::error;

use crate::commit::HOLD_KEY_PREFIX;
use crate::error::OpenError;
use crate::limits::LEDGER_PAGE_BYTES;
use crate::storage::{Engine, LedgerView, StorageError};
use crate::table::Table;

/// Holds from the settings. The error names what cannot be read.
pub(super) fn read_holds(
    settings: &BTreeMap<String, Vec<u8>>,
    own: ReplicaId,
    books: &mut Books,
) -> Result<(), String> {
    let rows = settings.range(HOLD_KEY_PREFIX.to_owned()..);
    for (key, row) in rows.take_while(|(key, _)| key.starts_with(HOLD_KEY_PREFIX)) {
        let hold = Hold::decode(row).map_err(|error| format!("the setting {key:?} cannot be read: {error}"))?;
        if hold.id.replica != own || *key != format!("{HOLD_KEY_PREFIX}{}", hold.id) {
            return Err(format!("the setting {key:?} holds {}, which does not belong there", hold.id));
        }
        books.put_hold(hold);
    }
    Ok(())
}

/// References from the part of the ledger that holds those which were remembered at its end.
pub(super) fn read_references(engine: &Engine, books: &mut Books) -> Result<(), OpenError> {
    let view = engine.ledger()?;
    let last = view.last();
    let Some(newest) = read_page(&view, last)?.into_iter().next() else { return Ok(()) };
    let mut next = last.saturating_sub(newest.1.references_back);
    loop {
        let page = read_page(&view, next)?;
        let Some((number, _)) = page.last() else { return Ok(()) };
        next = number.saturating_add(1);
        for (number, record) in page {
            remember(number, record, books);
        }
    }
}

fn remember(number: u64, record: LedgerRecord, books: &mut Books) {
    for request in record.parts.into_iter().flat_map(|part| part.requests) {
        if let (Some(reference), Some(content)) = (request.reference, request.content) {
            let content = Fingerprint::bits(content);
            books.remember(reference, content, request.outcomes.into(), number, record.time_ms);
        }
    }
}

fn read_page(view: &LedgerView, from: u64) -> Result<Vec<(u64, LedgerRecord)>, OpenError> {
    let page = match view.read(from, LEDGER_PAGE_BYTES) {
        Ok(page) => page,
        Err(error @ (StorageError::LedgerEntry { .. } | StorageError::LedgerGap { .. })) => {
            return Err(OpenError::Damaged { damage: vec![error.to_string()] });
        }
        Err(error) => return Err(error.into()),
    };
    let decode = |(number, payload): (u64, Vec<u8>)| match LedgerRecord::decode(&payload) {
        Ok(record) => Ok((number, record)),
        Err(error) => {
            Err(OpenError::Damaged { damage: vec![format!("entry {number} of the ledger cannot be read: {error}")] })
        }
    };
    page.into_iter().map(decode).collect()
}

/// Holds the books against the slots: all was written together, so they agree unless there is a bug.
pub(super) fn check(books: &Books, table: &Table) {
    use stockmesh_proto::reconcile::StateView;
    let own = table.own();
    for ((sku, location), units) in books.units_held() {
        let counted = table.get(sku).and_then(|product| {
            let slot = product.stock().iter().find(|slot| slot.replica == own && slot.location.as_str() == location);
            slot.map(|slot| slot.counters.units_held())
        });
        if counted.and_then(|held| u128::try_from(held).ok()) != Some(units) {
            error!(sku, location, units, ?counted, "the holds of a product are not what its counters say");
        }
    }
}
