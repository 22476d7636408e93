//! How long does it take to open a large store, beside reading its file?
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use stockmesh::Store;
use support::stores::{durable, fill, receive, resident_bytes, sku};
use support::{Goal, Options, Random, Turns, timed};

/// Operations of the batches that lengthen the journal.
const BATCH_OPERATIONS: usize = 10_000;
/// Length of the journal beyond which the store folds it.
const FOLD_BYTES: u64 = 16 << 20;

/// Runs the benchmark as a process that opens a directory once.
const OPEN_ONCE: &str = "--open-once";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, path] = arguments.as_slice()
        && mode == OPEN_ONCE
    {
        return open_once(Path::new(path));
    }
    let options = support::start("How long does it take to open a large store, beside reading its file?");
    let products = options.size(1_000_000, 20_000);
    let root = support::directory();
    let path = root.path().join("store");
    let runtime = support::runtime();
    // Just before it is folded the journal is at its longest.
    let long = options.size(15 << 20, 1 << 20);
    let journal_bytes = runtime.block_on(build(&path, products, long));
    measure(&path, &format!("open, journal of {} MiB", journal_bytes >> 20), products, options);
    if !options.quick {
        runtime.block_on(fold(&path, products));
        measure(&path, "open, just folded", products, options);
    }
}

/// Fills a store, and lengthens its journal.
async fn build(path: &Path, products: usize, long_bytes: u64) -> u64 {
    let store = durable(path).open().await.unwrap();
    fill(&store, products).await;
    let mut random = Random(5);
    while store.status().journal_bytes < long_bytes {
        write(&store, &mut random, products).await;
    }
    let journal_bytes = store.status().journal_bytes;
    store.close().await.unwrap();
    journal_bytes
}

/// Writes until a fold is due, and no further: what is written while it goes on stays in the journal. An idle store
/// goes on folding.
async fn fold(path: &Path, products: usize) {
    let store = durable(path).open().await.unwrap();
    let mut random = Random(6);
    write(&store, &mut random, products).await;
    while store.status().journal_bytes <= FOLD_BYTES {
        write(&store, &mut random, products).await;
    }
    let begun = Instant::now();
    while store.status().journal_bytes > 1 << 20 {
        assert!(begun.elapsed().as_secs() < 20, "the journal is not folded");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await.unwrap();
}

/// Commits one batch of random products.
async fn write(store: &Store, random: &mut Random, products: usize) {
    let numbers: Vec<usize> = (0..BATCH_OPERATIONS).map(|_| random.below(products)).collect();
    receive(store, &numbers).await;
}

/// Opens a store and prints the seconds, the memory it took, and what it holds.
fn open_once(path: &Path) {
    let before = resident_bytes().unwrap_or_default();
    support::runtime().block_on(async {
        let begun = Instant::now();
        let store = durable(path).open().await.unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        let memory = resident_bytes().unwrap_or_default() - before;
        let status = store.status();
        println!("{seconds} {memory} {} {}", status.products, status.fingerprint);
        store.close().await.unwrap();
    });
}

/// Opens the store several times, each time after reading its file, which is then in the system's memory. Each time in
/// a process of its own: in this one, memory that was freed before would be used again and not be counted.
fn measure(path: &Path, name: &str, products: usize, options: Options) {
    let (mut turns, mut memory) = (Turns::default(), Turns::default());
    let mut fingerprint = None;
    for _ in 0..options.size(3, 1) {
        let (content, floor) = timed(|| std::fs::read(path.join("store.redb")).unwrap());
        drop(content);
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).arg(OPEN_ONCE).arg(path).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let [seconds, bytes, found, print] = output.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("the store could not be opened: {output}");
        };
        assert_eq!(found.parse(), Ok(products));
        assert_eq!(*fingerprint.get_or_insert(print.to_owned()), print);
        turns.add(seconds.parse().unwrap(), floor);
        // The key and four counters, without any structure around them.
        memory.add(bytes.parse::<f64>().unwrap() / products as f64, (sku(0).len() + 4 * size_of::<u64>()) as f64);
    }
    turns.report(name, "s", Goal::ValueAtMost(3.0));
    memory.report(&format!("memory after {name}"), "B/product", Goal::None);
}
