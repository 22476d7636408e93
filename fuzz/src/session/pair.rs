//! The two replicas of a script, in memory.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use stockmesh_proto::check::{DeltaRefused, DriftCheck};
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::gossip::{check_push, pack};
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Books, Operation, Reader, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::reconcile::{Comparison, Effect, Outcome, StateView, Stranded};
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::{Message, PushShard, Summary};
use stockmesh_proto::{Currency, Location, Price, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

use crate::input::SKUS;

pub(super) const SHARDS: u16 = 4;

pub(super) fn shard_count() -> ShardCount {
    ShardCount::new(u32::from(SHARDS)).unwrap()
}

pub(super) struct Replica {
    pub(super) own: ReplicaId,
    shards: Vec<Shard>,
    tree: FingerprintTree,
    clock: Clock,
    /// All that this replica ever wrote, write by write.
    written: Vec<PushShard>,
    stranded: Stranded,
    looks: Duration,
}

impl Replica {
    pub(super) fn new(bits: u64) -> Self {
        let shards = shard_count().indexes().map(|_| Shard::new(bits)).collect();
        let (tree, clock) = (FingerprintTree::new(shard_count()), Clock::default());
        Self {
            own: ReplicaId::from_random(bits),
            shards,
            tree,
            clock,
            written: Vec::new(),
            stranded: Stranded::new(Duration::from_secs(4)),
            looks: Duration::ZERO,
        }
    }

    /// Writes a price or an adjustment of a product.
    pub(super) fn write(&mut self, sku: u8, units: u8) -> Vec<PushShard> {
        let name = SKUS[usize::from(sku) % SKUS.len()];
        let (sku, location) = (Sku::new(name).unwrap(), Location::new("x").unwrap());
        let operation = if units < 128 {
            Operation::SetPrice { sku, price: Price::from_parts(u64::from(units), 2, Currency::EUR).unwrap() }
        } else {
            Operation::Adjust { sku, location, units: i64::from(units) - 192, reason: Reason::Correction }
        };
        let writer = Writer { own: self.own, shards: shard_count(), drift_ms_max: u64::MAX };
        let mut clock = self.clock.clone();
        // A forged claim can use up the sequence numbers; then nothing more is written.
        let Ok(evaluation) = writer.evaluate(&vec![operation].into(), &*self, &Books::default(), &mut clock, 1_000)
        else {
            return Vec::new();
        };
        self.clock = clock;
        let parts: Vec<PushShard> = evaluation
            .shards
            .into_iter()
            .map(|(shard, writes)| {
                let (from, to) = (writes.from, writes.to);
                PushShard { shard, from, to, products: writes.into_products() }
            })
            .collect();
        for part in &parts {
            self.merge(part.shard, &part.products);
            assert!(self.shards[part.shard.as_usize()].claim_range(self.own, part.from, part.to));
        }
        self.written.extend(parts.iter().cloned());
        parts
    }

    pub(super) fn receive(&mut self, origin: ReplicaId, parts: &[PushShard]) {
        for push in pack(origin, parts.to_vec()) {
            let drift = DriftCheck { now_ms: 1_000, drift_ms_max: 60_000 };
            // It goes over the wire, and what is not told in rising order does not get through.
            let Ok(frame) = Message::Push(push).encode() else { continue };
            let Ok(Message::Push(push)) = Message::decode(&frame[4..]) else { continue };
            match check_push(&push, shard_count(), drift) {
                Ok(()) => {
                    for part in &push.shards {
                        self.merge(part.shard, &part.products);
                        self.shards[part.shard.as_usize()].claim_range(origin, part.from, part.to);
                    }
                }
                Err(refused) => {
                    let is_drift = matches!(refused, DeltaRefused::Drift { .. });
                    assert_ne!(refused.is_violation(), is_drift, "{refused}");
                }
            }
        }
    }

    fn merge(&mut self, shard: ShardIndex, products: &[(Sku, Product)]) {
        let state = &mut self.shards[shard.as_usize()];
        self.clock.observe(state.merge(products).stamp_max);
        self.tree.set(shard, state.fingerprint());
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Merge { delta, claim } => {
                self.merge(delta.shard, &delta.products);
                if let Some(claim) = claim {
                    self.shards[delta.shard.as_usize()].claim(&claim);
                }
            }
            Effect::Compared { shard, vectors: (ours, theirs), comparison } => {
                self.compare(shard, (&ours, &theirs), comparison);
            }
            _ => {}
        }
    }

    /// As a read-only member does, with each look taking a second.
    fn compare(&mut self, shard: ShardIndex, (ours, theirs): (&VersionVector, &VersionVector), comparison: Comparison) {
        self.looks += Duration::from_secs(1);
        let other = ReplicaId::from_random(3 - self.own.bits());
        self.stranded.compared(shard, (ours, theirs, other), comparison, self.looks);
        let found = self.stranded.findings(&BTreeSet::from([other])).shards;
        assert!(!found.contains(&shard) || comparison != Comparison::Same, "what the peer has is not stranded");
    }

    /// A session ended.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        if outcome.equal && !outcome.scoped {
            self.stranded.agreed();
        }
    }

    /// The shards that a reader asks for, whatever was agreed.
    pub(super) fn suspects(&self) -> BTreeSet<ShardIndex> {
        self.stranded.suspects()
    }

    /// The shards in which it holds what the other does not.
    pub(super) fn stranded_shards(&mut self) -> BTreeSet<ShardIndex> {
        let other = ReplicaId::from_random(3 - self.own.bits());
        self.stranded.findings(&BTreeSet::from([other])).shards
    }

    pub(super) fn check_sums(&self) {
        let mut tree = FingerprintTree::new(shard_count());
        for (index, shard) in shard_count().indexes().zip(&self.shards) {
            tree.set(index, shard.fingerprint_recomputed());
        }
        assert_eq!(tree, self.tree);
    }
}

/// Whatever a replica claims of the other's writes, it contains or has superseded.
pub(super) fn check_claims(replicas: &[Replica; 2]) {
    for (holder, writer) in [(&replicas[0], &replicas[1]), (&replicas[1], &replicas[0])] {
        for part in &writer.written {
            let shard = &holder.shards[part.shard.as_usize()];
            if shard.version().get(writer.own) >= part.to {
                let changed = shard.clone().merge(&part.products).slots_changed;
                assert_eq!(changed, 0, "a write is claimed that is missing");
            }
        }
    }
}

/// In what a shard differs here and there.
pub(super) struct Differs {
    pub(super) slots: bool,
    pub(super) vectors: bool,
}

pub(super) fn differs(replicas: &[Replica; 2], shard: ShardIndex) -> Differs {
    let [left, right] = replicas.each_ref().map(|replica| &replica.shards[shard.as_usize()]);
    Differs { slots: left.fingerprint() != right.fingerprint(), vectors: left.version() != right.version() }
}

pub(super) fn check_equal(replicas: &[Replica; 2]) {
    let [left, right] = replicas;
    assert_eq!(left.tree, right.tree);
    for (left, right) in left.shards.iter().zip(&right.shards) {
        assert_eq!(left.version(), right.version());
        assert!(left.range(Bound::Unbounded).eq(right.range(Bound::Unbounded)));
    }
}

impl StateView for Replica {
    fn own(&self) -> ReplicaId {
        self.own
    }

    fn tree(&self) -> FingerprintTree {
        self.tree.clone()
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        let state = &self.shards[shard.as_usize()];
        Summary { shard, fingerprint: state.fingerprint(), version: state.version().clone() }
    }

    fn extract(&self, shard: ShardIndex, covered: &VersionVector, from: Option<&Sku>, bytes_target: usize) -> Chunk {
        let from = from.map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        self.shards[shard.as_usize()].extract(covered, from, bytes_target)
    }
}

impl Reader for Replica {
    fn product(&self, sku: &Sku) -> Option<std::sync::Arc<KeyedProduct>> {
        self.shards[shard_count().shard_of(sku).as_usize()].get(sku.as_str()).cloned()
    }

    fn sequence(&self, shard: ShardIndex, replica: ReplicaId) -> u64 {
        self.shards[shard.as_usize()].version().get(replica)
    }
}
