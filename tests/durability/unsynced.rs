//! No byte of an own write leaves the node before it is durable (rule R8): else a crash takes it back, its number is
//! used again, and the maximum swallows a real sale.

use std::time::{Duration, Instant};

use stockmesh::storage::{FaultMode, FaultyDisk};
use stockmesh::{Durability, Store, WriteError};

use crate::chance::Chance;
use crate::cluster::{converged, link, node, until};
use crate::faults::Disks;
use crate::gate::{Gate, GatedDisk};
use crate::model::{Model, add, perform};

/// How long an unsynced write must stay unseen: many rounds of reconciliation.
const UNSEEN: Duration = Duration::from_millis(1500);

async fn gated(disks: &Disks, gate: &Gate) -> Store {
    let store = GatedDisk { disk: disks.store.clone(), gate: gate.clone() };
    node("gated").disks(Box::new(store), Box::new(disks.mark.clone())).open().await.unwrap()
}

async fn stays_unseen(at: &Store, sku: &str) {
    let begun = Instant::now();
    while begun.elapsed() < UNSEEN {
        assert!(at.get(sku).is_err(), "{sku} left its node before it was durable");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_seen_by_a_peer_only_once_it_is_durable() {
    let (disks, gate) = (Disks::default(), Gate::default());
    let writer = gated(&disks, &gate).await;
    let (dialled, dialling) = (node("dialled").in_memory().open().await, node("dialling").in_memory().open().await);
    let (dialled, dialling) = (dialled.unwrap(), dialling.unwrap());
    link(&writer, &dialled);
    link(&dialling, &writer);
    perform(&writer, &vec![add("EARLIER", 1)]).await.unwrap();
    converged(&[&writer, &dialled, &dialling]).await;

    gate.close();
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move { perform(&writer, &vec![add("MUG", 5)]).await }
    });
    until("the write waits for its sync", || gate.is_reached_by(|| writer.get("MUG").is_ok())).await;
    // A peer that links only now asks for everything, and must not be told of it either.
    let late = node("late").in_memory().open().await.unwrap();
    link(&late, &writer);
    tokio::join!(stays_unseen(&dialled, "MUG"), stays_unseen(&dialling, "MUG"), stays_unseen(&late, "MUG"));
    assert!(!writing.is_finished(), "a write was acknowledged before it was durable");

    gate.open();
    writing.await.unwrap().unwrap();
    let model = converged(&[&writer, &dialled, &dialling, &late]).await;
    assert_eq!(model.0["MUG"].on_hand, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_sync_failed_is_never_seen_by_a_peer() {
    let (disks, gate) = (Disks::default(), Gate::default());
    let writer = gated(&disks, &gate).await;
    let peer = node("peer").in_memory().open().await.unwrap();
    link(&writer, &peer);
    link(&peer, &writer);
    perform(&writer, &vec![add("EARLIER", 1)]).await.unwrap();
    converged(&[&writer, &peer]).await;

    gate.close();
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move { perform(&writer, &vec![add("MUG", 5)]).await }
    });
    until("the write waits for its sync", || gate.is_reached_by(|| writer.get("MUG").is_ok())).await;
    disks.store.fail_at(1, FaultMode::Once);
    gate.open();
    assert!(matches!(writing.await.unwrap(), Err(WriteError::Indeterminate { .. })));
    assert_eq!(writer.get("MUG").unwrap().on_hand(), 5, "reads go on");
    assert!(matches!(writer.status().durability, Durability::Poisoned { .. }));
    // Nor does it leave with what the peer writes, nor when the store closes.
    perform(&peer, &vec![add("CUP", 1)]).await.unwrap();
    stays_unseen(&peer, "MUG").await;
    drop(writer.close().await);
    stays_unseen(&peer, "MUG").await;
}

/// The writer loses power at any moment, linked to a peer. What the peer saw was durable, so after each loss the writer
/// goes on under its own id, and no sum is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_never_knows_more_than_the_disk_after_a_loss_of_power() {
    let mut chance = Chance::new(7);
    let peer = node("peer").in_memory().open().await.unwrap();
    let mut disks = Disks::default();
    let (mut sure, mut unsure_total) = (Model::default(), 0);
    for round in 0..12 {
        let store: Box<FaultyDisk> = Box::new(disks.store.clone());
        let writer = node("writer").disks(store, Box::new(disks.mark.clone())).open().await.unwrap();
        link(&writer, &peer);
        until("linked", || {
            peer.status().peers.iter().any(|peer| peer.reconciled_ago.is_some() || peer.round_trip.is_some())
        })
        .await;
        disks.store.fail_at(20 + chance.below(80), [FaultMode::Once, FaultMode::Forever][round % 2]);
        let mut unsure = None;
        for number in 0.. {
            let write = vec![add(format!("P{}", number % 5), 1), add("ALL", 1)];
            match perform(&writer, &write).await {
                Ok(()) => sure.apply(&write),
                Err(WriteError::Indeterminate { .. }) => unsure = Some(write),
                Err(error) => {
                    assert!(matches!(error, WriteError::Poisoned { .. }), "{error}");
                    break;
                }
            }
        }
        drop(writer.close().await);
        disks = disks.left(Some(chance.below(1 << 40)));
        let left = disks.left(None).open().await.unwrap();
        if let Some(unsure) = unsure
            && Model::of(&left) != sure
        {
            unsure_total += 1;
            sure.apply(&unsure);
        }
        assert_eq!(Model::of(&left), sure, "round {round}");
        assert_eq!(left.status().former_replicas, []);
    }
    let writer = node("writer").disks(Box::new(disks.store), Box::new(disks.mark)).open().await.unwrap();
    link(&writer, &peer);
    assert_eq!(converged(&[&writer, &peer]).await, sure);
    assert_eq!(writer.status().former_replicas, [], "the peer knew of writes that were not durable");
    println!("{unsure_total} of 12 indeterminate writes were there, {} units in all", sure.0["ALL"].on_hand);
}
