//! What a node confirms of its peers' durability.

use std::time::Duration;

use crate::cluster::{SOON, link, node};
use crate::model::{add, perform};

/// A reconciliation that began while a group was being applied has not read all of it, and confirms nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_replicated_is_there() {
    let every = Duration::from_millis(10);
    let store = node("writer").reconcile_every(every).in_memory().open().await.unwrap();
    let peer = node("peer").reconcile_every(every).in_memory().open().await.unwrap();
    link(&store, &peer);
    store.await_replicated(1, SOON).await.unwrap();
    for round in 1..=40 {
        // Large, so that applying it takes a while; the last product is applied last.
        let write: Vec<_> = (0..3_000).map(|number| add(format!("P-{number}"), 1)).collect();
        perform(&store, &write).await.unwrap();
        store.await_replicated(1, SOON).await.unwrap();
        for sku in ["P-0", "P-1500", "P-2999"] {
            let found = peer.get(sku).map_or(0, |product| product.on_hand());
            assert_eq!(found, round, "{sku} was said to be held by the peer");
        }
    }
}
