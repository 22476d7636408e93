//! A node that takes in what others wrote, and loses power meanwhile: what it claims on disk it also holds there
//! (rule D3). A claim without its slots would keep the peers from ever sending them again.

use stockmesh::Store;
use stockmesh::storage::FaultMode;

use crate::chance::Chance;
use crate::cluster::{converged, link, node, until};
use crate::faults::Disks;
use crate::model::{Model, add, perform};

const ROUNDS: u64 = 12;

async fn open(disks: &Disks) -> Store {
    node("receiver").disks(Box::new(disks.store.clone()), Box::new(disks.mark.clone())).open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_loses_power_claims_nothing_that_it_lacks() {
    let mut chance = Chance::new(11);
    let peer = node("peer").in_memory().open().await.unwrap();
    let mut disks = Disks::default();
    let mut cut_off = 0;
    for round in 0..ROUNDS {
        let receiver = open(&disks).await;
        disks.store.fail_at(2 + chance.below(60), [FaultMode::Once, FaultMode::ShortWrite][(round % 2) as usize]);
        link(&receiver, &peer);
        for number in 0..12 {
            let write: Vec<_> = (0..60).map(|product| add(format!("P-{number}-{product}"), 1)).collect();
            perform(&peer, &write).await.unwrap();
        }
        until("the disk fails, or all is there", || {
            receiver.status().fingerprint == peer.status().fingerprint
                || receiver.status().durability != stockmesh::Durability::Synced
        })
        .await;
        cut_off += u32::from(receiver.status().durability != stockmesh::Durability::Synced);
        drop(receiver.close().await);
        disks = disks.left((round % 3 != 0).then(|| chance.below(1 << 40)));

        // Nothing it kept may be more than the peer has, and a look at the whole of it needs no repair.
        let receiver = open(&disks).await;
        let (kept, whole) = (Model::of(&receiver), Model::of(&peer));
        assert!(kept.0.iter().all(|(sku, entry)| entry.on_hand <= whole.0[sku].on_hand), "round {round}");
        link(&receiver, &peer);
        assert_eq!(converged(&[&receiver, &peer]).await, whole, "round {round}");
        for node in [&receiver, &peer] {
            assert_eq!(node.status().shards_in_doubt, [], "round {round}: a claim without its slots");
            assert_eq!(node.status().former_replicas, [], "round {round}");
        }
        receiver.close().await.unwrap();
        disks = disks.left(None);
    }
    println!("{cut_off} of {ROUNDS} receivers were cut off while they took in what a peer wrote");
    assert!(cut_off > 3, "{cut_off}");
}
