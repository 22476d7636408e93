//! Nodes that start, stop, crash and come back.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use stockmesh::{ReplicationError, Store, WriteError};

use crate::support::proxy::{Proxy, Weather};
use crate::support::raw;
use crate::support::writers::Ledger;
use crate::support::{
    Mesh, PATIENCE, address, dial, full_mesh, links_up, on_hand, peer_error_with, wait_linked, wait_until, wait_within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restarts_with_its_data_and_catches_up() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let open = async || mesh.builder("restarts").data_dir(directory.path()).open().await.unwrap();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    let restarting = open().await;
    restarting.add_peer(address(&stores[0]).to_string()).unwrap();
    let replica = restarting.replica_id();
    let ledger = Ledger::default();
    ledger.write_at_all(&[restarting.clone(), stores[0].clone()], 700, 100).await;
    restarting.close().await.unwrap();
    drop(restarting);

    ledger.write_at_all(&stores, 710, 100).await;
    let restarted = open().await;
    assert_eq!(restarted.replica_id(), replica, "the directory keeps its replica id");
    assert!(restarted.status().products > 0, "what it had is there before any link");
    dial(&restarted, &stores[1]);
    ledger.write_at_all(std::slice::from_ref(&restarted), 720, 50).await;
    ledger.assert_whole(&[stores, vec![restarted]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_down_when_first_dialled_is_linked_once_it_comes_up() {
    let mesh = Mesh::new();
    // First somebody else has the port, so that the first dial fails at once; then nobody; then the late node.
    let stranger = raw::listen(&mesh, b"something-else");
    let free = stranger.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Some(incoming) = stranger.accept().await {
            let _ = incoming.await;
        }
    });
    let early = mesh.builder("early").peer(free.to_string()).open().await.unwrap();
    let ledger = Ledger::default();
    ledger.receive(&early, "EARLY", 5).await.unwrap();
    wait_until("the first dial fails", || peer_error_with(&early, &["no common protocol"])).await;
    accepting.abort();
    wait_until("the port is free", || UdpSocket::bind(free).is_ok()).await;
    assert_eq!(links_up(&early), 0);
    let late = mesh.builder("late").listen(free).open().await.unwrap();
    wait_until("the late node is linked", || links_up(&early) == 1 && links_up(&late) == 1).await;
    ledger.assert_whole(&[early, late]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn await_replicated_counts_durable_copies() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(3).await;
    full_mesh(&stores);
    let ledger = Ledger::default();
    for round in 1..=10 {
        ledger.receive(&stores[0], "COPIED", 1).await.unwrap();
        stores[0].await_replicated(2, PATIENCE).await.unwrap();
        for store in &stores[1..] {
            assert_eq!(on_hand(store, "COPIED"), round, "confirmed, but not there");
        }
    }
    let short = Duration::from_secs(3);
    let too_many = stores[0].await_replicated(3, short).await;
    assert_eq!(too_many, Err(ReplicationError::TimedOut { confirmed: 2, wanted: 3 }));
    stores[0].go_offline();
    ledger.receive(&stores[0], "COPIED", 1).await.unwrap();
    let nobody = stores[0].await_replicated(1, short).await;
    assert_eq!(nobody, Err(ReplicationError::TimedOut { confirmed: 0, wanted: 1 }));
    let alone = Store::builder().in_memory().open().await.unwrap();
    assert_eq!(alone.await_replicated(1, short).await, Err(ReplicationError::NoNetwork));
}

/// What a closing node acknowledged is with its peers, since it lets them take it in first, or at least comes back with
/// its directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_closes_while_all_write() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    let closing = mesh.builder("closes").data_dir(directory.path()).open().await.unwrap();
    stores.iter().for_each(|store| dial(&closing, store));
    wait_linked(std::slice::from_ref(&closing), 2).await;
    let ledger = Ledger::default();
    let at_closing = ledger.keep_writing(&closing, 800);
    let others: Vec<_> = stores.iter().zip(810..).map(|(store, seed)| ledger.keep_writing(store, seed)).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    closing.close().await.unwrap();
    assert!(at_closing.ended().await > 0);
    let refused = closing.product("AFTER").unwrap().receive(1).await;
    assert!(matches!(refused, Err(WriteError::Closed)), "{refused:?}");
    assert!(closing.status().products > 0, "reads go on");
    drop(closing);
    for writer in others {
        assert!(writer.stop().await > 0, "the others go on");
    }
    wait_until("the others have noticed", || stores.iter().all(|store| links_up(store) == 1)).await;
    let reopened = mesh.builder("closes").data_dir(directory.path()).open().await.unwrap();
    dial(&reopened, &stores[0]);
    ledger.assert_whole(&[stores, vec![reopened]].concat()).await;
}

/// A closing node lets linked peers take in what they lack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_node_leaves_its_writes_with_its_peers() {
    // More than once, since on a slow machine a second may not be enough for them.
    for _ in 0..5 {
        if leaves_its_writes_with_its_peers().await {
            return;
        }
    }
    panic!("no close ended before it gave up waiting for its peers");
}

/// Returns false if the node waited for its peers for as long as it does, and so promises nothing.
async fn leaves_its_writes_with_its_peers() -> bool {
    let mesh = Mesh::new();
    let stores = mesh.nodes(3).await;
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    let ledger = Ledger::default();
    ledger.write_at_all(&stores[2..], 850, 100).await;
    let begun = Instant::now();
    stores[2].close().await.unwrap();
    if begun.elapsed() >= Duration::from_secs(1) {
        return false;
    }
    ledger.assert_whole(&stores[..2]).await;
    true
}

/// A node that crashed says no good-bye. Its peers believe in the old link until it times out, but take the new one,
/// also if the old one would be preferred had both been dialled at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_crashed_is_linked_again_before_the_old_link_times_out() {
    let never = Duration::from_secs(24 * 60 * 60);
    let mesh = Mesh::new();
    let survivor = mesh.builder("survivor").reconcile_every(never).open().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    // Of links that are dialled at the same time the one dialled by the lower id stays: here the survivor's.
    let mut number = 0;
    let path = loop {
        number += 1;
        let path = directory.path().join(number.to_string());
        let store = mesh.builder("crashes").data_dir(&path).open().await.unwrap();
        store.close().await.unwrap();
        if store.replica_id() > survivor.replica_id() {
            break path;
        }
    };
    let open = async || mesh.builder("crashes").data_dir(&path).reconcile_every(never).open().await.unwrap();
    let crashing = open().await;
    let proxy = Proxy::start(address(&crashing), Weather::default(), 1).await;
    survivor.add_peer(proxy.address()).unwrap();
    wait_linked(&[crashing.clone(), survivor.clone()], 1).await;
    let ledger = Ledger::default();
    ledger.write(&crashing, 900, 20).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.go_dark();
    crashing.close().await.unwrap();
    drop(crashing);

    let back = open().await;
    dial(&back, &survivor);
    wait_linked(std::slice::from_ref(&back), 1).await;
    let mut delays = Vec::new();
    for unit in 1..=30 {
        ledger.receive(&survivor, "BACK", 1).await.unwrap();
        let arrived = || on_hand(&back, "BACK") == unit;
        delays.push(wait_within(PATIENCE, "a write of the survivor reaches the node", arrived).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A link that is given up after two seconds and made anew lets a write wait until the next one.
    delays.sort_unstable();
    assert!(delays[24] < Duration::from_secs(1), "pushes do not flow: {delays:?}");
    ledger.assert_whole(&[survivor, back]).await;
}
