//! One replica of a model: the core's shard, clock and books, and nothing else. All that changes it is the core's code.

use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use stockmesh_proto::check::{DriftCheck, shows_own_future};
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::gossip::{check_push, pack};
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::operation::{Books, Evaluation, Operation, OperationRefused, Reader, Request, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::reconcile::{Effect, StateView};
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::{Push, PushShard, Summary};
use stockmesh_proto::{Location, Quantity, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

use crate::check::Fault;

/// The one shard of a model: what holds of one holds of each, since shards share nothing.
pub(crate) const SHARD: ShardIndex = ShardIndex(0);
/// The wall clock of all replicas, standing still: so that stamps of different writers are often equal (rule L3).
pub(crate) const NOW_MS: u64 = 1_000;

pub(crate) fn shards() -> ShardCount {
    ShardCount::new(1).unwrap()
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub(crate) fn place() -> Location {
    Location::new("x").unwrap()
}

pub(crate) fn units(units: u64) -> Quantity {
    Quantity::new(units).unwrap()
}

pub(crate) fn replica_id(index: usize) -> ReplicaId {
    ReplicaId::from_random(u64::try_from(index).unwrap() + 1)
}

#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) shard: Shard,
    pub(crate) clock: Clock,
    pub(crate) books: Books,
    /// Slots that a merge changed though they were claimed (rule F4): none, unless something was lost.
    pub(crate) repaired: u64,
}

impl Replica {
    pub(crate) fn new(index: usize) -> Self {
        let books = Books::new(u64::MAX, 16);
        Self { id: replica_id(index), shard: Shard::new(0), clock: Clock::default(), books, repaired: 0 }
    }

    pub(crate) fn product(&self, sku: &Sku) -> Product {
        self.shard.get(sku.as_str()).map(|keyed| keyed.product.clone()).unwrap_or_default()
    }

    /// Rights of a replica at the model's place, as known here.
    pub(crate) fn rights(&self, sku: &Sku, replica: ReplicaId) -> i128 {
        self.shard.get(sku.as_str()).map_or(0, |keyed| keyed.product.rights(&place(), replica))
    }

    /// Evaluates a request and applies it: own writes are merged and claimed as all others are (rules O1, M1, M3).
    pub(crate) fn write(
        &mut self,
        operations: Vec<Operation>,
        now_ms: u64,
    ) -> Result<(Evaluation, Option<Push>), OperationRefused> {
        let writer = Writer { own: self.id, shards: shards(), drift_ms_max: u64::MAX };
        let request = Request::from(operations);
        let mut clock = self.clock.clone();
        let evaluation = writer.evaluate(&request, &*self, &self.books, &mut clock, now_ms)?;
        self.clock = clock;
        let mut parts = Vec::new();
        for (shard, writes) in evaluation.shards.clone() {
            let (from, to, products) = (writes.from, writes.to, writes.into_products());
            self.merge(&products);
            assert!(self.shard.claim_range(self.id, from, to), "own writes leave no gap");
            parts.push(PushShard { shard, from, to, products });
        }
        self.books.enter(&evaluation, 1, now_ms);
        Ok((evaluation, pack(self.id, parts).pop()))
    }

    pub(crate) fn merge(&mut self, products: &[(Sku, Product)]) {
        let merged = self.shard.merge(products);
        self.clock.observe(merged.stamp_max);
        self.repaired += merged.slots_repaired;
    }

    /// Nothing that is claimed was ever missing.
    pub(crate) fn check_repaired(&self) -> Result<(), Fault> {
        if self.repaired == 0 { Ok(()) } else { Err(Fault::new("F4", format!("{} had lost what it claims", self.id))) }
    }

    /// Takes a push as a node does (rules P2, P3). Returns whether it joined on.
    pub(crate) fn take_push(&mut self, push: &Push) -> Result<bool, Fault> {
        let drift = DriftCheck { now_ms: NOW_MS, drift_ms_max: u64::MAX };
        check_push(push, shards(), drift)
            .map_err(|error| Fault::new("P2", format!("an honest push is refused: {error}")))?;
        let mut is_gapless = true;
        for part in &push.shards {
            self.check_future(&part.products, None)?;
            self.merge(&part.products);
            is_gapless &= self.shard.claim_range(push.origin, part.from, part.to);
        }
        Ok(is_gapless)
    }

    /// Carries out what a session asks for. Returns whether a shard was in doubt.
    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<bool, Fault> {
        let mut is_in_doubt = false;
        for effect in effects {
            match effect {
                Effect::Merge { delta, claim } => {
                    self.check_future(&delta.products, claim.as_ref())?;
                    self.merge(&delta.products);
                    if let Some(claim) = claim {
                        self.shard.claim(&claim);
                    }
                }
                Effect::InDoubt { .. } => is_in_doubt = true,
                Effect::Finished(_) => {}
                other => return Err(Fault::new("I2", format!("{}: {other:?}", self.id))),
            }
        }
        Ok(is_in_doubt)
    }

    /// Nobody shows a replica a write that it did not make: no model but that of crashes takes any back (rule I2).
    pub(crate) fn check_future(&self, products: &[(Sku, Product)], claim: Option<&VersionVector>) -> Result<(), Fault> {
        if shows_own_future(&self.shard, self.id, products, claim) {
            return Err(Fault::new("I2", format!("{} is shown its own future", self.id)));
        }
        Ok(())
    }

    /// All slots, as one delta.
    pub(crate) fn everything(&self) -> Chunk {
        self.shard.extract(&VersionVector::new(), Bound::Unbounded, usize::MAX)
    }

    /// Whether two replicas that converged are equal: slots and vectors. The sums are of the slots (rule F1).
    pub(crate) fn is_equal(&self, other: &Self) -> bool {
        self.shard.fingerprint() == other.shard.fingerprint()
            && self.shard.version() == other.shard.version()
            && self.everything().products == other.everything().products
    }
}

/// A shard is named by its fingerprint and vector: the sum of the hashes of its slots is the same in whatever order they
/// came. The rest is small.
impl Hash for Replica {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id, self.shard.fingerprint().bits(), self.clock.latest()).hash(state);
        for entry in self.shard.version().iter() {
            entry.hash(state);
        }
        for hold in self.books.holds() {
            (hold.id, hold.units, hold.expires_ms, hold.state.resolved_ms()).hash(state);
            std::mem::discriminant(&hold.state).hash(state);
        }
    }
}

impl PartialEq for Replica {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.shard.fingerprint() == other.shard.fingerprint()
            && self.shard.version() == other.shard.version()
            && self.clock.latest() == other.clock.latest()
            && self.books.holds().eq(other.books.holds())
    }
}

impl StateView for Replica {
    fn own(&self) -> ReplicaId {
        self.id
    }

    fn tree(&self) -> FingerprintTree {
        let mut tree = FingerprintTree::new(shards());
        tree.set(SHARD, self.shard.fingerprint());
        tree
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        Summary { shard, fingerprint: self.shard.fingerprint(), version: self.shard.version().clone() }
    }

    fn extract(&self, _: ShardIndex, covered: &VersionVector, from: Option<&Sku>, bytes_target: usize) -> Chunk {
        let from = from.map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        self.shard.extract(covered, from, bytes_target)
    }
}

impl Reader for Replica {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.shard.get(sku.as_str()).cloned()
    }

    fn sequence(&self, _: ShardIndex, replica: ReplicaId) -> u64 {
        self.shard.version().get(replica)
    }
}
