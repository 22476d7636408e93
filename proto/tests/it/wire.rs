//! The wire format: round trips, arbitrary bytes, limits on counts, trailing bytes and nesting.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::limits::CHUNK_PRODUCTS_MAX;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::wire::{
    BatchRecord, Hello, Message, Open, Part, Push, PushShard, Refusal, RefusalCode, Scope, ShardRecord, SnapshotRecord,
    Standing, Summary, WireError, decode_body, frame_length,
};
use stockmesh_proto::{ClusterId, Fingerprint, ShardIndex, VersionVector};

use crate::support::generate::{any_location, any_replica, number, products, version};
use crate::support::{config, location, replica_id, sku};

fn shard() -> impl Strategy<Value = ShardIndex> {
    any::<u16>().prop_map(ShardIndex)
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    any::<u128>().prop_map(Fingerprint::from_bits)
}

fn hello() -> impl Strategy<Value = Hello> {
    let features =
        (number(), number(), option::of((any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)));
    ("[a-z]{1,64}", any_replica(), any_location(), any::<u32>(), number(), features, ("[ -~]{0,200}", any::<bool>()))
        .prop_map(
            |(
                cluster,
                replica,
                location,
                shards,
                clock_ms,
                (features_required, features_known, observed),
                (software, read_only),
            )| {
                let cluster = ClusterId::new(&cluster).unwrap();
                Hello {
                    cluster,
                    replica,
                    location,
                    shards,
                    clock_ms,
                    features_required,
                    features_known,
                    software,
                    read_only,
                    observed,
                }
            },
        )
}

fn scope() -> impl Strategy<Value = Scope> {
    prop::collection::btree_set(shard(), 1..20).prop_map(|shards| Scope::new(shards.into_iter().collect()).unwrap())
}

fn message() -> impl Strategy<Value = Message> {
    let summary = (shard(), fingerprint(), version());
    let summary = summary.prop_map(|(shard, fingerprint, version)| Summary { shard, fingerprint, version });
    let part = (shard(), option::of(version()), products(), any::<bool>(), any::<bool>());
    let push_shard = (shard(), number(), number(), products());
    let push_shard = push_shard.prop_map(|(shard, from, to, products)| PushShard { shard, from, to, products });
    let push = (any_replica(), vec(any_replica(), 0..4), vec(push_shard, 0..3));
    let refusal = ("[ -~]{0,500}", prop::sample::select(vec![RefusalCode::OtherCluster, RefusalCode::Duplicate]));
    prop_oneof![
        hello().prop_map(Message::Hello),
        refusal.prop_map(|(reason, code)| Message::Refuse(Refusal { code, reason })),
        (fingerprint(), vec(fingerprint(), 0..4)).prop_map(|(root, groups)| Message::Open(Open { root, groups })),
        vec(summary, 0..4).prop_map(Message::Summary),
        Just(Message::End),
        Just(Message::Equal),
        part.prop_map(|(shard, version, products, full, last)| {
            Message::Part(Part { shard, version, products, full, last })
        }),
        any::<u32>().prop_map(Message::Done),
        scope().prop_map(Message::Pull),
        Just(Message::Survey),
        (any::<bool>(), vec(fingerprint(), 0..20))
            .prop_map(|(catching_up, leaves)| Message::Standing(Standing { catching_up, leaves })),
        push.prop_map(|(origin, told, shards)| Message::Push(Push { origin, told, shards })),
    ]
}

fn batch() -> impl Strategy<Value = BatchRecord> {
    let record = (shard(), products(), version(), fingerprint())
        .prop_map(|(shard, products, version, fingerprint)| ShardRecord { shard, products, version, fingerprint });
    (number(), number(), vec(record, 0..3)).prop_map(|(number, clock, shards)| BatchRecord {
        number,
        clock: Stamp::from_bits(clock),
        shards,
    })
}

fn snapshot() -> impl Strategy<Value = SnapshotRecord> {
    (shard(), number(), products(), version(), fingerprint()).prop_map(
        |(shard, batch, products, version, fingerprint)| SnapshotRecord {
            shard,
            batch,
            products,
            version,
            fingerprint,
        },
    )
}

/// Reads bytes as everything that they could be. What can be read is written again, and reads as the same.
fn read_as_anything(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        let again = message.encode().unwrap();
        assert_eq!(Message::decode(&again[4..]).unwrap(), message);
    }
    if let Ok(batch) = BatchRecord::decode(bytes) {
        assert_eq!(BatchRecord::decode(&batch.encode().unwrap()).unwrap(), batch);
    }
    if let Ok(snapshot) = SnapshotRecord::decode(bytes) {
        assert_eq!(SnapshotRecord::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn messages_and_records_read_back_as_written(message in message(), batch in batch(), snapshot in snapshot()) {
        let bytes = message.encode().unwrap();
        let prefix = <[u8; 4]>::try_from(&bytes[..4]).unwrap();
        prop_assert_eq!(frame_length(prefix, 1 << 20).unwrap(), bytes.len() - 4);
        prop_assert_eq!(Message::decode(&bytes[4..]).unwrap(), message);
        prop_assert_eq!(BatchRecord::decode(&batch.encode().unwrap()).unwrap(), batch);
        prop_assert_eq!(SnapshotRecord::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
    }

    /// Rule W3: a frame and a record are consumed to the last byte, and no shorter beginning of one is one.
    #[test]
    fn trailing_and_missing_bytes_are_refused(message in message(), batch in batch(), rest in vec(any::<u8>(), 1..5)) {
        let bytes = message.encode().unwrap()[4..].to_vec();
        let longer = [bytes.clone(), rest.clone()].concat();
        assert!(matches!(Message::decode(&longer), Err(WireError::Trailing(_) | WireError::TooLong { .. })));
        prop_assert!(Message::decode(&bytes[..bytes.len() - 1]).is_err());
        let bytes = batch.encode().unwrap();
        prop_assert!(matches!(BatchRecord::decode(&[bytes.clone(), rest].concat()), Err(WireError::Trailing(_))));
        prop_assert!(BatchRecord::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in prop::sample::select(KINDS.to_vec()), bytes in vec(any::<u8>(), 0..300)) {
        read_as_anything(&bytes);
        read_as_anything(&[vec![kind], bytes].concat());
    }

    /// Valid encodings with some bytes changed get deeper than noise.
    #[test]
    fn damaged_encodings_never_panic(
        message in message(),
        batch in batch(),
        snapshot in snapshot(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let frame = message.encode().unwrap()[4..].to_vec();
        for mut bytes in [frame, batch.encode().unwrap(), snapshot.encode().unwrap()] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_as_anything(&bytes);
        }
    }
}

const KINDS: [u8; 24] =
    [1, 2, 16, 17, 18, 19, 20, 21, 22, 23, 24, 32, 48, 49, 64, 65, 66, 80, 96, 97, 98, 99, 100, 101];
/// Kinds with short frames, and what their frames may have at the most.
const SHORT_KINDS: [(u8, usize); 13] = [
    (1, 1_000),
    (2, 1_000),
    (16, 16_000),
    (22, 1_000),
    (23, 1_000),
    (48, 1_000),
    (65, 1_000),
    (66, 1_000),
    (96, 1_000),
    (97, 1_000),
    (99, 1_000),
    (100, 16_000),
    (101, 16_000),
];

/// The header of an array of `length` elements, in its longest form: five bytes.
fn array(length: u32) -> Vec<u8> {
    [vec![0xdd], length.to_be_bytes().to_vec()].concat()
}

/// Nested arrays or maps for every kind of frame and record are refused, and use no stack to speak of (rule W4).
#[test]
fn depth_bombs_are_refused() {
    for opener in [&[0x91][..], &[0x81, 0x01][..], &[0xdc, 0, 1][..], &[0x81][..], &[0xdd, 0, 0, 0, 1][..]] {
        let bomb = opener.repeat(40_000 / opener.len());
        for kind in KINDS {
            let short = SHORT_KINDS.iter().find(|(short, _)| *short == kind).map_or(bomb.len(), |(_, bytes)| *bytes);
            let error = Message::decode(&[&[kind], &bomb[..short]].concat()).unwrap_err();
            assert!(matches!(error, WireError::Malformed(_)), "{error}");
        }
        assert!(BatchRecord::decode(&bomb).is_err());
        assert!(SnapshotRecord::decode(&bomb).is_err());
    }
}

fn hello_with_extra_field(extra: &[u8]) -> Vec<u8> {
    let hello = Hello {
        cluster: ClusterId::new("c").unwrap(),
        replica: replica_id(1),
        location: location("x"),
        shards: 4,
        clock_ms: 1,
        features_required: 0,
        features_known: 0,
        software: "s".into(),
        read_only: false,
        observed: None,
    };
    let mut bytes = Message::Hello(hello).encode().unwrap()[4..].to_vec();
    assert_eq!(bytes[1], 0x88, "a map of eight fields");
    bytes[1] = 0x89;
    [bytes, vec![0xa1, b'z'], extra.to_vec()].concat()
}

/// Rule W5: a hello may have fields that this version does not know; skipping them is bounded in depth too.
#[test]
fn unknown_fields_of_a_hello_are_skipped_unless_they_nest_deeply() {
    for shallow in [&[0x01][..], &[0xc0][..], &[0x91, 0x91, 0x02][..], &[0x81, 0xa1, b'k', 0x03][..]] {
        assert!(matches!(Message::decode(&hello_with_extra_field(shallow)), Ok(Message::Hello(_))));
    }
    for opener in [&[0x91][..], &[0x81, 0x01][..], &[0xdd, 0, 0, 0, 1][..]] {
        let mut deep = opener.repeat(850 / opener.len());
        deep.push(0x01);
        assert!(Message::decode(&hello_with_extra_field(&deep)).is_err());
    }
    let long = [vec![0xd9, 255], vec![b'x'; 255]].concat();
    let error = Message::decode(&hello_with_extra_field(&[array(4), long.repeat(4)].concat())).unwrap_err();
    assert!(matches!(error, WireError::TooLong { .. }), "a hello of more than 1 KiB is not read");
}

/// Each list at its limit is read, and one element beyond is refused, whether announced or sent.
#[test]
fn lists_are_read_up_to_their_limits() {
    let told = |count: usize| {
        let told = (1..).take(count).map(replica_id).collect();
        Message::Push(Push { origin: replica_id(1), told, shards: Vec::new() })
    };
    let shards = |count: usize| {
        let part = PushShard { shard: ShardIndex(0), from: 1, to: 1, products: Vec::new() };
        Message::Push(Push { origin: replica_id(1), told: Vec::new(), shards: vec![part; count] })
    };
    let summaries = |count: usize| {
        let version = VersionVector::new();
        Message::Summary(vec![Summary { shard: ShardIndex(0), fingerprint: Fingerprint::EMPTY, version }; count])
    };
    let groups =
        |count: usize| Message::Open(Open { root: Fingerprint::EMPTY, groups: vec![Fingerprint::EMPTY; count] });
    let entries = |count: usize| {
        let version = (1..).take(count).map(|bits| (replica_id(bits), 1)).collect();
        Message::Part(Part {
            shard: ShardIndex(0),
            version: Some(version),
            products: Vec::new(),
            full: false,
            last: true,
        })
    };
    let read = |message: Message| Message::decode(&message.encode().unwrap()[4..]);
    assert!(read(told(64)).is_ok() && read(told(65)).is_err());
    assert!(read(shards(4096)).is_ok() && read(shards(4097)).is_err());
    assert!(read(summaries(1024)).is_ok() && read(summaries(1025)).is_err());
    assert!(read(groups(256)).is_ok() && read(groups(257)).is_err());
    assert!(read(entries(4096)).is_ok() && read(entries(4097)).is_err());
    let record = ShardRecord {
        shard: ShardIndex(0),
        products: Vec::new(),
        version: VersionVector::new(),
        fingerprint: Fingerprint::EMPTY,
    };
    let batch = |count: usize| BatchRecord { number: 1, clock: Stamp::default(), shards: vec![record.clone(); count] };
    assert!(BatchRecord::decode(&batch(65_536).encode().unwrap()).is_ok());
    assert!(BatchRecord::decode(&batch(65_537).encode().unwrap()).is_err());
}

/// A part whose list of products is written by hand: locations, replicas, products.
fn part(locations: &[u8], replicas: &[u8], products: &[u8]) -> Result<Message, WireError> {
    let head = [20, 0x95, 0x00, 0xc0, 0x93];
    Message::decode(&[&head, locations, replicas, products, &[0xc2, 0xc3]].concat())
}

#[test]
fn lists_inside_a_delta_are_read_up_to_their_limits() {
    let (no_names, location, replica) = (vec![0x90], vec![0x91, 0xa1, b'x'], vec![0x91, 0x01]);
    let stock = |count: u32, slot: &[u8]| {
        let slots = [array(count), slot.repeat(usize::try_from(count).unwrap())].concat();
        [vec![0x91, 0x95, 0xa1, b'A'], slots, vec![0x90, 0xc0, 0xc0]].concat()
    };
    let slot = [0x97, 0, 0, 1, 0, 0, 0, 0];
    assert!(part(&location, &replica, &stock(1, &slot)).is_ok(), "the bytes above are a part");
    // Announced lengths beyond a limit are refused before any element is read: the elements are missing here.
    let beyond = |bytes: Result<Message, WireError>, limit: u32| {
        let error = bytes.unwrap_err().to_string();
        assert!(error.contains(&format!("at most {limit} elements")), "{error}");
    };
    beyond(part(&array(65_537), &[], &[]), 65_536);
    beyond(part(&no_names, &array(65_537), &[]), 65_536);
    beyond(part(&no_names, &no_names, &array(65_537)), 65_536);
    beyond(part(&no_names, &no_names, &[&[0x91, 0x95, 0xa1, b'A'], &array(65_537)[..]].concat()), 65_536);
    beyond(part(&no_names, &no_names, &[&[0x91, 0x95, 0xa1, b'A', 0x90], &array(65_537)[..]].concat()), 65_536);
    beyond(part(&no_names, &no_names, &array(u32::MAX)), 65_536);
    // At the limit, all elements are read, and only then their order is found wrong.
    let error = part(&location, &replica, &stock(65_536, &slot)).unwrap_err().to_string();
    assert!(error.contains("strict order"), "{error}");
}

/// Rules of the byte table: each value out of its range is refused.
#[test]
fn values_out_of_range_are_refused() {
    let (location, replica) = ([0x91, 0xa1, b'x'], [0x91, 0x01]);
    let product = |slots: &[u8]| [&[0x91, 0x95, 0xa1, b'A'], slots].concat();
    let refused = |slots: &[u8], why: &str| {
        let error = part(&location, &replica, &product(slots)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&[0x90, 0x90, 0xc0, 0xc0], "no slot");
    refused(&[0x91, 0x97, 0, 0, 0, 0, 0, 0, 0, 0x90, 0xc0, 0xc0], "sequence is zero");
    refused(&[0x91, 0x97, 1, 0, 1, 0, 0, 0, 0, 0x90, 0xc0, 0xc0], "location's number");
    refused(&[0x91, 0x97, 0, 1, 1, 0, 0, 0, 0, 0x90, 0xc0, 0xc0], "replica's number");
    refused(&[0x91, 0x97, 0, 0, 1, 0, 0, 1, 2, 0x90, 0xc0, 0xc0], "released");
    refused(&[0x90, 0x91, 0x95, 0, 0, 1, 1, 1, 0xc0, 0xc0], "replica's number");
    refused(&[0x90, 0x90, 0x96, 0, 1, 1, 1, 10, 0xa3, b'E', b'U', b'R', 0xc0], "price");
    refused(&[0x90, 0x90, 0x96, 0, 1, 1, 1, 2, 0xa3, b'Q', b'Q', b'Q', 0xc0], "currency");
    refused(&[0x90, 0x90, 0xc0, 0x94, 0, 0, 1, 0xc3], "sequence is zero");
    assert!(part(&location, &[0x91, 0x00], &[0x90]).is_err(), "a replica id is never zero");
    assert!(part(&[0x91, 0xa0], &replica, &[0x90]).is_err(), "a name is never empty");
    let twice = [0x92, 0x95, 0xa1, b'A', 0x90, 0x90, 0xc0, 0x94, 0, 1, 1, 0xc3].to_vec();
    let twice = [twice, vec![0x95, 0xa1, b'A', 0x90, 0x90, 0xc0, 0x94, 0, 1, 1, 0xc3]].concat();
    assert!(part(&location, &replica, &twice).unwrap_err().to_string().contains("strict SKU order"));
    for entries in [&[0x92, 0x92, 2, 1, 0x92, 1, 1][..], &[0x92, 0x92, 1, 1, 0x92, 1, 1], &[0x91, 0x92, 1, 0]] {
        assert!(decode_body::<VersionVector>(entries).is_err(), "out of order, twice, zero");
    }
}

#[test]
fn frames_are_bounded_before_they_are_read() {
    assert!(matches!(frame_length([0; 4], 1 << 20), Err(WireError::Empty)));
    assert_eq!(frame_length([0, 0x10, 0, 0], 1 << 20).unwrap(), 1 << 20);
    assert!(matches!(frame_length([0, 0x10, 0, 1], 1 << 20), Err(WireError::TooLong { .. })));
    assert!(matches!(frame_length([0xff; 4], 1 << 20), Err(WireError::TooLong { .. })));
    assert!(matches!(Message::decode(&[]), Err(WireError::Empty)));
    assert!(matches!(Message::decode(&vec![20; (1 << 20) + 1]), Err(WireError::TooLong { .. })));
    for kind in (0..=u8::MAX).filter(|kind| !KINDS.contains(kind)) {
        assert!(matches!(Message::decode(&[kind, 0xc0]), Err(WireError::UnknownKind(_))));
    }
    let reason = "x".repeat(1_024);
    let refusal = Message::Refuse(Refusal { code: RefusalCode::Offline, reason });
    assert!(matches!(refusal.encode(), Err(WireError::TooLong { .. })), "what cannot be read is not written");
}

/// A frame of very many names costs no time in their square: a forwarder writes again what it read.
#[test]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
fn many_names_are_written_as_fast_as_they_are_read() {
    let slot = |number: u16| {
        let location = location(&format!("{number}"));
        StockSlot { location, replica: replica_id(1), sequence: 1, counters: Counters::default() }
    };
    let product = |number: u16| {
        let mut stock: Vec<StockSlot> = (number * 4_000..(number + 1) * 4_000).map(slot).collect();
        stock.sort_by(|left, right| left.location.cmp(&right.location));
        (sku(&format!("{number}")), Product::from_slots(stock, Vec::new(), None, None).unwrap())
    };
    let products = (0..10).map(product).collect();
    let message = Message::Part(Part { shard: ShardIndex(0), version: None, products, full: false, last: true });
    let start = std::time::Instant::now();
    let bytes = message.encode().unwrap();
    let elapsed = start.elapsed();
    assert!(elapsed.as_secs() < 10, "{elapsed:?}: in the square of the names it takes minutes in a debug build");
    assert_eq!(Message::decode(&bytes[4..]).unwrap(), message);
}

/// Rule J2: a scope is neither empty nor too long, and names each shard once, in rising order.
#[test]
fn a_scope_that_is_not_one_is_refused() {
    let frame = |shards: &[u16]| [&[22][..], &rmp_serde::to_vec(shards).unwrap()].concat();
    let rising: Vec<u16> = (0..=256).collect();
    assert!(matches!(Message::decode(&frame(&rising[..256])), Ok(Message::Pull(_))));
    for bad in [&[][..], &[3, 2], &[3, 3], &rising] {
        assert!(matches!(Message::decode(&frame(bad)), Err(WireError::Malformed(_))), "{bad:?}");
    }
    let standing =
        |count: usize| Message::Standing(Standing { catching_up: false, leaves: vec![Fingerprint::EMPTY; count] });
    let read = |count: usize| Message::decode(&standing(count).encode().unwrap()[4..]);
    assert!(read(4_096).is_ok() && read(4_097).is_err());
}

/// What nobody reads is not written: lists of products beyond their limit.
#[test]
fn lists_of_products_beyond_their_limit_are_not_written() {
    let counters = Counters { added: 1, ..Counters::default() };
    let slot = StockSlot { location: location("x"), replica: replica_id(1), sequence: 1, counters };
    let product = Product::of_stock(slot);
    let products = |count: usize| (0..count).map(|number| (sku(&format!("{number:05}")), product.clone())).collect();
    let shard = ShardIndex(0);
    for (count, fits) in [(CHUNK_PRODUCTS_MAX, "too long"), (CHUNK_PRODUCTS_MAX + 1, "too many products")] {
        let part = Part { shard, version: None, products: products(count), full: false, last: true };
        let push = PushShard { shard, from: 1, to: 1, products: products(count) };
        let push = Push { origin: replica_id(1), told: Vec::new(), shards: vec![push] };
        for message in [Message::Part(part), Message::Push(push)] {
            let refused = message.encode().unwrap_err();
            let is_by_count = refused.to_string().contains("too many products");
            assert_eq!(is_by_count, fits == "too many products", "{count}: {refused}");
        }
    }
}
