//! Requests that need rights more than once, or while others wait: what went wrong once must not again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stockmesh::{Batch, MovementKind, NeedOnly, OversellPolicy, Store, WriteError};
use stockmesh_proto::limits::MESSAGE_BYTES_MAX;
use stockmesh_proto::wire::{Ask, Hello, Message};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::peer::{Answer, Peer, encoded, grant, granted, push_of, stock};
use super::{
    MUG, Recorder, SHOP, assert_shared_out, at_shop, available, giver_and_asker, is_insufficient, mug, own_rights,
    rights_to, wait_available,
};
use crate::support::proxy::{Proxy, Weather};
use crate::support::raw::{Raw, hello, read, write};
use crate::support::{Mesh, PATIENCE, address, links_up, on_hand, wait_converged, wait_linked, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);

/// Units that peers were asked for by those in need, question by question.
fn asked_for(recorder: &Recorder) -> Vec<u64> {
    recorder.0.lock().iter().map(|request| request.needed).filter(|needed| *needed > 0).collect()
}

fn batch(store: &Store) -> Batch {
    store.batch().at(SHOP).unwrap().deadline(PATIENCE).unwrap()
}

/// A batch of sales of the same product.
fn selling(store: &Store, units: &[u64]) -> Batch {
    units.iter().fold(batch(store), |batch, units| batch.sell(MUG, *units).unwrap())
}

/// Sales of one product in one batch are asked for together: with what the first ones of them take counted, once, so that
/// the batch goes through with exactly what it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_sells_a_product_more_than_once_asks_for_all_of_it() {
    let mesh = Mesh::new();
    let ([giver, asker], recorder) = giver_and_asker(&mesh, 100).await;
    let (mut sold, mut asked) = (0, Vec::new());
    for (at_hand, sales) in [(5, &[4, 4][..]), (8, &[4, 4, 4]), (0, &[1, 2, 3]), (6, &[6, 1]), (3, &[4, 1, 1])] {
        if at_hand > 0 {
            mug(&asker).receive(at_hand).await.unwrap();
        }
        timeout(PATIENCE, selling(&asker, sales).commit()).await.expect("an end of it").unwrap();
        let units: u64 = sales.iter().sum();
        asked.push(units - at_hand);
        sold += units - at_hand;
        assert_eq!((asked_for(&recorder), own_rights(&asker)), (asked.clone(), 0), "{at_hand} for {sales:?}");
    }
    // What the batch itself brings in need not be asked for.
    let own = batch(&asker).receive(MUG, 3).unwrap().sell(MUG, 2).unwrap().sell(MUG, 2).unwrap();
    timeout(PATIENCE, own.commit()).await.expect("an end of it").unwrap();
    asked.push(1);
    assert_eq!((asked_for(&recorder), own_rights(&asker)), (asked, 0));
    let stores = [giver, asker];
    wait_converged(&stores).await;
    for store in &stores {
        assert_eq!(available(store), 100 - i128::from(sold) - 1);
        assert_shared_out(store);
    }
}

/// A batch that sells more of a product than there is, sale by sale within what there is: it is refused with what all of
/// it would have needed, and nothing is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_sells_too_much_in_all_is_refused_with_its_sum() {
    let mesh = Mesh::new();
    let ([_giver, asker], recorder) = giver_and_asker(&mesh, 5).await;
    mug(&asker).receive(5).await.unwrap();
    let before = asker.status().fingerprint;
    for sales in [&[4, 4, 4][..], &[12], &[6, 6], &[1, 10, 1]] {
        let answer = timeout(PATIENCE, selling(&asker, sales).commit()).await.expect("an end of it");
        let Err(WriteError::Insufficient { sku, wanted, here, elsewhere, unreachable, .. }) = answer else {
            panic!("{sales:?}: {answer:?}");
        };
        assert_eq!((sku.as_str(), wanted), (MUG, 12), "{sales:?}");
        assert_eq!((here, elsewhere, unreachable), (5, 5, 0), "{sales:?}");
    }
    assert_eq!((asker.status().fingerprint, asked_for(&recorder)), (before, Vec::new()));
}

/// A hand-made peer with 50 units, which gives 30 of them to the first who asks, and is silent from then on.
async fn thirty_and_then_silent(mesh: &Mesh, asker: &Store) -> Peer {
    let (node, bits) = (asker.replica_id(), Arc::new(std::sync::OnceLock::new()));
    let (known, has_given) = (Arc::clone(&bits), AtomicBool::new(false));
    let answering = move |ask: &Ask| -> Answer {
        let peer = *known.get().filter(|_| ask.needed > 0)?;
        if has_given.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut product = stock(peer, 1, 50);
        product.absorb(&grant(peer, node, 2, 30));
        encoded(granted(30, 2, product))
    };
    let peer = Peer::start(mesh, asker, 50, Arc::new(answering)).await;
    bits.set(peer.raw.replica).unwrap();
    peer
}

/// Somebody who wants 50 of those 30 units, and waits for the rest until the store is closed.
async fn waiting_for_more(asker: &Store, peer: &Peer) -> JoinHandle<Result<(), WriteError>> {
    let large = mug(asker);
    let large = tokio::spawn(async move { large.sell(50).deadline(HOUR).await });
    wait_until("the rest is asked for", || own_rights(asker) == 30 && peer.in_need().len() == 2).await;
    large
}

/// A sale that was done is answered as done when it is made again, also while rights of the product are kept for somebody
/// who waits for them: it takes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_made_again_does_not_wait_behind_others() {
    let mesh = Mesh::new();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let mug = mug(&asker);
    mug.receive(5).await.unwrap();
    let order = mug.reference("order-1").unwrap();
    order.sell(5).await.unwrap();
    let peer = thirty_and_then_silent(&mesh, &asker).await;
    let large = waiting_for_more(&asker, &peer).await;
    // While a question is under way, and the peer does not count as silent yet, what was obtained is kept.
    for _ in 0..20 {
        order.sell(5).deadline(Duration::from_millis(1)).await.unwrap();
    }
    assert!(!large.is_finished());
    assert_eq!((own_rights(&asker), available(&asker)), (30, 50));
    large.abort();
}

/// A sale that fits into what there is goes on, when the one before it waits for a peer that does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_fits_does_not_wait_behind_one_that_waits_for_a_silent_peer() {
    let mesh = Mesh::new();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let peer = thirty_and_then_silent(&mesh, &asker).await;
    let large = waiting_for_more(&asker, &peer).await;
    for left in [20, 10, 0] {
        mug(&asker).sell(10).deadline(PATIENCE).await.unwrap();
        assert_eq!(own_rights(&asker), left);
    }
    assert!(!large.is_finished());
    large.abort();
}

/// A store that is closed does not wait for its sales that wait: all of them end, and say that it was closed, also those
/// that would have had rights enough if nobody had come before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sales_that_wait_end_when_the_store_is_closed() {
    for round in 0..3 {
        let mesh = Mesh::new();
        let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
        let peer = thirty_and_then_silent(&mesh, &asker).await;
        let large = waiting_for_more(&asker, &peer).await;
        let mut waiting = JoinSet::new();
        for _ in 0..4 {
            let mug = mug(&asker);
            waiting.spawn(async move { mug.sell(40).deadline(HOUR).await });
        }
        waiting.spawn(async move { large.await.unwrap() });
        timeout(PATIENCE, asker.close()).await.expect("the store closes").unwrap();
        let answers = timeout(PATIENCE, waiting.join_all()).await.expect("the sales end");
        assert!(answers.iter().all(|answer| matches!(answer, Err(WriteError::Closed))), "round {round}: {answers:?}");
        assert_eq!((own_rights(&asker), available(&asker)), (30, 50));
    }
}

/// Once a store is being closed every sale says so, also one that would have to wait behind others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_says_that_the_store_is_closed_also_behind_others() {
    let mesh = Mesh::new();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let peer = thirty_and_then_silent(&mesh, &asker).await;
    let large = waiting_for_more(&asker, &peer).await;
    let closing = asker.clone();
    let closing = tokio::spawn(async move { timeout(PATIENCE, closing.close()).await.expect("the store closes") });
    while !matches!(mug(&asker).receive(1).await, Err(WriteError::Closed)) {}
    while !closing.is_finished() {
        let answer = mug(&asker).sell(5).deadline(Duration::from_millis(1)).await;
        assert!(matches!(answer, Err(WriteError::Closed)), "{answer:?}");
        tokio::task::yield_now().await;
    }
    closing.await.unwrap().unwrap();
    assert!(matches!(large.await.unwrap(), Err(WriteError::Closed)));
}

/// Grants of a product that a node's ledger tells of.
async fn grants_by_ledger(store: &Store, sku: &str) -> usize {
    let movements = store.movements(sku).unwrap().collect().await.unwrap();
    movements.iter().filter(|movement| matches!(movement.kind, MovementKind::Granted(_))).count()
}

/// Two nodes that both want all there is, of which each has half, do not give it to each other again and again: one of
/// them sells, or both end soon, after a few grants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_want_all_of_it_do_not_swap_it_for_ever() {
    let mesh = Mesh::new();
    let mut stores = Vec::new();
    for name in ["one", "two"] {
        stores.push(mesh.builder(name).grant_policy(NeedOnly).open().await.unwrap());
    }
    // Some way apart: what one does shows at the other only after both have decided.
    let proxy = Proxy::start(address(&stores[0]), Weather { late: 1_000, ..Weather::default() }, 1).await;
    stores[1].add_peer(proxy.address()).unwrap();
    wait_linked(&stores, 1).await;
    let mut sold_in_all = 0;
    for round in 0..8 {
        let sku = format!("MUG-{round}");
        for store in &stores {
            at_shop(store, &sku).receive(5).await.unwrap();
        }
        wait_until("both know of all", || stores.iter().all(|store| on_hand(store, &sku) == 10)).await;
        let begun = Instant::now();
        let mut sales = JoinSet::new();
        for store in &stores {
            let product = at_shop(store, &sku);
            sales.spawn(async move { product.sell(10).deadline(Duration::from_secs(2)).await });
        }
        let answers = sales.join_all().await;
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        let sold = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(sold <= 1 && answers.iter().all(|answer| answer.is_ok() || is_insufficient(answer)), "{answers:?}");
        sold_in_all += sold;
        wait_converged(&stores).await;
        let left = if sold == 1 { 0 } else { 10 };
        for store in &stores {
            let rights: i128 = stores.iter().map(|other| rights_to(store, &sku, other.replica_id())).sum();
            assert_eq!((rights, on_hand(store, &sku)), (left, left));
        }
        let grants = [grants_by_ledger(&stores[0], &sku).await, grants_by_ledger(&stores[1], &sku).await];
        assert!(grants.iter().sum::<usize>() < 20, "{grants:?} grants for {sold} sales");
    }
    assert!(sold_in_all > 0, "in no round anything was sold");
}

/// Of a batch with a product that cannot be had but may be backordered, the other product's rights are asked for all the
/// same; if those cannot be had either, the batch is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_backordered_does_not_keep_the_rest_from_being_asked_for() {
    let mesh = Mesh::new();
    let ([giver, asker], recorder) = giver_and_asker(&mesh, 10).await;
    let nowhere = "POT-01";
    let both = |units: u64| {
        let late = batch(&asker).policy(OversellPolicy::Backorder).sell(nowhere, 5).unwrap();
        late.policy(OversellPolicy::Refuse).sell(MUG, units).unwrap()
    };
    both(3).commit().await.unwrap();
    assert_eq!((asked_for(&recorder), own_rights(&asker), available(&asker)), (vec![3], 0, 7));
    let own_of_pot = |store: &Store| rights_to(store, nowhere, asker.replica_id());
    assert_eq!((on_hand(&asker, nowhere), own_of_pot(&asker)), (-5, -5));

    let before = asker.status().fingerprint;
    let answer = both(8).commit().await;
    assert!(matches!(answer, Err(WriteError::Insufficient { .. })), "{answer:?}");
    assert_eq!((asker.status().fingerprint, asked_for(&recorder)), (before, vec![3]));
    let stores = [giver, asker.clone()];
    wait_converged(&stores).await;
    assert_eq!((available(&stores[0]), own_of_pot(&stores[0])), (7, -5));
}

/// Answers questions for rights out of 1,000 units, and leaves messages open; counts those.
async fn give_and_keep_silent(raw: Arc<Raw>, node: stockmesh::ReplicaId, messages: Arc<AtomicUsize>) {
    let (mut streams, mut given) = (JoinSet::new(), BTreeMap::new());
    while let Ok((mut send, mut receive)) = raw.connection.accept_bi().await {
        let first = timeout(PATIENCE, read(&mut receive)).await.ok().flatten();
        if let Some(Message::Ask(ask)) = &first {
            let all = given.entry(ask.sku.clone()).or_insert(0);
            let mut product = stock(raw.replica, 1, 1_000);
            *all += ask.needed;
            let sequence = if ask.needed == 0 { 0 } else { 1 + *all };
            if *all > 0 {
                product.absorb(&grant(raw.replica, node, 1 + *all, *all));
            }
            write(&mut send, &Message::Granted(granted(ask.needed, sequence, product))).await;
            let _ = send.finish();
        }
        if matches!(first, Some(Message::Tell(_))) {
            messages.fetch_add(1, Ordering::SeqCst);
        }
        streams.spawn(async move { (send.stopped().await, receive) });
    }
}

/// Messages to a peer that does not answer them leave room on the link: a sale that needs the peer's rights gets them
/// while they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_wait_do_not_keep_a_sale_from_its_rights() {
    let mesh = Mesh::new();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let mut raw = Raw::silent(&mesh, address(&asker)).await;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    // It knows of rights and of messages.
    write(&mut send, &Message::Hello(Hello { features_known: 3, ..hello(raw.replica) })).await;
    raw.read_hello(&mut receive).await;
    let (raw, messages) = (Arc::new(raw), Arc::new(AtomicUsize::new(0)));
    let mut serving = JoinSet::new();
    serving.spawn(give_and_keep_silent(Arc::clone(&raw), asker.replica_id(), Arc::clone(&messages)));
    let _pushes = raw.push_bytes(&push_of(raw.replica, MUG, 1, stock(raw.replica, 1, 1_000)), false).await;
    wait_available(std::slice::from_ref(&asker), 1_000).await;

    let mut sending = JoinSet::new();
    for _ in 0..200 {
        let (asker, peer) = (asker.clone(), raw.replica);
        sending.spawn(async move { asker.send(peer, vec![7; MESSAGE_BYTES_MAX]).await });
    }
    wait_until("messages wait for an answer", || messages.load(Ordering::SeqCst) >= 8).await;
    // Less than the time for which a message waits.
    for sold in 1..=5 {
        mug(&asker).sell(7).deadline(Duration::from_secs(4)).await.unwrap();
        assert_eq!((available(&asker), own_rights(&asker)), (1_000 - 7 * sold, 0));
    }
    // On a slow machine some may have waited in vain by now, and others have come in their places.
    let (told, mut ended) = (messages.load(Ordering::SeqCst), 0);
    while let Some(answer) = sending.try_join_next() {
        assert!(answer.unwrap().is_err(), "no message was answered");
        ended += 1;
    }
    assert!((8..=8 + ended).contains(&told) && links_up(&asker) == 1, "{told} messages, {ended} have ended");
}
