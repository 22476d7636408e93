//! Reconciliations that break the rules of section 4.

use std::collections::BTreeMap;

use quinn::{RecvStream, SendStream};
use stockmesh::{Fingerprint, ReplicaId};
use stockmesh_proto::wire::{Message, Open, Part, Summary};
use stockmesh_proto::{ShardIndex, VersionVector};
use tokio::task::{Id, JoinSet};

use super::{Stage, case, push_of, stock};
use crate::support::raw::{Raw, frame, read, write};

pub(super) fn spawn(stage: &Stage, cases: &mut JoinSet<&'static str>, names: &mut BTreeMap<Id, &'static str>) {
    case!(stage, cases, names, garbage);
    case!(stage, cases, names, an_oversized_prefix);
    case!(stage, cases, names, a_truncated_frame);
    case!(stage, cases, names, a_stream_that_stays_silent);
    case!(stage, cases, names, an_opening_that_stops);
    case!(stage, cases, names, each_kind_that_cannot_come_first);
    case!(stage, cases, names, two_openings);
    case!(stage, cases, names, a_wrong_number_of_groups);
    case!(stage, cases, names, a_shard_summarised_twice);
    case!(stage, cases, names, a_shard_that_does_not_exist);
    case!(stage, cases, names, a_version_vector_too_long);
    case!(stage, cases, names, a_version_vector_out_of_order);
    case!(stage, cases, names, endless_empty_summaries);
    case!(stage, cases, names, endless_empty_parts);
    case!(stage, cases, names, endless_parts_of_one_product);
    case!(stage, cases, names, a_part_of_another_shard);
    case!(stage, cases, names, silence_in_the_middle);
}

fn open(groups: usize) -> Message {
    // A root that no state has, so that the reply is never `Equal`.
    let root = Fingerprint::EMPTY.plus(any_fingerprint());
    Message::Open(Open { root, groups: vec![any_fingerprint(); groups] })
}

/// A sum that is not that of nothing.
fn any_fingerprint() -> Fingerprint {
    let product = stock(ReplicaId::from_random(1), 1, 1);
    product.slots().next().unwrap().hash("ANY")
}

fn summary(shard: u16, version: VersionVector) -> Summary {
    Summary { shard: ShardIndex(shard), fingerprint: any_fingerprint(), version }
}

async fn assert_bytes_closed(stage: &Stage, bytes: &[u8], finish: bool, word: &str) {
    let raw = stage.linked().await;
    let _streams = raw.session_bytes(bytes, finish).await;
    stage.assert_closed(&raw, word).await;
}

async fn assert_closed_after(stage: &Stage, messages: &[Message], word: &str) {
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.encode().unwrap()).collect();
    assert_bytes_closed(stage, &bytes, false, word).await;
}

async fn garbage(stage: Stage) {
    assert_bytes_closed(&stage, &frame(16, b"\xff\xff\xff"), false, "cannot be read").await;
}

async fn an_oversized_prefix(stage: Stage) {
    assert_bytes_closed(&stage, &[0, 16, 0, 1], false, "exceeds the limit of 65552").await;
    // What a stream is for is known by its kind, and each kind has a limit of its own.
    let opening = frame(16, &vec![0; 20_000]);
    assert_bytes_closed(&stage, &opening, false, "exceeds the limit of 16384").await;
}

async fn a_truncated_frame(stage: Stage) {
    let whole = open(1).encode().unwrap();
    assert_bytes_closed(&stage, &whole[..whole.len() - 1], true, "ended within a frame").await;
}

/// Streams below one that carries data are opened by it, without a byte of their own.
async fn a_stream_that_stays_silent(stage: Stage) {
    let raw = stage.linked().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(raw.connection.open_bi().await.unwrap());
    }
    write(&mut streams.last_mut().unwrap().0, &open(1)).await;
    stage.assert_closed(&raw, "left silent").await;
}

async fn an_opening_that_stops(stage: Stage) {
    assert_closed_after(&stage, &[open(1)], "silent").await;
}

async fn each_kind_that_cannot_come_first(stage: Stage) {
    let part = Part { shard: ShardIndex(0), version: None, products: Vec::new(), full: false, last: true };
    let push = push_of(ReplicaId::from_random(3), "MISPLACED", 1, 1);
    let kinds = [
        Message::End,
        Message::Equal,
        Message::Summary(vec![summary(0, VersionVector::new())]),
        Message::Part(part),
        Message::Done(0),
        Message::Push(push),
        Message::Hello(crate::support::raw::hello(ReplicaId::from_random(4))),
    ];
    for message in kinds {
        assert_closed_after(&stage, &[message], "has no place at this point").await;
    }
    assert!(stage.victim.get("MISPLACED").is_err());
}

async fn two_openings(stage: Stage) {
    assert_closed_after(&stage, &[open(1), open(1)], "has no place at this point").await;
}

async fn a_wrong_number_of_groups(stage: Stage) {
    assert_closed_after(&stage, &[open(2)], "2 groups of fingerprints came, the cluster has 1").await;
}

async fn a_shard_summarised_twice(stage: Stage) {
    let twice = || summary(5, VersionVector::new());
    assert_closed_after(&stage, &[open(1), Message::Summary(vec![twice(), twice()])], "came twice").await;
}

async fn a_shard_that_does_not_exist(stage: Stage) {
    let beyond = summary(16, VersionVector::new());
    assert_closed_after(&stage, &[open(1), Message::Summary(vec![beyond])], "does not exist").await;
}

fn long_version(entries: u64) -> VersionVector {
    (1..=entries).map(|bits| (ReplicaId::from_random(bits << 20), 1)).collect()
}

async fn a_version_vector_too_long(stage: Stage) {
    let long = summary(1, long_version(4_097));
    assert_closed_after(&stage, &[open(1), Message::Summary(vec![long])], "cannot be read").await;
}

async fn a_version_vector_out_of_order(stage: Stage) {
    let body = rmp_serde::to_vec(&[(2_u16, (0_u64, 0_u64), vec![(9_u64, 1_u64), (8, 1)])]).unwrap();
    let bytes = [open(1).encode().unwrap(), frame(17, &body)].concat();
    assert_bytes_closed(&stage, &bytes, false, "not in strict order").await;
}

/// Writes a message again and again until the link is closed.
async fn repeat(send: &mut SendStream, message: &Message) {
    let bytes = message.encode().unwrap().repeat(16);
    while send.write_all(&bytes).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

async fn endless_empty_summaries(stage: Stage) {
    let raw = stage.linked().await;
    let (mut send, _receive) = raw.session_bytes(&open(1).encode().unwrap(), false).await;
    repeat(&mut send, &Message::Summary(Vec::new())).await;
    stage.assert_closed(&raw, "").await;
}

/// Opens a reconciliation and reads the reply to its end: what follows is this peer's answer.
async fn opened(raw: &Raw) -> (SendStream, RecvStream) {
    let opening = [open(1), Message::Summary(vec![summary(0, VersionVector::new())]), Message::End];
    let bytes: Vec<u8> = opening.iter().flat_map(|message| message.encode().unwrap()).collect();
    let (send, mut receive) = raw.session_bytes(&bytes, false).await;
    while !matches!(read(&mut receive).await.expect("a reply"), Message::End) {}
    (send, receive)
}

fn part(version: Option<VersionVector>, products: stockmesh_proto::delta::Products) -> Message {
    Message::Part(Part { shard: ShardIndex(7), version, products, full: false, last: false })
}

/// Rule R3: a chunk that is not the last holds something, else its sender may go on for ever.
async fn endless_empty_parts(stage: Stage) {
    let raw = stage.linked().await;
    let (mut send, _receive) = opened(&raw).await;
    write(&mut send, &part(Some(VersionVector::new()), Vec::new())).await;
    repeat(&mut send, &part(None, Vec::new())).await;
    stage.assert_closed(&raw, "out of order").await;
}

/// Rule R3: chunks come in SKU order.
async fn endless_parts_of_one_product(stage: Stage) {
    let raw = stage.linked().await;
    let (mut send, _receive) = opened(&raw).await;
    let shards = super::shard_count();
    let sku = (0..).map(|number| stockmesh_proto::Sku::new(&format!("AGAIN-{number}")).unwrap());
    let sku = sku.into_iter().find(|sku| shards.shard_of(sku) == ShardIndex(7)).unwrap();
    let products = vec![(sku, stock(raw.replica, 1, 1))];
    write(&mut send, &part(Some(VersionVector::new()), products.clone())).await;
    repeat(&mut send, &part(None, products)).await;
    stage.assert_closed(&raw, "out of order").await;
}

async fn a_part_of_another_shard(stage: Stage) {
    let raw = stage.linked().await;
    let (mut send, _receive) = opened(&raw).await;
    let sku = stockmesh_proto::Sku::new("ASTRAY").unwrap();
    let wrong = (super::shard_count().shard_of(&sku).0 + 1) % super::shard_count().get();
    let products = vec![(sku, stock(raw.replica, 1, 1))];
    let version = Some(VersionVector::new());
    let part = Part { shard: ShardIndex(wrong), version, products, full: false, last: true };
    write(&mut send, &Message::Part(part)).await;
    stage.assert_closed(&raw, "does not lie in shard").await;
    assert!(stage.victim.get("ASTRAY").is_err());
}

async fn silence_in_the_middle(stage: Stage) {
    let raw = stage.linked().await;
    let _streams = opened(&raw).await;
    // For this stream, or for the one that the node opened meanwhile and got no answer on.
    let reason = raw.closed().await;
    assert!(reason.contains("left silent") || reason.contains("no frame came"), "{reason}");
}
