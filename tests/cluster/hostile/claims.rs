//! Members are trusted not to forge the writes of others (section 10 of the protocol). What a member that does so costs.

use std::time::{Duration, Instant};

use stockmesh::ReplicaId;
use stockmesh_proto::limits::{REPLICAS_MAX, SESSION_VERSION_ENTRIES_MAX};
use stockmesh_proto::wire::{Hello, Message, Open, Push, PushShard, Summary};
use stockmesh_proto::{Fingerprint, ShardCount, ShardIndex, Sku, VersionVector};

use super::{Stage, push_of};
use crate::support::alone::alone;
use crate::support::raw::{Grants, Raw, hello, read, write};
use crate::support::writers::Ledger;
use crate::support::{
    Mesh, address, agree, dial, links_up, metrics, on_hand, resident_bytes, wait_linked, wait_until, wait_within,
};

/// A push that names a range of writes in shard 3, and carries no more than the last of them, which adds no unit. All
/// such pushes carry the same product.
fn claim(origin: ReplicaId, to: u64) -> Message {
    let shard = ShardIndex(3);
    let mut skus = (0..).map(|number| Sku::new(&format!("CLAIM-{number}")).unwrap());
    let sku = skus.find(|sku| super::shard_count().shard_of(sku) == shard).unwrap();
    let shards = vec![PushShard { shard, from: 1, to, products: vec![(sku, super::stock(origin, to, 0))] }];
    Message::Push(Push { origin, told: Vec::new(), shards })
}

/// Rule I2, and its price: a member that claims writes which the victim never made looks just like a peer that knew the
/// victim before it was restored from an old copy. To go on under the old id would risk that new writes are taken for
/// old ones and dropped, so the victim takes a new id. It loses nothing by that but the id: all it wrote stays, under
/// the former one, and it says so. A forger can thus make the victim change its id; it cannot make units vanish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_about_the_victims_own_future_costs_it_its_id_and_no_unit() {
    let stage = Stage::start().await;
    let stores = [stage.victim.clone(), stage.healthy.clone()];
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 3_000, 50).await;
    let minted = metrics::counter("stockmesh_incarnations_total");
    let mut former = Vec::new();
    for round in 0..2_u64 {
        let id = stage.victim.replica_id();
        let writing = ledger.keep_writing(&stage.victim, 3_100 + round);
        let raw = stage.linked().await;
        assert_eq!(raw.node, Some(id));
        if round == 0 {
            let bytes = claim(id, 1_000_000).encode().unwrap();
            raw.push_bytes(&bytes, false).await;
        } else {
            let version = [(id, u64::MAX)].into_iter().collect();
            let summary = Summary { shard: ShardIndex(4), fingerprint: Fingerprint::EMPTY, version };
            let open = Message::Open(Open { root: Fingerprint::EMPTY, groups: vec![Fingerprint::EMPTY] });
            let (mut send, _receive) = raw.session_bytes(&open.encode().unwrap(), false).await;
            write(&mut send, &Message::Summary(vec![summary])).await;
        }
        wait_until("the victim takes a new id", || stage.victim.replica_id() != id).await;
        assert!(raw.closed().await.contains("new replica id"));
        former.push(id);
        assert!(writing.stop().await > 0, "writes go on meanwhile");
        wait_until("its peer links with the new id", || {
            let here = Some(stage.victim.replica_id());
            stage.healthy.status().peers.iter().any(|peer| peer.replica == here)
        })
        .await;
    }
    assert_eq!(stage.victim.status().former_replicas, former);
    assert!(metrics::counter("stockmesh_incarnations_total") >= minted + 2);
    ledger.write_at_all(&stores, 3_200, 50).await;
    ledger.assert_units(&stores).await;
    assert_eq!(stage.healthy.status().former_replicas, [], "nobody else takes a new id");
}

/// A link under an id that its node has left would last as long as the connection, since only links that are up are
/// made anew. So a hello is held against the id once more when the link comes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_hello_told_a_former_id_is_given_up() {
    let stage = Stage::start().await;
    let id = stage.victim.replica_id();
    // The victim's hello does not fit, so that its link is not up before the rest is read. It begins under the old id.
    let grants = Grants { window_bytes: Some(16), ..Grants::default() };
    let slow = Raw::silent_with(&stage.mesh, address(&stage.victim), grants).await;
    let mut answer = slow.say_hello().await;
    let mut prefix = [0; 4];
    answer.read_exact(&mut prefix).await.unwrap();
    let raw = stage.linked().await;
    raw.push_bytes(&claim(id, 1_000_000).encode().unwrap(), false).await;
    wait_until("the victim takes a new id", || stage.victim.replica_id() != id).await;
    assert!(raw.closed().await.contains("new replica id"));

    // The end may come before the rest does.
    let _ = answer.read_to_end(1_024).await;
    let reason = slow.closed().await;
    assert!(reason.contains("new replica id"), "{reason}");
}

/// Version vectors are read up to a limit. Claims of made-up replicas must not fill a node's own vector beyond what its
/// peers can read, or what it can read back itself; nor must the slots that come with them, all of one product.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_replicas_do_not_make_a_node_unreadable() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let open = async || mesh.builder("victim").data_dir(directory.path()).open().await.unwrap();
    let (victim, healthy) = (open().await, mesh.node("healthy").await);
    let ledger = Ledger::default();
    ledger.write(&victim, 3_300, 50).await;
    let raw = Raw::linked(&mesh, address(&victim)).await;
    let mut stream = raw.connection.open_uni().await.unwrap();
    let made_up = |number: u64| ReplicaId::from_random(0xffff_0000_0000_0000 + number);
    for number in 0..REPLICAS_MAX as u64 + 100 {
        stream.write_all(&claim(made_up(number), 1).encode().unwrap()).await.unwrap();
    }
    // Pushes of one stream are merged in their order, so all claims are in once this one is.
    stream.write_all(&Message::Push(push_of(raw.replica, "LAST", 1, 1)).encode().unwrap()).await.unwrap();
    wait_until("all was taken in", || on_hand(&victim, "LAST") == 1).await;
    raw.connection.close(0_u32.into(), b"");

    dial(&healthy, &victim);
    let stores = [victim.clone(), healthy.clone()];
    wait_linked(&stores, 1).await;
    ledger.write_at_all(&stores, 3_400, 50).await;
    wait_until("the nodes agree", || agree(&stores)).await;
    let none = [victim.status().refusals, healthy.status().refusals].concat();
    assert!(none.is_empty(), "a node cannot read the other: {none:?}");
    let fingerprint = victim.status().fingerprint;
    victim.close().await.unwrap();
    drop((victim, stores));
    let reopened = open().await;
    assert_eq!(reopened.status().fingerprint, fingerprint, "what was written can be read back");
}

/// The vectors that one reconciliation may bring are bounded in sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_version_vectors_end_the_reconciliation() {
    alone!(huge_version_vectors_end_the_reconciliation);
    const SHARDS: u32 = 512;
    assert!(SHARDS as usize * REPLICAS_MAX > SESSION_VERSION_ENTRIES_MAX, "too few shards to go beyond the limit");
    let mesh = Mesh::new();
    // It opens none itself: that it gets no answer to that one must not be why the link ends.
    let never = Duration::from_secs(24 * 60 * 60);
    let victim = mesh.builder("victim").shards(SHARDS).reconcile_every(never).open().await.unwrap();
    let memory = resident_bytes();
    let raw = Raw::silent(&mesh, address(&victim)).await;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { shards: SHARDS, ..hello(raw.replica) })).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Hello(_))));
    let version: VersionVector = (1..=REPLICAS_MAX as u64).map(|bits| (ReplicaId::from_random(bits), 1)).collect();
    let groups = vec![Fingerprint::from_bits(1); ShardCount::new(SHARDS).unwrap().indexes().len() / 16];
    let open = Message::Open(Open { root: Fingerprint::from_bits(1), groups });
    let (mut send, _receive) = raw.session_bytes(&open.encode().unwrap(), false).await;
    for shard in 0..SHARDS as u16 {
        let fingerprint = Fingerprint::from_bits(1);
        write(
            &mut send,
            &Message::Summary(vec![Summary { shard: ShardIndex(shard), fingerprint, version: version.clone() }]),
        )
        .await;
    }
    let reason = raw.closed().await;
    assert!(reason.contains(&format!("exceed {SESSION_VERSION_ENTRIES_MAX} entries")), "{reason}");
    let grown = resident_bytes().saturating_sub(memory);
    assert!(grown < 300 << 20, "memory grew by {} MiB", grown >> 20);
    assert_eq!(links_up(&victim), 0);
}

/// Valid pushes as fast as the network carries them: they wait in the network, not in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_pushes_is_held_back() {
    alone!(a_flood_of_large_pushes_is_held_back);
    let stage = Stage::start().await;
    let raw = stage.linked().await;
    let shards = super::shard_count();
    let skus = (0..).map(|number| stockmesh_proto::Sku::new(&format!("F{number}")).unwrap());
    let mut skus: Vec<_> = skus.filter(|sku| shards.shard_of(sku) == ShardIndex(0)).take(20_000).collect();
    skus.sort();
    let (from, to) = (1, skus.len() as u64);
    let products = skus.into_iter().zip(1..).map(|(sku, sequence)| (sku, super::stock(raw.replica, sequence, 1)));
    let part = PushShard { shard: ShardIndex(0), from, to, products: products.collect() };
    let push = Push { origin: raw.replica, told: Vec::new(), shards: vec![part] };
    let bytes = Message::Push(push).encode().unwrap();
    let memory = resident_bytes();
    let mut largest = memory;
    let mut stream = raw.connection.open_uni().await.unwrap();
    // Not for so long that the node misses an answer to its own reconciliations.
    let (begun, mut sent) = (Instant::now(), 0);
    while sent < 150 && begun.elapsed() < Duration::from_secs(15) {
        stream.write_all(&bytes).await.unwrap();
        largest = largest.max(resident_bytes());
        sent += 1;
    }
    let arrived = || stage.healthy.status().products >= to;
    wait_within(Duration::from_secs(60), "the flood is over", arrived).await;
    let grown = largest - memory;
    assert!(grown < 400 << 20, "{sent} pushes of {} KiB took {} MiB", bytes.len() >> 10, grown >> 20);
}
