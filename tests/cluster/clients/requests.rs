//! What clients may ask for.

use std::time::Duration;

use stockmesh::clients::{ChangeKind, DurabilityState, Goods, HoldStanding, PeerState};
use stockmesh::{Currency, Filter, Location, OversellPolicy, Price, Sku};

use super::{connect, node_and_client, soon};
use crate::support::{Mesh, address, dial, on_hand, wait_linked, wait_until};

fn mug() -> Goods {
    Goods::of("MUG-01").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_a_client_is_done_by_its_node() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    assert_eq!(client.node().replica.0, store.replica_id());
    client.receive(&mug(), 10).await.unwrap();
    client.receive(&mug().at("shop").unwrap(), 5).await.unwrap();
    client.sell(&mug(), 2).await.unwrap();
    let price = Price::new("9.90".parse().unwrap(), Currency::EUR).unwrap();
    client.set_price(&mug(), price).await.unwrap();
    let hold = client.hold(&mug(), 3, Duration::from_secs(900)).await.unwrap();
    assert_eq!((hold.units, hold.location.as_str(), hold.state), (3, "berlin", HoldStanding::Active));
    let other = client.hold(&mug(), 1, Duration::from_secs(900)).await.unwrap();
    assert_eq!(client.holds().await.unwrap(), [hold.clone(), other.clone()]);

    let view = store.get("MUG-01").unwrap();
    assert_eq!((view.on_hand(), view.held(), view.price()), (13, 4, Some(price)));
    let found = client.get(&["MUG-01", "PLATE-07"]).await.unwrap();
    let product = &found.products[0];
    assert_eq!((product.on_hand.0, product.held.0, product.available.0), (13, 4, 9));
    assert_eq!((product.price.map(|price| price.0), product.locations_total), (Some(price), 2));
    assert_eq!(product.locations.iter().map(|stock| stock.available.0).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(found.unknown, [Sku::new("PLATE-07").unwrap()]);
    let shop = Location::new("shop").unwrap();
    let in_shop = client.get_at(&["MUG-01"], Some(&shop)).await.unwrap().products.remove(0);
    assert_eq!((in_shop.on_hand.0, in_shop.held.0, in_shop.locations.len()), (5, 0, 1));

    let resolved = client.commit_hold(hold.id.0, Some(2)).await.unwrap();
    assert_eq!((resolved.sold, resolved.released), (2, 1));
    assert_eq!(client.commit_hold(hold.id.0, Some(2)).await.unwrap(), resolved, "asked again");
    let resolved = client.release_hold(other.id.0).await.unwrap();
    assert_eq!((resolved.sold, resolved.released), (0, 1));
    assert!(client.holds().await.unwrap().is_empty());
    assert_eq!(store.get("MUG-01").unwrap().available(), 11);

    // What is below zero, and beyond what others may know, is told as it is.
    store.product("OWED").unwrap().sell(4).policy(OversellPolicy::Backorder).await.unwrap();
    let owed = client.get(&["OWED"]).await.unwrap().products.remove(0);
    assert_eq!((owed.on_hand.0, owed.oversold.0), (-4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_write_is_done_once() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let other_client = connect(&mesh, &store).await;
    let order = |name: &str| mug().reference(name).unwrap();
    for client in [&client, &other_client] {
        client.receive(&order("delivery 1"), 10).await.unwrap();
        client.sell(&order("order 7"), 3).await.unwrap();
        client.hold(&order("cart 1"), 2, Duration::from_secs(900)).await.unwrap();
    }
    let holds = client.holds().await.unwrap();
    assert_eq!((holds.len(), holds[0].reference.as_ref().unwrap().as_str()), (1, "cart 1"));
    let view = store.get("MUG-01").unwrap();
    assert_eq!((view.on_hand(), view.available()), (7, 5));
    // Without a reference each call is another sale.
    client.sell(&mug(), 1).await.unwrap();
    client.sell(&mug(), 1).await.unwrap();
    assert_eq!(on_hand(&store, "MUG-01"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_links_and_a_client_is_none_of_them() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let peer = mesh.node("paris").await;
    dial(&store, &peer);
    wait_linked(&[store.clone(), peer.clone()], 1).await;
    client.receive(&mug(), 10).await.unwrap();
    let status = client.status().await.unwrap();
    let here = store.status();
    assert_eq!((status.replica.0, &status.location, status.products), (here.replica, &here.location, 1));
    assert_eq!(status.fingerprint.as_str(), here.fingerprint.to_string());
    assert_eq!((status.durability.state, status.last_batch), (DurabilityState::Synced, here.last_batch));
    assert_eq!(status.identity_expires_ms.is_some(), here.identity_expires.is_some());
    assert_eq!((status.peers_total, status.peers.len()), (1, 1), "the client is no peer");
    let link = &status.peers[0];
    assert_eq!((link.state, link.replica.unwrap().0), (PeerState::Up, peer.replica_id()));
    assert_eq!(link.location.as_ref().unwrap().as_str(), "paris");
    assert!(link.skew_ms.is_some() && link.lag_writes.is_some() && link.round_trip_us.is_some());
    assert_eq!(client.members().await.unwrap().len(), store.members().len());
    // Nothing is pushed to a client, and nothing reconciled with it: the peers go on.
    wait_until("the write arrives", || on_hand(&peer, "MUG-01") == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_come_in_pages_and_whole() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let mut batch = store.batch();
    for number in 0..2_500 {
        batch = batch.receive(&format!("SKU-{number:05}"), 1).unwrap();
    }
    batch.receive("OTHER", 1).unwrap().commit().await.unwrap();
    let mut listing = client.list("SKU-", None).await.unwrap();
    for number in 0..2_500 {
        let product = soon(listing.next()).await.unwrap().unwrap();
        assert_eq!(product.sku.as_str(), format!("SKU-{number:05}"));
    }
    assert_eq!(listing.next().await.unwrap(), None);
    let skus: Vec<String> = (0..200).map(|number| format!("SKU-{number:05}")).collect();
    let skus: Vec<&str> = skus.iter().map(String::as_str).chain(["NONE"]).collect();
    let found = client.get(&skus).await.unwrap();
    assert_eq!((found.products.len(), found.unknown.len()), (200, 1));
    let mut nothing = client.list("NOTHING", None).await.unwrap();
    assert_eq!(nothing.next().await.unwrap(), None);
    // Many holds.
    for _ in 0..600 {
        store.product("SKU-00001").unwrap().receive(1).await.unwrap();
    }
    let mut holding = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let product = store.product("SKU-00001").unwrap();
        holding.spawn(async move { product.hold(1, Duration::from_secs(900)).await.unwrap() });
    }
    holding.join_all().await;
    assert_eq!(client.holds().await.unwrap().len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_as_they_happen_anywhere() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let peer = mesh.node("paris").await;
    dial(&peer, &store);
    wait_linked(&[store.clone(), peer.clone()], 1).await;
    let filter = Filter::prefix("MUG").below(5);
    let mut watching = client.watch(&filter).await.unwrap();
    peer.product("PLATE").unwrap().receive(1).await.unwrap();
    peer.product("MUG-01").unwrap().receive(7).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let change = soon(watching.next()).await.unwrap();
        // Of members it tells too.
        let Some(product) = change.product else { continue };
        assert_eq!((product.sku.as_str(), product.on_hand.0), ("MUG-01", 7));
        kinds.push(change.change);
    }
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(kinds, [ChangeKind::BackInStock, ChangeKind::Product]);
    peer.product("MUG-01").unwrap().at("paris").unwrap().sell(3).await.unwrap();
    loop {
        let change = soon(watching.next()).await.unwrap();
        if change.change == ChangeKind::LowStock {
            assert_eq!((change.available.unwrap().0, change.below.unwrap().0), (4, 5));
            break;
        }
    }
    // Only events, and the figures of one place.
    let only = Filter::prefix("MUG").below(5).events_only().at("berlin").unwrap();
    let mut events = client.watch(&only).await.unwrap();
    client.receive(&mug(), 9).await.unwrap();
    let change = loop {
        let change = soon(events.next()).await.unwrap();
        if change.product.is_some() {
            break change;
        }
    };
    assert_eq!(change.change, ChangeKind::BackInStock);
    assert_eq!(change.product.unwrap().on_hand.0, 9);
    // The end of the node is told, and does not hang.
    let address = address(&store);
    store.close().await.unwrap();
    let error = loop {
        match soon(watching.next()).await {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("the node closes"), "{error} of {address}");
}
