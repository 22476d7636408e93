//! A peer that is slow, stuck or gone without a word costs the others nothing.

use std::time::Duration;

use crate::support::alone::alone;
use crate::support::proxy::{Proxy, Weather};
use crate::support::raw::{Grants, Raw};
use crate::support::writers::Ledger;
use crate::support::{
    Mesh, PATIENCE, address, dial, metrics, on_hand, resident_bytes, wait_linked, wait_until, wait_within,
};

/// All datagrams to and from one peer vanish, and nobody says so. Healthy nodes go on; the peer catches up once there is
/// a way to it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_costs_the_others_nothing() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(3).await;
    dial(&stores[0], &stores[1]);
    let proxy = Proxy::start(address(&stores[2]), Weather::default(), 1).await;
    stores[0].add_peer(proxy.address()).unwrap();
    wait_linked(&stores[..1], 2).await;
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 4_000, 20).await;
    ledger.assert_whole(&stores).await;
    proxy.go_dark();
    for unit in 1..=30 {
        ledger.receive(&stores[0], "PAST-THE-HOLE", 1).await.unwrap();
        let arrived = || on_hand(&stores[1], "PAST-THE-HOLE") == unit;
        wait_within(Duration::from_secs(2), "a push passes between the healthy nodes", arrived).await;
    }
    ledger.write_at_all(&stores, 4_100, 50).await;
    let one = Duration::from_secs(10);
    stores[0].await_replicated(1, one).await.expect("the healthy peer confirms, whatever the other does");
    assert!(proxy.lost() > 0);
    dial(&stores[2], &stores[1]);
    ledger.assert_whole(&stores).await;
}

/// A peer that holds its link and takes nothing in: what waits for it is bounded, the rest is dropped, and it gets all
/// of it by reconciliation when it comes to its senses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_stuck_peer_is_bounded() {
    alone!(what_waits_for_a_stuck_peer_is_bounded);
    metrics::record();
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    dial(&stores[0], &stores[1]);
    wait_linked(&stores, 1).await;
    let grants = Grants { window_bytes: Some(4_096), ..Grants::default() };
    let _stuck = Raw::linked_with(&mesh, address(&stores[0]), grants).await;
    wait_linked(&stores[..1], 2).await;
    let dropped = metrics::counter("stockmesh_pushes_dropped_total");
    let ledger = Ledger::default();
    let mut largest = 0;
    let before = resident_bytes();
    for round in 0..60_u64 {
        // Each push of these takes some 120 KB.
        let mut batch = stores[0].batch();
        for number in 0..2_500 {
            batch = batch.receive(&format!("BULK-{number:04}"), round + 1).unwrap();
        }
        tokio::time::timeout(PATIENCE, batch.commit()).await.expect("a writer waits for a stuck peer").unwrap();
        largest = largest.max(resident_bytes());
    }
    // The healthy one has taken them in first: what follows is about the stuck one alone.
    wait_until("all of it is there", || on_hand(&stores[1], "BULK-2499") == (1..=60).sum::<i128>()).await;
    for unit in 1..=300 {
        ledger.receive(&stores[0], "SMALL", 1).await.unwrap();
        if unit % 50 == 0 {
            let arrived = || on_hand(&stores[1], "SMALL") == unit;
            wait_within(Duration::from_secs(2), "a push passes between the healthy nodes", arrived).await;
        }
    }
    wait_until("pushes to the stuck peer are dropped", || metrics::counter("stockmesh_pushes_dropped_total") > dropped)
        .await;
    let grown = largest.saturating_sub(before);
    assert!(grown < 200 << 20, "memory grew by {} MiB", grown >> 20);
    ledger.assert_whole(&stores).await;
}
