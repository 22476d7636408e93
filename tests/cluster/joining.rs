//! Nodes that join: they pull from several peers at once, nothing twice, whatever dies in between, and tell how far they
//! are.

use std::time::Duration;

use quinn::Connection;
use stockmesh::{JoinProgress, Store};
use stockmesh_proto::limits::PULL_SHARDS_MAX;
use stockmesh_proto::wire::{Fenced, Hello, Message, Standing, Summary};
use stockmesh_proto::{Fingerprint, ReplicaId, ShardIndex, VersionVector};

use crate::support::proxy::{Proxy, Weather};
use crate::support::raw::{ALPN, Raw, accept_hello, frame, hello, listen, read, write};
use crate::support::{
    Mesh, PATIENCE, SHARDS, address, dial, full_mesh, links_up, metrics, on_hand, wait_converged, wait_linked,
    wait_until, wait_within,
};

/// Enough shards that each of several peers has a part.
const MANY_SHARDS: u32 = 64;
/// What a peer pauses with for a second is pulled from another, and so comes twice. On a machine that has much else to do
/// any peer may: then another node joins, up to so many times.
const JOINERS_MAX: usize = 5;

async fn node(mesh: &Mesh, name: &str) -> Store {
    mesh.builder(name).shards(MANY_SHARDS).open().await.unwrap()
}

/// Receives units of so many products.
async fn fill(store: &Store, products: usize) {
    let numbers: Vec<usize> = (0..products).collect();
    for numbers in numbers.chunks(5_000) {
        let mut batch = store.batch();
        for number in numbers {
            batch = batch.receive(&format!("SKU-{number:06}"), 1).unwrap();
        }
        batch.commit().await.unwrap();
    }
}

/// So many linked nodes that hold so many products each.
async fn full(mesh: &Mesh, count: usize, products: usize) -> Vec<Store> {
    let mut stores = Vec::new();
    for number in 0..count {
        // They dial nobody who joins: whoever joins says whom it pulls from.
        let full = mesh.builder(&format!("full-{number}")).shards(MANY_SHARDS).only_peers();
        stores.push(full.open().await.unwrap());
    }
    full_mesh(&stores);
    fill(&stores[0], products).await;
    wait_linked(&stores, count - 1).await;
    wait_converged(&stores).await;
    wait_until("nobody catches up", || stores.iter().all(|store| !store.status().catching_up)).await;
    stores
}

/// Waits until a node knows that it holds the same as some peer.
async fn wait_reconciled(store: &Store) {
    let is_done = || store.status().peers.iter().any(|peer| peer.reconciled_ago.is_some());
    wait_until("it knows that they hold the same", is_done).await;
}

/// Reads all that is told of a join, and checks that nothing goes back.
async fn watch(store: Store) -> Vec<JoinProgress> {
    let mut joining = store.joining();
    let mut told = Vec::<JoinProgress>::new();
    while let Some(progress) = joining.next().await {
        if let Some(before) = told.last() {
            assert!(before.shards_done <= progress.shards_done && before.shards_total <= progress.shards_total);
            assert!(before.products <= progress.products && before.slots <= progress.slots);
            assert!(before.bytes <= progress.bytes && before.catching_up, "nothing is told after the end");
        }
        assert!(progress.shards_done <= progress.shards_total);
        told.push(progress);
    }
    told
}

async fn wait_caught_up(store: &Store) -> JoinProgress {
    wait_until("the node has caught up", || !store.status().catching_up).await;
    store.status().joining
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_pulls_from_several_peers_and_nothing_twice() {
    let mesh = Mesh::new();
    let stores = full(&mesh, 3, 20_000).await;
    try_joiners("each comes once, from several", async |number| join_from_all(&mesh, &stores, number).await).await;
}

/// Has one node after the other join until one does as it should.
async fn try_joiners(what: &str, join: impl AsyncFn(usize) -> Result<(), String>) {
    let mut joinings: Vec<Result<(), String>> = Vec::new();
    while !joinings.last().is_some_and(Result::is_ok) {
        assert!(joinings.len() < JOINERS_MAX, "{what}: {joinings:?}");
        joinings.push(join(joinings.len()).await);
    }
}

/// Opens an empty node, whose number is given, and looks how it catches up. Returns what was not as it should be that a
/// busy machine can bring about: a peer that seems to stand still is passed on, and its part comes twice.
async fn join_from_all(mesh: &Mesh, stores: &[Store], number: usize) -> Result<(), String> {
    let mut builder = mesh.builder(&format!("empty-{number}")).shards(MANY_SHARDS);
    for store in stores {
        builder = builder.peer(address(store).to_string());
    }
    let empty = builder.open().await.unwrap();
    assert!(empty.status().catching_up, "from the moment it is opened");
    let watching = [tokio::spawn(watch(empty.clone())), tokio::spawn(watch(empty.clone()))];
    let mut seen_early = false;
    wait_until("the node has caught up", || {
        // Reads are served meanwhile, of what has arrived.
        let is_there = empty.get("SKU-000000").is_ok() || empty.get("SKU-010000").is_ok();
        let is_over = !empty.status().catching_up;
        seen_early |= is_there && !is_over;
        is_over
    })
    .await;
    let (status, full) = (empty.status(), stores[0].status());
    assert_eq!(status.fingerprint, full.fingerprint, "it has all when it says so");
    let joining = status.joining;
    assert!(joining.products >= full.products && joining.slots >= full.slots, "{joining:?}");
    assert_eq!(joining.peers.values().sum::<u32>(), MANY_SHARDS);
    assert_eq!((joining.shards_done, joining.shards_total), (MANY_SHARDS, MANY_SHARDS));
    assert!(joining.bytes > 20_000 * 10, "{joining:?}");
    let mut told_early = true;
    for watching in watching {
        let told = watching.await.unwrap();
        assert_eq!(told.last(), Some(&joining), "each reader is told the end");
        told_early &= told.len() > 2;
    }
    empty.close().await.unwrap();
    let came_once = (joining.products, joining.slots) == (full.products, full.slots);
    let is_as_wished = came_once && joining.peers.len() >= 2 && told_early && seen_early;
    is_as_wished.then_some(()).ok_or_else(|| format!("{joining:?}, told early: {told_early}, read early: {seen_early}"))
}

/// A peer that dies in the middle: the rest comes from the others, and what had arrived does not come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_in_the_middle_is_made_up_for() {
    metrics::record();
    let mesh = Mesh::new();
    let stores = full(&mesh, 3, 20_000).await;
    try_joiners("it did not start over", async |number| join_past_the_dead(&mesh, &stores, number).await).await;
}

/// Opens an empty node, whose number is given, one of whose peers dies. Returns what came twice, if it is more than the dead
/// one's part: so it is if a busy machine has another peer stand still too.
async fn join_past_the_dead(mesh: &Mesh, stores: &[Store], number: usize) -> Result<(), String> {
    let passed_on = metrics::counter("stockmesh_pulls_passed_on_total");
    // One of them answers to nothing any more, and nobody is told. All products take more than twice as many datagrams.
    let proxy = Proxy::start(address(&stores[0]), Weather::default(), 1).await;
    proxy.go_dark_after(150);
    // Whom it pulls from is said below, and nobody else is found.
    let empty = mesh.builder(&format!("empty-{number}")).shards(MANY_SHARDS).only_peers().open().await.unwrap();
    empty.add_peer(proxy.address()).unwrap();
    let mut joining = empty.joining();
    while let Some(progress) = joining.next().await {
        if progress.shards_done > 3 {
            break;
        }
    }
    wait_until("the peer is silent", || proxy.lost() > 0).await;
    let before = empty.status().joining;
    assert!(empty.status().catching_up && before.shards_done < MANY_SHARDS, "in the middle: {before:?}");
    dial(&empty, &stores[1]);
    dial(&empty, &stores[2]);
    // Not only once the dead link's idle time is over: a silent peer's work is passed on to idle ones.
    wait_within(Duration::from_secs(15), "the node has caught up", || !empty.status().catching_up).await;
    assert!(metrics::counter("stockmesh_pulls_passed_on_total") > passed_on, "the silent peer's work was passed on");
    let (status, full) = (empty.status(), stores[1].status());
    assert_eq!(status.fingerprint, full.fingerprint);
    let joining = status.joining;
    let slots = stores[1].status().slots;
    assert!(joining.slots >= slots && joining.peers.len() >= 2, "{joining:?}");
    empty.close().await.unwrap();
    // What was under way may come twice: of the two pulls, a shard each, and what had been queued of it.
    let is_as_wished = joining.slots - slots <= slots / 8;
    is_as_wished.then_some(()).ok_or_else(|| format!("{joining:?}, {slots} slots"))
}

/// A node that ends in the middle knows at the next opening that it lacks something, and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_restarted_in_the_middle_goes_on_where_it_was() {
    let mesh = Mesh::new();
    let stores = full(&mesh, 1, 40_000).await;
    let directory = tempfile::tempdir().unwrap();
    let open = || mesh.builder("empty").shards(MANY_SHARDS).data_dir(directory.path());
    let proxy = Proxy::start(address(&stores[0]), Weather::default(), 1).await;
    let empty = open().open().await.unwrap();
    // Else it would catch up before it closes: all products take more than twice as many datagrams.
    proxy.go_dark_after(300);
    empty.add_peer(proxy.address()).unwrap();
    let mut joining = empty.joining();
    while joining.next().await.is_some_and(|progress| progress.shards_done < 3) {}
    wait_until("the peer is silent", || proxy.lost() > 0).await;
    assert!(empty.status().catching_up, "in the middle");
    empty.close().await.unwrap();
    let last = tokio::time::timeout(PATIENCE, joining.next()).await.expect("a closed store ends it");
    assert!(last.is_none_or(|last| last.catching_up), "it did not catch up");
    let end = tokio::time::timeout(PATIENCE, joining.next()).await.expect("a closed store ends it");
    assert_eq!(end, None, "and nothing more is told");
    drop(empty);

    let again = open().open().await.unwrap();
    let (held, full) = (again.status().slots, stores[0].status());
    assert!(0 < held && held < full.slots, "{held} slots");
    assert!(!again.status().catching_up, "nobody is known yet");
    dial(&again, &stores[0]);
    assert!(again.status().catching_up, "it has not forgotten");
    let joining = wait_caught_up(&again).await;
    assert_eq!(again.status().fingerprint, full.fingerprint);
    assert!(joining.slots < full.slots, "what was claimed does not come again: {joining:?}");
    again.close().await.unwrap();
    drop(again);

    let whole = open().peer(address(&stores[0]).to_string()).open().await.unwrap();
    assert!(!whole.status().catching_up, "that is over");
}

/// Full nodes that dial an empty one leave it to it what it pulls from whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dial_an_empty_node_do_not_send_the_same() {
    let mesh = Mesh::new();
    let stores = full(&mesh, 3, 10_000).await;
    let mut slots = Vec::new();
    while slots.last() != Some(&stores[0].status().slots) {
        assert!(slots.len() < JOINERS_MAX, "each comes once: {slots:?}");
        let empty = node(&mesh, &format!("empty-{}", slots.len())).await;
        assert!(!empty.status().catching_up, "nobody is known yet");
        stores.iter().for_each(|store| dial(store, &empty));
        wait_until("all has arrived", || empty.status().fingerprint == stores[0].status().fingerprint).await;
        slots.push(wait_caught_up(&empty).await.slots);
        empty.close().await.unwrap();
    }
}

/// Peers that differ: what only one of them has arrives too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_one_peer_holds_arrives_too() {
    let mesh = Mesh::new();
    let mut stores = Vec::new();
    for number in 0..3 {
        let store = node(&mesh, &format!("apart-{number}")).await;
        fill(&store, 500).await;
        store.product(&format!("ONLY-{number}")).unwrap().receive(7).await.unwrap();
        stores.push(store);
    }
    let empty = node(&mesh, "empty").await;
    stores.iter().for_each(|store| dial(&empty, store));
    stores.push(empty.clone());
    wait_converged(&stores).await;
    wait_caught_up(&empty).await;
    for number in 0..3 {
        assert_eq!(on_hand(&empty, &format!("ONLY-{number}")), 7);
    }
    assert_eq!(on_hand(&empty, "SKU-000001"), 3);
}

/// The first nodes of a cluster have nobody to catch up with, and do not say so for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_nodes_of_a_cluster_do_not_catch_up_for_ever() {
    let mesh = Mesh::new();
    let first = mesh.node("first").await;
    assert!(!first.status().catching_up, "nobody is known");
    assert_eq!(watch(first.clone()).await.len(), 1, "how it stands, and the end");
    first.product("MUG-01").unwrap().receive(5).await.unwrap();
    let second = mesh.builder("second").peer(address(&first).to_string()).open().await.unwrap();
    wait_until("the second has caught up", || !second.status().catching_up && on_hand(&second, "MUG-01") == 5).await;
    // Also an address where nobody ever answers changes nothing for who has a state of its own, but for who has none.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let alone = mesh.node("alone").await;
    alone.product("MUG-01").unwrap().receive(5).await.unwrap();
    alone.add_peer(nobody.local_addr().unwrap().to_string()).unwrap();
    assert!(!alone.status().catching_up, "it had a state of its own before it knew of anybody");
    assert!(!first.status().catching_up);
    let [third, fourth] = [mesh.node("third").await, mesh.node("fourth").await];
    for store in [&third, &fourth] {
        store.add_peer(nobody.local_addr().unwrap().to_string()).unwrap();
    }
    third.add_peer(address(&fourth).to_string()).unwrap();
    assert!(third.status().catching_up);
    wait_until("two empty nodes are enough for each other", || {
        links_up(&third) == 1 && !third.status().catching_up && !fourth.status().catching_up
    })
    .await;
}

/// Two empty nodes that meet first do not take each other for the whole cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_take_another_that_catches_up_for_the_cluster() {
    let mesh = Mesh::new();
    let stores = full(&mesh, 2, 2_000).await;
    let proxy = Proxy::start(address(&stores[0]), Weather::default(), 1).await;
    proxy.go_dark();
    let [left, right] = [node(&mesh, "left").await, node(&mesh, "right").await];
    // Known first: of whom it does not know, it cannot wait for.
    left.add_peer(proxy.address()).unwrap();
    dial(&left, &right);
    wait_reconciled(&left).await;
    assert!(left.status().catching_up, "there is one more to ask");
    dial(&left, &stores[1]);
    wait_until("left has caught up", || !left.status().catching_up).await;
    assert_eq!(left.status().products, 2_000);
    wait_until("right has all", || right.status().products == 2_000 && !right.status().catching_up).await;
}

/// Nor do they take one for it that ended its catching up with nobody but another empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_is_nobody_to_catch_up_with_whatever_it_says() {
    let mesh = Mesh::new();
    let stores = full(&mesh, 2, 500).await;
    let proxy = Proxy::start(address(&stores[0]), Weather::default(), 1).await;
    proxy.go_dark();
    let [right, other] = [node(&mesh, "right").await, node(&mesh, "other").await];
    dial(&right, &other);
    wait_reconciled(&right).await;
    wait_until("they are enough for each other", || !right.status().catching_up && !other.status().catching_up).await;
    let left = node(&mesh, "left").await;
    left.add_peer(proxy.address()).unwrap();
    dial(&left, &right);
    wait_reconciled(&left).await;
    assert!(left.status().catching_up, "there is one more to ask");
    dial(&left, &stores[1]);
    wait_caught_up(&left).await;
    assert_eq!(left.status().products, 500);
}

/// A node that comes back to much that changed pulls it in parts too; one that comes back to little does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_is_not_catching_up_and_pulls_too() {
    metrics::record();
    let mesh = Mesh::new();
    let stores = full(&mesh, 2, 2_000).await;
    let mut most = 0;
    // The other one may be the first to reconcile, which is as good; but not each time.
    for round in 0..5 {
        stores[1].go_offline();
        wait_until("the link is down", || links_up(&stores[0]) == 0).await;
        let mut batch = stores[0].batch();
        for number in 0..2_000 {
            batch = batch.receive(&format!("NEW-{round}-{number:06}"), 1).unwrap();
        }
        batch.commit().await.unwrap();
        let pulls = metrics::counter("stockmesh_shards_pulled_total");
        stores[1].go_online();
        wait_converged(&stores).await;
        assert!(!stores[1].status().catching_up, "it has a state of its own");
        most = most.max(metrics::counter("stockmesh_shards_pulled_total") - pulls);
        if most >= u64::from(MANY_SHARDS) / 2 {
            return;
        }
    }
    panic!("{most} shards were pulled at the most");
}

/// A peer by hand that does not say that it knows pulls is reconciled with as ever: it is asked nothing new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_the_feature_is_asked_nothing_new() {
    let mesh = Mesh::new();
    let listener = listen(&mesh, ALPN);
    let empty = mesh.node("empty").await;
    empty.add_peer(listener.local_addr().unwrap().to_string()).unwrap();
    let (connection, _hello) = accept_hello(&listener, ReplicaId::from_random(7)).await.unwrap();
    assert!(empty.status().catching_up);
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    assert!(matches!(read(&mut receive).await, Some(Message::Open(_))), "as ever");
    while !matches!(read(&mut receive).await.unwrap(), Message::End) {}
    // It holds nothing more, and says so.
    write(&mut send, &Message::Equal).await;
    wait_until("the empty node has caught up", || !empty.status().catching_up).await;
}

/// A peer by hand that knows pulls.
async fn linked_with_pulls(mesh: &Mesh, to: &Store) -> (Raw, Connection) {
    let raw = Raw::silent(mesh, address(to)).await;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { features_known: 8, ..hello(raw.replica) })).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Hello(_))));
    let connection = raw.connection.clone();
    (raw, connection)
}

/// A peer that answers a survey with lies: too few shards. Its link is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_that_is_answered_badly_costs_the_link() {
    let mesh = Mesh::new();
    let empty = mesh.node("empty").await;
    let (raw, connection) = linked_with_pulls(&mesh, &empty).await;
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    assert!(matches!(read(&mut receive).await, Some(Message::Survey)), "the node catches up, so it asks");
    let leaves = vec![Fingerprint::EMPTY; SHARDS as usize - 1];
    write(&mut send, &Message::Standing(Standing { catching_up: false, leaves })).await;
    assert!(raw.closed().await.contains("survey"));
    wait_until("the node is not taken for one that caught up", || links_up(&empty) == 0).await;
    assert!(empty.status().catching_up);
}

/// Rule J2: bad scopes close the link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_scope_costs_the_link() {
    let mesh = Mesh::new();
    let victim = mesh.node("victim").await;
    let pull = |shards: &[u16]| frame(22, &rmp_serde::to_vec(shards).unwrap());
    let too_many: Vec<u16> = (0..=PULL_SHARDS_MAX as u16).collect();
    for (bytes, word) in [
        (pull(&[SHARDS as u16]), "does not exist"),
        (pull(&[3, 3]), "rising order"),
        (pull(&[4, 3]), "rising order"),
        (pull(&[]), "empty"),
        (pull(&too_many), "cannot be read"),
        ([pull(&[1]), pull(&[1])].concat(), "has no place at this point"),
        ([pull(&[1]), summary(2)].concat(), "not in the scope"),
        ([pull(&[1, 2]), summary(1), Message::End.encode().unwrap()].concat(), "names 2 shards and summarises 1"),
    ] {
        let raw = Raw::linked(&mesh, address(&victim)).await;
        let _streams = raw.session_bytes(&bytes, false).await;
        let reason = raw.closed().await;
        assert!(reason.contains(word), "closed for {reason:?}, expected {word:?}");
    }
    // A good one is answered.
    let raw = Raw::linked(&mesh, address(&victim)).await;
    let bytes = [pull(&[1]), summary(1), Message::End.encode().unwrap()].concat();
    let (_send, mut receive) = raw.session_bytes(&bytes, false).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Equal)));
    let (_send, mut receive) = raw.session_bytes(&Message::Survey.encode().unwrap(), true).await;
    match read(&mut receive).await {
        Some(Message::Standing(standing)) => assert_eq!(standing.leaves.len(), SHARDS as usize),
        other => panic!("a survey was answered with {other:?}"),
    }
}

fn summary(shard: u16) -> Vec<u8> {
    let summary = Summary { shard: ShardIndex(shard), fingerprint: Fingerprint::EMPTY, version: VersionVector::new() };
    Message::Summary(vec![summary]).encode().unwrap()
}

/// Whoever waits for a reconciliation may give up in the middle of its pulls. Nothing of them is left, and the peer keeps
/// its link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_that_nobody_waits_for_any_more_end() {
    let mesh = Mesh::new();
    let store = mesh.builder("node").reconcile_every(Duration::from_secs(3_600)).open().await.unwrap();
    fill(&store, 200).await;
    let own = store.replica_id();
    let raw = Raw::silent(&mesh, address(&store)).await;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { features_known: 8 | 16, ..hello(raw.replica) })).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Hello(_))));
    // It fences, and says that it differs everywhere. Of what is then asked for it sends nothing.
    let (connection, (pulled, mut pulls)) = (raw.connection.clone(), tokio::sync::mpsc::unbounded_channel());
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            match read(&mut receive).await {
                Some(Message::Fence(_)) => {
                    write(&mut send, &Message::Fenced(Fenced { heir: Some(own), is_alive: false })).await;
                }
                Some(Message::Survey) => {
                    let leaves = vec![Fingerprint::EMPTY; SHARDS as usize];
                    write(&mut send, &Message::Standing(Standing { catching_up: false, leaves })).await;
                }
                Some(Message::Pull(_)) => drop(pulled.send(receive)),
                _ => {}
            }
            open.push(send);
        }
    });
    let dead = ReplicaId::from_random(7);
    store.learn_member(dead, "127.0.0.1:9".parse().unwrap(), "gone", stockmesh::MemberState::Down);
    let retiring = tokio::spawn(store.retire(dead).deadline(Duration::from_secs(60)).into_future());
    let mut pull = tokio::time::timeout(PATIENCE, pulls.recv()).await.expect("it pulls").unwrap();
    let busy = async || {
        let (_send, mut receive) = raw.session_bytes(&Message::Survey.encode().unwrap(), true).await;
        let Some(Message::Standing(standing)) = read(&mut receive).await else { panic!("no answer") };
        standing.catching_up
    };
    assert!(busy().await, "it pulls");
    retiring.abort();
    assert!(retiring.await.unwrap_err().is_cancelled());
    let ended = tokio::time::timeout(PATIENCE, pull.read_to_end(1 << 20)).await.expect("the stream ends");
    assert!(matches!(ended, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))), "{ended:?}");
    assert!(!busy().await, "the plan is over");
    assert_eq!(links_up(&store), 1);
    serving.abort();
}
