//! How many commits does the store make, beside the bare engine with the same batches?
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::time::Instant;

use stockmesh::Store;
use support::stores::{Bare, durable, fill, sku};
use support::{Goal, Turns, quantile};

/// Products that are written to: different ones, as the writers of a warehouse would.
const PRODUCTS: usize = 10_000;
const WRITERS: usize = 64;
/// Many short turns, so that both of a pair meet the same load of the machine.
const TURNS: usize = 40;
/// What the engine's layer adds to a row: header and checksum.
const ROW_OVERHEAD_BYTES: u64 = 42;

fn main() {
    let options = support::start("How many commits does the store make, beside the bare engine with the same batches?");
    let runtime = support::runtime();
    let root = support::directory();
    let mut bare = Bare::open(&root.path().join("engine"));
    runtime.block_on(async {
        let store = durable(&root.path().join("store")).open().await.unwrap();
        fill(&store, PRODUCTS).await;
        single(&store, &mut bare, options.size(50, 5)).await;
        grouped(&store, &mut bare, options.size(25, 4)).await;
        check(&store, options.size(50, 5), options.size(25, 4));
        store.close().await.unwrap();
    });
}

/// Batches of the journal that were committed, and what their payloads took.
#[derive(Clone, Copy)]
struct Journal {
    batches: u64,
    bytes: u64,
}

impl Journal {
    fn of(store: &Store) -> Self {
        let status = store.status();
        Self { batches: status.last_batch, bytes: status.journal_bytes }
    }

    /// Batches since, and the mean of their payload bytes.
    fn since(store: &Store, before: Self) -> (u64, usize) {
        let now = Self::of(store);
        let batches = now.batches - before.batches;
        let bytes = now.bytes.checked_sub(before.bytes).expect("too little is written here for a fold");
        (batches, (bytes / batches).saturating_sub(ROW_OVERHEAD_BYTES) as usize)
    }
}

/// One writer that waits for each commit.
async fn single(store: &Store, bare: &mut Bare, commits: usize) {
    let (mut values_us, mut floors_us) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let before = Journal::of(store);
        for commit in 0..commits {
            let product = store.product(&sku((turn * commits + commit) % PRODUCTS)).unwrap();
            let begun = Instant::now();
            product.receive(1).await.unwrap();
            values_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        let (batches, payload_bytes) = Journal::since(store, before);
        assert_eq!(batches, commits as u64);
        for _ in 0..commits {
            let begun = Instant::now();
            bare.commit(payload_bytes);
            floors_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    // On a contended machine the tenth percentile alone is the disk's; the others add the wait for a processor.
    for (name, share) in [("p10", 0.1), ("p50", 0.5), ("p99", 0.99)] {
        let turns = Turns::of(quantile(&values_us, share), quantile(&floors_us, share));
        turns.report(&format!("commit, 1 writer, {name}"), "us", Goal::None);
    }
}

/// 64 writers at once, each of which waits for its own commits.
async fn grouped(store: &Store, bare: &mut Bare, commits: usize) {
    let (mut turns, mut sizes) = (Turns::default(), Turns::default());
    let operations = (WRITERS * commits) as f64;
    for _ in 0..TURNS {
        let before = Journal::of(store);
        let begun = Instant::now();
        let write = |writer: usize| {
            let store = store.clone();
            async move {
                for commit in 0..commits {
                    let product = store.product(&sku((writer + commit * WRITERS) % PRODUCTS)).unwrap();
                    product.receive(1).await.unwrap();
                }
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let value = operations / begun.elapsed().as_secs_f64();
        let (batches, payload_bytes) = Journal::since(store, before);
        let group = operations / batches as f64;
        // The bare engine gets full groups: as many bytes as 64 writes take.
        let payload_bytes = (payload_bytes as f64 * WRITERS as f64 / group) as usize;
        let begun = Instant::now();
        for _ in 0..commits {
            bare.commit(payload_bytes);
        }
        turns.add(value, operations / begun.elapsed().as_secs_f64());
        sizes.add(group, WRITERS as f64);
    }
    turns.report("commit, 64 writers", "writes/s", Goal::RatioAtLeast(0.5));
    sizes.report("commit, 64 writers, group size", "writes", Goal::None);
}

/// Every write counted once.
fn check(store: &Store, single: usize, grouped: usize) {
    let filled: i128 = (0..PRODUCTS).map(|number| i128::from(support::stores::units(number))).sum();
    let on_hand: i128 = store.query().iter().map(|product| product.on_hand()).sum();
    assert_eq!(on_hand - filled, (TURNS * (single + WRITERS * grouped)) as i128);
}
