//! Nodes under concurrent writers end with the same state, and with exactly what was acknowledged.

use std::time::Duration;

use crate::support::writers::Ledger;
use crate::support::{Mesh, dial, full_mesh, line, on_hand, wait_linked, wait_until, wait_within};

/// With this, nothing but pushes and what they ask for moves data within a test.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_in_a_full_mesh_converge_under_writers_at_each() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(5).await;
    full_mesh(&stores);
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 100, 150).await;
    wait_linked(&stores, 4).await;
    ledger.write_at_all(&stores, 200, 150).await;
    ledger.assert_whole(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_in_a_line_converge_under_writers_at_each() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(5).await;
    line(&stores);
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 300, 200).await;
    ledger.assert_whole(&stores).await;
}

/// Rule P4: a push that is news goes on to those who were not told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_forwarded_along_a_line() {
    let mesh = Mesh::new();
    let mut stores = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        stores.push(mesh.builder(name).reconcile_every(NEVER).open().await.unwrap());
    }
    line(&stores);
    wait_linked(&stores, 1).await;
    wait_linked(&stores[1..4], 2).await;
    // The first reconciliation of each link is over once its dialler has confirmed its peer to hold all.
    let settled = || stores.iter().all(|store| store.status().peers.iter().any(|peer| peer.reconciled_ago.is_some()));
    let _ = tokio::time::timeout(Duration::from_secs(2), wait_until("first reconciliations", settled)).await;
    let ledger = Ledger::default();
    for round in 1..=20 {
        ledger.receive(&stores[0], "LINE", 1).await.unwrap();
        wait_within(Duration::from_secs(5), "a push reaches the far end", || on_hand(&stores[4], "LINE") == round)
            .await;
    }
    ledger.assert_whole(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_cluster_goes_on_writing_on_both_sides_and_heals() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(5).await;
    full_mesh(&stores);
    wait_linked(&stores, 4).await;
    let ledger = Ledger::default();
    for round in 0..2 {
        let cut = &stores[3..];
        cut.iter().for_each(stockmesh::Store::go_offline);
        wait_until("the cut nodes have no link", || cut.iter().all(|store| crate::support::links_up(store) == 0)).await;
        let before = on_hand(&stores[0], "CUT");
        ledger.write_at_all(&stores, 400 + 10 * round, 80).await;
        ledger.receive(&stores[3], "CUT", 7).await.unwrap();
        assert_eq!(on_hand(&stores[0], "CUT"), before, "a write crossed the cut");
        assert!(stores[3].status().offline);
        cut.iter().for_each(stockmesh::Store::go_online);
        ledger.write_at_all(&stores, 450 + 10 * round, 40).await;
        ledger.assert_whole(&stores).await;
    }
}

/// Writers at all nodes never stop while one node after the other is cut off and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_and_go_under_load_lose_nothing() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(4).await;
    full_mesh(&stores);
    let ledger = Ledger::default();
    let writing: Vec<_> = stores.iter().zip(500..).map(|(store, seed)| ledger.keep_writing(store, seed)).collect();
    for round in 0..8 {
        let store = &stores[round % stores.len()];
        store.go_offline();
        tokio::time::sleep(Duration::from_millis(60)).await;
        store.go_online();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    for writer in writing {
        assert!(writer.stop().await > 0);
    }
    ledger.assert_whole(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_empty_gets_everything() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 600, 200).await;
    let joining = mesh.node("late").await;
    let writing = ledger.keep_writing(&stores[0], 650);
    dial(&joining, &stores[1]);
    wait_until("the new node has products", || joining.status().products > 0).await;
    assert!(writing.stop().await > 0);
    let all = [stores, vec![joining]].concat();
    ledger.assert_whole(&all).await;
}
