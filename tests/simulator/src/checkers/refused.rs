//! A write that was refused is nowhere to be seen. Prices are each set once, so each can be told from all others.

use std::collections::BTreeSet;

use super::Checker;
use crate::books::Known;
use crate::operations::cents_of;
use crate::world::World;

pub(super) struct Refused;

impl Refused {
    fn look(world: &World) -> Result<(), String> {
        let writes = world.books.writes();
        let refused: BTreeSet<u64> = writes
            .iter()
            .filter(|write| write.known == Known::Refused)
            .filter_map(|write| write.price.as_ref().map(|(_, cents, _)| *cents))
            .collect();
        for (node, store) in world.up() {
            for view in store.query().iter() {
                if let Some(cents) = view.price().map(cents_of).filter(|cents| refused.contains(cents)) {
                    return Err(format!("node {node} shows {cents} cents for {}, which was refused", view.sku()));
                }
            }
        }
        Ok(())
    }
}

impl Checker for Refused {
    fn name(&self) -> &'static str {
        "refused"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        Self::look(world)
    }
}
