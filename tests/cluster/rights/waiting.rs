//! Sales that wait for rights: peers that never answer, many that wait at once, and who comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockmesh::NeedOnly;
use stockmesh_proto::wire::Ask;
use tokio::task::JoinSet;

use super::peer::{Answer, Peer, encoded, grant, granted, stock};
use super::{
    assert_shared_out, available, giver_and_asker, is_insufficient, mug, own_rights, recording, rights_of,
    sold_by_ledger, wait_available,
};
use crate::support::{Mesh, PATIENCE, dial, wait_converged, wait_linked, wait_until};

/// How long one peer is waited for before another is asked.
pub(super) const ASK_TIME: Duration = Duration::from_millis(200);

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

/// With nobody else to ask, a sale waits for the silent peer until its own time is over: what that peer gives may still
/// come, and to ask it again would only move more rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_waits_for_a_silent_peer_until_its_deadline() {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    let silent = Peer::start(&mesh, &asker, 1_000, Arc::new(|_: &Ask| None)).await;
    let begun = Instant::now();
    let deadline = ASK_TIME * 4;
    let answer = mug(&asker).sell(1).deadline(deadline).await;
    assert!(is_insufficient(&answer), "{answer:?}");
    assert!((deadline..PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(silent.in_need().len(), 1);
    // A deadline that is shorter than a peer's time holds too.
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

/// A peer that gives 30 units first, and 20 then, and nothing more.
fn thirty_and_twenty(peer: Arc<AtomicU64>, node: Arc<AtomicU64>) -> impl Fn(&Ask) -> Answer + Send + Sync {
    let answers = AtomicU64::new(0);
    move |ask| {
        if ask.needed == 0 {
            return encoded(granted(0, 0, stock(replica(&peer), 1, 50)));
        }
        let (units, all) = match answers.fetch_add(1, Ordering::SeqCst) {
            0 => (30, 30),
            1 => (20, 50),
            _ => (0, 50),
        };
        // So that those who come meanwhile wait in the queue too.
        let after = if all == 30 { ASK_TIME / 2 } else { Duration::ZERO };
        let sequence = 1 + all / 25;
        let mut product = stock(replica(&peer), 1, 50);
        product.absorb(&grant(replica(&peer), replica(&node), sequence, all));
        let answer = encoded(granted(units, if units == 0 { 0 } else { sequence }, product));
        answer.map(|(_, bytes)| (after, bytes))
    }
}

fn replica(bits: &AtomicU64) -> stockmesh::ReplicaId {
    stockmesh::ReplicaId::from_bits(bits.load(Ordering::SeqCst)).unwrap()
}

/// One large sale waits, then small ones come; rights come in parts. Returns whether the large one was sold and how many
/// small ones, or nothing if the small ones came too late to wait.
async fn large_before_small() -> Option<(bool, usize)> {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    let (peer_bits, node_bits) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let answering = thirty_and_twenty(Arc::clone(&peer_bits), Arc::clone(&node_bits));
    let peer = Peer::start(&mesh, &asker, 50, Arc::new(answering)).await;
    peer_bits.store(peer.raw.replica.bits(), Ordering::SeqCst);
    node_bits.store(asker.replica_id().bits(), Ordering::SeqCst);
    let large = mug(&asker);
    let large = tokio::spawn(async move { large.sell(50).deadline(PATIENCE).await.is_ok() });
    let mut small = JoinSet::new();
    // The first question is on its way once the large sale waits.
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..20 {
        let mug = mug(&asker);
        small.spawn(async move { mug.sell(1).deadline(PATIENCE).await.is_ok() });
    }
    let sold = large.await.unwrap();
    let small = small.join_all().await.into_iter().filter(|sold| *sold).count();
    let needed: Vec<u64> = peer.in_need().iter().map(|ask| ask.needed).collect();
    // The second question is for what the large one still lacks and all the small ones.
    (needed.first() == Some(&50) && needed.get(1) == Some(&40)).then_some((sold, small))
}

/// Who came first is served first: small sales that wait behind a large one do not take what came for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_sale_is_not_starved_by_small_ones_that_wait_behind_it() {
    // More than once, since the machine may stall within so short a time.
    for _ in 0..60 {
        if let Some((large, small)) = large_before_small().await {
            assert_eq!((large, small), (true, 0), "the large sale came first, and 50 units came in all");
            return;
        }
    }
    panic!("in no attempt all of them waited at once");
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
