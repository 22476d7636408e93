//! Push streams that break the rules of frames (W1 to W4) and of pushes (P2).

use std::collections::BTreeMap;
use std::time::Duration;

use stockmesh::ReplicaId;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::product::Product;
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{Message, Push, PushShard};
use stockmesh_proto::{ShardIndex, Sku};
use tokio::task::{Id, JoinSet};

use super::{Stage, case, push_of, shard_count, stock};
use crate::support::raw::{Grants, Raw, frame, now_ms};
use crate::support::writers::price;
use crate::support::{metrics, wait_until};

pub(super) fn spawn(stage: &Stage, cases: &mut JoinSet<&'static str>, names: &mut BTreeMap<Id, &'static str>) {
    case!(stage, cases, names, garbage);
    case!(stage, cases, names, an_unknown_kind);
    case!(stage, cases, names, an_oversized_prefix);
    case!(stage, cases, names, an_empty_frame);
    case!(stage, cases, names, a_truncated_frame);
    case!(stage, cases, names, bytes_after_the_content);
    case!(stage, cases, names, another_kind_than_a_push);
    case!(stage, cases, names, a_prefix_that_drips);
    case!(stage, cases, names, a_body_that_drips);
    case!(stage, cases, names, a_slow_line);
    case!(stage, cases, names, more_streams_than_allowed);
    case!(stage, cases, names, slots_of_others);
    case!(stage, cases, names, a_sequence_out_of_range);
    case!(stage, cases, names, a_product_of_another_shard);
    case!(stage, cases, names, a_shard_that_does_not_exist);
    case!(stage, cases, names, a_range_that_ends_before_it_begins);
    case!(stage, cases, names, a_range_that_begins_at_zero);
    case!(stage, cases, names, a_range_without_its_last_write);
    case!(stage, cases, names, a_range_without_any_write);
    case!(stage, cases, names, a_stamp_of_next_year);
    case!(stage, cases, names, a_peer_that_never_reads);
}

async fn assert_bytes_closed(stage: &Stage, bytes: &[u8], finish: bool, word: &str) {
    let raw = stage.linked().await;
    let _stream = raw.push_bytes(bytes, finish).await;
    stage.assert_closed(&raw, word).await;
}

async fn assert_push_closed(stage: &Stage, raw: &Raw, push: Push, word: &str) {
    let _stream = raw.push_bytes(&Message::Push(push).encode().unwrap(), false).await;
    stage.assert_closed(raw, word).await;
}

async fn garbage(stage: Stage) {
    assert_bytes_closed(&stage, &frame(32, b"\x93\xc1\xff\x00"), false, "cannot be read").await;
}

async fn an_unknown_kind(stage: Stage) {
    assert_bytes_closed(&stage, &frame(120, b"\xc0"), false, "kind 120 is unknown").await;
}

async fn an_oversized_prefix(stage: Stage) {
    assert_bytes_closed(&stage, &u32::MAX.to_be_bytes(), false, "exceeds the limit of 1048576").await;
}

async fn an_empty_frame(stage: Stage) {
    assert_bytes_closed(&stage, &[0; 4], false, "frame is empty").await;
}

async fn a_truncated_frame(stage: Stage) {
    let whole = Message::Push(push_of(ReplicaId::from_random(7), "CUT-SHORT", 1, 1)).encode().unwrap();
    assert_bytes_closed(&stage, &whole[..whole.len() - 3], true, "ended within a frame").await;
    assert!(stage.victim.get("CUT-SHORT").is_err());
}

/// Rule W3.
async fn bytes_after_the_content(stage: Stage) {
    let whole = Message::Push(push_of(ReplicaId::from_random(8), "TRAILING", 1, 1)).encode().unwrap();
    let longer = frame(32, &[&whole[5..], &[0xc0]].concat());
    assert_bytes_closed(&stage, &longer, false, "follow the frame's content").await;
    assert!(stage.victim.get("TRAILING").is_err());
}

async fn another_kind_than_a_push(stage: Stage) {
    assert_bytes_closed(&stage, &Message::End.encode().unwrap(), false, "carries something else").await;
}

async fn a_prefix_that_drips(stage: Stage) {
    assert_bytes_closed(&stage, &[0, 0], false, "not complete after 10 s").await;
}

async fn a_body_that_drips(stage: Stage) {
    let raw = stage.linked().await;
    let mut stream = raw.push_bytes(&[0, 15, 255, 255, 32], false).await;
    // A byte now and then must not buy more time.
    while stream.write_all(&[0x93]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.assert_closed(&raw, "not complete after 10 s").await;
}

/// A large frame on a line that many share takes longer than one that drips is given, and breaks no rule.
async fn a_slow_line(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = push_of(raw.replica, "SLOW-LINE-0", 1, 1);
    let filler =
        (1..2_000).map(|number| push_of(raw.replica, &format!("SLOW-LINE-{number}-{}", "x".repeat(100)), 1, 1));
    for other in filler {
        for part in other.shards {
            match push.shards.iter_mut().find(|known| known.shard == part.shard) {
                Some(known) => known.products.extend(part.products),
                None => push.shards.push(part),
            }
        }
    }
    push.shards.sort_by_key(|part| part.shard);
    push.shards.iter_mut().for_each(|part| part.products.sort_by(|one, other| one.0.cmp(&other.0)));
    let bytes = Message::Push(push).encode().unwrap();
    let mut stream = raw.push_bytes(&bytes[..8], false).await;
    let pause = Duration::from_secs(14) / (bytes.len() / 4_096) as u32;
    for piece in bytes[8..].chunks(4_096) {
        tokio::time::sleep(pause).await;
        stream.write_all(piece).await.unwrap();
    }
    wait_until("a frame that took 14 s is merged", || stage.victim.get("SLOW-LINE-0").is_ok()).await;
    assert!(raw.connection.close_reason().is_none());
}

async fn more_streams_than_allowed(stage: Stage) {
    let raw = stage.linked().await;
    let push = |sequence| Message::Push(push_of(raw.replica, "STREAMS", sequence, sequence)).encode().unwrap();
    let mut open = Vec::new();
    for sequence in 1..=3 {
        open.push(raw.push_bytes(&push(sequence), false).await);
    }
    stage.assert_closed(&raw, "more streams of pushes than allowed").await;
}

async fn slots_of_others(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = push_of(ReplicaId::from_random(9), "FOREIGN", 1, 1_000);
    push.origin = raw.replica;
    assert_push_closed(&stage, &raw, push, "its push does not name").await;
    assert!(stage.victim.get("FOREIGN").is_err());
}

async fn a_sequence_out_of_range(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = push_of(raw.replica, "BEYOND", 5, 1_000);
    push.shards[0].to = 4;
    push.shards[0].from = 1;
    assert_push_closed(&stage, &raw, push, "its push does not name").await;
    assert!(stage.victim.get("BEYOND").is_err());
}

async fn a_product_of_another_shard(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = push_of(raw.replica, "MISLAID", 1, 1_000);
    push.shards[0].shard = ShardIndex((push.shards[0].shard.0 + 1) % shard_count().get());
    assert_push_closed(&stage, &raw, push, "does not lie in shard").await;
    assert!(stage.victim.get("MISLAID").is_err());
}

async fn a_shard_that_does_not_exist(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = push_of(raw.replica, "NOWHERE", 1, 1_000);
    push.shards[0].shard = ShardIndex(200);
    assert_push_closed(&stage, &raw, push, "does not exist").await;
}

/// A push that names these writes and carries one.
fn range_with(origin: ReplicaId, sku: &str, (from, to): (u64, u64), carried: u64) -> Push {
    let mut push = push_of(origin, sku, carried, 1);
    (push.shards[0].from, push.shards[0].to) = (from, to);
    push
}

/// Rule P2: 1 ≤ from ≤ to. No write lies in such a range, so that it carries none.
async fn a_range_that_ends_before_it_begins(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = range_with(raw.replica, "BACKWARDS", (5, 4), 4);
    push.shards[0].products.clear();
    assert_push_closed(&stage, &raw, push, "names the writes 5 to 4").await;
}

async fn a_range_that_begins_at_zero(stage: Stage) {
    let raw = stage.linked().await;
    let push = range_with(raw.replica, "FROM-ZERO", (0, 4), 4);
    assert_push_closed(&stage, &raw, push, "names the writes 0 to 4").await;
    assert!(stage.victim.get("FROM-ZERO").is_err());
}

/// Rule P2: what is claimed without its slots would never be sent again.
async fn a_range_without_its_last_write(stage: Stage) {
    let raw = stage.linked().await;
    let push = range_with(raw.replica, "NOT-THE-LAST", (1, 4), 3);
    assert_push_closed(&stage, &raw, push, "does not carry the last").await;
    assert!(stage.victim.get("NOT-THE-LAST").is_err());
}

async fn a_range_without_any_write(stage: Stage) {
    let raw = stage.linked().await;
    let mut push = range_with(raw.replica, "NONE", (1, 4), 4);
    push.shards[0].products.clear();
    assert_push_closed(&stage, &raw, push, "does not carry the last").await;
}

/// Rules C4 and P2: nothing of the push is applied, the refusal is counted, and the link stays.
async fn a_stamp_of_next_year(stage: Stage) {
    let raw = stage.linked().await;
    let counted = metrics::counter("stockmesh_deltas_refused_total");
    let sku = Sku::new("TOMORROW").unwrap();
    let shard = shard_count().shard_of(&sku);
    let stamp = Stamp::from_bits((now_ms() + 365 * 24 * 3_600_000) << 16);
    let register = Register { value: price(1), stamp, dot: Dot { replica: raw.replica, sequence: 2 } };
    let mut product = stock(raw.replica, 1, 10);
    product.absorb(&Product::of_price(register));
    let shards = vec![PushShard { shard, from: 1, to: 2, products: vec![(sku, product)] }];
    let push = Push { origin: raw.replica, told: Vec::new(), shards };
    let _stream = raw.push_bytes(&Message::Push(push).encode().unwrap(), false).await;
    wait_until("it is counted", || metrics::counter("stockmesh_deltas_refused_total") > counted).await;
    stage.assert_alive(&raw).await;
    assert!(stage.victim.get("TOMORROW").is_err(), "the counters of a refused push were applied");
}

/// The node cannot send to it, and must not wait for it for ever.
async fn a_peer_that_never_reads(stage: Stage) {
    let grants = Grants { window_bytes: Some(256), ..Grants::default() };
    let raw = Raw::linked_with(&stage.mesh, stage.victim.local_addr().unwrap(), grants).await;
    stage.assert_closed(&raw, "within 30 s").await;
}
