//! How long does it take to open a large store, beside reading its file?
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::path::Path;
use std::time::Instant;

use stockmesh::Store;
use support::stores::{durable, fill, receive, resident_bytes, sku};
use support::{Goal, Options, Random, Turns, timed};

/// Operations of the batches that lengthen the journal.
const BATCH_OPERATIONS: usize = 10_000;

fn main() {
    let options = support::start("How long does it take to open a large store, beside reading its file?");
    let products = options.size(1_000_000, 20_000);
    let root = support::directory();
    let path = root.path().join("store");
    let runtime = support::runtime();
    runtime.block_on(async {
        let store = durable(&path).open().await.unwrap();
        fill(&store, products).await;
        // Just before it is folded the journal is at its longest.
        let long = options.size(15 << 20, 1 << 20);
        let mut random = Random(5);
        write_until(&store, &mut random, products, |journal_bytes| journal_bytes > long).await;
        let journal_bytes = store.status().journal_bytes;
        store.close().await.unwrap();
        drop(store);
        let name = format!("open, journal of {} MiB", journal_bytes >> 20);
        measure(&path, &name, products, options).await;

        if !options.quick {
            let store = durable(&path).open().await.unwrap();
            write_until(&store, &mut random, products, |journal_bytes| journal_bytes < 1 << 20).await;
            store.close().await.unwrap();
            drop(store);
            measure(&path, "open, just folded", products, options).await;
        }
    });
}

/// Commits batches of random products until the journal's length is as wanted.
async fn write_until(store: &Store, random: &mut Random, products: usize, is_reached: impl Fn(u64) -> bool) {
    for _ in 0..2_000 {
        let numbers: Vec<usize> = (0..BATCH_OPERATIONS).map(|_| random.below(products)).collect();
        receive(store, &numbers).await;
        if is_reached(store.status().journal_bytes) {
            return;
        }
    }
    panic!("the journal never gets as long or as short as wanted");
}

/// Opens the store several times, each time after reading its file, which is then in the system's memory.
async fn measure(path: &Path, name: &str, products: usize, options: Options) {
    let mut turns = Turns::default();
    let mut memory = None;
    let mut fingerprint = None;
    for _ in 0..options.size(3, 1) {
        let (content, floor) = timed(|| std::fs::read(path.join("store.redb")).unwrap());
        drop(content);
        let resident_before = resident_bytes();
        let begun = Instant::now();
        let store = durable(path).open().await.unwrap();
        turns.add(begun.elapsed().as_secs_f64(), floor);
        let status = store.status();
        assert_eq!(status.products, products as u64);
        assert_eq!(*fingerprint.get_or_insert(status.fingerprint), status.fingerprint);
        assert!(store.get(&sku(products - 1)).unwrap().on_hand() > 0);
        if let (None, Some(before), Some(now)) = (memory, resident_before, resident_bytes()) {
            memory = Some((now - before) / products as f64);
        }
        store.close().await.unwrap();
    }
    turns.report(name, "s", Goal::ValueAtMost(3.0));
    if let Some(memory) = memory {
        // The key and four counters, without any structure around them.
        let plain = (sku(0).len() + 4 * size_of::<u64>()) as f64;
        Turns::of(memory, plain).report(&format!("memory after {name}"), "B/product", Goal::None);
    }
}
