//! Requests that are made again under their reference: done once, answered the same, whatever they needed the first time.

use std::time::Duration;

use stockmesh::{HoldId, OperationRefused, Reason, Store, WriteError};

use super::{available, giver_and_asker, is_insufficient, mug, sold_by_ledger};
use crate::support::writers::price;
use crate::support::{Mesh, PATIENCE, wait_converged};

const HOUR: Duration = Duration::from_secs(3_600);

fn is_reused<T: std::fmt::Debug>(answer: Result<T, WriteError>) -> bool {
    matches!(answer, Err(WriteError::Refused(OperationRefused::ReferenceReused { .. })))
}

fn all_of(store: &Store) -> (stockmesh::Fingerprint, i128) {
    (store.status().fingerprint, available(store))
}

/// A sale that had to ask is made again under its reference: it is answered at once, neither sold nor asked for again,
/// even when nothing is left; another content under the same reference is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helped_sale_that_is_made_again_is_neither_sold_nor_asked_for_again() {
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 10).await;
    let asker = &stores[1];
    let order = mug(asker).reference("order-1").unwrap();
    order.sell(6).deadline(PATIENCE).await.unwrap();
    assert_eq!(recorder.in_need(), 1);
    for _ in 0..5 {
        order.sell(6).deadline(PATIENCE).await.unwrap();
        order.try_sell(6).await.unwrap();
    }
    assert_eq!((recorder.in_need(), available(asker), sold_by_ledger(asker).await), (1, 4, 6));
    assert!(is_reused(order.sell(5).await));
    assert!(is_reused(order.receive(6).await));
    assert!(is_reused(order.at("elsewhere").unwrap().sell(6).await));

    // A refused request leaves its reference free: it may be made again, and then count.
    let late = mug(asker).reference("order-2").unwrap();
    assert!(is_insufficient(&late.sell(100).await));
    late.sell(4).deadline(PATIENCE).await.unwrap();
    late.sell(4).deadline(PATIENCE).await.unwrap();
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [0, 0]);
    // References belong to the node at which they were used.
    assert!(is_insufficient(&mug(&stores[0]).reference("order-1").unwrap().sell(6).await));
}

/// The same call many times at once, all waiting for rights: one sale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_many_times_at_once_is_done_once() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let order = mug(&stores[1]).reference("order-1").unwrap();
        calls.spawn(async move { order.sell(3).deadline(PATIENCE).await });
    }
    for answer in calls.join_all().await {
        answer.unwrap();
    }
    assert_eq!((available(&stores[1]), sold_by_ledger(&stores[1]).await), (97, 3));
}

/// Every kind of operation under a reference: made again it changes nothing and returns what it returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_every_kind_are_done_once_under_their_reference() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let asker = &stores[1];
    let named = |name: &str| mug(asker).reference(name).unwrap();
    let mut holds: Vec<HoldId> = Vec::new();
    let mut after = None;
    for _ in 0..3 {
        named("receive").receive(50).await.unwrap();
        named("adjust").adjust(-5, Reason::Damaged).await.unwrap();
        named("price").set_price(price(1_250)).await.unwrap();
        named("listed").set_listed(true).await.unwrap();
        named("transfer").transfer(super::SHOP, "cellar", 7).deadline(PATIENCE).await.unwrap();
        let hold = named("hold").hold(80, HOUR).deadline(PATIENCE).await.unwrap();
        assert_eq!(hold.reference().map(stockmesh::Reference::as_str), Some("hold"));
        holds.push(hold.id());
        assert_eq!(named("count").stocktake(130).await.unwrap(), -8, "138 were on hand");
        let batch = asker.batch().reference("batch").unwrap().at(super::SHOP).unwrap();
        let batch = batch.sell(super::MUG, 3).unwrap().hold(super::MUG, 2, HOUR).unwrap();
        let committed = batch.deadline(PATIENCE).unwrap().commit().await.unwrap();
        holds.push(committed.holds[0].id());
        let now = (all_of(asker), holds[holds.len() - 2..].to_vec());
        assert_eq!(now, *after.get_or_insert(now.clone()));
    }
    let view = asker.get(super::MUG).unwrap();
    assert_eq!((view.on_hand(), view.held()), (127 + 7, 82));
    for reused in [
        named("receive").receive(51).await,
        named("adjust").adjust(-5, Reason::Lost).await,
        named("price").set_price(price(1_251)).await,
        named("count").stocktake(131).await.map(drop),
        named("hold").hold(80, 2 * HOUR).await.map(drop),
        named("transfer").transfer("cellar", super::SHOP, 7).await,
    ] {
        assert!(is_reused(reused));
    }
    assert!(mug(asker).reference("").is_err() && mug(asker).reference(&"x".repeat(129)).is_err());
    assert_eq!(all_of(asker), after.unwrap().0);
}

/// A hold that was resolved meanwhile is still the one that its reference gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_found_by_its_reference_after_it_was_resolved() {
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 10).await;
    let order = mug(&stores[1]).reference("order-1").unwrap();
    let hold = order.hold(10, HOUR).deadline(PATIENCE).await.unwrap();
    hold.commit().await.unwrap();
    let again = order.hold(10, HOUR).await.unwrap();
    assert_eq!(again.id(), hold.id());
    assert_eq!(again.commit().await.unwrap(), hold.commit().await.unwrap());
    assert_eq!((recorder.in_need(), available(&stores[1])), (1, 0));
    assert_eq!(stores[1].get(super::MUG).unwrap().on_hand(), 0);
}
