//! Whether a product is listed is what the write of the greatest stamp says that was ever acknowledged, or one of which nobody
//! knows; and none that its node acknowledged before another one.

use stockmesh::Store;

use super::Checker;
use crate::books::{Known, Write};
use crate::world::World;

pub(super) struct Listings;

impl Checker for Listings {
    fn name(&self) -> &'static str {
        "listings"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let writes: Vec<Write> =
            world.books.writes().into_iter().filter(|write| write.listing.is_some() && !write.is_refused()).collect();
        world
            .up()
            .iter()
            .try_for_each(|(node, store)| check(world, &writes, store).map_err(|what| format!("node {node}: {what}")))
    }
}

fn check(world: &World, writes: &[Write], store: &Store) -> Result<(), String> {
    let was_set_back = |node: u16| world.nodes.iter().any(|known| known.number == node && known.was_set_back);
    for view in store.query().iter() {
        let sku = view.sku().as_str();
        let listing = |write: &Write| write.listing.as_ref().filter(|(of, _)| of == sku).map(|(_, listed)| *listed);
        let all: Vec<(bool, &Write)> = writes.iter().filter_map(|write| Some((listing(write)?, write))).collect();
        let Some((shown, stamp, by)) = store.listed_written(sku) else {
            if all.iter().any(|(_, write)| write.known == Known::Done) {
                return Err(format!("{sku} was listed, or taken off the list, and shows neither"));
            }
            continue;
        };
        let is_greater = |write: &Write| write.known == Known::Done && write.stamp > Some(stamp);
        if let Some((listed, greater)) = all.iter().find(|(_, write)| is_greater(write)) {
            let greater = greater.stamp;
            return Err(format!("{sku}: listed {shown} has stamp {stamp}, though {listed} has {greater:?}"));
        }
        // A write of which the stamp is not known may be the one.
        let may_be = |listed: bool, write: &Write| {
            let is_its_stamp = write.stamp.is_none_or(|of| of == stamp);
            listed == shown && is_its_stamp && write.replica.is_none_or(|replica| replica == by)
        };
        if !all.iter().any(|(listed, write)| may_be(*listed, write)) {
            return Err(format!("{sku}: listed {shown} with stamp {stamp} of {by}, which nobody wrote"));
        }
        let found = all.iter().find(|(_, write)| write.stamp == Some(stamp) && write.replica == Some(by));
        let is_later = |write: &Write| {
            let is_after = |heard: u64| heard < write.begun;
            let same_node =
                found.is_some_and(|(_, found)| found.node == write.node && found.heard.is_some_and(is_after));
            write.known == Known::Done && same_node && !was_set_back(write.node)
        };
        if let Some((listed, later)) = all.iter().find(|(_, write)| is_later(write)) {
            let node = later.node;
            return Err(format!("{sku}: listed {shown}, though node {node} acknowledged {listed} later"));
        }
    }
    Ok(())
}
