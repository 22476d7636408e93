//! Version vectors are never ahead of the state, on disk least of all: else a slot would have to be repaired that was
//! claimed. No disk here takes damage, so there is no excuse for one.

use super::Checker;
use crate::world::World;

pub(super) struct OnDisk;

impl OnDisk {
    fn look(world: &World) -> Result<(), String> {
        // Two histories under one id look like damage.
        if world.nodes.iter().any(|node| node.was_cloned) {
            return Ok(());
        }
        for (node, store) in world.up() {
            let doubt = store.status().shards_in_doubt;
            if !doubt.is_empty() {
                return Err(format!("node {node} had claimed slots that it lacked, in shards {doubt:?}"));
            }
        }
        Ok(())
    }
}

impl Checker for OnDisk {
    fn name(&self) -> &'static str {
        "on disk"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}
