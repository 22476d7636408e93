//! How much dearer is a point read of the store than one of a `HashMap`?
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stockmesh::Store;
use support::stores::{fill, sku, units};
use support::{Goal, Random, Turns, timed};

fn main() {
    let options = support::start("How much dearer is a point read of the store than one of a HashMap?");
    let products = options.size(1_000_000, 20_000);
    let runtime = support::runtime();
    let store = runtime.block_on(async {
        let store = Store::builder().in_memory().open().await.unwrap();
        fill(&store, products).await;
        store
    });
    let map: HashMap<String, i64> = (0..products).map(|number| (sku(number), units(number) as i64)).collect();
    let mut random = Random(1);
    let lookups: Vec<String> = (0..options.size(200_000, 5_000)).map(|_| sku(random.below(products))).collect();

    compare(&store, &map, &lookups, true).report("point read, idle", "ns", Goal::RatioAtMost(3.0));

    let stop = Arc::new(AtomicBool::new(false));
    let writing = runtime.spawn(write(store.clone(), products, Arc::clone(&stop)));
    compare(&store, &map, &lookups, false).report("point read, one writer busy", "ns", Goal::RatioAtMost(3.0));
    stop.store(true, Ordering::SeqCst);
    let writes = runtime.block_on(writing).unwrap();
    assert!(writes > 0, "the writer wrote nothing");
}

fn compare(store: &Store, map: &HashMap<String, i64>, lookups: &[String], check: bool) -> Turns {
    let per_read = |seconds: f64| seconds * 1e9 / lookups.len() as f64;
    let mut turns = Turns::default();
    for _ in 0..15 {
        let (sum, value) = timed(|| {
            let on_hand = |sku: &String| store.get(black_box(sku)).unwrap().on_hand();
            lookups.iter().map(on_hand).sum::<i128>()
        });
        let (floor_sum, floor) = timed(|| lookups.iter().map(|sku| map.get(black_box(sku)).unwrap()).sum::<i64>());
        assert!(!check || sum == i128::from(floor_sum), "the store reads something else than the map");
        turns.add(per_read(value), per_read(floor));
    }
    turns
}

/// Writes without a pause until told to stop. Returns how often.
async fn write(store: Store, products: usize, stop: Arc<AtomicBool>) -> usize {
    let mut random = Random(2);
    let mut writes = 0;
    while !stop.load(Ordering::SeqCst) {
        store.product(&sku(random.below(products))).unwrap().receive(1).await.unwrap();
        writes += 1;
    }
    writes
}
