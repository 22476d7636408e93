//! Peers that send more than a node takes (rules K6, K7): the honest are slowed, the others shut out.

use std::time::{Duration, Instant};

use quinn::ConnectionError;
use stockmesh::{PeerLimits, Store};
use stockmesh_proto::fingerprint::Fingerprint;
use stockmesh_proto::wire::{Message, Open, RefusalCode};
use tokio::task::JoinSet;

use crate::support::raw::{Raw, hello};
use crate::support::writers::Ledger;
use crate::support::{
    Mesh, PATIENCE, SHARDS, address, dial, links_up, metrics, on_hand, refused_with, wait_linked, wait_until,
    wait_within,
};

/// Little enough that a test reaches them.
const STRICT: PeerLimits = PeerLimits {
    bytes_per_second: 128 << 10,
    frames_per_second: 1_000,
    streams_per_second: 100,
    sessions_per_second: 10,
    slowed_max: Duration::from_secs(1),
};

async fn strict(mesh: &Mesh) -> Store {
    mesh.builder("strict").peer_limits(STRICT).open().await.unwrap()
}

fn slowed(store: &Store) -> Duration {
    store.status().peers.iter().map(|peer| peer.slowed).sum()
}

/// Receives products of which each takes about 130 bytes to tell, in one batch.
async fn receive_many(store: &Store, round: u64, products: u64) {
    let (location, long) = (store.status().location, "x".repeat(100));
    let mut batch = store.batch();
    for number in 0..products {
        batch = batch.receive(&format!("{long}-{location}-{round}-{number}"), 1).unwrap();
    }
    batch.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_catches_up_is_slowed_and_stays() {
    metrics::record();
    let mesh = Mesh::new();
    let open = async |name: &str| mesh.builder(name).only_peers().open().await.unwrap();
    let (strict, full, other) = (strict(&mesh).await, open("full").await, open("other").await);
    let products = 10_000;
    receive_many(&full, 0, products).await;
    dial(&other, &strict);
    wait_linked(std::slice::from_ref(&other), 1).await;
    let begun = Instant::now();
    dial(&full, &strict);
    // While it is slowed, another peer's writes come through.
    wait_until("the one that catches up is slowed", || slowed(&strict) > Duration::from_secs(1)).await;
    other.product("SOON").unwrap().receive(1).await.unwrap();
    wait_within(Duration::from_secs(3), "another peer is not held back", || on_hand(&strict, "SOON") == 1).await;
    let behind = strict.status().products;
    wait_until("it is there in the end", || strict.status().products == products + 1).await;
    assert!(behind < products, "the other did not wait for it");
    // About 1.3 MiB at 128 KiB a second, the first two seconds' worth at once.
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    let peers = strict.status().peers;
    let of = |store: &Store| peers.iter().find(|peer| peer.replica == Some(store.replica_id())).unwrap();
    assert!(of(&full).bytes_received > 1 << 20 && of(&other).bytes_received < 512 << 10);
    assert!(of(&full).bytes_sent > 0 && of(&full).slowed > Duration::from_secs(2));
    assert_eq!(of(&other).slowed, Duration::ZERO);
    assert_eq!(links_up(&strict), 2);
    for store in [&strict, &full, &other] {
        assert!(store.status().refusals.is_empty(), "{:?}", store.status().refusals);
    }
}

/// Honest nodes that have much to do stay within what a strict node bears, since they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_nodes_are_not_shut_out() {
    let mesh = Mesh::new();
    let mut stores = Vec::new();
    for number in 0..3 {
        let builder = mesh.builder(&format!("node-{number}")).reconcile_every(Duration::from_millis(10));
        let limits = PeerLimits { streams_per_second: 1_000, ..STRICT };
        stores.push(builder.peer_limits(limits).open().await.unwrap());
    }
    crate::support::full_mesh(&stores);
    wait_linked(&stores, 2).await;
    let ledger = Ledger::default();
    let writing: Vec<_> = stores.iter().zip(0..).map(|(store, seed)| ledger.keep_writing(store, seed)).collect();
    let mut waiting = JoinSet::new();
    for store in stores.clone() {
        waiting.spawn(async move {
            let begun = Instant::now();
            let mut number = 0;
            // Until it has too much to do however slow the machine is: each round is more than a second's worth.
            while begun.elapsed() < Duration::from_secs(6) || slowed(&store) < Duration::from_secs(1) {
                assert!(begun.elapsed() < PATIENCE, "it was not slowed");
                if slowed(&store) < Duration::from_secs(1) {
                    number += 1;
                    receive_many(&store, number, 1_000).await;
                }
                let _ = store.await_replicated(2, Duration::from_secs(5)).await;
            }
        });
    }
    while waiting.join_next().await.is_some() {}
    for writing in writing {
        writing.stop().await;
    }
    ledger.assert_whole(&stores).await;
    for store in &stores {
        assert!(store.status().refusals.is_empty(), "{:?}", store.status().refusals);
        assert_eq!(links_up(store), 2);
    }
}

/// Opens one stream after the other with this, as many at once as QUIC lets it, until the link is closed.
async fn flood(raw: &Raw, frames: &[u8]) -> ConnectionError {
    let mut streams = Vec::new();
    let flooding = async {
        loop {
            let Ok((mut send, receive)) = raw.connection.open_bi().await else { return };
            let _ = send.write_all(frames).await;
            let _ = send.finish();
            streams.push((send, receive));
            if streams.len() == 64 {
                // Those that were answered; the rest is waited for by `open_bi`.
                streams.drain(..32);
            }
        }
    };
    tokio::select! {
        () = flooding => {}
        () = tokio::time::sleep(PATIENCE) => panic!("it is not noticed"),
    }
    raw.connection.closed().await
}

async fn assert_shut_out(frames: Vec<u8>, what: &str) {
    metrics::record();
    let mesh = Mesh::new();
    let (strict, healthy) = (strict(&mesh).await, mesh.node("healthy").await);
    dial(&healthy, &strict);
    wait_linked(std::slice::from_ref(&healthy), 1).await;
    let counted = metrics::counter("stockmesh_peers_over_limits_total");
    let raw = Raw::linked(&mesh, address(&strict)).await;
    match flood(&raw, &frames).await {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8(close.reason.to_vec()).unwrap();
            assert!(reason.contains(&format!("opened so many {what}")), "{reason}");
            assert_eq!(close.error_code.into_inner(), 9, "{reason}");
        }
        other => panic!("the link ended otherwise: {other}"),
    }
    wait_until("it is named", || refused_with(&strict, &["is over its limits", &raw.replica.to_string()])).await;
    assert!(metrics::counter("stockmesh_peers_over_limits_total") > counted);

    // It is not let in at once, under whatever id; others are.
    let issued = raw.issued.clone();
    let again = async || {
        let again = Raw::silent_as(&mesh, address(&strict), &issued).await;
        let answer = again.greet(hello(again.replica)).await;
        (again, answer)
    };
    match again().await.1 {
        Some(Message::Refuse(refusal)) => {
            assert_eq!(refusal.code, RefusalCode::TooMuch, "{refusal:?}");
            assert!(refusal.reason.contains("is let in again in"), "{refusal:?}");
        }
        other => panic!("answered with {other:?}"),
    }
    let _other = Raw::linked(&mesh, address(&strict)).await;
    healthy.product("GOES-ON").unwrap().receive(1).await.unwrap();
    wait_until("the healthy one goes on", || on_hand(&strict, "GOES-ON") == 1).await;
    assert_eq!(healthy.status().refusals, []);
    let begun = Instant::now();
    while !matches!(again().await.1, Some(Message::Hello(_))) {
        assert!(begun.elapsed() < PATIENCE, "it is let in again after the pause");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_is_shut_out() {
    assert_shut_out(Message::Ping.encode().unwrap(), "streams").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_reconciliations_is_shut_out() {
    let groups = vec![Fingerprint::EMPTY; (SHARDS as usize).div_ceil(16)];
    let open = Message::Open(Open { root: Fingerprint::EMPTY, groups });
    assert_shut_out([open.encode().unwrap(), Message::End.encode().unwrap()].concat(), "reconciliations").await;
}
