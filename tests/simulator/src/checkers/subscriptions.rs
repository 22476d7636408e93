//! A subscriber was told of each change: what it saw last of each product is what the store shows, and of stock that runs
//! out and is back it is told in turns.

use super::Checker;
use crate::watching::Told;
use crate::world::World;

pub(super) struct Subscriptions;

impl Checker for Subscriptions {
    fn name(&self) -> &'static str {
        "subscriptions"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        for node in &world.nodes {
            let (Some(store), Some(watched)) = (&node.store, &node.watched) else { continue };
            let told = watched.told();
            for view in store.query().iter() {
                let (present, last) = (Told::of(&view), told.get(view.sku().as_str()));
                if last != Some(&present) {
                    let number = node.number;
                    return Err(format!("node {number}: {} is {present:?}, last told was {last:?}", view.sku()));
                }
            }
            watched.crossings().check(store).map_err(|fault| format!("node {}: {fault}", node.number))?;
        }
        Ok(())
    }
}
