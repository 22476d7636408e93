//! One replica of a script: a shard, books, and a disk with rows of holds and ledger from which it opens again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use stockmesh_proto::check::shows_own_future;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::hold::{Hold, HoldId};
use stockmesh_proto::operation::{Books, Evaluation, Operation, Outcome, OversellPolicy, Reader, Request, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::{Ask, LedgerPart, LedgerRecord, LedgerRequest};
use stockmesh_proto::{Fingerprint, Location, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

pub(super) const SHARD: ShardIndex = ShardIndex(0);

pub(super) fn shard_count() -> ShardCount {
    ShardCount::new(1).unwrap()
}

/// The product that is sold, and where.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) sku: Sku,
    pub(super) location: Location,
}

/// A request that was done, as its caller saw it.
#[derive(Clone, Debug)]
pub(super) struct Ack {
    pub(super) operations: Vec<Operation>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) now_ms: u64,
    pub(super) excess: i128,
}

/// To whom an answer goes, the question, and the bytes.
type Answer = (usize, ReplicaId, Ask, Vec<u8>);

#[derive(Clone)]
struct Disk {
    id: ReplicaId,
    table: Shard,
    holds: BTreeMap<HoldId, Vec<u8>>,
    ledger: Vec<Vec<u8>>,
    excess: i128,
}

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) table: Shard,
    pub(super) books: Books,
    pub(super) answers: Vec<Answer>,
    waiting: Vec<Ack>,
    pending: Vec<LedgerRequest>,
    holds_written: Vec<Hold>,
    /// What facts and backorders under this id took beyond its rights.
    excess: i128,
    is_dirty: bool,
    disk: Disk,
    old: Option<Disk>,
}

impl Node {
    pub(super) fn new(bits: u64) -> Self {
        let (id, table) = (ReplicaId::from_random(bits), Shard::new(bits));
        Self::open(Disk { id, table, holds: BTreeMap::new(), ledger: Vec::new(), excess: 0 })
    }

    /// Rule D6: books and slots come from one transaction.
    fn open(disk: Disk) -> Self {
        let mut books = Books::default();
        disk.holds.values().for_each(|row| books.put_hold(Hold::decode(row).unwrap()));
        let records: Vec<LedgerRecord> = disk.ledger.iter().map(|row| LedgerRecord::decode(row).unwrap()).collect();
        let back = records.last().map_or(0, |last| usize::try_from(last.references_back).unwrap() + 1);
        for (number, record) in (1_u64..).zip(&records).skip(records.len() - back) {
            for request in record.parts.iter().flat_map(|part| &part.requests) {
                if let (Some(reference), Some(content)) = (&request.reference, request.content) {
                    books.remember(reference.clone(), content.bits(), &request.outcomes, number, record.time_ms);
                }
            }
        }
        let (waiting, pending, holds_written, answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (id, table, excess) = (disk.id, disk.table.clone(), disk.excess);
        let (is_dirty, old) = (false, None);
        Self { id, table, books, answers, waiting, pending, holds_written, excess, is_dirty, disk, old }
    }

    pub(super) fn product(&self, place: &Place) -> Option<&Product> {
        self.table.get(place.sku.as_str()).map(|keyed| &keyed.product)
    }

    fn rights(&self, place: &Place) -> i128 {
        self.product(place).map_or(0, |product| product.rights(&place.location, self.id))
    }

    /// What was done, if it was not refused.
    pub(super) fn apply(&mut self, request: &Request, now_ms: u64, place: &Place) -> Option<Vec<Outcome>> {
        let writer = Writer { own: self.id, shards: shard_count(), drift_ms_max: u64::MAX };
        let before = self.rights(place);
        let evaluation = writer.evaluate(request, &*self, &self.books, &mut Clock::default(), now_ms).ok()?;
        if evaluation.repeated {
            return Some(evaluation.outcomes);
        }
        for writes in evaluation.shards.values() {
            self.table.merge(&writes.clone().into_products());
            assert!(self.table.claim_range(self.id, writes.from, writes.to), "own writes leave no gap");
        }
        let number = u64::try_from(self.disk.ledger.len()).unwrap() + 1;
        // Scripts are far too short for a hold to be forgotten.
        assert!(self.books.enter(&evaluation, number, now_ms).is_empty());
        let after = self.rights(place);
        let fell = ((-after).max(0) - (-before).max(0)).max(0);
        assert!(fell == 0 || request.operations.iter().all(may_go_below), "{request:?} took rights to {after}");
        self.excess += fell;
        self.is_dirty = true;
        let (operations, outcomes) = (request.operations.clone(), evaluation.outcomes.clone());
        self.waiting.push(Ack { operations, outcomes, now_ms, excess: fell });
        Some(self.enter(evaluation))
    }

    fn enter(&mut self, evaluation: Evaluation) -> Vec<Outcome> {
        let Evaluation { reference, outcomes, movements, holds, .. } = evaluation;
        self.holds_written.extend(holds);
        let (reference, content) = reference.map(|(name, hash)| (name, Fingerprint::from_bits(hash))).unzip();
        let kept = if reference.is_some() { outcomes.clone() } else { Vec::new() };
        self.pending.push(LedgerRequest { reference, content, outcomes: kept, movements });
        outcomes
    }

    /// Takes slots from elsewhere, and claims one write if told so.
    pub(super) fn take(&mut self, products: &Products, claim: Option<(ReplicaId, u64)>) {
        let shows = shows_own_future(&self.table, self.id, products, None);
        assert!(!shows, "nothing that was taken back had been sent");
        self.table.merge(products);
        self.is_dirty = true;
        if let Some((replica, sequence)) = claim {
            self.table.claim_range(replica, sequence, sequence);
        }
    }

    pub(super) fn lacking(&self, version: &VersionVector) -> Chunk {
        self.table.extract(version, Bound::Unbounded, usize::MAX)
    }

    /// The product as an answer shows it: stock and grants at the one location that there is.
    pub(super) fn shown(&self, place: &Place) -> Products {
        let product = self.product(place).map(|product| product.at_location(&place.location));
        product.filter(|product| !product.is_empty()).map(|product| (place.sku.clone(), product)).into_iter().collect()
    }

    pub(super) fn sync(&mut self) -> Vec<Ack> {
        if !std::mem::take(&mut self.is_dirty) {
            return Vec::new();
        }
        for hold in self.holds_written.drain(..) {
            self.disk.holds.insert(hold.id, hold.encode().unwrap());
        }
        if !self.pending.is_empty() {
            let number = u64::try_from(self.disk.ledger.len()).unwrap() + 1;
            let references_back = number - self.books.ledger_from().unwrap_or(number);
            let parts = vec![LedgerPart { replica: self.id, requests: std::mem::take(&mut self.pending) }];
            let record = LedgerRecord { time_ms: 1_000, references_back, parts };
            self.disk.ledger.push(record.encode().unwrap());
        }
        (self.disk.id, self.disk.table, self.disk.excess) = (self.id, self.table.clone(), self.excess);
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn crash(&mut self) {
        let old = self.old.take();
        *self = Self { old, ..Self::open(self.disk.clone()) };
    }

    pub(super) fn backup(&mut self) {
        self.old = Some(self.disk.clone());
    }

    /// Rule B6: an old copy goes on under a new id, without the holds of the old one. False if there is no copy.
    pub(super) fn restore(&mut self, bits: u64) -> bool {
        let Some(old) = self.old.take() else { return false };
        *self = Self::open(old);
        self.id = ReplicaId::from_random(bits);
        self.disk.id = self.id;
        (self.excess, self.disk.excess) = (0, 0);
        for hold in self.books.take_holds() {
            self.disk.holds.remove(&hold);
        }
        true
    }

    /// What holds at any time.
    pub(super) fn check(&self, place: &Place) {
        let (Some(product), location) = (self.product(place), &place.location) else { return };
        let available = product.available_at(location);
        assert_eq!(product.rights_at(location).values().sum::<i128>(), available, "rule B1");
        assert!(self.rights(place) >= -self.excess, "rule B2");
        let held = self.books.units_held().values().sum::<u128>();
        let counters = product.counters(location, self.id);
        assert_eq!(i128::try_from(held).unwrap(), counters.units_held(), "rule O6");
        self.check_ledger(product, location);
    }

    /// Rule D7: the movements of the ledger and of what waits for it are the own slots.
    fn check_ledger(&self, product: &Product, location: &Location) {
        // Each row was read back when it was written last; here it is enough to look at what was added since.
        let pending = self.pending.iter().flat_map(|request| &request.movements);
        let sum = pending.fold(Counters::default(), |sum, movement| sum.plus(movement.counters()).unwrap());
        let disk = self.disk.table.get("A").map(|keyed| keyed.counters(location, self.id)).unwrap_or_default();
        assert_eq!(product.counters(location, self.id), disk.plus(sum).unwrap(), "rule D7");
    }
}

/// Facts and backorders alone take rights below zero.
fn may_go_below(operation: &Operation) -> bool {
    matches!(operation, Operation::Adjust { .. } | Operation::Sell { policy: OversellPolicy::Backorder, .. })
}

impl Reader for Node {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.table.get(sku.as_str()).cloned()
    }

    fn sequence(&self, _: ShardIndex, replica: ReplicaId) -> u64 {
        self.table.version().get(replica)
    }
}
