//! Sales that wait for rights: peers that never answer, and many that wait at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stockmesh::NeedOnly;
use stockmesh_proto::wire::Ask;
use tokio::task::JoinSet;

use super::peer::{Peer, grant};
use super::{
    assert_shared_out, available, giver_and_asker, is_insufficient, mug, own_rights, recording, rights_of,
    sold_by_ledger, wait_available,
};
use crate::support::{Mesh, PATIENCE, dial, wait_converged, wait_linked, wait_until};

/// How long one peer is waited for before another is asked.
const ASK_TIME: Duration = Duration::from_millis(200);

/// A peer that takes the question and stays silent costs its time, then the other is asked; and the silent one is left
/// alone for a pause that doubles, instead of costing each sale the same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_costs_its_time_once_and_then_another_is_asked() {
    let mesh = Mesh::new();
    let (honest, recorder) = recording(&mesh, "honest").await;
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    dial(&asker, &honest);
    wait_linked(&[honest.clone(), asker.clone()], 1).await;
    mug(&honest).receive(100).await.unwrap();
    wait_available(std::slice::from_ref(&asker), 100).await;
    let silent = Peer::start(&mesh, &asker, 10_000, Arc::new(|_: &Ask| None)).await;

    let begun = Instant::now();
    mug(&asker).sell(5).deadline(PATIENCE).await.unwrap();
    assert!(begun.elapsed() >= ASK_TIME, "the silent peer has the most, so it was asked first");
    assert_eq!((silent.in_need().len(), recorder.in_need()), (1, 1));
    for _ in 0..20 {
        mug(&asker).sell(1).deadline(PATIENCE).await.unwrap();
    }
    // Asked for the nth time only after pauses of 100, 200, 400 … ms, besides the time it was waited for.
    let asked = silent.in_need().len() as u32;
    let least = u128::from(100 * ((1_u64 << (asked - 1)) - 1)) + ASK_TIME.as_millis() * u128::from(asked - 1);
    let took = begun.elapsed().as_millis();
    assert!(least <= took, "asked {asked} times within {took} ms");
    assert!(recorder.in_need() >= 20, "each of these sales asked somebody");
    assert_eq!(sold_by_ledger(&asker).await, 25);
    assert_eq!(rights_of(&asker, silent.raw.replica), 10_000, "nobody took what was not given");
}

/// With nobody else to ask, a sale ends when the silent peer's time is over, long before its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_does_not_wait_for_its_deadline_when_nobody_is_left_to_ask() {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    let silent = Peer::start(&mesh, &asker, 1_000, Arc::new(|_: &Ask| None)).await;
    let begun = Instant::now();
    let answer = mug(&asker).sell(1).deadline(Duration::from_secs(3_600)).await;
    assert!(is_insufficient(&answer), "{answer:?}");
    assert!((ASK_TIME..PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(silent.in_need().len(), 1);
    // A deadline that is shorter than a peer's time holds too.
    tokio::time::sleep(ASK_TIME).await;
    let begun = Instant::now();
    assert!(is_insufficient(&mug(&asker).sell(1).deadline(Duration::from_millis(20)).await));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(own_rights(&asker), 0);
}

/// Three of four silent peers must help together. Returns for how much each was asked before the first one's time was over.
async fn asked_before_the_first_answer() -> Vec<u64> {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Peer::start(&mesh, &asker, 10, Arc::new(|_: &Ask| None)).await);
    }
    let answer = mug(&asker).sell(25).deadline(ASK_TIME * 3 / 4).await;
    assert!(is_insufficient(&answer), "{answer:?}");
    silent.iter().flat_map(Peer::in_need).map(|ask| ask.needed).collect()
}

/// If one peer cannot cover the need, several are asked at the same time, each for no more than it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_must_help_together_are_asked_at_once() {
    let mut seen = Vec::new();
    // More than once, since the machine may stall within so short a time.
    for _ in 0..10 {
        let mut asked = asked_before_the_first_answer().await;
        asked.sort_unstable();
        if asked == [5, 10, 10] {
            return;
        }
        seen.push(asked);
    }
    panic!("asked for {seen:?}");
}

/// Many sales that wait at one node ask together: far fewer questions than sales, and all are sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sales_that_wait_together_ask_together() {
    let mesh = Mesh::new();
    let ([giver, asker], recorder) = giver_and_asker(&mesh, 1_000).await;
    let mut sales = JoinSet::new();
    for _ in 0..50 {
        let mug = mug(&asker);
        sales.spawn(async move { mug.sell(2).deadline(PATIENCE).await });
    }
    while let Some(sale) = sales.join_next().await {
        sale.unwrap().unwrap();
    }
    let asks = recorder.in_need();
    assert!((1..=12).contains(&asks), "{asks} questions for 50 sales");
    let stores = [giver, asker];
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [900, 900]);
    stores.iter().for_each(assert_shared_out);
    assert_eq!(sold_by_ledger(&stores[1]).await, 100);
}

/// While sales wait, a grant that comes with a push serves them too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_come_otherwise_serve_those_who_wait() {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    let peer = Peer::start(&mesh, &asker, 100, Arc::new(|_: &Ask| None)).await;
    let selling = mug(&asker);
    let selling = tokio::spawn(async move { selling.sell(7).deadline(PATIENCE).await });
    wait_until("the peer is asked", || !peer.in_need().is_empty()).await;
    let slot = grant(peer.raw.replica, asker.replica_id(), 2, 9);
    peer.raw.push_bytes(&super::peer::push_of(peer.raw.replica, super::MUG, 2, slot), false).await;
    selling.await.unwrap().unwrap();
    assert_eq!((own_rights(&asker), available(&asker)), (2, 93));
}
