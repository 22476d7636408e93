//! How many slots does a merge take in per second, beside a plain map with a maximum?
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::{Location, ReplicaId, Shard, Sku};
use support::stores::sku;
use support::{Goal, Turns, timed};

/// About as many products as a shard of a large catalogue has.
const SHARD_PRODUCTS: usize = 4_000;
/// Products of one delta.
const DELTA_PRODUCTS: usize = 100;

type Plain = HashMap<(String, u64), [u64; 4]>;

fn main() {
    let options = support::start("How many slots does a merge take in per second, beside a plain map with a maximum?");
    let shards = options.size(64, 2);
    let (mut new, mut grown, mut repeated) = (Turns::default(), Turns::default(), Turns::default());
    for _ in 0..options.size(7, 2) {
        let mut states: Vec<Shard> = (0..shards).map(|_| Shard::new(7)).collect();
        let mut plain = Plain::new();
        // The same deltas twice: the second time nothing is news.
        for (turns, sequence) in [(&mut new, 1), (&mut grown, 2), (&mut repeated, 2)] {
            let deltas: Vec<Vec<Products>> = (0..shards).map(|shard| deltas(shard, sequence)).collect();
            let slots = (shards * SHARD_PRODUCTS) as f64;
            let (changed, value) = timed(|| merge(&mut states, &deltas));
            let ((), floor) = timed(|| merge_plainly(&mut plain, &deltas));
            let is_news = changed > 0;
            assert!(!is_news || changed == slots as u64, "a merge missed slots");
            turns.add(slots / value / 1e6, slots / floor / 1e6);
        }
        check(&states, &plain);
    }
    new.report("merge, new slots", "M/s", Goal::None);
    grown.report("merge, slots that grow", "M/s", Goal::None);
    repeated.report("merge, nothing new", "M/s", Goal::None);
}

/// What a remote replica wrote to the products of one shard, in deltas.
fn deltas(shard: usize, sequence: u64) -> Vec<Products> {
    let (berlin, replica) = (Location::new("berlin").unwrap(), ReplicaId::from_random(42));
    let numbers: Vec<usize> = (shard * SHARD_PRODUCTS..(shard + 1) * SHARD_PRODUCTS).collect();
    let product = |number: &usize| {
        let sequence = (*number % SHARD_PRODUCTS + 1) as u64 + (sequence - 1) * SHARD_PRODUCTS as u64;
        let counters = Counters { added: 10 * sequence, removed: sequence, ..Counters::default() };
        let slot = StockSlot { location: berlin.clone(), replica, sequence, counters };
        (Sku::new(&sku(*number)).unwrap(), Product::of_stock(slot))
    };
    numbers.chunks(DELTA_PRODUCTS).map(|numbers| numbers.iter().map(product).collect()).collect()
}

fn merge(states: &mut [Shard], deltas: &[Vec<Products>]) -> u64 {
    let mut changed = 0;
    for (state, deltas) in states.iter_mut().zip(deltas) {
        changed += deltas.iter().map(|products| state.merge(products).slots_changed).sum::<u64>();
    }
    changed
}

fn merge_plainly(plain: &mut Plain, deltas: &[Vec<Products>]) {
    for (sku, product) in deltas.iter().flatten().flatten() {
        for slot in product.stock() {
            let Counters { added, removed, held, released } = slot.counters;
            let incoming = [added, removed, held, released];
            match plain.entry((sku.as_str().to_owned(), slot.replica.bits())) {
                Entry::Vacant(entry) => {
                    entry.insert(incoming);
                }
                Entry::Occupied(mut entry) => {
                    for (known, incoming) in entry.get_mut().iter_mut().zip(incoming) {
                        *known = incoming.max(*known);
                    }
                }
            }
        }
    }
}

fn check(states: &[Shard], plain: &Plain) {
    let on_hand =
        |state: &Shard| -> i128 { state.range(std::ops::Bound::Unbounded).map(|product| product.on_hand()).sum() };
    let merged: i128 = states.iter().map(on_hand).sum();
    let plainly: i128 = plain.values().map(|counters| i128::from(counters[0]) - i128::from(counters[1])).sum();
    assert_eq!(merged, plainly);
    assert!(states.iter().all(|state| state.fingerprint() == state.fingerprint_recomputed()));
}
