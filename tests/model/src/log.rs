//! The log of all writes ever made, against which the promise of version vectors is held.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stockmesh_proto::delta::Products;
use stockmesh_proto::operation::Evaluation;
use stockmesh_proto::{Fingerprint, ReplicaId};

use crate::check::Fault;
use crate::replica::Replica;

/// One write, as it was committed: its slots, and the sum of their hashes, which names them.
#[derive(Debug)]
struct Write {
    slots: Products,
    sum: Fingerprint,
}

/// All writes by writer; the n-th of a list has sequence n + 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Vec<(ReplicaId, Vec<Arc<Write>>)>);

impl Log {
    fn of(&self, writer: ReplicaId) -> &[Arc<Write>] {
        self.0.iter().find(|(known, _)| *known == writer).map_or(&[], |(_, writes)| writes)
    }

    fn of_mut(&mut self, writer: ReplicaId) -> &mut Vec<Arc<Write>> {
        let index = self.0.partition_point(|(known, _)| *known < writer);
        if self.0.get(index).is_none_or(|(known, _)| *known != writer) {
            self.0.insert(index, (writer, Vec::new()));
        }
        &mut self.0[index].1
    }

    pub(crate) fn note(&mut self, writer: ReplicaId, evaluation: &Evaluation) {
        for writes in evaluation.shards.values() {
            for sequence in writes.from..=writes.to {
                let (mut slots, mut sum) = (Vec::new(), Fingerprint::EMPTY);
                for (sku, product) in writes.products.iter() {
                    // A write that a later one of its request superseded leaves no slot of its own (rule P1).
                    let slot = product.filtered(&mut |slot| slot.dot().sequence == sequence);
                    sum = slot.slots().fold(sum, |sum, slot| sum.plus(slot.hash(sku.as_str())));
                    if !slot.is_empty() {
                        slots.push((sku.clone(), slot));
                    }
                }
                self.of_mut(writer).push(Arc::new(Write { slots, sum }));
            }
        }
    }

    /// Forgets the writes of a replica that a crash took back.
    pub(crate) fn truncate(&mut self, writer: ReplicaId, durable: u64) {
        self.of_mut(writer).truncate(usize::try_from(durable).unwrap());
        // One that wrote nothing and one that is not named are the same.
        self.0.retain(|(_, writes)| !writes.is_empty());
    }

    /// The promise of section 1: what a vector covers is contained or superseded.
    fn check_claims(&self, replica: &Replica) -> Result<(), Fault> {
        for (writer, claimed) in replica.shard.version().iter() {
            let (writes, claimed) = (self.of(writer), usize::try_from(claimed).unwrap());
            if claimed > writes.len() {
                let text = format!("{} claims {claimed} of {} writes of {writer}", replica.id, writes.len());
                return Err(Fault::new("claims", text));
            }
            for (sequence, write) in (1..).zip(&writes[..claimed]) {
                if !write.slots.iter().all(|(sku, slot)| holds(replica, sku.as_str(), slot)) {
                    let text = format!("{} claims write {sequence} of {writer} and lacks it", replica.id);
                    return Err(Fault::new("claims", text));
                }
            }
        }
        Ok(())
    }

    /// What must hold of a replica after each step that is no crash: no vector goes back, none claims too much, and the
    /// sum that is kept up is the sum computed anew (rule F1).
    pub(crate) fn audit(&self, before: &Replica, after: &Replica) -> Result<(), Fault> {
        if !after.shard.version().dominates(before.shard.version()) {
            return Err(Fault::new("vector", format!("the vector of {} goes back", after.id)));
        }
        if after.shard.fingerprint() != after.shard.fingerprint_recomputed() {
            return Err(Fault::new("F1", format!("the fingerprint of {} is not that of its slots", after.id)));
        }
        after.check_repaired()?;
        self.check_claims(after)
    }
}

/// Whether joining a slot would change nothing: it is contained or superseded.
fn holds(replica: &Replica, sku: &str, slot: &stockmesh_proto::product::Product) -> bool {
    let mut product = replica.shard.get(sku).map(|keyed| keyed.product.clone()).unwrap_or_default();
    let mut is_changed = false;
    product.join(slot, sku, &mut |_| is_changed = true);
    !is_changed
}

impl Hash for Log {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (writer, writes) in &self.0 {
            (writer, writes.len()).hash(state);
            writes.iter().for_each(|write| write.sum.bits().hash(state));
        }
    }
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        let sums = |log: &Self| -> Vec<_> {
            let of = |(writer, writes): &(ReplicaId, Vec<Arc<Write>>)| {
                (*writer, writes.iter().map(|write| write.sum).collect::<Vec<_>>())
            };
            log.0.iter().map(of).collect()
        };
        sums(self) == sums(other)
    }
}
