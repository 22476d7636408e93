//! Read-only members, and what else a certificate says of its node (rules K1 to K4).

use std::time::{Duration, Instant};

use stockmesh::certificates::{Issued, NodeDetails};
use stockmesh::{Delivery, Identity, LinkState, NodeName, ReplicaId, ReplicationError, Store, WriteError};
use stockmesh_proto::fingerprint::Fingerprint;
use stockmesh_proto::wire::{Ask, Hello, Message, Open, Part, RefusalCode, Summary};
use stockmesh_proto::{Location, ShardCount, Sku, VersionVector};

use crate::support::alone::alone;
use crate::support::raw::{self, Raw, hello};
use crate::support::writers::price;
use crate::support::{
    Mesh, SHARDS, address, agree, dial, links_up, metrics, on_hand, refused_with, wait_converged, wait_linked,
    wait_until,
};

async fn reader(mesh: &Mesh, name: &str) -> Store {
    mesh.builder(name).identity(mesh.reader(name)).open().await.unwrap()
}

/// Waits until `store` has reconciled so often with all its peers since now: what was to be exchanged is exchanged.
async fn wait_reconciled(store: &Store) {
    for _ in 0..2 {
        let begun = Instant::now();
        wait_until("it has reconciled with all", || {
            let peers = store.status().peers;
            peers.iter().all(|peer| peer.reconciled_ago.is_some_and(|ago| ago < begun.elapsed()))
        })
        .await;
    }
}

fn is_read_only<T>(result: Result<T, WriteError>) -> bool {
    matches!(result, Err(WriteError::ReadOnly))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_member_gets_all_and_has_no_writes() {
    metrics::record();
    let mesh = Mesh::new();
    let (first, second) = (mesh.node("first").await, mesh.node("second").await);
    let reader = reader(&mesh, "reader").await;
    first.product("BEFORE").unwrap().receive(3).await.unwrap();
    dial(&second, &first);
    // It dials one, and is dialled by the other.
    dial(&reader, &first);
    dial(&second, &reader);
    let stores = [first.clone(), second.clone(), reader.clone()];
    wait_linked(&stores, 2).await;
    for (number, store) in stores.iter().take(2).enumerate() {
        for product in 0..30 {
            let product = store.product(&format!("SKU-{number}-{product}")).unwrap();
            product.receive(5).await.unwrap();
            product.sell(1).await.unwrap();
        }
        store.product("PRICED").unwrap().set_price(price(100 + number as i64)).await.unwrap();
    }
    wait_converged(&stores).await;
    assert_eq!(on_hand(&reader, "BEFORE"), 3);

    let before = reader.status().fingerprint;
    let mug = reader.product("SKU-0-1").unwrap();
    assert!(is_read_only(mug.receive(1).await) && is_read_only(mug.sell(1).await));
    assert!(is_read_only(mug.adjust(-1, stockmesh::Reason::Lost).await));
    assert!(is_read_only(mug.set_price(price(1)).await));
    assert!(is_read_only(mug.hold(1, Duration::from_secs(60)).await));
    assert!(is_read_only(mug.stocktake(0).await));
    assert!(is_read_only(reader.batch().receive("NEW", 1).unwrap().commit().await));
    assert_eq!(reader.status().fingerprint, before);
    assert!(reader.get("NEW").is_err());

    assert!(reader.status().read_only && !first.status().read_only);
    assert_eq!(reader.status().node, NodeName::new("reader").ok());
    let seen = |store: &Store| {
        let peers = store.status().peers;
        let roles = peers.into_iter().map(|peer| (peer.node.unwrap().to_string(), peer.read_only));
        roles.filter(|(_, read_only)| *read_only).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!((seen(&first), seen(&second), seen(&reader).len()), (vec!["reader".into()], vec!["reader".into()], 0));

    // It holds all, but its copy is none that anybody could get back.
    assert_eq!(first.await_replicated(1, Duration::from_secs(20)).await, Ok(()));
    let late = first.await_replicated(2, Duration::from_secs(2)).await;
    assert_eq!(late, Err(ReplicationError::TimedOut { confirmed: 1, wanted: 2 }));

    let mut messages = first.messages();
    reader.send(first.replica_id(), "hello").await.unwrap();
    let Some(Delivery::Message(message)) = messages.next().await else { panic!("no message came") };
    assert_eq!((message.from, &*message.bytes), (reader.replica_id(), &b"hello"[..]));
    wait_reconciled(&reader).await;
    wait_reconciled(&second).await;
    assert!(stores.iter().all(|store| store.status().refusals.is_empty()), "it keeps to the rules");
    assert_eq!(links_up(&reader), 2);
    reader.close().await.unwrap();
}

/// What it got from one it does not give to another; and it bears to be ahead of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_member_does_not_relay() {
    let mesh = Mesh::new();
    // Else the two sides would find each other.
    let open = async |name: &str| mesh.builder(name).only_peers().open().await.unwrap();
    let reads = async |name: &str| mesh.builder(name).only_peers().identity(mesh.reader(name)).open().await.unwrap();
    let (left, right) = (open("left").await, open("right").await);
    let (reader, other) = (reads("reader").await, reads("other").await);
    dial(&reader, &left);
    dial(&right, &reader);
    dial(&other, &reader);
    wait_until("all are linked", || links_up(&reader) == 3).await;
    for number in 0..20 {
        left.product(&format!("LEFT-{number}")).unwrap().receive(1).await.unwrap();
        right.product(&format!("RIGHT-{number}")).unwrap().receive(1).await.unwrap();
        left.product("BOTH").unwrap().receive(1).await.unwrap();
        right.product("BOTH").unwrap().receive(1).await.unwrap();
    }
    let has_all =
        || (0..20).all(|n| [format!("LEFT-{n}"), format!("RIGHT-{n}")].iter().all(|sku| on_hand(&reader, sku) == 1));
    wait_until("the reader has both sides", || has_all() && on_hand(&reader, "BOTH") == 40).await;
    wait_reconciled(&left).await;
    wait_reconciled(&right).await;
    assert!(left.get("RIGHT-1").is_err() && right.get("LEFT-1").is_err());
    assert_eq!((on_hand(&left, "BOTH"), on_hand(&right, "BOTH")), (20, 20));
    assert!(other.get("BOTH").is_err(), "nor to another that reads");
    assert_eq!(links_up(&reader), 3);
    for store in [&left, &right, &reader, &other] {
        assert!(store.status().refusals.is_empty(), "{:?}", store.status().refusals);
    }
    dial(&left, &right);
    wait_until("in the end all agree", || agree(&[left.clone(), right.clone(), reader.clone()])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_changes_while_the_node_runs() {
    let mesh = Mesh::new();
    let (node, peer) = (mesh.node("node").await, mesh.node("peer").await);
    dial(&node, &peer);
    wait_linked(&[node.clone(), peer.clone()], 1).await;
    let mug = node.product("MUG").unwrap();
    mug.receive(5).await.unwrap();
    let hold = mug.hold(2, Duration::from_secs(3_600)).await.unwrap();
    wait_until("the peer has it", || on_hand(&peer, "MUG") == 5).await;
    let seen = || {
        let peers = peer.status().peers;
        peers.iter().find(|peer| peer.state == LinkState::Up).map(|peer| peer.read_only)
    };
    let replica = node.replica_id();
    let held = Instant::now();
    mug.hold(1, Duration::from_secs(4)).await.unwrap();
    node.reload_identity(mesh.reader("node")).unwrap();
    assert!(is_read_only(mug.receive(1).await) && is_read_only(hold.commit().await));
    wait_until("the peer sees it", || seen() == Some(true)).await;
    // Nor does it write by itself: what it held is released once it may write again.
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(held.elapsed())).await;
    assert_eq!(node.get("MUG").unwrap().held(), 3);
    let issued = mesh.issue("node");
    node.reload_identity(mesh.identity(&issued)).unwrap();
    mug.receive(1).await.unwrap();
    hold.commit().await.unwrap();
    assert_eq!((on_hand(&node, "MUG"), node.replica_id()), (4, replica));
    wait_until("what was held is released", || node.get("MUG").unwrap().held() == 0).await;
    wait_until("the peer takes its writes again", || seen() == Some(false) && on_hand(&peer, "MUG") == 4).await;
}

/// A node with the certificate of a read-only member, in the hands of somebody who does not keep to it.
struct Hostile {
    mesh: Mesh,
    victim: Store,
    issued: Issued,
}

impl Hostile {
    async fn new() -> Self {
        metrics::record();
        let mesh = Mesh::new();
        let victim = mesh.node("victim").await;
        victim.product("MUG").unwrap().receive(7).await.unwrap();
        let details = NodeDetails { name: "hostile", read_only: true, ..NodeDetails::default() };
        let issued = mesh.issue_node(&details);
        Self { mesh, victim, issued }
    }

    async fn linked(&self) -> Raw {
        let raw = Raw::silent_as(&self.mesh, address(&self.victim), &self.issued).await;
        let said = Hello { read_only: true, features_known: 3, ..hello(raw.replica) };
        assert!(matches!(raw.greet(said).await, Some(Message::Hello(_))));
        raw
    }

    async fn assert_closed(&self, raw: &Raw, word: &str) {
        let reason = raw.closed().await;
        assert!(reason.contains(word), "closed for {reason:?}, expected {word:?}");
        wait_until("it is named", || refused_with(&self.victim, &[word])).await;
    }
}

/// Reads the other side's turn to its end.
async fn until_end(receive: &mut quinn::RecvStream) {
    loop {
        match raw::read(receive).await {
            Some(Message::End) => return,
            Some(_) => {}
            None => panic!("the stream ended before the turn did"),
        }
    }
}

fn one_slot(replica: ReplicaId) -> (stockmesh_proto::ShardIndex, stockmesh_proto::delta::Products) {
    let sku = Sku::new("FORGED").unwrap();
    let shard = ShardCount::new(SHARDS).unwrap().shard_of(&sku);
    (shard, vec![(sku, crate::hostile::stock(replica, 1, 9))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_read_only_member_is_merged() {
    let hostile = Hostile::new().await;
    let before = hostile.victim.status().fingerprint;

    let pushes = hostile.linked().await;
    let push = crate::hostile::push_of(pushes.replica, "FORGED", 1, 9);
    let _stream = pushes.push_bytes(&Message::Push(push).encode().unwrap(), false).await;
    hostile.assert_closed(&pushes, "a read-only member sent a push").await;

    // In the third turn of a reconciliation that it opens.
    let opens = hostile.linked().await;
    let groups = vec![Fingerprint::EMPTY; (SHARDS as usize).div_ceil(16)];
    let (shard, products) = one_slot(opens.replica);
    let (mut send, mut receive) = opens.connection.open_bi().await.unwrap();
    for message in [Message::Open(Open { root: Fingerprint::EMPTY, groups }), Message::End] {
        raw::write(&mut send, &message).await;
    }
    until_end(&mut receive).await;
    let version: VersionVector = [(opens.replica, 1)].into_iter().collect();
    let part = Part { shard, version: Some(version), products, full: false, last: true };
    raw::write(&mut send, &Message::Part(part)).await;
    hostile.assert_closed(&opens, "a read-only member sent slots").await;

    // With a frame that has no place, or is of no use to one that only reads.
    let odd = hostile.linked().await;
    let _streams = odd.session_bytes(&Message::Done(0).encode().unwrap(), false).await;
    hostile.assert_closed(&odd, "a read-only member sent a frame of kind Done").await;

    assert!(hostile.victim.get("FORGED").is_err());
    assert_eq!(hostile.victim.status().fingerprint, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_member_gets_no_rights() {
    let hostile = Hostile::new().await;
    let raw = hostile.linked().await;
    let ask = |needed| Ask {
        sku: Sku::new("MUG").unwrap(),
        location: Location::new("victim").unwrap(),
        needed,
        rights: 0,
        per_hour: 0,
    };
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    raw::write(&mut send, &Message::Ask(ask(5))).await;
    match raw::read(&mut receive).await {
        Some(Message::Granted(granted)) => assert!(granted.units == 0 && granted.products.is_empty(), "{granted:?}"),
        other => panic!("answered with {other:?}"),
    }
    hostile.victim.product("MUG").unwrap().sell(7).await.unwrap();
}

/// It could else make others leave their rights behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_member_takes_nobodys_id_away() {
    let hostile = Hostile::new().await;
    let replica = hostile.victim.replica_id();
    let raw = hostile.linked().await;
    let (shard, _) = one_slot(replica);
    let version: VersionVector = [(replica, 1_000)].into_iter().collect();
    let groups = vec![Fingerprint::EMPTY; (SHARDS as usize).div_ceil(16)];
    let summary = Summary { shard, fingerprint: Fingerprint::EMPTY, version };
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    for message in
        [Message::Open(Open { root: Fingerprint::EMPTY, groups }), Message::Summary(vec![summary]), Message::End]
    {
        raw::write(&mut send, &message).await;
    }
    until_end(&mut receive).await;
    let words = ["the read-only member hostile", "claims writes of this node that it never made"];
    wait_until("it is named", || refused_with(&hostile.victim, &words)).await;
    // What was queued for the committer before this write is done when it is.
    hostile.victim.product("MUG").unwrap().receive(1).await.unwrap();
    assert_eq!(hostile.victim.replica_id(), replica);
    assert!(raw.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_is_the_certificates_choice() {
    let hostile = Hostile::new().await;
    let refusal = async |issued: &Issued, change: fn(&mut Hello)| {
        let raw = Raw::silent_as(&hostile.mesh, address(&hostile.victim), issued).await;
        let mut said = hello(raw.replica);
        change(&mut said);
        match raw.greet(said).await {
            Some(Message::Refuse(refusal)) => {
                wait_until("it is named", || refused_with(&hostile.victim, &[&refusal.reason])).await;
                refusal
            }
            other => panic!("answered with {other:?}"),
        }
    };
    let claims_more = refusal(&hostile.issued, |_| {}).await;
    assert_eq!(claims_more.code, RefusalCode::ReadOnly);
    assert!(claims_more.reason.contains("by its certificate the node is a read-only member"), "{claims_more:?}");
    let full = hostile.mesh.issue("full");
    assert_eq!(refusal(&full, |said| said.read_only = true).await.code, RefusalCode::ReadOnly);

    // Elsewhere than the certificate says.
    let details = NodeDetails { name: "berlin-1", location: Some("berlin"), ..NodeDetails::default() };
    let berlin = hostile.mesh.issue_node(&details);
    let elsewhere = refusal(&berlin, |_| {}).await;
    assert_eq!(elsewhere.code, RefusalCode::OtherNode);
    assert!(elsewhere.reason.contains("of a node at berlin, the node says that it is at hostile"), "{elsewhere:?}");
    let raw = Raw::silent_as(&hostile.mesh, address(&hostile.victim), &berlin).await;
    let said = Hello { location: Location::new("berlin").unwrap(), ..hello(raw.replica) };
    assert!(matches!(raw.greet(said).await, Some(Message::Hello(_))));

    // A role that is not known here may forbid what this version would allow.
    let observer = hostile.mesh.issue_with(&["stockmesh:role=observer"]);
    let unknown = refusal(&observer, |_| {}).await;
    assert!(unknown.code == RefusalCode::OtherNode && unknown.reason.contains("the role \"observer\""), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_keeps_to_its_certificate() {
    let mesh = Mesh::new();
    let details = NodeDetails { name: "berlin-1", location: Some("berlin"), ..NodeDetails::default() };
    let identity = mesh.identity(&mesh.issue_node(&details));
    let error = mesh.builder("paris").identity(identity.clone()).open().await.unwrap_err().to_string();
    assert!(error.contains("location \"paris\"") && error.contains("must be berlin"), "{error}");
    let paris = mesh.node("paris").await;
    let error = paris.reload_identity(identity.clone()).unwrap_err().to_string();
    assert!(error.contains("of a node at berlin, this store is at paris"), "{error}");
    assert!(mesh.builder("berlin").identity(identity).open().await.is_ok());
    let observer = mesh.issue_with(&["stockmesh:role=observer"]);
    let authority = mesh.authority_pem().as_bytes();
    let read = Identity::from_pem_bytes(authority, observer.certificate_pem.as_bytes(), observer.key_pem.as_bytes());
    assert!(read.unwrap_err().to_string().contains("the role \"observer\""));
}

/// Nothing comes from a read-only member: an empty node has not caught up by it, and gets all from the next full one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_nobody_to_catch_up_with() {
    let mesh = Mesh::new();
    let (empty, reader) = (mesh.node("empty").await, reader(&mesh, "reader").await);
    dial(&reader, &empty);
    let has_reconciled = || empty.status().peers.iter().any(|peer| peer.reconciled_ago.is_some());
    wait_until("they have reconciled", has_reconciled).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(empty.status().catching_up);
    let full = mesh.node("full").await;
    full.product("BEFORE").unwrap().receive(3).await.unwrap();
    dial(&empty, &full);
    wait_until("the empty one has caught up", || !empty.status().catching_up).await;
    assert_eq!(on_hand(&empty, "BEFORE"), 3);
}

/// Two that only read have nothing to tell each other, and take no time to find that out again and again.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_between_two_readers_costs_nothing() {
    alone!(a_link_between_two_readers_costs_nothing);
    let mesh = Mesh::new();
    let readers = [reader(&mesh, "one").await, reader(&mesh, "other").await];
    dial(&readers[0], &readers[1]);
    wait_linked(&readers, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, begun) = (processor_ticks(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (ticks, elapsed) = (processor_ticks() - before, begun.elapsed());
    // Hundredths of a second.
    assert!(ticks < 50, "{ticks} ticks of the processor in {elapsed:?} in which nothing happened");
}

/// What this process has taken of the processor, in ticks of the system.
#[cfg(target_os = "linux")]
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
