//! A replica with a disk: what it has in memory, and what a crash brings back. And whole clusters of them.

use std::sync::Arc;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::product::Product;

use crate::check::Fault;
use crate::conversation::{heal, reconcile};
use crate::replica::{Replica, sku};

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Node {
    pub(crate) memory: Arc<Replica>,
    pub(crate) disk: Arc<Replica>,
}

impl Node {
    pub(crate) fn of(replica: Replica) -> Self {
        let memory = Arc::new(replica);
        Self { disk: memory.clone(), memory }
    }

    pub(crate) fn new(index: usize) -> Self {
        Self::of(Replica::new(index))
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.memory.id
    }

    pub(crate) fn is_durable(&self) -> bool {
        Arc::ptr_eq(&self.memory, &self.disk)
    }

    /// One transaction: slots, vector, clock and books (rules D3, D6).
    pub(crate) fn sync(&mut self) {
        self.disk = self.memory.clone();
    }

    pub(crate) fn crash(&mut self) {
        self.memory = self.disk.clone();
    }

    pub(crate) fn put(&mut self, replica: Replica) {
        // What changed nothing is no news for the disk.
        if replica != *self.memory {
            self.memory = Arc::new(replica);
        }
    }
}

/// Two nodes reconcile, from the beginning to the end. What a side read is durable before it leaves (rule R8).
pub(crate) fn meet(nodes: &mut [Node], left: usize, right: usize) -> Result<(), Fault> {
    let (mut opener, mut replier) = (Replica::clone(&nodes[left].memory), Replica::clone(&nodes[right].memory));
    reconcile(&mut opener, &mut replier)?;
    nodes[left].put(opener);
    nodes[right].put(replier);
    nodes[left].sync();
    nodes[right].sync();
    Ok(())
}

/// All links are back and all disks written. Returns what they then hold in common.
pub(crate) fn healed<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<Replica, Fault> {
    let mut replicas: Vec<Replica> = nodes.map(|node| Replica::clone(&node.memory)).collect();
    heal(&mut replicas, true)?;
    replicas.pop().ok_or_else(|| Fault::new("model", "nobody is left"))
}

/// Rule R8: what anybody holds of a replica's writes is on that replica's own disk, so that no crash takes it back.
pub(crate) fn nothing_left_before_it_was_durable(nodes: &[Node]) -> Result<(), Fault> {
    for writer in nodes {
        let durable = writer.disk.shard.version().get(writer.id());
        for node in nodes.iter().filter(|node| node.id() != writer.id()) {
            let product = node.memory.product(&sku("A"));
            let of_writer = |product: &Product| {
                let ahead = product.slots().map(|slot| slot.dot()).filter(|dot| dot.replica == writer.id());
                ahead.map(|dot| dot.sequence).max().unwrap_or_default()
            };
            if of_writer(&product) > durable {
                let text = format!("{} holds what {} may still lose", node.id(), writer.id());
                return Err(Fault::new("R8", text));
            }
        }
    }
    Ok(())
}
