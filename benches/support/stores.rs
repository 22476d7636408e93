//! Stores with products in them.

use std::path::Path;
use std::time::{Duration, Instant};

use stockmesh::storage::{Batch, DataDirectory, Engine, Transaction};
use stockmesh::{Builder, Store};

use super::quic::Authority;

/// Operations of one batch when a store is filled.
const FILL_BATCH_OPERATIONS: usize = 10_000;
/// How long nodes may take to agree before a benchmark gives up.
const AGREE_TIME_MAX: Duration = Duration::from_secs(50);

/// The SKU of a number: 11 bytes, as many real ones are.
pub(crate) fn sku(number: usize) -> String {
    format!("SKU-{number:07}")
}

/// The units that [`fill`] receives of a product.
pub(crate) fn units(number: usize) -> u64 {
    number as u64 % 1000 + 1
}

/// A durable store without a network.
pub(crate) fn durable(path: &Path) -> Builder {
    Store::builder().data_dir(path).location("berlin")
}

/// Receives units of so many products, in batches.
pub(crate) async fn fill(store: &Store, products: usize) {
    let numbers: Vec<usize> = (0..products).collect();
    for numbers in numbers.chunks(FILL_BATCH_OPERATIONS) {
        receive(store, numbers).await;
    }
}

/// One batch that receives units of these products.
pub(crate) async fn receive(store: &Store, numbers: &[usize]) {
    let mut batch = store.batch();
    for number in numbers {
        batch = batch.receive(&sku(*number), units(*number)).unwrap();
    }
    batch.commit().await.unwrap();
}

/// A durable store that listens on loopback.
pub(crate) async fn node(name: &str, root: &Path, authority: &Authority) -> Store {
    let builder = Store::builder().data_dir(root.join(name)).location(name);
    builder.listen("127.0.0.1:0".parse().unwrap()).identity(authority.identity()).open().await.unwrap()
}

/// Waits until both stores hold the same, looking often enough to add little to what is measured.
pub(crate) async fn until_equal(left: &Store, right: &Store) {
    let begun = Instant::now();
    while left.status().fingerprint != right.status().fingerprint {
        assert!(begun.elapsed() < AGREE_TIME_MAX, "the stores do not agree");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Memory of this process that is really there, where the system tells.
pub(crate) fn resident_bytes() -> Option<f64> {
    let pages: f64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096.0)
}

/// The bare engine, which commits payloads of given sizes.
pub(crate) struct Bare {
    engine: Engine,
    number: u64,
    /// Locked until the engine is closed.
    _directory: DataDirectory,
}

impl Bare {
    pub(crate) fn open(path: &Path) -> Self {
        let directory = DataDirectory::open(path).unwrap();
        let mut engine = directory.open_engine().unwrap();
        engine.load(&mut |_| ()).unwrap();
        Self { engine, number: 0, _directory: directory }
    }

    pub(crate) fn commit(&mut self, payload_bytes: usize) {
        self.number += 1;
        let batch = Batch { number: self.number, payload: vec![7; payload_bytes] };
        self.engine.commit(&Transaction { batch: Some(batch), ..Transaction::default() }).unwrap();
    }
}
