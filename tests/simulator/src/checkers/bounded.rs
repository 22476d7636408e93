//! No node takes more than its share: links stay within the budget, and memory within what the limits allow.

use super::{Broken, Checker};
use crate::world::World;

/// Links that somebody asked for come on top of the budget, as do those that are not yet known to be too many.
const LINKS_BEYOND_BUDGET_MAX: usize = 32;

/// What a node may take of memory here, with all that is on its way to it: the state is tiny, its disks are in memory, and
/// what waits for a peer is bounded by the queues of pushes and merges.
const BYTES_PER_NODE_MAX: u64 = 48 << 20;

pub(super) struct Bounded;

impl Bounded {
    fn look(world: &World) -> Result<(), String> {
        for (node, store) in world.up() {
            let status = store.status();
            let links = status.peers.iter().filter(|peer| peer.state == stockmesh::LinkState::Up).count();
            let most = world.plan.links + LINKS_BEYOND_BUDGET_MAX;
            if links > most {
                return Err(format!("node {node} has {links} links, {most} at the most were expected"));
            }
        }
        Ok(())
    }
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}

/// Looks at the most memory that a whole run took.
///
/// # Errors
/// If it was more than its nodes may take.
pub fn memory(bytes_max: u64, nodes: usize) -> Result<(), Broken> {
    let most = BYTES_PER_NODE_MAX * u64::try_from(nodes).unwrap_or(u64::MAX);
    if bytes_max <= most {
        return Ok(());
    }
    Err(Broken { checker: "bounded", what: format!("{bytes_max} bytes of memory for {nodes} nodes, at most {most}") })
}
