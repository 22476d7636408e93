//! The end of a store: closed, closed twice, dropped, under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockmesh::{Durability, OpenError, Store, WriteError};

use crate::cluster::{link, node, node_at, until};
use crate::model::{Model, add, perform};

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::builder().data_dir(path).shards(4).open().await
}

/// Tasks that write single units until they are refused. Each returns how many were acknowledged.
fn write_for_ever(store: &Store) -> Vec<tokio::task::JoinHandle<(u64, WriteError)>> {
    let tasks = (0..64).map(|task| {
        let product = store.product(&format!("P-{task}")).unwrap();
        tokio::spawn(async move {
            let mut acknowledged = 0;
            loop {
                match product.receive(1).await {
                    Ok(()) => acknowledged += 1,
                    Err(error) => return (acknowledged, error),
                }
            }
        })
    });
    tasks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_under_load_keeps_every_acknowledged_write_and_refuses_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let mut sure = vec![0; 64];
    for round in 0..20 {
        // Opened at once after the close: the lock must be free by then.
        let store = open(root.path()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let tasks = write_for_ever(&store);
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        store.close().await.unwrap();
        let fingerprint = store.status().fingerprint;
        let again = open(root.path()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        for (sure, task) in sure.iter_mut().zip(tasks) {
            let (acknowledged, error) = task.await.unwrap();
            // Whoever comes too late is told that nothing was changed, not that it is unknown.
            assert!(matches!(error, WriteError::Closed), "round {round}: {error}");
            *sure += acknowledged;
        }
        for (task, sure) in sure.iter().enumerate() {
            let found = again.get(&format!("P-{task}")).map_or(0, |product| product.on_hand());
            assert_eq!(found, i128::from(*sure), "round {round}: P-{task}");
        }
        assert_eq!(again.status().fingerprint, fingerprint, "round {round}");
        again.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_refuses_writes_and_can_be_read() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await.unwrap();
    let mug = store.product("MUG").unwrap();
    mug.receive(3).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(mug.receive(1).await, Err(WriteError::Closed)));
    let batch = store.batch().receive("MUG", 1).unwrap().receive("CUP", 1).unwrap();
    assert!(matches!(batch.commit().await, Err(WriteError::Closed)));
    assert_eq!(store.status().durability, Durability::Closed);
    assert_eq!(store.get("MUG").unwrap().on_hand(), 3);
    assert!(store.get("CUP").is_err());
    store.close().await.unwrap();
    assert_eq!(Model::of(&open(root.path()).await.unwrap()), Model::of(&store));
}

/// Whoever is told that a store is closed may open its directory, also if somebody else closed it at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_close_ends_when_the_directory_is_free() {
    let root = tempfile::tempdir().unwrap();
    for round in 0..40 {
        let store = open(root.path()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        store.product("MUG").unwrap().receive(1).await.unwrap();
        let other = store.clone();
        let first = tokio::spawn(async move { other.close().await });
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_micros(round * 20)).await;
        } else {
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
        let again = open(root.path()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        first.await.unwrap().unwrap();
        again.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_dropped_without_a_close_loses_no_acknowledged_write() {
    let root = tempfile::tempdir().unwrap();
    for round in 1..=10 {
        let store = reopen(root.path()).await;
        let before = store.get("MUG").map_or(0, |product| product.on_hand());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (product, acknowledged, stop) =
                (store.product("MUG").unwrap(), Arc::clone(&acknowledged), Arc::clone(&stop));
            async move {
                while !stop.load(Ordering::SeqCst) {
                    product.receive(1).await.unwrap();
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(store);
        if round % 2 == 0 {
            // Dropped in the middle of a write: it may be there or not.
            task.abort();
        }
        stop.store(true, Ordering::SeqCst);
        let _ = task.await;
        let store = reopen(root.path()).await;
        let more = store.get("MUG").map_or(0, |product| product.on_hand()) - before;
        let sure = i128::from(acknowledged.load(Ordering::SeqCst));
        assert!(
            (sure..=sure + i128::from(round % 2 == 0)).contains(&more),
            "round {round}: {more}, {sure} acknowledged"
        );
    }
}

/// A dropped store frees its directory soon, not at once.
async fn reopen(path: &Path) -> Store {
    for _ in 0..500 {
        match open(path).await {
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", path.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_node_hands_over_what_its_peer_lacks() {
    // More than once, since on a slow machine a second may not be enough for it.
    for _ in 0..5 {
        if hands_over_what_its_peer_lacks().await {
            return;
        }
    }
    panic!("no close ended before it gave up waiting for its peer");
}

/// Returns false if the node waited for its peer for as long as it does, and so promises nothing.
async fn hands_over_what_its_peer_lacks() -> bool {
    let root = tempfile::tempdir().unwrap();
    let peer = node("peer").in_memory().open().await.unwrap();
    let store = node_at("closing", root.path()).await;
    link(&store, &peer);
    until("linked", || store.status().peers.iter().any(|peer| peer.round_trip.is_some())).await;
    let write: Vec<_> = (0..2_000).map(|number| add(format!("P-{number}"), 1)).collect();
    perform(&store, &write).await.unwrap();
    let begun = Instant::now();
    store.close().await.unwrap();
    if begun.elapsed() >= Duration::from_secs(1) {
        return false;
    }
    assert_eq!(Model::of(&peer), Model::of(&store), "closing waits up to a second for this");
    let again = node_at("closing", root.path()).await;
    assert_eq!(Model::of(&again), Model::of(&peer));
    true
}
