//! A store takes writes for as long as its disks take them.

use stockmesh::Durability;

use super::Checker;
use crate::world::World;

pub(super) struct Healthy;

fn look(world: &World) -> Result<(), String> {
    for node in &world.nodes {
        let Some(store) = &node.store else { continue };
        if let Durability::Poisoned { cause } = store.status().durability
            && !node.disks.have_failed()
        {
            return Err(format!("node {} takes no more writes, though its disks are good: {cause}", node.number));
        }
    }
    Ok(())
}

impl Checker for Healthy {
    fn name(&self) -> &'static str {
        "healthy"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        look(world)
    }
}
