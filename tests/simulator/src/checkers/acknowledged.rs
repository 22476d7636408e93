//! No acknowledged write is lost: what a node counted under its own id is there when it is opened again, and at the end.

use stockmesh::Store;

use super::{Checker, counts};
use crate::world::World;

pub(super) struct Acknowledged;

impl Checker for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn at_opening(&mut self, world: &World, node: u16) -> Result<(), String> {
        let nodes = world.up();
        let Some((_, store)) = nodes.iter().find(|(number, _)| *number == node) else { return Ok(()) };
        check(world, (node, store), store)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let nodes = world.up();
        let Some((_, reader)) = nodes.first() else { return Ok(()) };
        nodes.iter().try_for_each(|(node, store)| check(world, (*node, store), reader))
    }
}

/// Holds what `reader` knows of a node's own counts against the books.
fn check(world: &World, (node, store): (u16, &Store), reader: &Store) -> Result<(), String> {
    let own = store.replica_id();
    let found = counts(reader, own);
    let expected = world.books.of_replica(own, node);
    for (sku, sum) in &expected {
        let units = found.get(sku).copied().unwrap_or_default();
        // A node that was set back has written under several ids.
        if !sum.allows(units) && !world.nodes.iter().any(|known| known.number == node && known.was_set_back) {
            return Err(format!("node {node} counted {units} of {sku} under {own}, expected {sum:?}"));
        }
    }
    Ok(())
}
