//! What is on hand of each product at each location is the sum of all acknowledged writes and of some of those whose fate
//! nobody was told, and of none that was refused: the condition of Maelstrom's workload `pn-counter`.

use std::collections::BTreeMap;

use super::Checker;
use crate::books::Place;
use crate::world::World;

pub(super) struct Validity;

impl Checker for Validity {
    fn name(&self) -> &'static str {
        "validity"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let expected = world.books.by_place();
        for (node, store) in world.up() {
            let mut found: BTreeMap<Place, i128> = BTreeMap::new();
            for view in store.query().iter() {
                for (location, stock) in view.by_location() {
                    found.insert((view.sku().to_string(), location.to_string()), stock.on_hand);
                }
            }
            for (place, sum) in &expected {
                let units = found.get(place).copied().unwrap_or_default();
                if !sum.allows(units) {
                    return Err(format!("node {node} has {units} of {place:?}, expected {sum:?}"));
                }
            }
            if let Some((place, units)) =
                found.iter().find(|(place, units)| **units != 0 && !expected.contains_key(*place))
            {
                return Err(format!("node {node} has {units} of {place:?}, which nobody ever wrote"));
            }
        }
        Ok(())
    }
}
