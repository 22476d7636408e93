//! A node of a cluster loses power at any moment, under writes of all: own ones, sales for which rights move, and what it takes in.
//! Nothing of an own write leaves it before it is durable, so no peer ever knows more of it than its disk, and it keeps its id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use stockmesh::storage::FaultMode;
use stockmesh::{Durability, Store, WriteError};

use crate::chance::Chance;
use crate::cluster::{converged, link, node, until};
use crate::faults::Disks;

const ROUNDS: u64 = 10;
/// Counted in by the node that loses power, and by nobody else.
const OWN: &str = "OWN";
/// Sold by all, and sold out again and again.
const SHARED: &str = "SHARED";
const STOCK: u64 = 60;

/// Units that were acknowledged, and those of writes that failed with the disk.
#[derive(Debug, Default)]
struct Account {
    own: AtomicI64,
    own_unsure: AtomicI64,
    sold: AtomicI64,
    sold_unsure: AtomicI64,
}

fn note(answer: Result<(), WriteError>, sure: &AtomicI64, unsure: &AtomicI64) {
    match answer {
        Ok(()) => sure.fetch_add(1, Ordering::SeqCst),
        Err(WriteError::Indeterminate { .. }) => unsure.fetch_add(1, Ordering::SeqCst),
        Err(WriteError::Insufficient { .. } | WriteError::Poisoned { .. }) => 0,
        Err(error) => panic!("{error}"),
    };
}

/// Sells until it is told to stop; counts in besides, if it is the one.
async fn write(store: Store, account: Arc<Account>, counts_in: bool, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::SeqCst) {
        if counts_in {
            let answer = store.product(OWN).unwrap().receive(1).await;
            note(answer, &account.own, &account.own_unsure);
        }
        let shared = store.product(SHARED).unwrap().at("all").unwrap();
        note(shared.sell(1).deadline(Duration::from_millis(50)).await, &account.sold, &account.sold_unsure);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn units(store: &Store, sku: &str) -> i64 {
    store.get(sku).map_or(0, |product| product.on_hand() as i64)
}

async fn open(disks: &Disks) -> Store {
    node("loses").disks(Box::new(disks.store.clone()), Box::new(disks.mark.clone())).open().await.unwrap()
}

/// Has all write until the node has lost its disk, and a while longer, so that what should not leave it has time to leave.
async fn write_until_the_power_goes(node: &Store, peers: &[Store], account: &Arc<Account>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let writers = [(node, true), (node, true), (&peers[0], false), (&peers[1], false)];
    let writing = writers.map(|(store, counts_in)| {
        tokio::spawn(write(store.clone(), Arc::clone(account), counts_in, Arc::clone(&is_over)))
    });
    until("the power goes", || matches!(node.status().durability, Durability::Poisoned { .. })).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    is_over.store(true, Ordering::SeqCst);
    for writer in writing {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_ever_knows_what_the_disk_of_a_node_lacks_that_loses_power_under_writes_of_all() {
    let mut chance = Chance::new(23);
    let peers = [node("one").in_memory().open().await.unwrap(), node("two").in_memory().open().await.unwrap()];
    link(&peers[0], &peers[1]);
    let (account, mut disks) = (Arc::new(Account::default()), Disks::default());
    for round in 0..ROUNDS {
        let loses = open(&disks).await;
        peers.iter().for_each(|peer| link(&loses, peer));
        let stocks = &peers[(round % 2) as usize];
        stocks.product(SHARED).unwrap().at("all").unwrap().receive(STOCK).await.unwrap();
        disks.store.fail_at(10 + chance.below(300), FaultMode::Forever);
        write_until_the_power_goes(&loses, &peers, &account).await;
        let known = peers.each_ref().map(|peer| units(peer, OWN));
        drop(loses.close().await);

        // Nobody tells it what it had before it has told what is left.
        disks = disks.left(Some(chance.below(1 << 40)));
        let left = disks.left(None).open().await.unwrap();
        let (found, own) = (units(&left, OWN), account.own.load(Ordering::SeqCst));
        let most = own + account.own_unsure.swap(0, Ordering::SeqCst);
        assert!((own..=most).contains(&found), "round {round}: {found} are left, {own} to {most} were told");
        assert!(known.iter().all(|known| *known <= found), "round {round}: {found} are left, peers know of {known:?}");
        account.own.store(found, Ordering::SeqCst);
        left.close().await.unwrap();
    }
    let back = open(&disks).await;
    peers.iter().for_each(|peer| link(&back, peer));
    converged(&[&back, &peers[0], &peers[1]]).await;
    assert_eq!(back.status().former_replicas, [], "a peer knew of writes that were not durable");
    assert_eq!(units(&back, OWN), account.own.load(Ordering::SeqCst));
    let (sold, unsure) = (account.sold.load(Ordering::SeqCst), account.sold_unsure.load(Ordering::SeqCst));
    let (stocked, on_hand) = ((ROUNDS * STOCK) as i64, units(&back, SHARED));
    assert!(on_hand >= 0, "oversold");
    assert!((sold..=sold + unsure).contains(&(stocked - on_hand)), "{} left, {sold} and {unsure} sold", on_hand);
    println!(
        "{ROUNDS} losses of power: {} counted in, {sold} of {stocked} sold, {unsure} sales unsure",
        units(&back, OWN)
    );
}
