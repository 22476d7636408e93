//! Golden vectors: the bytes of every message and record, frozen in `vectors/`, and the figures of the hashes.
//!
//! Each vector is a text file: lines `what:` and `rules:` (of `PROTOCOL.md`), an empty line, and the frozen lines. The
//! tests build the same values in code. If one differs, the failure prints the file as the code would have it: for a new
//! vector, keep that text; for an old one, the change breaks the format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Only the core itself is free of I/O; these tests read the frozen files.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::hlc::{Clock, Stamp};
use stockmesh_proto::limits;
use stockmesh_proto::product::{GrantSlot, Product, SlotRef, StockSlot};
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{
    BatchRecord, FrameKind, Hello, Message, Open, Part, Push, PushShard, Refusal, RefusalCode, ShardRecord,
    SnapshotRecord, Summary, WireError, frame_length, split_kind,
};
use stockmesh_proto::{
    ClusterId, Currency, Dot, Fingerprint, Location, Price, ReplicaId, Shard, ShardCount, ShardIndex, Sku,
    VersionVector,
};
use xxhash_rust::xxh3::xxh3_128;

// ---- The values ----

const NORTH: u64 = 0x0123_4567_89ab_cdef;
const SOUTH: u64 = 0xfedc_ba98_7654_3210;
const SMALL: u64 = 7;

fn replica(bits: u64) -> ReplicaId {
    ReplicaId::from_bits(bits).unwrap()
}

fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

fn location(name: &str) -> Location {
    Location::new(name).unwrap()
}

fn shard_count(shards: u32) -> ShardCount {
    ShardCount::new(shards).unwrap()
}

fn version(entries: &[(u64, u64)]) -> VersionVector {
    entries.iter().map(|(bits, sequence)| (replica(*bits), *sequence)).collect()
}

fn fingerprint(upper: u64, lower: u64) -> Fingerprint {
    Fingerprint::from_bits((u128::from(upper) << 64) | u128::from(lower))
}

fn stamp(milliseconds: u64, counter: u64) -> Stamp {
    Stamp::from_bits((milliseconds << 16) | counter)
}

/// Counters in the order of the wire: added, removed, held, released.
fn stock(place: &str, bits: u64, sequence: u64, [added, removed, held, released]: [u64; 4]) -> StockSlot {
    let counters = Counters { added, removed, held, released };
    StockSlot { location: location(place), replica: replica(bits), sequence, counters }
}

fn grant(place: &str, from: u64, to: u64, sequence: u64, units: u64) -> GrantSlot {
    GrantSlot { location: location(place), from: replica(from), to: replica(to), sequence, units }
}

fn register<T>(value: T, stamp: Stamp, bits: u64, sequence: u64) -> Register<T> {
    Register { value, stamp, dot: Dot { replica: replica(bits), sequence } }
}

fn price(units: u64, scale: u8, currency: Currency) -> Price {
    Price::from_parts(units, scale, currency).unwrap()
}

/// All kinds of slots: two locations, two writers of stock, a grant, both registers.
fn full_product() -> Product {
    Product::from_slots(
        vec![stock("berlin", SMALL, 3, [20, 0, 0, 0]), stock("berlin", NORTH, 12, [300, 120, 6, 2])],
        vec![grant("berlin", NORTH, SMALL, 13, 50)],
        Some(register(price(1299, 2, Currency::EUR), stamp(1_790_000_000_000, 5), NORTH, 10)),
        Some(register(true, stamp(1_790_000_000_001, 0), SMALL, 2)),
    )
    .unwrap()
}

/// Numbers at their limits and names that are not ASCII.
fn extreme_product() -> Product {
    Product::from_slots(
        vec![stock("zürich", SOUTH, u64::MAX, [u64::MAX, u64::MAX - 1, u64::MAX, u64::MAX])],
        vec![],
        Some(register(
            price(limits::PRICE_UNITS_MAX, 9, Currency::JPY),
            Stamp::from_bits(u64::MAX),
            SOUTH,
            4_294_967_296,
        )),
        Some(register(false, stamp(0, 0), SMALL, 1)),
    )
    .unwrap()
}

fn mixed_products() -> Products {
    vec![(sku("MUG-01"), full_product()), (sku("ÄPFEL 1 kg"), extreme_product())]
}

fn stock_products() -> Products {
    vec![
        (sku("A"), Product::of_stock(stock("berlin", NORTH, 41, [10, 0, 0, 0]))),
        (sku("B"), Product::of_stock(stock("berlin", NORTH, 42, [0, 70_000, 0, 0]))),
    ]
}

enum Value {
    Message(Message),
    Batch(BatchRecord),
    Snapshot(SnapshotRecord),
}

impl Value {
    /// A message as a frame with its length before it, a record as it is.
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => message.encode().unwrap(),
            Self::Batch(record) => record.encode().unwrap(),
            Self::Snapshot(record) => record.encode().unwrap(),
        }
    }

    /// The bytes that `decode` takes: a frame without its length, or a record.
    fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Message(_) => &bytes[4..],
            Self::Batch(_) | Self::Snapshot(_) => bytes,
        }
    }

    /// Whether the content reads as this very value.
    fn is(&self, content: &[u8]) -> Result<bool, WireError> {
        Ok(match self {
            Self::Message(message) => Message::decode(content)? == *message,
            Self::Batch(record) => BatchRecord::decode(content)? == *record,
            Self::Snapshot(record) => SnapshotRecord::decode(content)? == *record,
        })
    }
}

struct Vector {
    name: String,
    what: String,
    rules: &'static str,
    value: Value,
}

fn messages() -> Vec<(&'static str, &'static str, &'static str, Message)> {
    let part = |version, products, full, last| Part { shard: ShardIndex(5), version, products, full, last };
    vec![
        ("hello", "a hello, with named fields", "H1, W1, W2, W5", Message::Hello(hello())),
        ("open", "the opening of a reconciliation between stores of 64 shards: root and 4 groups", "R1", open()),
        ("summary", "summaries of two shards, the second empty", "R1, R2, W4", summary()),
        ("end", "the end of a turn", "R1, R2", Message::End),
        ("equal", "both states are equal", "R2", Message::Equal),
        (
            "part-only",
            "the only chunk of a shard's delta: every kind of slot, and numbers at their limits",
            "R3, R4, 6.2",
            Message::Part(part(Some(version(&[(SMALL, 3), (NORTH, 13)])), mixed_products(), false, true)),
        ),
        (
            "part-middle",
            "a chunk between the first and the last: no version vector",
            "R3",
            Message::Part(part_middle()),
        ),
        (
            "part-names",
            "names in the order of first use: grants before registers, the price before the mark, giver before taker",
            "6.2",
            Message::Part(part(None, named_products(), false, false)),
        ),
        (
            "part-full-empty",
            "a full exchange of a shard that holds nothing",
            "R7",
            Message::Part(part(Some(version(&[])), vec![], true, true)),
        ),
        ("done", "the receipt, with 3 shards refused", "R5, R8", Message::Done(3)),
        ("push", "a batch that touched two shards, told to two replicas", "P1, P4", Message::Push(push())),
    ]
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (name, what, rules, message) in messages() {
        vectors.push(Vector { name: name.into(), what: what.into(), rules, value: Value::Message(message) });
    }
    for (name, code) in [
        ("other-cluster", RefusalCode::OtherCluster),
        ("other-shard-count", RefusalCode::OtherShardCount),
        ("same-replica", RefusalCode::SameReplica),
        ("clock-skew", RefusalCode::ClockSkew),
        ("unknown-feature", RefusalCode::UnknownFeature),
        ("offline", RefusalCode::Offline),
        ("duplicate", RefusalCode::Duplicate),
    ] {
        let refusal = Refusal { code, reason: "told to the operator".into() };
        vectors.push(Vector {
            name: format!("refuse-{name}"),
            what: format!("a refusal: {code:?}"),
            rules: "H2, W5",
            value: Value::Message(Message::Refuse(refusal)),
        });
    }
    let empty = BatchRecord { number: 1, clock: stamp(0, 0), shards: vec![] };
    let mut record = |name: &str, what: &str, rules, value| {
        vectors.push(Vector { name: name.into(), what: what.into(), rules, value });
    };
    record("batch-empty", "a batch of the journal that only notes the clock", "D1, C3", Value::Batch(empty));
    record("batch", "a batch of the journal that touched two shards", "D1, D3", Value::Batch(batch()));
    record("snapshot", "a chunk of a shard's snapshot", "D2", Value::Snapshot(snapshot()));
    vectors
}

/// Each name occurs in one place of its product first, in an order that is not that of its value.
fn named_products() -> Products {
    let first = Product::from_slots(
        vec![stock("ulm", 50, 1, [1, 0, 0, 0])],
        vec![grant("aue", 40, 30, 1, 2), grant("aue", 40, 90, 2, 3), grant("ulm", 20, 10, 1, 4)],
        Some(register(price(0, 0, Currency::CHF), stamp(1, 0), 80, 1)),
        Some(register(true, stamp(1, 0), 70, 1)),
    );
    let second = Product::from_slots(vec![stock("bonn", 5, 1, [1, 0, 0, 0])], vec![], None, None);
    vec![(sku("A"), first.unwrap()), (sku("B"), second.unwrap())]
}

fn part_middle() -> Part {
    Part { shard: ShardIndex(5), version: None, products: stock_products(), full: false, last: false }
}

fn hello() -> Hello {
    Hello {
        cluster: ClusterId::new("shops").unwrap(),
        replica: replica(NORTH),
        location: location("berlin"),
        shards: 256,
        clock_ms: 1_790_000_000_000,
        features_required: 0,
        features_known: 1,
        software: "stockmesh 0.1.0".into(),
    }
}

fn open() -> Message {
    let groups = vec![fingerprint(0, 0), fingerprint(1, 2), fingerprint(u64::MAX, u64::MAX), fingerprint(0, 1)];
    Message::Open(Open { root: fingerprint(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff), groups })
}

fn summary() -> Message {
    let vector = version(&[(SMALL, 1), (NORTH, 65_536), (SOUTH, u64::MAX)]);
    Message::Summary(vec![
        Summary { shard: ShardIndex(5), fingerprint: fingerprint(3, 4), version: vector },
        Summary { shard: ShardIndex(4095), fingerprint: Fingerprint::EMPTY, version: version(&[]) },
    ])
}

fn push() -> Push {
    let repriced = Product::of_price(register(price(5, 0, Currency::USD), stamp(1_790_000_000_000, 1), NORTH, 9));
    Push {
        origin: replica(NORTH),
        told: vec![replica(SMALL), replica(SOUTH)],
        shards: vec![
            PushShard { shard: ShardIndex(5), from: 41, to: 42, products: stock_products() },
            PushShard { shard: ShardIndex(200), from: 9, to: 9, products: vec![(sku("C"), repriced)] },
        ],
    }
}

fn batch() -> BatchRecord {
    let entry = |shard, products, version, fingerprint| ShardRecord { shard, products, version, fingerprint };
    BatchRecord {
        number: 70_000,
        clock: stamp(1_790_000_000_000, 9),
        shards: vec![
            entry(ShardIndex(5), stock_products(), version(&[(NORTH, 42)]), fingerprint(5, 6)),
            entry(ShardIndex(6), mixed_products(), version(&[]), fingerprint(7, 8)),
        ],
    }
}

fn snapshot() -> SnapshotRecord {
    SnapshotRecord {
        shard: ShardIndex(6),
        batch: 69_999,
        products: mixed_products(),
        version: version(&[(SMALL, 3), (NORTH, 13), (SOUTH, 1)]),
        fingerprint: fingerprint(7, 8),
    }
}

// ---- The files ----

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn vector_text(what: &str, rules: &str, lines: &[String]) -> String {
    format!("what: {what}\nrules: {rules}\n\n{}\n", lines.join("\n"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn frozen(name: &str) -> Option<String> {
    std::fs::read_to_string(crate_file(&format!("vectors/{name}.txt"))).ok()
}

/// The frozen lines of a vector, after its head.
fn frozen_body(name: &str) -> Option<String> {
    Some(frozen(name)?.split_once("\n\n").expect("a vector has an empty line after its head").1.to_owned())
}

/// What is wrong with a vector's file, with the file as the code would write it.
fn difference(name: &str, what: &str, rules: &str, lines: &[String]) -> Option<String> {
    let expected = vector_text(what, rules, lines);
    let fault = match frozen(name) {
        Some(text) if text == expected => return None,
        Some(_) => "differs from what the code gives",
        None => "is missing",
    };
    Some(format!("vectors/{name}.txt (rules {rules}) {fault}; the code gives:\n--8<-- {name}\n{expected}-->8--\n"))
}

fn check_text(name: &str, what: &str, rules: &str, lines: &[String]) {
    if let Some(difference) = difference(name, what, rules, lines) {
        panic!("{difference}");
    }
}

// ---- Messages and records ----

#[test]
fn each_value_has_its_frozen_bytes() {
    let differences: String = vectors()
        .iter()
        .filter_map(|Vector { name, what, rules, value }| {
            let lines: Vec<String> = value.encode().chunks(32).map(hex).collect();
            difference(name, what, rules, &lines)
        })
        .collect();
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn the_frozen_bytes_read_as_the_value() {
    for Vector { name, rules, value, .. } in vectors() {
        let Some(body) = frozen_body(&name) else { panic!("vectors/{name}.txt is missing (rules {rules})") };
        let bytes = unhex(&body);
        match value.is(value.content(&bytes)) {
            Ok(same) => assert!(same, "vectors/{name}.txt reads as another value (rules {rules})"),
            Err(error) => panic!("vectors/{name}.txt cannot be read (rules {rules}): {error}"),
        }
        if matches!(value, Value::Message(_)) {
            // Rule W1: four bytes of length, which count the kind byte and the body.
            let prefix = <[u8; 4]>::try_from(&bytes[..4]).unwrap();
            assert_eq!(frame_length(prefix, limits::FRAME_BYTES_MAX).unwrap(), bytes.len() - 4, "{name}");
        }
    }
}

/// Rule W3: a frame that ends too early, or goes on after its content, is refused.
#[test]
fn a_byte_missing_or_too_many_is_an_error() {
    for Vector { name, value, .. } in vectors() {
        let bytes = value.encode();
        let content = value.content(&bytes);
        for length in 0..content.len() {
            assert!(value.is(&content[..length]).is_err(), "{name} reads with {length} of {} bytes", content.len());
        }
        for extra in u8::MIN..=u8::MAX {
            let longer = [content, &[extra]].concat();
            assert!(
                matches!(value.is(&longer), Err(WireError::Trailing(1))),
                "{name} reads with {extra:#04x} after its end"
            );
        }
    }
}

/// Section 6.2: each of these is the vector `part-middle` with one rule broken.
#[test]
fn a_list_of_products_that_breaks_a_rule_is_refused() {
    let whole = hex(&Message::Part(part_middle()).encode().unwrap()[4..]);
    assert!(Message::decode(&unhex(&whole)).is_ok());
    for (rule, right, wrong) in [
        ("a location's number is in its list", "a14191970000", "a14191970100"),
        ("a replica's number is in its list", "a14191970000", "a14191970001"),
        ("a replica is not 0", "cf0123456789abcdef", "cf0000000000000000"),
        ("a sequence is not 0", "970000290a", "970000000a"),
        ("no more is released than held", "290a000000", "290a000001"),
        ("products rise strictly by SKU", "a142", "a141"),
        ("a product has a slot", "a14191970000290a00000090c0c0", "a1419090c0c0"),
        ("stock rises strictly", "9197000029", "929700002900000000970000290a000000"),
        ("a name holds no control character", "a66265726c696e", "a6620a726c696e"),
        ("a name is UTF-8", "a66265726c696e", "a662ff726c696e"),
        ("a name is not empty", "a142", "a0"),
        ("a counter is no float", "290a", "29ca41200000"),
        ("a counter is not below 0", "290a", "29ff"),
        (
            "an array has no more fields than it should",
            "95a14191970000290a00000090c0c0",
            "96a14191970000290a00000090c0c0c0",
        ),
        (
            "an array has no fewer fields than it should",
            "95a14191970000290a00000090c0c0",
            "94a14191970000290a00000090c0",
        ),
        ("a list is within its limit", "91cf0123456789abcdef", "dd00001001cf0123456789abcdef"),
        ("a currency is of ISO 4217", "90c0c0c2c2", "90960001000000a3585a5ac0c2c2"),
        ("a price has at most 9 decimals", "90c0c0c2c2", "9096000100000aa3455552c0c2c2"),
    ] {
        let body = whole.replacen(right, wrong, 1);
        if body == whole {
            panic!("the case {rule:?} changes nothing");
        }
        assert!(matches!(Message::decode(&unhex(&body)), Err(WireError::Malformed(_))), "not refused: {rule}");
    }
    // What these cases are made of is accepted where no rule is broken.
    let priced = whole.replacen("90c0c0c2c2", "90960001000009a3455552c0c2c2", 1);
    assert!(Message::decode(&unhex(&priced)).is_ok());
}

/// Rule W2: a vector for every kind that the code knows, and no kind unknown to this test.
#[test]
fn every_kind_has_a_vector() {
    let known: BTreeSet<u8> = (u8::MIN..=u8::MAX).filter(|byte| split_kind(&[*byte]).is_ok()).collect();
    assert_eq!(known, BTreeSet::from([1, 2, 16, 17, 18, 19, 20, 21, 32]));
    let covered: BTreeSet<u8> = vectors()
        .iter()
        .filter(|vector| matches!(vector.value, Value::Message(_)))
        .map(|v| v.value.encode()[4])
        .collect();
    assert_eq!(covered, known);
    assert_eq!(split_kind(&[1]).unwrap().0, FrameKind::Hello);
    assert!(matches!(split_kind(&[3]), Err(WireError::UnknownKind(3))));
    assert!(matches!(split_kind(&[]), Err(WireError::Empty)));
}

/// A file that no test reads freezes nothing, and a vector without a file is not frozen.
#[test]
fn files_and_vectors_are_the_same() {
    let files: BTreeSet<String> = std::fs::read_dir(crate_file("vectors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let tables = ["shard-of", "stamps", "replica-ids", "slot-hashes", "fingerprints"].map(String::from);
    let wanted: BTreeSet<String> =
        vectors().into_iter().map(|vector| vector.name).chain(tables).map(|name| format!("{name}.txt")).collect();
    assert_eq!(files, wanted);
}

// ---- Hashes, clocks and ids ----

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
    }
    bytes
}

/// Rule F2.
#[test]
fn slot_hashes_are_frozen() {
    let mut lines = Vec::new();
    for (name, product) in mixed_products() {
        for slot in product.slots() {
            let bytes = canonical_bytes(name.as_str(), slot);
            let hash = slot.hash(name.as_str());
            assert_eq!(xxh3_128(&bytes), hash.bits(), "{name}: {slot:?}");
            let kind = match slot {
                SlotRef::Stock(_) => "stock",
                SlotRef::Grant(_) => "grant",
                SlotRef::Price(_) => "price",
                SlotRef::Listed(_) => "listed",
            };
            lines.push(format!("{kind} {}: {hash}", hex(&bytes)));
        }
    }
    check_text("slot-hashes", "the canonical bytes of the slots in part-only, and their hashes", "F2", &lines);
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

// ---- Size ----

/// Bytes per changed slot of 100 products with SKUs of 8 bytes, at one location, by one replica, as a part and as a push.
fn bytes_per_slot(first_sequence: u64, counters: impl Fn(u64) -> [u64; 4]) -> (f64, f64) {
    let products: Products = (0..100)
        .map(|n| {
            let slot = stock("berlin", NORTH, first_sequence + n, counters(n));
            (sku(&format!("SKU{n:05}")), Product::of_stock(slot))
        })
        .collect();
    let to = first_sequence + 99;
    let vector = Some(version(&[(NORTH, to)]));
    let part = Part { shard: ShardIndex(5), version: vector, products: products.clone(), full: false, last: true };
    let shards = vec![PushShard { shard: ShardIndex(5), from: first_sequence, to, products }];
    let push = Push { origin: replica(NORTH), told: vec![replica(SOUTH)], shards };
    let per_slot = |message: Message| f64::from(u32::try_from(message.encode().unwrap().len()).unwrap()) / 100.0;
    (per_slot(Message::Part(part)), per_slot(Message::Push(push)))
}

#[test]
fn a_changed_slot_takes_at_most_40_bytes() {
    // Values of up to five digits, spread evenly; sequence numbers of a shard in its first 65,000 writes.
    let usual = bytes_per_slot(40_000, |n| [n * 1_000 + 999, n * 500, 0, 0]);
    let with_holds = bytes_per_slot(40_000, |n| [n * 1_000 + 999, n * 900, n * 600, n * 500]);
    let largest = bytes_per_slot(1, |_| [99_999; 4]);
    // Printed only: all four counters above 65,535 and a late sequence number take half a byte more than 40.
    let (part, push) = bytes_per_slot(40_000, |_| [99_999; 4]);
    println!("largest, later writes: {part:.2} B per slot in a part, {push:.2} B in a push");
    for (name, (part, push)) in [("usual", usual), ("with holds", with_holds), ("largest, first writes", largest)] {
        println!("{name}: {part:.2} B per slot in a part, {push:.2} B in a push");
        assert!(part <= 40.0 && push <= 40.0, "{name}: {part:.2} B per slot in a part, {push:.2} B in a push");
    }
}

// ---- The specification's text ----

/// Section 2 of the specification states the limits of the code.
#[test]
fn the_specification_states_the_limits() {
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    let wide = |number: usize| u64::try_from(number).unwrap();
    for (name, value) in [
        ("SKU_BYTES_MAX", wide(limits::SKU_BYTES_MAX)),
        ("LOCATION_BYTES_MAX", wide(limits::LOCATION_BYTES_MAX)),
        ("CLUSTER_ID_BYTES_MAX", wide(limits::CLUSTER_ID_BYTES_MAX)),
        ("PRICE_SCALE_MAX", u64::from(limits::PRICE_SCALE_MAX)),
        ("PRICE_UNITS_MAX", limits::PRICE_UNITS_MAX),
        ("SHARDS_MIN", u64::from(limits::SHARDS_MIN)),
        ("SHARDS_MAX", u64::from(limits::SHARDS_MAX)),
        ("FINGERPRINT_GROUP_SHARDS", u64::from(limits::FINGERPRINT_GROUP_SHARDS)),
        ("REPLICAS_MAX", wide(limits::REPLICAS_MAX)),
        ("STOCK_SLOTS_MAX", wide(limits::STOCK_SLOTS_MAX)),
        ("STOCK_SLOTS_OPENED_MAX", wide(limits::STOCK_SLOTS_OPENED_MAX)),
        ("GRANT_SLOTS_MAX", wide(limits::GRANT_SLOTS_MAX)),
        ("FRAME_BYTES_MAX", wide(limits::FRAME_BYTES_MAX)),
        ("HELLO_BYTES_MAX", wide(limits::HELLO_BYTES_MAX)),
        ("CHUNK_PRODUCTS_MAX", wide(limits::CHUNK_PRODUCTS_MAX)),
        ("SUMMARIES_PER_FRAME_MAX", wide(limits::SUMMARIES_PER_FRAME_MAX)),
        ("SESSION_VERSION_ENTRIES_MAX", wide(limits::SESSION_VERSION_ENTRIES_MAX)),
        ("WIRE_DEPTH_MAX", wide(limits::WIRE_DEPTH_MAX)),
        ("PUSH_SHARDS_MAX", wide(limits::PUSH_SHARDS_MAX)),
        ("PUSH_TOLD_MAX", wide(limits::PUSH_TOLD_MAX)),
        ("DRIFT_MS_MAX", limits::DRIFT_MS_MAX),
    ] {
        let row = format!("| `{name}` | {} |", with_commas(value));
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Every rule that a comment or a vector cites is stated in the specification.
#[test]
fn the_specification_states_every_cited_rule() {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    let mut files = Vec::new();
    for directory in ["src", "tests", "vectors"] {
        walk(&crate_file(directory), &mut files);
    }
    let mut cited = BTreeSet::new();
    for file in files {
        let content = std::fs::read_to_string(file).unwrap();
        for line in content.lines().filter(|line| line.to_lowercase().contains("rule")) {
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            cited.extend(words.filter(|word| is_rule(word)).map(String::from));
        }
    }
    assert!(cited.len() > 30, "{cited:?}");
    for rule in cited {
        assert!(text.contains(&format!("**{rule}.")), "PROTOCOL.md does not state rule {rule}");
    }
}

fn is_rule(word: &str) -> bool {
    matches!(word.as_bytes(), [letter, b'1'..=b'9'] if b"LCSFMOPRWHDI".contains(letter))
}
