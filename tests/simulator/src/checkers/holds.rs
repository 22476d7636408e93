//! What is held is what the nodes' holds say, no more and no less, and no hold outlives its time.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use stockmesh::simulation;

use super::Checker;
use crate::books::Place;
use crate::world::World;

/// How long a node may take to release what has expired.
const EXPIRY_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) struct Holds;

impl Checker for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    /// Holds that were given are known after a restart, also those that have expired meanwhile.
    fn at_opening(&mut self, world: &World, node: u16) -> Result<(), String> {
        let opened = world.nodes.iter().find(|known| known.number == node && !known.was_set_back);
        let Some(store) = opened.and_then(|opened| opened.store.as_ref()) else { return Ok(()) };
        match world.books.holds_of(node).into_iter().find(|id| store.hold(*id).is_none()) {
            Some(lost) => Err(format!("node {node} has forgotten its hold {lost}")),
            None => Ok(()),
        }
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        // The holds of an id that was left stay with it.
        if world.nodes.iter().any(|node| node.was_set_back) {
            return Ok(());
        }
        // The holds of a dead node stay until somebody takes over for it.
        if world.nodes.iter().any(|node| node.is_dead && !world.books.was_retired(node.number)) {
            return Ok(());
        }
        let mut given: BTreeMap<Place, i128> = BTreeMap::new();
        let nodes = world.up();
        for (number, store) in &nodes {
            let now = UNIX_EPOCH + Duration::from_millis(simulation::wall_ms(u32::from(*number)).unwrap_or_default());
            for hold in store.holds() {
                if hold.expires_at() + EXPIRY_TIME_MAX < now {
                    return Err(format!("node {number}: {} has expired and is held all the same", hold.id()));
                }
                let place = (hold.sku().to_string(), hold.location().to_string());
                *given.entry(place).or_default() += i128::from(hold.units());
            }
        }
        for (number, store) in &nodes {
            for view in store.query().iter() {
                for (location, stock) in view.by_location() {
                    let place = (view.sku().to_string(), location.to_string());
                    let expected = given.get(&place).copied().unwrap_or_default();
                    if stock.held != expected {
                        return Err(format!(
                            "node {number}: {} of {place:?} are held, the holds say {expected}",
                            stock.held
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
