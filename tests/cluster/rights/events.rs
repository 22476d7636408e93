//! Events of stock that runs low: each crossing once, wherever the units were sold.

use std::time::Duration;

use stockmesh::{Change, Changes, Filter, NeedOnly, Reason};

use super::{SHOP, at_shop, giver_and_asker, mug};
use crate::support::{Mesh, PATIENCE, wait_until};

/// What an event says, in short.
fn told(change: &Change) -> String {
    match change {
        Change::LowStock { product, available, below } => format!("{} has {available}, below {below}", product.sku()),
        Change::OutOfStock(product) => format!("{} is out", product.sku()),
        Change::BackInStock(product) => format!("{} is back", product.sku()),
        Change::Product(product) => format!("{} changed", product.sku()),
        Change::Lagged { .. } => "lagged".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The next event that is not of a member: when those come is the network's doing, also on a machine that stalls.
async fn next(changes: &mut Changes) -> String {
    loop {
        let change =
            tokio::time::timeout(PATIENCE, changes.next()).await.expect("an event").expect("the store is open");
        if !matches!(change, Change::Member(_)) {
            return told(&change);
        }
    }
}

/// Nothing but what is expected comes: the next event is that of a write made now.
async fn assert_quiet(changes: &mut Changes, store: &stockmesh::Store, sku: &str) {
    let marker = at_shop(store, sku);
    marker.receive(1).await.unwrap();
    assert_eq!(next(changes).await, format!("{sku} is back"));
    marker.adjust(-1, Reason::Correction).await.unwrap();
    assert_eq!(next(changes).await, format!("{sku} is out"));
}

/// Each crossing is told once, at both nodes, whoever sold: held units count as gone, and a grant is no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_crossing_is_told_once_at_every_node() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 10).await;
    let [giver, asker] = &stores;
    let mut here = asker.subscribe(Filter::all().below(5).events_only());
    let mut there = giver.subscribe(Filter::prefix("MUG").below(5).events_only());
    mug(asker).sell(5).deadline(PATIENCE).await.unwrap();
    assert_quiet(&mut here, asker, "MARK-1").await;
    let hold = mug(asker).hold(2, Duration::from_secs(600)).deadline(PATIENCE).await.unwrap();
    assert_eq!(next(&mut here).await, "MUG-01 has 3, below 5");
    assert_eq!(next(&mut there).await, "MUG-01 has 3, below 5");
    mug(asker).sell(1).deadline(PATIENCE).await.unwrap();
    hold.commit().await.unwrap();
    assert_quiet(&mut here, asker, "MARK-2").await;
    mug(asker).sell(2).deadline(PATIENCE).await.unwrap();
    assert_eq!(next(&mut here).await, "MUG-01 is out");
    assert_eq!(next(&mut there).await, "MUG-01 is out");
    mug(asker).adjust(-1, Reason::Lost).await.unwrap();
    assert_quiet(&mut here, asker, "MARK-3").await;
    mug(giver).receive(11).await.unwrap();
    assert_eq!(next(&mut here).await, "MUG-01 is back");
    assert_eq!(next(&mut there).await, "MUG-01 is back");
    mug(giver).adjust(-6, Reason::Lost).await.unwrap();
    assert_eq!(next(&mut here).await, "MUG-01 has 4, below 5");
    assert_eq!(next(&mut there).await, "MUG-01 has 4, below 5");
    assert_quiet(&mut here, asker, "MARK-4").await;
    // Nothing else was told there: the next event is that of a write made now.
    at_shop(giver, "MUG-02").receive(1).await.unwrap();
    assert_eq!(next(&mut there).await, "MUG-02 is back");
}

/// With a location only the stock there counts; without `events_only` every change comes too, before its events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_of_one_location_is_watched() {
    let mesh = Mesh::new();
    let store = mesh.builder("alone").grant_policy(NeedOnly).open().await.unwrap();
    for place in [SHOP, "cellar"] {
        mug(&store).at(place).unwrap().receive(10).await.unwrap();
    }
    let mut shop = store.subscribe(Filter::prefix("MUG").below(5).at(SHOP).unwrap().events_only());
    let mut all = store.subscribe(Filter::prefix("MUG").below(5));
    let mut unwatched = store.subscribe(Filter::prefix("MUG"));
    mug(&store).at("cellar").unwrap().sell(10).await.unwrap();
    at_shop(&store, "CUP").receive(1).await.unwrap();
    mug(&store).sell(6).await.unwrap();
    assert_eq!(next(&mut shop).await, "MUG-01 has 4, below 5");
    let expected = ["MUG-01 changed", "MUG-01 changed", "MUG-01 has 4, below 5"];
    for event in expected {
        assert_eq!(next(&mut all).await, event);
    }
    mug(&store).transfer("cellar", SHOP, 1).await.unwrap_err();
    mug(&store).transfer(SHOP, "cellar", 4).await.unwrap();
    assert_eq!(next(&mut shop).await, "MUG-01 is out");
    assert_eq!(next(&mut all).await, "MUG-01 changed");
    mug(&store).transfer("cellar", SHOP, 4).await.unwrap();
    assert_eq!(next(&mut shop).await, "MUG-01 is back");
    assert_eq!(next(&mut all).await, "MUG-01 changed");
    for _ in 0..4 {
        assert_eq!(next(&mut unwatched).await, "MUG-01 changed");
    }
}

/// A reader that lags is told what is low then, also what crossed while it did not look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lagged_is_told_what_is_low() {
    let mesh = Mesh::new();
    let store = mesh.node("alone").await;
    let mut events = store.subscribe(Filter::all().below(5).events_only());
    for (sku, units) in [("LOW", 3), ("OUT", 1), ("PLENTY", 1_000)] {
        at_shop(&store, sku).receive(units).await.unwrap();
    }
    at_shop(&store, "OUT").sell(1).await.unwrap();
    for _ in 0..400 {
        at_shop(&store, "PLENTY").sell(1).await.unwrap();
    }
    let mut seen = vec![next(&mut events).await];
    while seen.last().is_none_or(|last| last != "OUT is out") {
        seen.push(next(&mut events).await);
    }
    assert_eq!(seen, ["lagged", "LOW has 3, below 5", "OUT has 0, below 5", "OUT is out"]);
    wait_until("nothing else is stored", || store.status().products == 3).await;
    assert_quiet(&mut events, &store, "MARK").await;
}
