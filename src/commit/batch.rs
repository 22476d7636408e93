//! What one group commit changes, gathered shard by shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use stockmesh_proto::delta::bytes_max;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::operation::{Evaluation, ShardWrites, Written};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::wire::{BatchRecord, PushShard, ShardRecord};
use stockmesh_proto::{ReplicaId, ShardIndex, Sku, VersionVector};

use super::OwnWrites;
use super::side::Side;
use crate::limits::RECORD_BYTES_TARGET;
use crate::subscribe::{Available, ProductChange};
use crate::table::Table;

/// The slots and claims of a group that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    shards: BTreeMap<ShardIndex, ShardGathered>,
    own: BTreeMap<ShardIndex, ShardWrites>,
    origin: Option<ReplicaId>,
    bytes: usize,
    /// Products before the group, if anybody wants to compare.
    before: BTreeMap<Sku, Option<Arc<KeyedProduct>>>,
    /// Holds and the ledger.
    pub(super) side: Side,
}

#[derive(Debug, Default)]
struct ShardGathered {
    products: Written,
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
    pub(super) fn add_slots<'a>(&mut self, shard: ShardIndex, products: impl Iterator<Item = (&'a Sku, &'a Product)>) {
        let gathered = self.shards.entry(shard).or_default();
        for (sku, product) in products {
            self.bytes += bytes_max(sku, product);
            gathered.products.absorb(sku, product);
        }
    }

    /// What a request did besides its slots.
    pub(super) fn add_side(&mut self, own: ReplicaId, evaluation: Evaluation, forgotten: Vec<HoldId>, now_ms: u64) {
        self.bytes += self.side.add(own, evaluation, forgotten, now_ms);
    }

    /// Entries of the version vector that advanced, in the same record as their slots (rule D3).
    pub(super) fn add_claim(&mut self, shard: ShardIndex, version: &VersionVector) {
        self.shards.entry(shard).or_default().version.join(version);
    }

    /// The same of one replica.
    pub(super) fn add_claim_of(&mut self, shard: ShardIndex, replica: ReplicaId, sequence: u64) {
        self.shards.entry(shard).or_default().version.advance(replica, sequence);
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
                for (sku, product) in writes.products.iter() {
                    known.products.absorb(sku, product);
                }
            }
        }
    }

    /// Keeps products as they are before the group changes them, for those who watch for stock that runs low.
    pub(super) fn note_before(&mut self, products: &[(Sku, Product)], table: &Table) {
        for (sku, _) in products {
            if !self.before.contains_key(sku) {
                self.before.insert(sku.clone(), table.get(sku.as_str()));
            }
        }
    }

    /// The products that changed.
    pub(super) fn changed(&mut self, table: &Table) -> Vec<ProductChange> {
        let mut before = std::mem::take(&mut self.before);
        let skus = self.shards.values().flat_map(|shard| shard.products.iter().map(|(sku, _)| sku));
        let change = |sku: &Sku| {
            let versions = before.remove(sku).zip(table.get(sku.as_str()));
            let available = versions.map(|(before, after)| Available::compare(before.as_deref(), &after));
            ProductChange { sku: sku.clone(), available }
        };
        skus.map(change).collect()
    }

    /// The record of the journal, with each touched shard's fingerprint as it is now.
    pub(super) fn record(&mut self, number: u64, clock: Stamp, table: &Table) -> BatchRecord {
        let mut shards = Vec::new();
        for (shard, gathered) in std::mem::take(&mut self.shards) {
            let fingerprint = table.read(shard, |state| state.fingerprint()).unwrap_or_default();
            let open = |products| ShardRecord { shard, products, version: VersionVector::new(), fingerprint };
            let (mut products, mut bytes) = (Vec::new(), 0);
            for (sku, product) in gathered.products.into_products() {
                let size = bytes_max(&sku, &product);
                if bytes + size > RECORD_BYTES_TARGET && !products.is_empty() {
                    shards.push(open(std::mem::take(&mut products)));
                    bytes = 0;
                }
                bytes += size;
                products.push((sku, product));
            }
            shards.push(ShardRecord { version: gathered.version, ..open(products) });
        }
        BatchRecord { number, clock, shards }
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

#[cfg(test)]
mod tests {
    use super::*;
    use stockmesh_proto::ShardCount;
    use stockmesh_proto::hlc::Stamp as RegisterStamp;
    use stockmesh_proto::id::Dot;
    use stockmesh_proto::register::Register;

    /// Whatever a group gathers, its record can be read again.
    #[test]
    fn a_record_of_many_products_is_cut_so_that_it_reads_back() {
        let (replica, shard) = (ReplicaId::from_random(1), ShardIndex(0));
        let table = Table::new(ShardCount::new(1).unwrap(), replica, 0);
        let listed = |number: u64| {
            let dot = Dot { replica, sequence: number + 1 };
            let register = Register { value: true, stamp: RegisterStamp::default(), dot };
            (Sku::new(&format!("{number:05}")).unwrap(), Product::of_listed(register))
        };
        let products: Vec<_> = (0..70_000).map(listed).collect();
        let mut gathered = Gathered::default();
        gathered.add_slots(shard, products.iter().map(|(sku, product)| (sku, product)));
        gathered.add_claim(shard, &[(replica, 70_000)].into_iter().collect());
        let record = gathered.record(1, Stamp::default(), &table);
        let read = BatchRecord::decode(&record.encode().unwrap()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.shards.iter().map(|part| part.products.len()).sum::<usize>(), 70_000);
        let claims: Vec<bool> = read.shards.iter().map(|part| !part.version.is_empty()).collect();
        assert_eq!(claims.iter().position(|claims| *claims), Some(claims.len() - 1), "the claim comes last");
    }
}
