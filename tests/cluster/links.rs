//! Of two links between the same nodes one remains, and nothing is lost over it.

use std::time::{Duration, Instant};

use stockmesh::{LinkState, Store};

use crate::support::writers::Ledger;
use crate::support::{Mesh, address, dial, links_up, wait_linked, wait_until};

/// Waits until each of the two has had exactly the same one link for a while.
async fn wait_settled(stores: &[Store; 2]) {
    let links = || {
        stores.each_ref().map(|store| {
            let up = store.status().peers.into_iter().filter(|peer| peer.state == LinkState::Up);
            up.map(|peer| (peer.replica, peer.address)).collect::<Vec<_>>()
        })
    };
    let mut since = Instant::now();
    let mut known = links();
    let mut were_up = false;
    wait_until("one link remains", || {
        let now = links();
        let are_up = now.iter().all(|up| !up.is_empty());
        // Were the two to choose differently, both links would be given up.
        assert!(are_up || !were_up, "no link at all: {now:?}");
        were_up = are_up;
        if now != known || now.iter().any(|up| up.len() != 1) {
            (since, known) = (Instant::now(), now);
        }
        since.elapsed() > Duration::from_secs(3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dial_each_other_at_once() {
    let mesh = Mesh::new();
    let ledger = Ledger::default();
    let mut pairs = Vec::new();
    for _ in 0..4 {
        let pair: [Store; 2] = mesh.nodes(2).await.try_into().unwrap();
        dial(&pair[0], &pair[1]);
        dial(&pair[1], &pair[0]);
        pairs.push(pair);
    }
    let mut settling = Vec::new();
    for (pair, seed) in pairs.iter().cloned().zip(1_000..) {
        let ledger = Ledger::default();
        settling.push(tokio::spawn(async move {
            let writing = ledger.keep_writing(&pair[0], seed);
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(writing.stop().await > 0);
            wait_settled(&pair).await;
            ledger.assert_whole(&pair).await;
            // The link that remains carries writes both ways.
            ledger.write_at_all(&pair, seed + 100, 20).await;
            ledger.assert_whole(&pair).await;
            assert_eq!(pair.each_ref().map(links_up), [1, 1]);
        }));
    }
    for task in settling {
        task.await.unwrap();
    }
    drop(ledger);
}

/// One peer under two addresses: its two links are dialled by the same side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_under_two_addresses_gets_one_link() {
    let mesh = Mesh::new();
    let [one, two]: [Store; 2] = mesh.nodes(2).await.try_into().unwrap();
    let port = address(&two).port();
    one.add_peer(format!("127.0.0.1:{port}")).unwrap();
    one.add_peer(format!("localhost:{port}")).unwrap();
    let ledger = Ledger::default();
    let writing = ledger.keep_writing(&one, 1_200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(writing.stop().await > 0);
    let replica = Some(one.replica_id());
    let mut since = Instant::now();
    wait_until("one link remains", || {
        let peers = two.status().peers;
        if peers.len() != 1 || peers[0].replica != replica {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(4)
    })
    .await;
    ledger.assert_whole(&[one, two]).await;
}

/// Offline means that no data moves, also on a link that was about to be given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_offline_closes_superfluous_links_too() {
    let mesh = Mesh::new();
    let ledger = Ledger::default();
    for round in 0..5_u64 {
        let pair: [Store; 2] = mesh.nodes(2).await.try_into().unwrap();
        dial(&pair[0], &pair[1]);
        dial(&pair[1], &pair[0]);
        wait_linked(&pair, 1).await;
        // A little earlier or later each time, in the middle of the second handshake or after it.
        tokio::time::sleep(Duration::from_millis(round % 5)).await;
        pair[0].go_offline();
        wait_until("no link", || pair.iter().all(|store| links_up(store) == 0)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        ledger.receive(&pair[0], "HERE", 1).await.unwrap();
        ledger.receive(&pair[1], "THERE", 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(pair.each_ref().map(links_up), [0, 0], "round {round}");
        assert!(pair[1].get("HERE").is_err() && pair[0].get("THERE").is_err(), "round {round}: a write crossed");
    }
}
