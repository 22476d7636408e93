//! Never oversold: a product that no fact ever touched has no less than nothing available, anywhere.

use std::collections::BTreeMap;

use super::Checker;
use crate::books::Place;
use crate::plan::is_guarded;
use crate::world::{Node, World};

pub(super) struct Oversold;

impl Checker for Oversold {
    fn name(&self) -> &'static str {
        "oversold"
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        sold_in_time(world)?;
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

/// At no time was more sold than had been received by then, whatever was received later and whatever was lost since.
fn sold_in_time(world: &World) -> Result<(), String> {
    // Two histories of one id sell the same twice, as does the heir of one that was not dead; and what the dead alone had sold,
    // nobody knows.
    let is_excused = |node: &Node| node.was_cloned || node.has_returned || world.books.was_retired(node.number);
    if world.nodes.iter().any(is_excused) {
        return Ok(());
    }
    let mut moves: Vec<(u64, Place, i128)> = Vec::new();
    for write in world.books.writes() {
        for (place, units) in write.stock.iter().filter(|(place, _)| is_guarded(&place.0)) {
            // What came in counts as soon as it was begun, what went out once its caller was told.
            let at = if *units > 0 { (!write.is_refused()).then_some(write.begun) } else { write.acknowledged };
            moves.extend(at.map(|at| (at, place.clone(), i128::from(*units))));
        }
    }
    moves.sort_by_key(|(at, ..)| *at);
    let mut sums: BTreeMap<Place, i128> = BTreeMap::new();
    for (_, place, units) in moves {
        let sum = sums.entry(place.clone()).or_default();
        *sum += units;
        if *sum < 0 {
            return Err(format!("{} more of {place:?} were sold than had been received by then", -*sum));
        }
    }
    Ok(())
}
