//! No own write is elsewhere before it is durable: else a node that lost it would meet its own future after a crash, and
//! take a new id. Nodes that are set back to an old copy are told so when they are opened, and take one at once.

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

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}
