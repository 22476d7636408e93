//! The price that all agree on is one that was set, and none that an acknowledged one certainly came after: at the same
//! node, or at one that had seen it. None that was acknowledged has a greater stamp.

use stockmesh::Store;

use super::Checker;
use crate::books::{Known, Write};
use crate::operations::cents_of;
use crate::world::World;

pub(super) struct Registers;

impl Checker for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let writes = world.books.writes();
        world.up().iter().try_for_each(|(node, store)| check(world, &writes, (*node, store)))
    }
}

fn check(world: &World, writes: &[Write], (node, store): (u16, &Store)) -> Result<(), String> {
    let was_set_back = |node: u16| world.nodes.iter().any(|known| known.number == node && known.was_set_back);
    for view in store.query().iter() {
        let sku = view.sku().as_str();
        let of_product = |write: &&Write| write.price.as_ref().is_some_and(|(of, ..)| of == sku);
        let all: Vec<&Write> = writes.iter().filter(of_product).collect();
        let shown = view.price().map(cents_of);
        let stamp = store.price_written(sku).map(|(_, stamp, _)| stamp);
        if let Some(greater) = all.iter().find(|write| write.known == Known::Done && write.stamp > stamp) {
            let (cents, greater) = (cents(greater), greater.stamp);
            return Err(format!(
                "{sku} has a price of stamp {stamp:?} at node {node}, though {cents:?} cents have {greater:?}"
            ));
        }
        let found = all.iter().find(|write| cents(write) == shown);
        let Some(found) = found else {
            if shown.is_some() || all.iter().any(|write| write.known == Known::Done) {
                return Err(format!("node {node} shows {shown:?} cents for {sku}, which nobody set"));
            }
            continue;
        };
        let later = all.iter().filter(|write| write.known == Known::Done && write.heard.is_some()).find(|write| {
            let same_node = write.node == found.node && found.heard.is_some_and(|heard| heard < write.begun);
            let had_seen = write.price.as_ref().is_some_and(|(_, _, seen)| *seen == shown);
            (same_node && !was_set_back(write.node)) || had_seen
        });
        if let Some(later) = later {
            return Err(format!("{sku} shows {shown:?} cents, though {:?} was acknowledged later", cents(later)));
        }
    }
    Ok(())
}

fn cents(write: &Write) -> Option<u64> {
    write.price.as_ref().map(|(_, cents, _)| *cents)
}
