//! Which links there are: all in a small cluster, some in a large one, and those that come back.

use std::collections::BTreeSet;
use std::time::Duration;

use stockmesh::{LinkState, MemberState, ReplicaId, Store};

use crate::support::members::Exchange;
use crate::support::raw;
use crate::support::writers::Ledger;
use crate::support::{Mesh, PATIENCE, address, links_up, on_hand, wait_linked, wait_until, wait_within};

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The members that a node is linked with.
fn linked(store: &Store) -> BTreeSet<ReplicaId> {
    let up = store.status().peers.into_iter().filter(|peer| peer.state == LinkState::Up);
    up.filter_map(|peer| peer.replica).collect()
}

fn learn(store: &Store, other: &Store, state: MemberState) {
    store.learn_member(other.replica_id(), address(other), other.status().location.as_str(), state);
}

/// Joins by one address, and by that of any live node once the first is gone for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_is_enough_to_join() {
    let mesh = Mesh::new();
    let exchange = Exchange::start();
    let first = mesh.node("first").await;
    exchange.add(&first);
    let mut stores = vec![first.clone()];
    for number in 1..6 {
        let builder = mesh.builder(&format!("node-{number}"));
        let store = builder.peer(address(&first).to_string()).open().await.unwrap();
        exchange.add(&store);
        stores.push(store);
    }
    wait_linked(&stores, 5).await;
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 40_000, 20).await;
    ledger.assert_whole(&stores).await;

    first.close().await.unwrap();
    exchange.remove(&first);
    stores.remove(0);
    let late = mesh.builder("late").peer(address(&stores[3]).to_string()).open().await.unwrap();
    exchange.add(&late);
    stores.push(late);
    wait_linked(&stores, 5).await;
    ledger.write_at_all(&stores, 40_100, 20).await;
    ledger.assert_whole(&stores).await;
}

/// Of thirteen nodes that keep three links each, none gets one from everybody, not even the one that all dial. All the same
/// everything reaches everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_bounded_and_all_converge() {
    let mesh = Mesh::new();
    let exchange = Exchange::start();
    let first = mesh.builder("first").links(3).open().await.unwrap();
    exchange.add(&first);
    let mut stores = vec![first.clone()];
    for number in 1..13 {
        let builder = mesh.builder(&format!("node-{number}")).links(3);
        let store = builder.peer(address(&first).to_string()).open().await.unwrap();
        exchange.add(&store);
        stores.push(store);
    }
    // Three, half as many again, and two; and some that have just come, or were asked for.
    let bounded = || stores.iter().all(|store| (1..=9).contains(&links_up(store)));
    let known = || stores.iter().all(|store| store.members().len() == 12);
    wait_until("all know all", known).await;
    wait_until("no node has too many links", bounded).await;
    let told = || {
        let errors = stores.iter().flat_map(|store| store.status().peers).filter_map(|peer| peer.last_error);
        errors.into_iter().any(|error| error.contains("links enough"))
    };
    wait_until("who is turned away is told why", told).await;
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 41_000, 40).await;
    ledger.assert_whole(&stores).await;
    // Nobody that was turned away comes again at once: sooner or later all is calm. Later where all of this takes long,
    // since a link is ten seconds old before it ends as surplus.
    let mut over = Vec::new();
    while over.last().is_none_or(|over| *over >= 20) {
        assert!(over.len() < 6, "too many links in so many of about 120 looks each: {over:?}");
        let begun = std::time::Instant::now();
        let mut looks = 0;
        while begun.elapsed() < Duration::from_secs(6) {
            looks += usize::from(!bounded());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.push(looks);
    }
    let total: usize = stores.iter().map(links_up).sum();
    assert!(total < 13 * 9, "{total} ends of links");
    ledger.write_at_all(&stores, 41_100, 20).await;
    ledger.assert_whole(&stores).await;
    let pushes: Vec<_> =
        stores.iter().map(|store| (store.status().pushes_received, store.status().pushes_new)).collect();
    println!("pushes received and new: {pushes:?}");
    assert!(pushes.iter().all(|(received, new)| new <= received && *new > 0));
}

/// Links are replaced over time: a node that keeps two meets most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_replaced_over_time() {
    let mesh = Mesh::new();
    let mut others = Vec::new();
    for number in 0..6 {
        others.push(mesh.builder(&format!("node-{number}")).links(2).open().await.unwrap());
    }
    let every = Duration::from_millis(500);
    let store = mesh.builder("node").links(2).links_refresh_every(every).open().await.unwrap();
    others.iter().for_each(|other| learn(&store, other, MemberState::Alive));
    let mut met = BTreeSet::new();
    wait_within(2 * PATIENCE, "it meets most of them, and lets some go", || {
        let now = linked(&store);
        met.extend(now.iter().copied());
        met.len() >= 4 && now.len() < met.len()
    })
    .await;
}

/// A node that has lost everybody tries the members that it knew, however long they are gone, and comes back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_everybody_comes_back() {
    let mesh = Mesh::new();
    let gone = mesh.node("gone").await;
    let other = mesh.node("other").await;
    // The one that it was configured with never comes back, and the other one knows nobody: it does not dial.
    let store = mesh.builder("node").peer(address(&gone).to_string()).open().await.unwrap();
    wait_linked(&[store.clone(), gone.clone()], 1).await;
    learn(&store, &other, MemberState::Alive);
    wait_linked(std::slice::from_ref(&store), 2).await;
    gone.close().await.unwrap();
    other.go_offline();
    wait_until("it has lost everybody", || links_up(&store) == 0).await;
    learn(&store, &other, MemberState::Down);
    let ledger = Ledger::default();
    ledger.receive(&store, "ALONE", 3).await.unwrap();
    let attempts = || {
        let dials = store.status().dials;
        dials.iter().find(|dial| dial.replica == Some(other.replica_id())).map_or(0, |dial| dial.attempts)
    };
    let before = attempts();
    wait_until("it dials again and again", || attempts() >= before + 4).await;
    let begun = std::time::Instant::now();
    let before = attempts();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(attempts() <= before + 2 + begun.elapsed().as_secs(), "not in a busy loop");
    other.go_online();
    // The longest pause is 10 s.
    wait_within(PATIENCE, "it is back", || on_hand(&other, "ALONE") == 3).await;
    ledger.assert_whole(&[store, other]).await;
}

/// A member that was started again under another id at its old address is linked once, and not dialled under the old id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_to_another_member_is_not_dialled_again() {
    let mesh = Mesh::new();
    let (store, other) = (mesh.node("node").await, mesh.node("other").await);
    let former = ReplicaId::from_random(77);
    store.learn_member(former, address(&other), "other", MemberState::Alive);
    wait_linked(&[store.clone(), other.clone()], 1).await;
    let dial = || store.status().dials.into_iter().find(|dial| dial.replica == Some(former)).unwrap();
    let told = format!("leads to replica {} now", other.replica_id());
    wait_until("it says so", || dial().last_error.is_some_and(|error| error.contains(&told))).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(dial().attempts, 1);
    assert_eq!(linked(&store), BTreeSet::from([other.replica_id()]));
}

/// Who left is not dialled; who is down is, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_left_are_not_dialled() {
    let mesh = Mesh::new();
    let (store, left, down) = (mesh.node("node").await, mesh.node("left").await, mesh.node("down").await);
    learn(&store, &left, MemberState::Left);
    learn(&store, &down, MemberState::Down);
    store.want_link(left.replica_id());
    wait_linked(&[store.clone(), down.clone()], 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!([&left, &down, &store].map(links_up), [0, 1, 1]);
    assert!(store.status().dials.iter().all(|dial| dial.replica != Some(left.replica_id())));
}

/// A link that is asked for comes soon, carries no pushes, and ends after ten seconds. The others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_asked_for_is_there_for_a_while() {
    let mesh = Mesh::new();
    let others = mesh.nodes(3).await;
    let store = mesh.builder("node").links(2).links_refresh_every(NEVER).open().await.unwrap();
    others.iter().for_each(|other| learn(&store, other, MemberState::Alive));
    wait_linked(std::slice::from_ref(&store), 2).await;
    // By hand, to see all that the node sends. It is known only now, so that it was not chosen.
    let (listener, asked) = (raw::listen(&mesh, raw::ALPN), ReplicaId::from_random(5));
    store.learn_member(asked, listener.local_addr().unwrap(), "asked", MemberState::Alive);
    store.want_link(asked);
    let begun = std::time::Instant::now();
    let (connection, _hello) = raw::accept_hello(&listener, asked).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let streams = connection.clone();
    let refusing = tokio::spawn(async move { while streams.accept_bi().await.is_ok() {} });
    wait_until("it is linked", || linked(&store).contains(&asked)).await;
    // The node notes that it is for a while when its own side of the hello is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ledger::default().receive(&store, "PUSHED", 1).await.unwrap();
    let told = || others.iter().filter(|other| on_hand(other, "PUSHED") == 1).count() >= 2;
    wait_until("the chosen are told", told).await;
    let pushed = tokio::time::timeout(Duration::from_secs(2), connection.accept_uni()).await;
    // On a slow machine the link may have ended meanwhile.
    assert!(!matches!(pushed, Ok(Ok(_))), "it carries pushes");
    let ended = tokio::time::timeout(2 * PATIENCE, connection.closed()).await.expect("it ends");
    let quinn::ConnectionError::ApplicationClosed(close) = ended else { panic!("{ended}") };
    assert_eq!((u64::from(close.error_code), &*close.reason), (12, &b"the link was wanted for a while only"[..]));
    assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(links_up(&store) >= 2, "the others stay");
    refusing.await.unwrap();
}
