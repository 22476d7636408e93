//! What a crash brings back: a copy of the table as it was durable, and rows of holds and ledger as bytes, from which
//! the books are made again as a reopen does (rules D6, D7).

use std::collections::BTreeMap;
use std::rc::Rc;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::operation::Books;
use stockmesh_proto::product::Taken;
use stockmesh_proto::wire::LedgerRecord;
use stockmesh_proto::{Location, ReplicaId, Shard, Sku};

use super::spec::Memory;

/// Bytes that copies of a disk share.
type Row = Rc<Vec<u8>>;

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) id: ReplicaId,
    pub(super) table: Vec<Shard>,
    pub(super) tree: FingerprintTree,
    pub(super) clock: Clock,
    pub(super) holds: BTreeMap<HoldId, Row>,
    pub(super) ledger: Vec<Row>,
    /// The books as they were when all of this was written: what a reopen must come to.
    pub(super) books: Books,
    /// What the plain model remembered then.
    pub(super) memory: Memory,
    pub(super) references_max: usize,
}

/// Whether a reopen takes holds that expired for active: a break, done on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForgetsExpiry(pub(super) bool);

impl Disk {
    /// Reads the books from the rows.
    pub(super) fn open_books(&self, forgets: ForgetsExpiry) -> Books {
        let mut books = Books::new(u64::MAX, self.references_max);
        for row in self.holds.values() {
            let mut hold = Hold::decode(row).unwrap();
            if forgets.0 && matches!(hold.state, HoldState::Expired { .. }) {
                hold.state = HoldState::Active;
            }
            books.put_hold(hold);
        }
        let Some(last) = self.ledger.last() else { return books };
        let back = usize::try_from(LedgerRecord::decode(last).unwrap().references_back).unwrap();
        for (number, row) in (1_u64..).zip(&self.ledger).skip(self.ledger.len() - 1 - back) {
            let record = LedgerRecord::decode(row).unwrap();
            for request in record.parts.into_iter().flat_map(|part| part.requests) {
                if let (Some(reference), Some(content)) = (request.reference, request.content) {
                    books.remember(reference, content.bits(), &request.outcomes, number, record.time_ms);
                }
            }
        }
        books
    }

    /// Rule D7: the movements of the ledger, added up, by the id that made them.
    pub(super) fn ledger_sums(&self) -> LedgerSums {
        let mut sums = LedgerSums::default();
        for row in &self.ledger {
            for part in LedgerRecord::decode(row).unwrap().parts {
                for movement in part.requests.iter().flat_map(|request| &request.movements) {
                    let key = (part.replica, movement.sku.clone(), movement.location.clone());
                    if let Some((from, more)) = movement.inherited() {
                        let taken = sums.inherited.entry((from, key.0, key.1, key.2)).or_default();
                        *taken = Taken {
                            added: taken.added + more.added,
                            removed: taken.removed + more.removed,
                            rights: taken.rights + more.rights,
                            owed: taken.owed + more.owed,
                            is_heir: taken.is_heir || more.is_heir,
                        };
                    } else if let Some((to, units)) = movement.granted() {
                        *sums.granted.entry((key.0, to, key.1, key.2)).or_default() += units;
                    } else {
                        let counters = sums.stock.entry(key).or_default();
                        *counters = counters.plus(movement.counters()).unwrap();
                    }
                }
            }
        }
        sums
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct LedgerSums {
    pub(super) stock: BTreeMap<(ReplicaId, Sku, Location), Counters>,
    pub(super) granted: BTreeMap<(ReplicaId, ReplicaId, Sku, Location), u64>,
    pub(super) inherited: BTreeMap<(ReplicaId, ReplicaId, Sku, Location), Taken>,
}

/// In what two books differ, if they do.
pub(super) fn difference(left: &Books, right: &Books, memory: &Memory) -> Option<String> {
    if !left.holds().eq(right.holds()) {
        let shown = |books: &Books| format!("{:?}", books.holds().collect::<Vec<_>>());
        return Some(format!("holds: {} and {}", shown(left), shown(right)));
    }
    let indexes = |books: &Books| (books.next_expiry(), books.holds_active(), books.due(u64::MAX).collect::<Vec<_>>());
    if indexes(left) != indexes(right) {
        return Some(format!("expiries: {:?} and {:?}", indexes(left), indexes(right)));
    }
    let counts = |books: &Books| (books.references(), books.ledger_from());
    if counts(left) != counts(right) {
        return Some(format!("references: {:?} and {:?}", counts(left), counts(right)));
    }
    let mut references = memory.requests.iter().map(|done| &done.reference);
    let differs = references.find(|reference| left.remembered(reference) != right.remembered(reference));
    differs.map(|reference| format!("reference {reference}"))
}
