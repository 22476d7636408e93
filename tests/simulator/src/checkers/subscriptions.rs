//! A subscriber was told of each change: what it saw last of each product is what the store shows, and of stock that runs
//! out and is back it is told in turns. One that is away for long is told that it missed something, and then what there is.

use std::collections::BTreeMap;

use stockmesh::{Durability, Store};

use super::Checker;
use crate::watching::Told;
use crate::world::World;

/// Every how many looks the one that is away most of the time reads.
const SELDOM: u32 = 12;

#[derive(Default)]
pub(super) struct Subscriptions {
    looks: u32,
    /// What was not told at the last look, and what was told before it, by node and product. It may have been on its way.
    missing: BTreeMap<(u16, String), Missing>,
}

/// What there is, what was told last, and how often something was: what is told between two looks may have been the same.
type Missing = (Told, Option<Told>, u64);

/// Products that are not as they were told last.
fn differences(store: &Store, told: &BTreeMap<String, Told>) -> Vec<(String, Told)> {
    let present = store.query().iter().map(|view| (view.sku().to_string(), Told::of(&view)));
    present.filter(|(sku, present)| told.get(sku) != Some(present)).collect()
}

fn describe(node: u16, who: &str, missing: Vec<(String, Told)>, told: &BTreeMap<String, Told>) -> Result<(), String> {
    missing.into_iter().try_for_each(|(sku, present)| {
        Err(format!("node {node}: {sku} is {present:?}, {who} was told last {:?}", told.get(&sku)))
    })
}

impl Checker for Subscriptions {
    fn name(&self) -> &'static str {
        "subscriptions"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        self.looks += 1;
        let mut missing = BTreeMap::new();
        for node in &world.nodes {
            let (Some(store), Some(watched)) = (&node.store, &node.watched) else { continue };
            if self.looks.is_multiple_of(SELDOM) {
                // What is told last may not be durable yet, and so be told later.
                let _ = watched.told_now();
            }
            // What was to be written when the disk failed is shown, and told to nobody.
            if store.status().durability != Durability::Synced {
                continue;
            }
            let told = watched.told();
            for (sku, present) in differences(store, &told) {
                let found = (present, told.get(&sku).cloned(), watched.tellings(&sku));
                let key = (node.number, sku);
                if self.missing.get(&key) == Some(&found) {
                    return Err(format!("node {}: {} is {:?} for long, told was {:?}", key.0, key.1, found.0, found.1));
                }
                missing.insert(key, found);
            }
        }
        self.missing = missing;
        Ok(())
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        for node in &world.nodes {
            let (Some(store), Some(watched)) = (&node.store, &node.watched) else { continue };
            let told = watched.told();
            describe(node.number, "a subscriber", differences(store, &told), &told)?;
            let (told, lags) = watched.told_now();
            describe(node.number, "who reads seldom", differences(store, &told), &told)?;
            world.trace.note(format_args!("node {}: who reads seldom has missed something {lags} times", node.number));
            watched.crossings().check(store).map_err(|fault| format!("node {}: {fault}", node.number))?;
        }
        Ok(())
    }
}
