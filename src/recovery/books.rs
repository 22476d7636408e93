//! Reads holds and references back (rules D6, D7).

use std::collections::BTreeMap;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::fingerprint::Fingerprint;
use stockmesh_proto::hold::Hold;
use stockmesh_proto::operation::Books;
use stockmesh_proto::wire::LedgerRecord;
use tracing::error;

use crate::clock::time_to_remember;
use crate::commit::HOLD_KEY_PREFIX;
use crate::limits::{DAMAGE_NAMED_MAX, LEDGER_PAGE_BYTES};
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

/// References from the part of the ledger that holds those which were remembered at its end. What cannot be read is
/// passed over, and named in `damage`.
pub(super) fn read_references(
    engine: &Engine,
    books: &mut Books,
    damage: &mut Vec<String>,
) -> Result<(), StorageError> {
    let view = match engine.ledger() {
        Err(StorageError::Damaged(why)) => {
            damage.push(why);
            return Ok(());
        }
        view => view?,
    };
    let last = view.last();
    let newest = read_page(&view, last, damage)?.0.into_iter().next();
    // If the newest entry is lost, it is not known how far back to go.
    let mut next = newest.map_or(0, |(_, record)| last.saturating_sub(record.references_back));
    while next <= last {
        let (page, after) = read_page(&view, next, damage)?;
        // Where so much is lost the tree itself is broken, and may claim entries without end.
        if after <= next || damage.len() >= DAMAGE_NAMED_MAX {
            break;
        }
        next = after;
        for (number, record) in page {
            remember(number, record, books);
        }
    }
    Ok(())
}

fn remember(number: u64, record: LedgerRecord, books: &mut Books) {
    for request in record.parts.into_iter().flat_map(|part| part.requests) {
        if let (Some(reference), Some(content)) = (request.reference, request.content) {
            let (content, at_ms) = (Fingerprint::bits(content), time_to_remember(record.time_ms, books));
            books.remember(reference, content, &request.outcomes, number, at_ms);
        }
    }
}

/// The entries from a number on, as far as they can be read in one go, and where to go on.
fn read_page(
    view: &LedgerView,
    from: u64,
    damage: &mut Vec<String>,
) -> Result<(Vec<(u64, LedgerRecord)>, u64), StorageError> {
    let page = match view.read(from, LEDGER_PAGE_BYTES) {
        Err(error @ (StorageError::LedgerEntry { number: to, .. } | StorageError::LedgerGap { to, .. })) => {
            note(damage, error.to_string());
            return Ok((Vec::new(), to.saturating_add(1)));
        }
        page => page?,
    };
    let after = page.last().map_or(from, |(number, _)| number.saturating_add(1));
    let mut records = Vec::new();
    for (number, payload) in page {
        match LedgerRecord::decode(&payload) {
            Ok(record) => records.push((number, record)),
            Err(error) => note(damage, format!("entry {number} of the ledger cannot be read: {error}")),
        }
    }
    Ok((records, after))
}

/// Names what is lost, once, and not without end.
fn note(damage: &mut Vec<String>, why: String) {
    if damage.len() < DAMAGE_NAMED_MAX && !damage.contains(&why) {
        damage.push(why);
    }
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
