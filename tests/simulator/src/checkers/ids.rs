//! No two nodes write under one id, and no node takes another's.

use std::collections::BTreeMap;

use stockmesh::ReplicaId;

use super::Checker;
use crate::copies::Copied;
use crate::world::World;

pub(super) struct Ids;

impl Ids {
    fn look(world: &World) -> Result<(), String> {
        let mut seen: BTreeMap<ReplicaId, u16> = BTreeMap::new();
        let shared: Vec<ReplicaId> = world.nodes.iter().flat_map(|node| node.shared_ids.iter().copied()).collect();
        for (node, store) in world.up() {
            let status = store.status();
            for id in status.former_replicas.into_iter().chain([status.replica]).filter(|id| !shared.contains(id)) {
                if let Some(other) = seen.insert(id, node).filter(|other| *other != node) {
                    return Err(format!("nodes {other} and {node} have both written under {id}"));
                }
            }
        }
        Ok(())
    }
}

/// No two write under one id now. Those that do cannot agree either, so this is asked there too.
pub(super) fn apart(world: &World) -> Result<(), String> {
    let mut present: BTreeMap<ReplicaId, u16> = BTreeMap::new();
    for (node, store) in world.up() {
        if let Some(other) = present.insert(store.replica_id(), node) {
            return Err(format!("nodes {other} and {node} still write under {}", store.replica_id()));
        }
    }
    Ok(())
}

impl Checker for Ids {
    fn name(&self) -> &'static str {
        "ids"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_opening(&mut self, world: &World, node: u16) -> Result<(), String> {
        let Some(node) = world.nodes.iter().find(|known| known.number == node) else { return Ok(()) };
        match (node.told_copy_of, &node.store) {
            (Some(former), Some(store)) if store.replica_id() == former => {
                Err(format!("node {} was told of its old copy, and goes on under the same id {former}", node.number))
            }
            _ => Ok(()),
        }
    }

    /// Who has seen its own future by now has a new id.
    fn at_end(&mut self, world: &World) -> Result<(), String> {
        for node in &world.nodes {
            if let (Some(copied), Some(store)) = (node.copied, &node.store)
                && store.replica_id() == copied.replica
            {
                let (number, Copied { replica, witness }) = (node.number, copied);
                return Err(format!(
                    "node {number} goes on as {replica} from an old copy, and node {witness} knew more"
                ));
            }
        }
        // Both of two that had one directory have written by now.
        apart(world)?;
        Self::look(world)
    }
}
