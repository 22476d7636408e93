//! No own write is elsewhere before it is durable: else a node that lost it would meet its own future after a crash, and
//! take a new id. Nodes that are set back to an old copy are told so when they are opened, and take one at once.

use std::collections::BTreeMap;

use stockmesh::ReplicaId;

use super::Checker;
use crate::world::World;

pub(super) struct DurableFirst;

impl DurableFirst {
    fn look(world: &World) -> Result<(), String> {
        for (node, store) in world.up() {
            // With an old copy that it was not told of, or after it was retired, it must.
            if world.nodes.iter().any(|known| known.number == node && known.was_set_back) {
                continue;
            }
            if let Some(taken) = store.status().incarnations.first() {
                return Err(format!("node {node} met its own future, and took a new id: {taken:?}"));
            }
        }
        Ok(())
    }
}

impl Checker for DurableFirst {
    fn name(&self) -> &'static str {
        "durable first"
    }

    /// What others have of a node it has found on its disk.
    fn at_opening(&mut self, world: &World, node: u16) -> Result<(), String> {
        let opened = world.nodes.iter().find(|known| known.number == node && !known.was_set_back);
        let Some(store) = opened.and_then(|opened| opened.store.as_ref()) else { return Ok(()) };
        let (replica, own) = (store.replica_id(), store.version_vectors());
        for (other, theirs) in world.up() {
            for (shard, (own, theirs)) in own.iter().zip(theirs.version_vectors()).enumerate() {
                let of = |vector: &BTreeMap<ReplicaId, u64>| vector.get(&replica).copied().unwrap_or_default();
                if of(&theirs) > of(own) {
                    let (theirs, own) = (of(&theirs), of(own));
                    return Err(format!(
                        "node {other} has {theirs} writes of node {node} in shard {shard}, itself has {own}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}
