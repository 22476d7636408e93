//! No node takes more than its share: links stay within the budget, and memory within what the limits allow.

use std::collections::BTreeMap;

use stockmesh::LinkState;

use super::{Broken, Checker};
use crate::world::World;

/// Links that somebody asked for come on top of what a node keeps.
const LINKS_ASKED_FOR_MAX: usize = 28;
/// For how many looks in a row there may be more: whoever is dialled by all at once lets them know each other first.
const LOOKS_MAX: u32 = 12;

/// What a node may take of memory here, with all that is on its way to it: the state is tiny, its disks are in memory, and
/// what waits for a peer is bounded by the queues of pushes and merges.
const BYTES_PER_NODE_MAX: u64 = 4 << 20;
/// And each end of a link, with its buffers, so much.
const BYTES_PER_LINK_MAX: u64 = 128 << 10;

#[derive(Default)]
pub(super) struct Bounded {
    /// How often in a row each node had too many links.
    looks: BTreeMap<u16, u32>,
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        // Half as many again as the budget, since how many come in is up to chance (rule T4).
        let most = world.plan.links + world.plan.links / 2 + 2 + LINKS_ASKED_FOR_MAX;
        let mut looks = BTreeMap::new();
        for (node, store) in world.up() {
            let links = store.status().peers.iter().filter(|peer| peer.state == LinkState::Up).count();
            if links <= most {
                continue;
            }
            let before = self.looks.get(&node).copied().unwrap_or_default();
            if before >= LOOKS_MAX {
                return Err(format!("node {node} goes on with {links} links, at most {most} were expected"));
            }
            looks.insert(node, before + 1);
        }
        self.looks = looks;
        Ok(())
    }
}

/// Looks at the most memory that a whole run took.
///
/// # Errors
/// If it was more than its nodes may take.
pub fn memory(bytes_max: u64, nodes: usize, links: usize) -> Result<(), Broken> {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let links = count((links + links / 2 + 2).min(nodes.saturating_sub(1)));
    let most = (BYTES_PER_NODE_MAX + links * BYTES_PER_LINK_MAX) * count(nodes);
    if bytes_max <= most {
        return Ok(());
    }
    Err(Broken { checker: "bounded", what: format!("{bytes_max} bytes of memory for {nodes} nodes, at most {most}") })
}
