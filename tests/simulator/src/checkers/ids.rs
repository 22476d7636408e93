//! No two nodes write under one id, and no node takes another's.

use std::collections::BTreeMap;

use stockmesh::ReplicaId;

use super::Checker;
use crate::world::World;

pub(super) struct Ids;

impl Ids {
    fn look(world: &World) -> Result<(), String> {
        let mut seen: BTreeMap<ReplicaId, u16> = BTreeMap::new();
        for (node, store) in world.up() {
            let status = store.status();
            for id in status.former_replicas.into_iter().chain([status.replica]) {
                if let Some(other) = seen.insert(id, node).filter(|other| *other != node) {
                    return Err(format!("nodes {other} and {node} have both written under {id}"));
                }
            }
        }
        Ok(())
    }
}

impl Checker for Ids {
    fn name(&self) -> &'static str {
        "ids"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}
