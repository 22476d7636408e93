//! Members that ask and answer otherwise than the rules say: what they break costs them the link, and nobody any stock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stockmesh::{ReplicaId, Store};
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::product::{GrantSlot, Product};
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{Ask, Granted, Message};
use stockmesh_proto::{Location, ShardIndex, Sku};
use tokio::task::JoinSet;

use super::peer::{Peer, ask, encoded, grant, granted, linked, push_of, question, shard_of, stock};
use super::{
    MUG, assert_shared_out, available, giver_and_asker, is_insufficient, mug, own_rights, rights_of, wait_available,
};
use crate::support::alone::alone;
use crate::support::raw::{Raw, frame, read, write};
use crate::support::writers::price;
use crate::support::{Mesh, PATIENCE, on_hand, resident_bytes, wait_until, wait_within};

const ASK: u8 = 48;

async fn peer_of(mesh: &Mesh, store: &Store) -> Raw {
    let (raw, answer) = linked(mesh, store, None).await;
    assert!(matches!(answer, Some(Message::Hello(_))), "{answer:?}");
    raw
}

fn question_bytes() -> Vec<u8> {
    Message::Ask(question(MUG, 1)).encode().unwrap()
}

/// Streams that begin with these bytes cost the link, for this reason, and move no right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_break_a_rule_cost_the_link() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let giver = &stores[0];
    let negative = rmp_serde::to_vec(&(MUG, "shop", -1_i64, 0_u64, 0_u64)).unwrap();
    let too_few = rmp_serde::to_vec(&(MUG, "shop", 1_u64)).unwrap();
    let mut trailing = rmp_serde::to_vec(&(MUG, "shop", 1_u64, 0_u64, 0_u64)).unwrap();
    trailing.push(0);
    let shop = |replica| Message::Push(push(replica)).encode().unwrap();
    let (_, answer) = encoded(granted(1, 1, stock(ReplicaId::from_random(5), 1, 1))).unwrap();
    let cases = [
        ("a negative number", frame(ASK, &negative), "cannot be read"),
        ("too few fields", frame(ASK, &too_few), "cannot be read"),
        ("an invalid name", frame(ASK, &rmp_serde::to_vec(&("", "shop", 1, 0, 0)).unwrap()), "cannot be read"),
        ("bytes after the content", frame(ASK, &trailing), "1 bytes follow"),
        ("a frame over the limit", frame(ASK, &[0; 1_024]), "exceeds the limit"),
        ("a long prefix", vec![0, 16, 0, 1, ASK], "exceeds the limit"),
        ("a push", shop(ReplicaId::from_random(6)), "has no place at this point"),
        ("an answer", answer, "has no place at this point"),
        ("half a question", question_bytes()[..20].to_vec(), "ended within a frame"),
        ("nothing", Vec::new(), "ended empty"),
    ];
    let fingerprint = giver.status().fingerprint;
    for (name, bytes, word) in cases {
        let raw = peer_of(&mesh, giver).await;
        let _streams = raw.session_bytes(&bytes, true).await;
        let reason = raw.closed().await;
        assert!(reason.contains(word) && !reason.is_empty(), "{name}: closed for {reason:?}, not for {word:?}");
        assert_eq!(rights_of(giver, raw.replica), 0, "{name}");
    }
    assert_eq!(giver.status().fingerprint, fingerprint);
    mug(&stores[1]).sell(100).deadline(PATIENCE).await.unwrap();
}

fn push(replica: ReplicaId) -> stockmesh_proto::wire::Push {
    let bytes = push_of(replica, MUG, 1, stock(replica, 1, 1));
    match Message::decode(&bytes[4..]).unwrap() {
        Message::Push(push) => push,
        other => panic!("{other:?}"),
    }
}

/// Questions that only ask for much, or for what is not there, are answered; never with more than there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immoderate_questions_get_what_there_is_and_no_more() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let giver = &stores[0];
    let raw = peer_of(&mesh, giver).await;
    let unknown = ask(&raw, question("NOWHERE", u64::MAX)).await.unwrap();
    assert_eq!((unknown.units, unknown.products.len()), (0, 0));
    assert!(giver.get("NOWHERE").is_err());
    let elsewhere = Ask { location: Location::new("cellar").unwrap(), ..question(MUG, 5) };
    assert_eq!(ask(&raw, elsewhere).await.unwrap().units, 0);
    assert_eq!(ask(&raw, question(MUG, 0)).await.unwrap().units, 0, "that needs nothing");

    // Two questions on one stream: the second is not heard.
    let both = [question_bytes(), question_bytes()].concat();
    let (_send, mut receive) = raw.session_bytes(&both, false).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Granted(Granted { units: 1, .. }))));
    assert!(read(&mut receive).await.is_none());
    assert_eq!(rights_of(giver, raw.replica), 1);

    let greedy = Ask { rights: u64::MAX, per_hour: u64::MAX, ..question(MUG, u64::MAX) };
    let all = ask(&raw, greedy).await.unwrap();
    let slot = all.products[0].1.grants()[0].clone();
    assert_eq!((all.units, slot.units, slot.to, slot.from), (99, 100, raw.replica, giver.replica_id()));
    assert_eq!((own_rights(giver), rights_of(giver, raw.replica), available(giver)), (0, 100, 100));
    assert_eq!(ask(&raw, question(MUG, 1)).await.unwrap().units, 0);
    assert!(is_insufficient(&mug(giver).try_sell(1).await));
    assert!(raw.connection.close_reason().is_none());
    assert_shared_out(giver);
}

/// Rights are given to whoever holds the link, and nobody can hold it in another's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_rights_in_anothers_name() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let [giver, asker] = &stores;
    for name in [asker.replica_id(), giver.replica_id()] {
        let (raw, _) = linked(&mesh, giver, Some(name)).await;
        let answer = ask(&raw, question(MUG, 50)).await;
        assert!(answer.is_none(), "{answer:?}");
        let _ = raw.closed().await;
    }
    assert_eq!((own_rights(giver), rights_of(giver, asker.replica_id())), (100, 0));
    mug(asker).sell(100).deadline(PATIENCE).await.unwrap();
}

/// Thousands of questions at once on one link: memory stays flat, the link lives or is closed, and others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_does_not_keep_others_from_being_served() {
    alone!(a_flood_of_questions_does_not_keep_others_from_being_served);
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 1_000_000).await;
    let [giver, asker] = &stores;
    let raw = peer_of(&mesh, giver).await;
    let memory = resident_bytes();
    let answered = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for _ in 0..64 {
        let (connection, answered) = (raw.connection.clone(), Arc::clone(&answered));
        flood.spawn(async move {
            for _ in 0..100 {
                let Ok((mut send, mut receive)) = connection.open_bi().await else { return };
                write(&mut send, &Message::Ask(question(MUG, 1))).await;
                let _ = send.finish();
                if read(&mut receive).await.is_some() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    let mut sold = 0;
    while !flood.is_empty() {
        mug(asker).sell(1).deadline(PATIENCE).await.unwrap();
        sold += 1;
        while flood.try_join_next().is_some() {}
    }
    assert!(sold > 0);
    let answered = answered.load(Ordering::SeqCst);
    let is_up = raw.connection.close_reason().is_none();
    assert!(answered == 6_400 || !is_up, "{answered} answers");
    let given = rights_of(giver, raw.replica);
    assert!(given <= i128::from(answered).max(6_400) && recorder.in_need() > 0, "{given} units given");
    let grown = resident_bytes().saturating_sub(memory);
    assert!(grown < 300 << 20, "memory grew by {} MiB", grown >> 20);
    wait_until("the nodes agree", || available(asker) == available(giver)).await;
    stores.iter().for_each(assert_shared_out);
}

/// An answer for a question, made of the ids of who answers and who asked.
type Forged = fn(ReplicaId, ReplicaId) -> Granted;

fn with(mut product: Product, other: &Product) -> Product {
    product.absorb(other);
    product
}

fn at_cellar(from: ReplicaId, to: ReplicaId) -> Product {
    let location = Location::new("cellar").unwrap();
    Product::of_grant(GrantSlot { location, from, to, sequence: 2, units: 5 })
}

fn priced(replica: ReplicaId) -> Product {
    let dot = Dot { replica, sequence: 3 };
    Product::of_price(Register { value: price(1), stamp: Stamp::from_bits(1 << 16), dot })
}

const FORGED: [(&str, Forged); 9] = [
    ("another product", |peer, node| {
        let products = vec![(Sku::new("CUP").unwrap(), grant(peer, node, 2, 5))];
        Granted { products, ..granted(5, 2, Product::default()) }
    }),
    ("two products", |peer, node| {
        let mut answer = granted(5, 2, grant(peer, node, 2, 5));
        answer.products.push((Sku::new("ZZZ").unwrap(), stock(peer, 2, 5)));
        answer
    }),
    ("another location", |peer, node| granted(5, 2, at_cellar(peer, node))),
    ("another location beside the right one", |peer, node| {
        granted(5, 2, with(grant(peer, node, 2, 5), &at_cellar(peer, ReplicaId::from_random(8))))
    }),
    ("a price inside", |peer, node| granted(5, 2, with(grant(peer, node, 2, 5), &priced(peer)))),
    ("a grant to somebody else", |peer, _| granted(5, 2, grant(peer, ReplicaId::from_random(9), 2, 5))),
    ("more units than the slot has", |peer, node| granted(6, 2, grant(peer, node, 2, 5))),
    ("another shard", |peer, node| Granted {
        shard: ShardIndex((shard_of(MUG).0 + 1) % 16),
        ..granted(5, 2, grant(peer, node, 2, 5))
    }),
    ("units without a slot", |peer, _| granted(5, 1, stock(peer, 1, 100))),
];

/// An answer that is not what was asked for, or does not carry what it names, costs its sender the link, and nothing of
/// it is applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_a_rule_are_not_applied() {
    for (name, forged) in FORGED {
        let mesh = Mesh::new();
        let asker = mesh.node("asker").await;
        let ids = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
        let told = Arc::clone(&ids);
        let answering = move |_: &Ask| {
            let [peer, node] = [0, 1].map(|at: usize| ReplicaId::from_bits(told[at].load(Ordering::SeqCst)).unwrap());
            encoded(forged(peer, node))
        };
        let peer = Peer::start(&mesh, &asker, 100, Arc::new(answering)).await;
        ids[0].store(peer.raw.replica.bits(), Ordering::SeqCst);
        ids[1].store(asker.replica_id().bits(), Ordering::SeqCst);
        let before = (asker.status().fingerprint, asker.status().products);
        let answer = mug(&asker).sell(5).deadline(PATIENCE).await;
        assert!(is_insufficient(&answer), "{name}: {answer:?}");
        let reason = peer.raw.closed().await;
        assert!(reason.contains("nothing was applied"), "{name}: {reason}");
        assert_eq!((asker.status().fingerprint, asker.status().products), before, "{name}");
        assert_eq!((own_rights(&asker), available(&asker)), (0, 100), "{name}");
    }
}

/// An answer with writes that the asker never made looks like what a restored copy is told, so the asker takes a new id:
/// it loses its rights with the former one, and sells nothing that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_the_askers_own_future_costs_it_its_id_and_no_unit() {
    let mesh = Mesh::new();
    let asker = mesh.node("asker").await;
    mug(&asker).receive(10).await.unwrap();
    let former = asker.replica_id();
    let answering = move |_: &Ask| encoded(granted(0, 0, stock(former, 1_000, 1_000_000)));
    let peer = Peer::start(&mesh, &asker, 100, Arc::new(answering)).await;
    let answer = mug(&asker).sell(20).deadline(PATIENCE).await;
    assert!(is_insufficient(&answer), "{answer:?}");
    wait_until("a new id is minted", || asker.replica_id() != former).await;
    assert!(peer.raw.closed().await.contains("new replica id"));
    assert_eq!(own_rights(&asker), 0);
    assert!(is_insufficient(&mug(&asker).try_sell(1).await));
    mug(&asker).receive(1).await.unwrap();
    mug(&asker).try_sell(1).await.unwrap();
}

/// Rights that a member made up are not stock: a sale needs both, and the total does not cover it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_were_made_up_sell_nothing_beyond_the_stock() {
    let mesh = Mesh::new();
    let ([giver, asker], _) = giver_and_asker(&mesh, 10).await;
    let raw = peer_of(&mesh, &asker).await;
    let made_up = grant(raw.replica, asker.replica_id(), 1, 1_000);
    raw.push_bytes(&push_of(raw.replica, MUG, 1, made_up), false).await;
    wait_until("the grant arrives", || own_rights(&asker) == 1_000).await;
    assert!(is_insufficient(&mug(&asker).try_sell(11).await));
    mug(&asker).try_sell(10).await.unwrap();
    assert!(is_insufficient(&mug(&asker).try_sell(1).await));
    wait_available(&[giver.clone(), asker.clone()], 0).await;
    assert!(is_insufficient(&mug(&giver).try_sell(1).await), "all is sold");
    let patience = std::time::Duration::from_secs(20);
    wait_within(patience, "no unit is below zero", || on_hand(&giver, MUG) == 0).await;
}
