//! Clocks that are off (rules C2 to C4, R5).

use std::time::Duration;

use stockmesh::{Price, Store};

use crate::support::writers::{Ledger, price};
use crate::support::{Mesh, address, dial, links_up, metrics, on_hand, wait_linked, wait_until};

fn price_of(store: &Store, sku: &str) -> Option<Price> {
    store.get(sku).ok()?.price()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ahead_within_the_bound_is_borne() {
    let mesh = Mesh::new();
    let ahead = mesh.builder("ahead").clock_offset_ms(30_000).open().await.unwrap();
    let node = mesh.node("node").await;
    dial(&ahead, &node);
    wait_linked(&[ahead.clone(), node.clone()], 1).await;
    let skew = node.status().peers[0].skew_ms.unwrap();
    assert!((25_000..=30_500).contains(&skew), "{skew}");
    ahead.product("EARLY").unwrap().set_price(price(100)).await.unwrap();
    wait_until("the price is accepted", || price_of(&node, "EARLY") == Some(price(100))).await;
    // What comes after it wins, though its clock is behind (rule C2).
    node.product("EARLY").unwrap().set_price(price(200)).await.unwrap();
    wait_until("the later write wins at both", || {
        [&ahead, &node].iter().all(|store| price_of(store, "EARLY") == Some(price(200)))
    })
    .await;
    Ledger::default().assert_whole(&[ahead, node]).await;
}

/// A node between has a wider bound, so that the stamps of a fast clock reach a node that refuses them: whole, counted,
/// and without harm to what else comes. Once its clock has caught up, it takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stamp_beyond_the_bound_is_refused_whole_and_taken_later() {
    metrics::record();
    let mesh = Mesh::new();
    let bound = Duration::from_secs(2);
    let ahead = mesh.builder("ahead").clock_offset_ms(12_000).open().await.unwrap();
    let between = mesh.node("between").await;
    let strict = mesh.builder("strict").drift_max(bound).open().await.unwrap();
    dial(&ahead, &between);
    dial(&strict, &between);
    wait_linked(&[ahead.clone(), strict.clone()], 1).await;
    let refused = metrics::counter("stockmesh_deltas_refused_total");
    let ledger = Ledger::default();
    // One group: a price from the future and a counter, of one shard or not.
    ahead.batch().set_price("FAST", price(1)).unwrap().receive("FAST", 3).unwrap().commit().await.unwrap();
    wait_until("the node between has both", || on_hand(&between, "FAST") == 3).await;
    wait_until("it is refused and counted", || metrics::counter("stockmesh_deltas_refused_total") > refused).await;
    // Nothing of the shard's delta is merged (rule R5), and others' counters in other shards are not affected.
    assert!(strict.get("FAST").is_err(), "a part of a refused delta was merged");
    for number in 0..40 {
        let sku = format!("OTHER-{number}");
        ledger.receive(&between, &sku, 1).await.unwrap();
    }
    let arrived = || (0..40).filter(|number| on_hand(&strict, &format!("OTHER-{number}")) == 1).count();
    wait_until("the counters of others arrive", || arrived() == 40).await;
    assert_eq!(links_up(&strict), 1, "drift breaks no rule: the link stays");
    wait_until("it is taken once it is no longer ahead", || price_of(&strict, "FAST") == Some(price(1))).await;
    ledger.assert_whole(&[ahead, between, strict]).await;
}

/// A node whose own clock is beyond the bound gets no link at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_beyond_the_bound_gets_no_link() {
    let mesh = Mesh::new();
    let (node, peer) = (mesh.node("node").await, mesh.node("peer").await);
    dial(&node, &peer);
    let off = mesh.builder("off").clock_offset_ms(120_000).peer(address(&node).to_string()).open().await.unwrap();
    off.product("OFF").unwrap().set_price(price(9)).await.unwrap();
    // Both sides read by how much, and what is allowed.
    let figure = |store: &Store| {
        let of = |reason: &str| reason.strip_prefix("the clocks differ by ")?.split(' ').next()?.parse::<u64>().ok();
        let refusals = store.status().refusals;
        refusals.iter().find(|refused| refused.reason.contains("60000 ms are allowed")).and_then(|r| of(&r.reason))
    };
    wait_until("it is refused at both", || figure(&node).is_some() && figure(&off).is_some()).await;
    for store in [&node, &off] {
        let skew_ms = figure(store).unwrap();
        assert!((115_000..=125_000).contains(&skew_ms), "{skew_ms}");
    }
    assert_eq!(links_up(&off), 0);
    let ledger = Ledger::default();
    ledger.write_at_all(&[node.clone(), peer.clone()], 5_000, 30).await;
    ledger.assert_whole(&[node.clone(), peer]).await;
    assert!(node.get("OFF").is_err());
}
