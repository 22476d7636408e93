//! Writers whose acknowledged operations are counted, and the check that nothing of them is lost or counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stockmesh::{Currency, Price, Reason, Store, WriteError};
use tokio::task::JoinHandle;

use super::wait_converged;

/// Products that all writers share.
const PRODUCTS: u32 = 40;

/// What was acknowledged: the units of each product.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    units: Arc<Mutex<BTreeMap<String, i128>>>,
}

impl Ledger {
    fn note(&self, sku: &str, units: i128) {
        *self.units.lock().entry(sku.to_owned()).or_default() += units;
    }

    /// Receives units, and notes it once acknowledged.
    pub(crate) async fn receive(&self, store: &Store, sku: &str, units: u64) -> Result<(), WriteError> {
        store.product(sku).unwrap().receive(units).await?;
        self.note(sku, i128::from(units));
        Ok(())
    }

    /// One operation of a random kind.
    async fn operate(&self, store: &Store, random: &mut StdRng) -> Result<(), WriteError> {
        let sku = format!("P-{:03}", random.random_range(0..PRODUCTS));
        let product = store.product(&sku).unwrap();
        match random.random_range(0..10) {
            0..4 => self.receive(store, &sku, random.random_range(1..50)).await,
            4..7 => {
                let units = -random.random_range(1..20_i64);
                product.adjust(units, Reason::Sold).await?;
                self.note(&sku, i128::from(units));
                Ok(())
            }
            7..9 => product.set_price(price(random.random_range(1..10_000))).await,
            _ => product.set_listed(random.random()).await,
        }
    }

    /// So many random operations, one after the other.
    pub(crate) async fn write(&self, store: &Store, seed: u64, operations: usize) {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..operations {
            self.operate(store, &mut random).await.unwrap();
        }
    }

    /// The same at several nodes at once.
    pub(crate) async fn write_at_all(&self, stores: &[Store], seed: u64, operations: usize) {
        let mut writers = Vec::new();
        for (store, number) in stores.iter().cloned().zip(0..) {
            let ledger = self.clone();
            writers.push(tokio::spawn(async move { ledger.write(&store, seed + number, operations).await }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }

    /// Writes until it is stopped, or the store is closed.
    pub(crate) fn keep_writing(&self, store: &Store, seed: u64) -> Writing {
        let (ledger, store, stopped) = (self.clone(), store.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopped);
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut written = 0;
            while !stopped.load(Ordering::SeqCst) {
                match ledger.operate(&store, &mut random).await {
                    Ok(()) => written += 1,
                    Err(WriteError::Closed) => break,
                    Err(error) => panic!("a write failed: {error}"),
                }
                tokio::task::yield_now().await;
            }
            written
        });
        Writing { stop, task }
    }

    /// Waits until all nodes hold the same, and checks that it is what was acknowledged: no unit more, none less.
    pub(crate) async fn assert_whole(&self, stores: &[Store]) {
        self.assert_units(stores).await;
        for store in stores {
            let status = store.status();
            assert!(status.former_replicas.is_empty(), "{} took a new replica id", status.location);
            assert_eq!(status.shards_in_doubt, Vec::<u16>::new(), "at {}", status.location);
        }
    }

    /// The same of the units, prices and marks alone: for nodes that took a new replica id.
    pub(crate) async fn assert_units(&self, stores: &[Store]) {
        wait_converged(stores).await;
        for (sku, units) in &*self.units.lock() {
            for store in stores {
                let view = store.get(sku).unwrap();
                assert_eq!(view.on_hand(), *units, "{sku} at {}", store.status().location);
                assert_eq!(view.price(), stores[0].get(sku).unwrap().price(), "price of {sku}");
                assert_eq!(view.listed(), stores[0].get(sku).unwrap().listed(), "mark listed of {sku}");
            }
        }
        assert!(stores.iter().all(|store| store.status().products == stores[0].status().products));
    }
}

/// A writer that goes on until it is stopped.
pub(crate) struct Writing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Writing {
    /// Stops it. Returns how many operations were acknowledged.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }

    /// Waits for its store to be closed.
    pub(crate) async fn ended(self) -> u64 {
        self.task.await.unwrap()
    }
}

/// A price of so many cents.
pub(crate) fn price(cents: i64) -> Price {
    Price::new(stockmesh::Decimal::new(cents, 2), Currency::EUR).unwrap()
}
