//! Brute force: the log of all writes ever made, against which every claim of a version vector is held.

use std::collections::BTreeMap;

use stockmesh_proto::operation::Evaluation;
use stockmesh_proto::product::Product;
use stockmesh_proto::{ReplicaId, ShardIndex, Sku};

use super::replica::Replica;

/// All writes by shard and writer; the n-th write of a list has sequence n + 1. A write that a later one of the same
/// batch superseded has no slot of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    writes: BTreeMap<(ShardIndex, ReplicaId), Vec<Write>>,
}

/// The slots that one write left behind.
type Write = Vec<(Sku, Product)>;

impl Log {
    /// Notes the writes of a batch.
    pub(crate) fn note(&mut self, writer: ReplicaId, evaluation: &Evaluation) {
        for (shard, writes) in &evaluation.shards {
            let log = self.writes.entry((*shard, writer)).or_default();
            assert_eq!(u64::try_from(log.len()).unwrap() + 1, writes.from, "sequences have no gap");
            for sequence in writes.from..=writes.to {
                let mut slots = Vec::new();
                for (sku, product) in writes.products.iter() {
                    let slot = product.filtered(&mut |slot| slot.dot().sequence == sequence);
                    if !slot.is_empty() {
                        slots.push((sku.clone(), slot));
                    }
                }
                log.push(slots);
            }
        }
    }

    /// Forgets the writes that a crash took back.
    pub(crate) fn truncate(&mut self, writer: &Replica) {
        for ((shard, replica), log) in &mut self.writes {
            if *replica == writer.id {
                log.truncate(usize::try_from(writer.shard(*shard).version().get(writer.id)).unwrap());
            }
        }
    }

    /// Every slot that a writer ever wrote, with its SKU.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (ShardIndex, ReplicaId, u64, &(Sku, Product))> {
        self.writes.iter().flat_map(|((shard, replica), log)| {
            (1..)
                .zip(log)
                .flat_map(move |(sequence, slots)| slots.iter().map(move |slot| (*shard, *replica, sequence, slot)))
        })
    }

    /// The first write that a replica claims and lacks, if any: what must never be.
    pub(crate) fn missing(&self, replica: &Replica) -> Option<String> {
        for shard in replica.count.indexes() {
            for (writer, claimed) in replica.shard(shard).version().iter() {
                let log = self.writes.get(&(shard, writer)).map_or(&[][..], Vec::as_slice);
                let claimed = usize::try_from(claimed).unwrap();
                if claimed > log.len() {
                    return Some(format!("{} claims {claimed} of {} writes of {writer}", replica.id, log.len()));
                }
                for (sequence, slots) in (1..).zip(&log[..claimed]) {
                    for (sku, slot) in slots {
                        if !holds(replica, shard, sku, slot) {
                            let holder = replica.id;
                            return Some(format!(
                                "{holder} lacks write {sequence} of {writer} in {shard}: {sku} {slot:?}"
                            ));
                        }
                    }
                }
            }
        }
        None
    }
}

/// Whether joining a slot would change nothing: it is contained or superseded.
pub(crate) fn holds(replica: &Replica, shard: ShardIndex, sku: &Sku, slot: &Product) -> bool {
    let mut product = replica.shard(shard).get(sku.as_str()).map(|product| Product::clone(product)).unwrap_or_default();
    let mut changed = false;
    product.join(slot, sku.as_str(), &mut |_| changed = true);
    !changed
}
