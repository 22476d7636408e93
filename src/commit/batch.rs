//! What one group commit changes, gathered shard by shard.

use std::collections::BTreeMap;

use stockmesh_proto::delta::bytes_max;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::operation::ShardWrites;
use stockmesh_proto::product::Product;
use stockmesh_proto::wire::{BatchRecord, PushShard, ShardRecord};
use stockmesh_proto::{ReplicaId, ShardIndex, Sku, VersionVector};

use super::OwnWrites;
use crate::table::Table;

/// The slots and claims of a group that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    shards: BTreeMap<ShardIndex, ShardGathered>,
    own: BTreeMap<ShardIndex, ShardWrites>,
    origin: Option<ReplicaId>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct ShardGathered {
    products: BTreeMap<Sku, Product>,
    version: VersionVector,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// About how much the record will take, never too low.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Slots that changed something.
    pub(super) fn add_slots<'a>(&mut self, shard: ShardIndex, products: impl Iterator<Item = &'a (Sku, Product)>) {
        let gathered = self.shards.entry(shard).or_default();
        for (sku, product) in products {
            self.bytes += bytes_max(sku, product);
            match gathered.products.get_mut(sku) {
                Some(known) => known.absorb(product),
                None => {
                    gathered.products.insert(sku.clone(), product.clone());
                }
            }
        }
    }

    /// Entries of the version vector that advanced, in the same record as their slots (rule D3).
    pub(super) fn add_claim(&mut self, shard: ShardIndex, version: &VersionVector) {
        self.shards.entry(shard).or_default().version.join(version);
    }

    /// Own writes, also kept apart to be pushed as they were committed (rule P1).
    pub(super) fn add_own(&mut self, origin: ReplicaId, shard: ShardIndex, writes: ShardWrites) {
        if self.origin.replace(origin).is_some_and(|before| before != origin) {
            // A new incarnation within the group: what went before is left to reconciliation.
            self.own.clear();
        }
        match self.own.get_mut(&shard) {
            None => {
                self.own.insert(shard, writes);
            }
            Some(known) => {
                // Operations of one group follow each other without a gap.
                known.to = writes.to;
                for (sku, product) in writes.products {
                    known.products.entry(sku).or_default().absorb(&product);
                }
            }
        }
    }

    /// The products that changed.
    pub(super) fn changed(&self) -> Vec<Sku> {
        self.shards.values().flat_map(|shard| shard.products.keys().cloned()).collect()
    }

    /// The record of the journal, with each touched shard's fingerprint as it is now.
    pub(super) fn record(&mut self, number: u64, clock: Stamp, table: &Table) -> BatchRecord {
        let shards = std::mem::take(&mut self.shards).into_iter().map(|(shard, gathered)| ShardRecord {
            shard,
            products: gathered.products.into_iter().collect(),
            version: gathered.version,
            fingerprint: table.read(shard, |state| state.fingerprint()).unwrap_or_default(),
        });
        BatchRecord { number, clock, shards: shards.collect() }
    }

    /// The own writes, to be pushed once they are durable.
    pub(super) fn own_writes(&mut self) -> Option<OwnWrites> {
        let own = std::mem::take(&mut self.own).into_iter().map(|(shard, writes)| {
            let (from, to) = (writes.from, writes.to);
            PushShard { shard, from, to, products: writes.into_products() }
        });
        Some(OwnWrites { origin: self.origin?, shards: own.collect() })
    }
}
