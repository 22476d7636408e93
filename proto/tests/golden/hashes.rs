//! Hashes, clocks and ids.

use std::collections::BTreeMap;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::product::{SlotRef, Taken};
use stockmesh_proto::{ReplicaId, Shard, ShardIndex, limits};
use xxhash_rust::xxh3::xxh3_128;

use crate::files::{check_text, hex};
use crate::values::{
    NORTH, SMALL, SOUTH, inherited_products, mixed_products, replica, shard_count, sku, stamp, stock_products,
};

/// Rule S1.
#[test]
fn products_lie_in_their_frozen_shards() {
    let longest = "x".repeat(limits::SKU_BYTES_MAX);
    let mut lines = Vec::new();
    for name in ["A", "B", "MUG-01", "ÄPFEL 1 kg", "4006381333931", longest.as_str()] {
        for shards in [1, 2, 16, 256, 4096] {
            let shard = shard_count(shards).shard_of(&sku(name));
            lines.push(format!("{name:?} of {shards}: {shard}"));
        }
    }
    check_text("shard-of", "the shard of a SKU, for several numbers of shards", "S1", &lines);
}

/// Rules C1 and C2.
#[test]
fn stamps_are_frozen() {
    let mut lines = Vec::new();
    for (latest, now_ms) in [
        (stamp(0, 0), 0),
        (stamp(0, 0), 1_790_000_000_000),
        (stamp(1_790_000_000_000, 0), 1_790_000_000_000),
        (stamp(1_790_000_000_000, 7), 1_789_999_999_000),
        (stamp(1_790_000_000_000, 0xffff), 1_790_000_000_000),
        (stamp(5, 0), u64::MAX),
    ] {
        let next = Clock::resume(latest).tick(now_ms).unwrap();
        lines.push(format!("latest {:016x}, clock {now_ms} ms: {:016x}", latest.bits(), next.bits()));
    }
    let what = "the stamp of the next write, after the latest stamp and by the wall clock";
    check_text("stamps", what, "C1, C2", &lines);
}

/// Rule I1.
#[test]
fn replica_ids_are_frozen() {
    let lines: Vec<String> = [1, 31, 32, SMALL, NORTH, SOUTH, 1 << 63, u64::MAX]
        .map(|bits| format!("{bits:016x}: {}", replica(bits)))
        .into();
    for line in &lines {
        let shown = line.split_once(": ").unwrap().1;
        assert_eq!(shown.parse::<ReplicaId>().unwrap().to_string(), shown);
        assert_eq!(shown.to_uppercase().parse::<ReplicaId>().unwrap().to_string(), shown);
    }
    check_text("replica-ids", "replica ids as 64 bits in hexadecimal, and as shown in base 32", "I1", &lines);
}

/// The canonical bytes of a slot, written here anew from rule F2.
fn canonical_bytes(name: &str, slot: SlotRef<'_>) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.bytes());
    }
    fn numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    let mut bytes = Vec::new();
    let dot = slot.dot();
    match slot {
        SlotRef::Stock(slot) => {
            bytes.push(0);
            text(&mut bytes, name);
            text(&mut bytes, slot.location.as_str());
            let Counters { added, removed, held, released } = slot.counters;
            numbers(&mut bytes, &[dot.replica.bits(), dot.sequence, added, removed, held, released]);
        }
        SlotRef::Grant(slot) => {
            bytes.push(1);
            text(&mut bytes, name);
            text(&mut bytes, slot.location.as_str());
            numbers(&mut bytes, &[dot.replica.bits(), slot.to.bits(), dot.sequence, slot.units]);
        }
        SlotRef::Price(slot) => {
            bytes.push(2);
            text(&mut bytes, name);
            let value = slot.value;
            let scale = u64::from(value.scale());
            numbers(&mut bytes, &[dot.replica.bits(), dot.sequence, slot.stamp.bits(), value.units(), scale]);
            text(&mut bytes, value.currency().code());
        }
        SlotRef::Listed(slot) => {
            bytes.push(3);
            text(&mut bytes, name);
            numbers(&mut bytes, &[dot.replica.bits(), dot.sequence, slot.stamp.bits(), u64::from(slot.value)]);
        }
        SlotRef::Inheritance(slot) => {
            bytes.push(4);
            text(&mut bytes, name);
            text(&mut bytes, slot.location.as_str());
            let Taken { added, removed, rights, owed, is_heir } = slot.taken;
            numbers(&mut bytes, &[slot.from.bits(), dot.replica.bits(), dot.sequence]);
            numbers(&mut bytes, &[added, removed, rights, owed, u64::from(is_heir)]);
        }
    }
    bytes
}

/// Rule F2.
#[test]
fn slot_hashes_are_frozen() {
    let mut lines = Vec::new();
    for (name, product) in mixed_products().into_iter().chain(inherited_products()) {
        for slot in product.slots() {
            let bytes = canonical_bytes(name.as_str(), slot);
            let hash = slot.hash(name.as_str());
            assert_eq!(xxh3_128(&bytes), hash.bits(), "{name}: {slot:?}");
            let kind = match slot {
                SlotRef::Stock(_) => "stock",
                SlotRef::Grant(_) => "grant",
                SlotRef::Price(_) => "price",
                SlotRef::Listed(_) => "listed",
                SlotRef::Inheritance(_) => "inheritance",
            };
            lines.push(format!("{kind} {}: {hash}", hex(&bytes)));
        }
    }
    check_text(
        "slot-hashes",
        "the canonical bytes of the slots in part-only and part-inheritances, and their hashes",
        "F2",
        &lines,
    );
}

/// Rules F1 and F3.
#[test]
fn fingerprints_are_frozen() {
    let shards = shard_count(64);
    let mut tree = FingerprintTree::new(shards);
    let mut states: BTreeMap<ShardIndex, Shard> = BTreeMap::new();
    for (name, product) in mixed_products().into_iter().chain(stock_products()) {
        states.entry(shards.shard_of(&name)).or_insert_with(|| Shard::new(0)).merge(&[(name, product)]);
    }
    let mut lines = Vec::new();
    for (shard, state) in &states {
        assert_eq!(state.fingerprint(), state.fingerprint_recomputed());
        tree.set(*shard, state.fingerprint());
        lines.push(format!("shard {shard}: {}", state.fingerprint()));
    }
    for (group, sum) in tree.groups().iter().enumerate() {
        lines.push(format!("group {group}: {sum}"));
    }
    lines.push(format!("root: {}", tree.root()));
    let what = "the fingerprints of a store of 64 shards that holds the products of part-only and part-middle";
    check_text("fingerprints", what, "F1, F3, S1", &lines);
}
