//! One replica of the model world: a table of shards, books, a clock, and a disk that lags behind until it is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use stockmesh_proto::check::shows_own_future;
use stockmesh_proto::delta::Products;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::gossip::pack;
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::hold::{Hold, HoldId};
use stockmesh_proto::operation::{Books, Evaluation, OperationRefused, Reader, Request, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::{Granted, LedgerPart, LedgerRecord, LedgerRequest, Push, PushShard, Summary};
use stockmesh_proto::{Fingerprint, Location, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

use super::disk::{Disk, ForgetsExpiry};
use super::goods::Ack;
use super::spec::{Done, Expected, Memory, Spec};
use crate::support::replica_id;

/// What leaves once everything before it is durable.
#[derive(Clone, Debug)]
pub(super) enum Out {
    Push(Push),
    /// An answer, to whom it goes, and the number of the question.
    Answer(usize, ReplicaId, usize, Granted),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) count: ShardCount,
    pub(super) table: Vec<Shard>,
    pub(super) tree: FingerprintTree,
    clock: Clock,
    pub(super) books: Books,
    pub(super) memory: Memory,
    /// What the next entry of the ledger holds, and who waits for it.
    pending: Vec<LedgerRequest>,
    pub(super) waiting: Vec<Ack>,
    holds_written: Vec<Hold>,
    holds_forgotten: Vec<HoldId>,
    last_ms: u64,
    is_dirty: bool,
    pub(super) disk: Disk,
    pub(super) backups: Vec<Disk>,
    pub(super) outbox: Vec<Out>,
    /// Its directory came from an old copy, and it does not know yet what it has told since: it writes nothing.
    pub(super) is_restored: bool,
}

impl Node {
    pub(super) fn new(bits: u64, count: ShardCount, references_max: usize) -> Self {
        let id = replica_id(bits);
        let table: Vec<Shard> = count.indexes().map(|index| Shard::new(bits ^ u64::from(index.0))).collect();
        let books = Books::new(u64::MAX, references_max);
        let disk = Disk {
            id,
            table,
            tree: FingerprintTree::new(count),
            clock: Clock::default(),
            holds: BTreeMap::new(),
            ledger: Vec::new(),
            books,
            memory: Memory::default(),
            references_max,
        };
        Self::open(disk, count, ForgetsExpiry(false))
    }

    /// Opens a directory.
    pub(super) fn open(disk: Disk, count: ShardCount, forgets: ForgetsExpiry) -> Self {
        Self {
            id: disk.id,
            count,
            table: disk.table.clone(),
            tree: disk.tree.clone(),
            clock: disk.clock.clone(),
            books: disk.open_books(forgets),
            memory: disk.memory.clone(),
            pending: Vec::new(),
            waiting: Vec::new(),
            holds_written: Vec::new(),
            holds_forgotten: Vec::new(),
            last_ms: 0,
            is_dirty: false,
            disk,
            backups: Vec::new(),
            outbox: Vec::new(),
            is_restored: false,
        }
    }

    pub(super) fn shard(&self, shard: ShardIndex) -> &Shard {
        &self.table[shard.as_usize()]
    }

    pub(super) fn product_of(&self, sku: &Sku) -> Product {
        let keyed = Reader::product(self, sku);
        keyed.map(|keyed| keyed.product.clone()).unwrap_or_default()
    }

    /// All products, with their keys.
    pub(super) fn products(&self) -> impl Iterator<Item = &Arc<KeyedProduct>> {
        self.table.iter().flat_map(|shard| shard.range(Bound::Unbounded))
    }

    /// What the naive model says of a request.
    pub(super) fn predict(&self, request: &Request, now_ms: u64) -> Result<Expected, OperationRefused> {
        let sequences = self.count.indexes().map(|shard| (shard, self.sequence(shard, self.id))).collect();
        let mut spec = Spec {
            own: self.id,
            shards: self.count,
            now_ms,
            memory: &self.memory,
            stock: BTreeMap::new(),
            grants: BTreeMap::new(),
            inherited: BTreeMap::new(),
            sequences,
            may_backorder: true,
            shortfalls: BTreeMap::new(),
            moved: BTreeMap::new(),
            expected: Expected::default(),
        };
        self.products().for_each(|keyed| spec.see(&keyed.sku, &keyed.product));
        spec.predict(request)
    }

    /// Evaluates and applies a request; durable with the next sync.
    pub(super) fn apply(&mut self, request: &Request, now_ms: u64) -> Result<Evaluation, OperationRefused> {
        let writer = Writer { own: self.id, shards: self.count, drift_ms_max: u64::MAX };
        let mut clock = self.clock.clone();
        let evaluation = writer.evaluate(request, self, &self.books, &mut clock, now_ms)?;
        self.clock = clock;
        if evaluation.repeated {
            return Ok(evaluation);
        }
        let mut parts = Vec::new();
        for (shard, writes) in evaluation.shards.clone() {
            let (from, to, products) = (writes.from, writes.to, writes.into_products());
            self.merge(shard, &products);
            let own = self.id;
            assert!(self.table[shard.as_usize()].claim_range(own, from, to), "own writes leave no gap");
            parts.push(PushShard { shard, from, to, products });
        }
        self.outbox.extend(pack(self.id, parts).into_iter().map(Out::Push));
        let ledger = u64::try_from(self.disk.ledger.len()).unwrap() + 1;
        self.holds_forgotten.extend(self.books.enter(&evaluation, ledger, now_ms));
        self.holds_written.extend(evaluation.holds.iter().cloned());
        self.enter(request, &evaluation);
        (self.is_dirty, self.last_ms) = (true, now_ms);
        Ok(evaluation)
    }

    /// The entry in the ledger, and in the model's memory.
    fn enter(&mut self, request: &Request, evaluation: &Evaluation) {
        let named = evaluation.reference.clone();
        let (reference, content) = named.map(|(name, hash)| (name, Fingerprint::from_bits(hash))).unzip();
        let outcomes = if reference.is_some() { evaluation.outcomes.clone() } else { Vec::new() };
        let movements = evaluation.movements.clone();
        self.pending.push(LedgerRequest { reference, content, outcomes, movements });
        for hold in &evaluation.holds {
            self.memory.holds.insert(hold.id, hold.clone());
        }
        if let Some(reference) = request.reference.clone() {
            let (operations, outcomes) = (request.operations.clone(), evaluation.outcomes.clone());
            self.memory.remember(Done { reference, operations, outcomes }, self.disk.references_max);
        }
    }

    pub(super) fn merge(&mut self, shard: ShardIndex, products: &[(Sku, Product)]) {
        let state = &mut self.table[shard.as_usize()];
        let merged = state.merge(products);
        self.tree.set(shard, state.fingerprint());
        self.clock.observe(merged.stamp_max);
        self.is_dirty = true;
    }

    pub(super) fn claim(&mut self, shard: ShardIndex, version: &VersionVector) {
        self.table[shard.as_usize()].claim(version);
        self.is_dirty = true;
    }

    pub(super) fn claim_range(&mut self, shard: ShardIndex, from: ReplicaId, first: u64, last: u64) -> bool {
        self.is_dirty = true;
        self.table[shard.as_usize()].claim_range(from, first, last)
    }

    pub(super) fn shows_own_future(
        &self,
        shard: ShardIndex,
        products: &[(Sku, Product)],
        claim: Option<&VersionVector>,
    ) -> bool {
        shows_own_future(self.shard(shard), self.id, products, claim)
    }

    /// One transaction: slots, versions, holds and ledger (rule D6). Returns whom to answer.
    pub(super) fn sync(&mut self) -> Vec<Ack> {
        if !self.is_dirty {
            return Vec::new();
        }
        self.is_dirty = false;
        let disk = &mut self.disk;
        for hold in std::mem::take(&mut self.holds_written) {
            disk.holds.insert(hold.id, Rc::new(hold.encode().unwrap()));
        }
        for id in std::mem::take(&mut self.holds_forgotten) {
            disk.holds.remove(&id);
        }
        if !self.pending.is_empty() {
            let number = u64::try_from(disk.ledger.len()).unwrap() + 1;
            let parts = vec![LedgerPart { replica: self.id, requests: std::mem::take(&mut self.pending) }];
            let references_back = number - self.books.ledger_from().unwrap_or(number);
            let record = LedgerRecord { time_ms: self.last_ms, references_back, parts };
            disk.ledger.push(Rc::new(record.encode().unwrap()));
        }
        disk.table.clone_from(&self.table);
        (disk.id, disk.tree, disk.clock) = (self.id, self.tree.clone(), self.clock.clone());
        (disk.books, disk.memory) = (self.books.clone(), self.memory.clone());
        std::mem::take(&mut self.waiting)
    }

    /// Rule B6: from now on it writes under a new id, which has no rights and no holds.
    pub(super) fn incarnate(&mut self, id: ReplicaId) {
        self.id = id;
        self.disk.id = id;
        for hold in self.books.take_holds() {
            self.disk.holds.remove(&hold);
        }
        self.memory.holds.clear();
        (self.disk.books, self.disk.memory) = (self.books.clone(), self.memory.clone());
        self.is_restored = false;
    }

    /// Stock, grants and inheritances of a product at a location, as an answer shows them (rule B5).
    pub(super) fn shown(&self, sku: &Sku, location: &Location) -> Products {
        let shown = self.product_of(sku).at_location(location);
        if shown.is_empty() { Vec::new() } else { vec![(sku.clone(), shown)] }
    }

    /// Everything that must be equal between replicas that converged.
    pub(super) fn contents(&self) -> (BTreeMap<&Sku, &Product>, Vec<&VersionVector>, &FingerprintTree) {
        let products = self.products().map(|keyed| (&keyed.sku, &keyed.product)).collect();
        (products, self.table.iter().map(Shard::version).collect(), &self.tree)
    }

    /// All ids that a product names, and this one.
    pub(super) fn ids(&self, product: &Product) -> BTreeSet<ReplicaId> {
        let stock = product.stock().iter().map(|slot| slot.replica);
        let grants = product.grants().iter().flat_map(|slot| [slot.from, slot.to]);
        let inherited = product.inheritances().iter().flat_map(|slot| [slot.from, slot.to]);
        stock.chain(grants).chain(inherited).chain([self.id]).collect()
    }
}

impl StateView for Node {
    fn own(&self) -> ReplicaId {
        self.id
    }

    fn tree(&self) -> FingerprintTree {
        self.tree.clone()
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        let state = self.shard(shard);
        Summary { shard, fingerprint: state.fingerprint(), version: state.version().clone() }
    }

    fn extract(&self, shard: ShardIndex, covered: &VersionVector, from: Option<&Sku>, bytes_target: usize) -> Chunk {
        let from = from.map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        self.shard(shard).extract(covered, from, bytes_target)
    }
}

impl Reader for Node {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.shard(self.count.shard_of(sku)).get(sku.as_str()).cloned()
    }

    fn sequence(&self, shard: ShardIndex, replica: ReplicaId) -> u64 {
        self.shard(shard).version().get(replica)
    }
}
