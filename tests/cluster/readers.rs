//! Subscriptions and queries.

use std::collections::BTreeMap;
use std::time::Duration;

use stockmesh::{Change, Changes, Filter, Store};
use tokio::time::timeout;

use crate::support::writers::{Ledger, price};
use crate::support::{Mesh, PATIENCE, dial, wait_linked};

async fn next(changes: &mut Changes) -> Option<Change> {
    timeout(PATIENCE, changes.next()).await.expect("a change comes")
}

/// Own and others' changes come in the order of their commits, each with a view that is not older than the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_delivered_in_order_with_a_fresh_view() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    dial(&stores[0], &stores[1]);
    wait_linked(&stores, 1).await;
    let mut watching = stores.each_ref_changes(Filter::prefix("W-"));
    let ledger = Ledger::default();
    let mut expected = Vec::new();
    for number in 0..60_u64 {
        let sku = format!("W-{:02}", number % 7);
        ledger.receive(&stores[0], &sku, number + 1).await.unwrap();
        ledger.receive(&stores[0], "OTHER", 1).await.unwrap();
        expected.push(sku);
    }
    for (node, changes) in watching.iter_mut().enumerate() {
        let mut seen: BTreeMap<String, i128> = BTreeMap::new();
        let mut order = Vec::new();
        let mut units = BTreeMap::new();
        for (number, sku) in expected.iter().enumerate() {
            *units.entry(sku.clone()).or_insert(0) += number as i128 + 1;
        }
        // Changes that follow closely may be delivered as one, so the end is known by the last units.
        while seen != units {
            let view = match next(changes).await {
                Some(Change::Product(view)) => view,
                // The other node may be seen as a member only now.
                Some(Change::Member(_)) => continue,
                other => panic!("neither lag nor end: {other:?}"),
            };
            let sku = view.sku().to_string();
            let before = seen.insert(sku.clone(), view.on_hand()).unwrap_or_default();
            assert!(view.on_hand() >= before, "{sku} went back from {before} to {}", view.on_hand());
            order.push(sku);
        }
        let mut rest = expected.iter();
        // Elsewhere one commit may take in several pushes, and names their products in the order of shards.
        assert!(node > 0 || order.iter().all(|sku| rest.any(|written| written == sku)), "out of order: {order:?}");
    }
    let changes = &mut watching[0];
    stores[0].close().await.unwrap();
    while let Some(change) = next(changes).await {
        assert!(matches!(change, Change::Product(_) | Change::Member(_)), "{change:?}");
    }
}

trait EachChanges {
    fn each_ref_changes(&self, filter: Filter) -> Vec<Changes>;
}

impl EachChanges for Vec<Store> {
    fn each_ref_changes(&self, filter: Filter) -> Vec<Changes> {
        self.iter().map(|store| store.subscribe(filter.clone())).collect()
    }
}

/// A reader that was too slow is told so, and then shown everything as it is now: once each, in SKU order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lags_is_told_and_then_sees_everything() {
    let store = Store::builder().in_memory().open().await.unwrap();
    let mut changes = store.subscribe(Filter::prefix("L-"));
    let (mut first, mut units) = (store.subscribe(Filter::all()), 0);
    for number in 0..1_500_u64 {
        let sku = format!("L-{:02}", number % 50);
        store.product(&sku).unwrap().receive(1).await.unwrap();
        units += 1;
        let _ = timeout(Duration::from_secs(5), first.next()).await.unwrap();
    }
    store.product("NOT-COVERED").unwrap().receive(1).await.unwrap();
    match next(&mut changes).await {
        Some(Change::Lagged { missed }) => assert!(missed > 1_024 && missed <= 1_501, "{missed}"),
        other => panic!("not told of the lag: {other:?}"),
    }
    let mut views = Vec::new();
    for _ in 0..50 {
        match next(&mut changes).await {
            Some(Change::Product(view)) => views.push(view),
            other => panic!("{other:?}"),
        }
    }
    assert!(views.is_sorted_by(|left, right| left.sku() < right.sku()));
    assert!(views.iter().all(|view| view.sku().as_str().starts_with("L-")));
    assert_eq!(views.iter().map(stockmesh::ProductView::on_hand).sum::<i128>(), units);
    store.product("L-NEW").unwrap().receive(3).await.unwrap();
    loop {
        let Some(Change::Product(view)) = next(&mut changes).await else { panic!("neither lag nor end") };
        if view.sku().as_str() == "L-NEW" {
            break;
        }
    }
    let closing = tokio::spawn(async move { store.close().await });
    assert_eq!(next(&mut changes).await, None);
    closing.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_goes_by_sku_order_and_filters() {
    let store = Store::builder().in_memory().shards(16).open().await.unwrap();
    let mut batch = store.batch();
    for number in 0..3_000_u32 {
        let sku = format!("{}-{number:04}", if number % 3 == 0 { "A" } else { "B" });
        batch = batch.receive(&sku, u64::from(number % 20) + 1).unwrap();
    }
    batch.set_price("C-PRICED-ONLY", price(5)).unwrap().commit().await.unwrap();
    let all: Vec<_> = store.query().iter().collect();
    assert_eq!(all.len(), 3_001);
    assert!(all.is_sorted_by(|left, right| left.sku() < right.sku()));
    let prefixed: Vec<_> = store.query().prefix("A-").iter().collect();
    assert_eq!(prefixed.len(), 1_000);
    assert!(prefixed.iter().all(|view| view.sku().as_str().starts_with("A-")));
    let scarce: Vec<_> = store.query().prefix("A-").available_below(3).iter().collect();
    let by_hand: Vec<_> = prefixed.iter().filter(|view| view.available() < 3).cloned().collect();
    assert!(!by_hand.is_empty());
    assert_eq!(scarce, by_hand);
    assert_eq!(store.query().prefix("Z").iter().count(), 0);
    assert_eq!(store.query().available_below(1).iter().count(), 1, "no stock at all counts as below 1");
}

/// No lock is held between two steps: a writer goes on while a query is half read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_proceeds_while_a_query_is_half_read() {
    let store = Store::builder().in_memory().shards(2).open().await.unwrap();
    let mut batch = store.batch();
    for number in 0..500 {
        batch = batch.receive(&format!("Q-{number:03}"), 1).unwrap();
    }
    batch.commit().await.unwrap();
    let mut reading = store.query().iter();
    let first: Vec<_> = reading.by_ref().take(250).collect();
    for number in [0, 249, 250, 499] {
        let product = store.product(&format!("Q-{number:03}")).unwrap();
        timeout(Duration::from_secs(10), product.receive(5)).await.expect("a query holds a lock").unwrap();
    }
    store.product("Q-499-NEW").unwrap().receive(1).await.unwrap();
    let rest: Vec<_> = reading.collect();
    let skus: Vec<String> = first.iter().chain(&rest).map(|view| view.sku().to_string()).collect();
    assert!(skus.is_sorted_by(|left, right| left < right), "each product once");
    assert!(skus.len() >= 500);
    assert_eq!(rest.iter().find(|view| view.sku().as_str() == "Q-499").unwrap().on_hand(), 6, "a fresh view");
}
