//! A replica in memory, with a disk that is modelled as a copy of what was durable last.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use stockmesh_proto::check::{DriftCheck, shows_own_future};
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::gossip::{check_push, pack};
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::operation::{Books, Evaluation, Operation, Reader, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::reconcile::{Effect, StateView};
use stockmesh_proto::shard::{Chunk, Merged};
use stockmesh_proto::wire::{Push, PushShard, Summary};
use stockmesh_proto::{ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

/// What a crash brings back.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) shards: Vec<Shard>,
    pub(crate) tree: FingerprintTree,
    pub(crate) clock: Clock,
}

#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) count: ShardCount,
    pub(crate) state: State,
    pub(crate) durable: State,
    is_dirty: bool,
    /// Effects that need more than a merge, in the order in which they came.
    pub(crate) notes: Vec<Effect>,
    pub(crate) slots_repaired: u64,
    pub(crate) own_futures: u64,
}

impl Replica {
    pub(crate) fn new(id: ReplicaId, count: ShardCount) -> Self {
        let shards = count.indexes().map(|index| Shard::new(id.bits() ^ u64::from(index.0))).collect();
        let state = State { shards, tree: FingerprintTree::new(count), clock: Clock::default() };
        let durable = state.clone();
        Self { id, count, state, durable, is_dirty: false, notes: Vec::new(), slots_repaired: 0, own_futures: 0 }
    }

    pub(crate) fn shard(&self, shard: ShardIndex) -> &Shard {
        &self.state.shards[shard.as_usize()]
    }

    pub(crate) fn shard_mut(&mut self, shard: ShardIndex) -> &mut Shard {
        self.is_dirty = true;
        &mut self.state.shards[shard.as_usize()]
    }

    pub(crate) fn product_of(&self, name: &str) -> Product {
        let sku = Sku::new(name).unwrap();
        Reader::product(self, &sku).map(|product| Product::clone(&product)).unwrap_or_default()
    }

    /// What is durable now survives a crash; everything readable is.
    pub(crate) fn sync(&mut self) {
        if self.is_dirty {
            self.durable = self.state.clone();
            self.is_dirty = false;
        }
    }

    pub(crate) fn crash(&mut self) {
        self.state = self.durable.clone();
        self.is_dirty = false;
    }

    /// Evaluates and applies operations as one batch. The pushes hold the writes as they were committed.
    pub(crate) fn write(&mut self, operations: &[Operation], now_ms: u64) -> (Evaluation, Vec<Push>) {
        let writer = Writer { own: self.id, shards: self.count, drift_ms_max: u64::MAX };
        let mut clock = self.state.clock.clone();
        let evaluation =
            writer.evaluate(&operations.to_vec().into(), &*self, &Books::default(), &mut clock, now_ms).unwrap();
        self.state.clock = clock;
        let mut parts = Vec::new();
        for (shard, writes) in evaluation.shards.clone() {
            let (from, to) = (writes.from, writes.to);
            let products = writes.into_products();
            self.merge(shard, &products);
            let own = self.id;
            assert!(self.shard_mut(shard).claim_range(own, from, to), "own writes leave no gap");
            parts.push(PushShard { shard, from, to, products });
        }
        (evaluation, pack(self.id, parts))
    }

    pub(crate) fn merge(&mut self, shard: ShardIndex, products: &[(Sku, Product)]) -> Merged {
        let merged = self.shard_mut(shard).merge(products);
        self.slots_repaired += merged.slots_repaired;
        self.state.clock.observe(merged.stamp_max);
        let fingerprint = self.shard(shard).fingerprint();
        self.state.tree.set(shard, fingerprint);
        merged
    }

    /// Takes a push as a node does. `None` if it was refused, else whether it was news and without a gap.
    pub(crate) fn receive(&mut self, push: &Push, drift: DriftCheck) -> Option<(bool, bool)> {
        check_push(push, self.count, drift).ok()?;
        let (mut is_news, mut is_gapless) = (false, true);
        for part in &push.shards {
            if shows_own_future(self.shard(part.shard), self.id, &part.products, None) {
                self.own_futures += 1;
            }
            is_news |= self.merge(part.shard, &part.products).slots_changed > 0;
            is_gapless &= self.shard_mut(part.shard).claim_range(push.origin, part.from, part.to);
        }
        Some((is_news, is_gapless))
    }

    /// Carries out what a session asks for.
    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Merge { delta, claim } => {
                if shows_own_future(self.shard(delta.shard), self.id, &delta.products, claim.as_ref()) {
                    self.own_futures += 1;
                }
                self.merge(delta.shard, &delta.products);
                if let Some(claim) = claim {
                    self.shard_mut(delta.shard).claim(&claim);
                }
            }
            Effect::OwnFuture { .. } => {
                self.own_futures += 1;
                self.notes.push(effect);
            }
            other => self.notes.push(other),
        }
    }

    /// Everything that must be equal between replicas that converged.
    pub(crate) fn contents(&self) -> (BTreeMap<Sku, Product>, Vec<VersionVector>, FingerprintTree) {
        let mut products = BTreeMap::new();
        for shard in &self.state.shards {
            for keyed in shard.range(Bound::Unbounded) {
                let (sku, product) = (&keyed.sku, &keyed.product);
                products.insert(sku.clone(), Product::clone(product));
            }
        }
        let versions = self.state.shards.iter().map(|shard| shard.version().clone()).collect();
        (products, versions, self.state.tree.clone())
    }

    /// Checks that sums kept up step by step are the sums computed anew (rules F1 to F3).
    pub(crate) fn check_sums(&self) {
        let mut tree = FingerprintTree::new(self.count);
        for index in self.count.indexes() {
            let shard = self.shard(index);
            assert_eq!(shard.fingerprint(), shard.fingerprint_recomputed());
            let slots: usize = shard.range(Bound::Unbounded).map(|product| product.slot_count()).sum();
            assert_eq!(shard.slots(), u64::try_from(slots).unwrap());
            tree.set(index, shard.fingerprint_recomputed());
        }
        assert_eq!(tree, self.state.tree);
    }
}

impl StateView for Replica {
    fn own(&self) -> ReplicaId {
        self.id
    }

    fn tree(&self) -> FingerprintTree {
        self.state.tree.clone()
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

impl Reader for Replica {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.shard(self.count.shard_of(sku)).get(sku.as_str()).cloned()
    }

    fn sequence(&self, shard: ShardIndex, replica: ReplicaId) -> u64 {
        self.shard(shard).version().get(replica)
    }
}
