//! Never oversold: a product that no fact ever touched has no less than nothing available, anywhere.

use super::Checker;
use crate::plan::is_guarded;
use crate::world::World;

pub(super) struct Oversold;

impl Checker for Oversold {
    fn name(&self) -> &'static str {
        "oversold"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        // What was received and then lost with a directory may have been sold meanwhile.
        if world.nodes.iter().any(|node| node.was_set_back) {
            return Ok(());
        }
        for (node, store) in world.up() {
            for view in store.query().iter().filter(|view| is_guarded(view.sku().as_str())) {
                for (location, stock) in view.by_location() {
                    if stock.available() < 0 || stock.oversold > 0 {
                        return Err(format!("node {node}: {} at {location}: {stock:?}", view.sku()));
                    }
                }
            }
        }
        Ok(())
    }
}
