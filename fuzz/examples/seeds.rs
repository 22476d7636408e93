//! Writes the seed corpora anew: real encodings for `decode`, bytes of an even spread for the typed targets.
//!
//! `cargo run -p stockmesh-fuzz --example seeds`
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::member::{self, Generation, Labels, ListedMember, MemberRecord, Software};
use stockmesh_proto::product::{GrantSlot, Product, StockSlot};
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{
    BatchRecord, Hello, Message, Open, Part, Push, PushShard, Refusal, RefusalCode, Scope, ShardRecord, SnapshotRecord,
    Standing, Summary,
};
use stockmesh_proto::{ClusterId, Currency, Fingerprint, Location, Price, ReplicaId, ShardIndex, Sku, VersionVector};

fn save(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// A product with a slot of each kind, so many of its stock.
fn product(slots: u64) -> Product {
    let replica = ReplicaId::from_random;
    let (location, dot) = (Location::new("berlin").unwrap(), Dot { replica: replica(7), sequence: 300 });
    let counters = Counters { added: 70_000, removed: 12, held: 3, released: 1 };
    let stock = (1..=slots).map(|bits| StockSlot {
        location: location.clone(),
        replica: replica(bits),
        sequence: bits,
        counters,
    });
    let grant =
        GrantSlot { location: location.clone(), from: replica(1), to: replica(u64::MAX), sequence: 5, units: 20 };
    let price = Price::from_parts(1_999, 2, Currency::EUR).unwrap();
    let stamp = Stamp::from_bits(1_700_000_000_000 << 16);
    let (price, listed) = (Register { value: price, stamp, dot }, Register { value: true, stamp, dot });
    Product::from_slots(stock.collect(), vec![grant], Some(price), Some(listed)).unwrap()
}

fn save_encodings() {
    let replica = ReplicaId::from_random(0x0123_4567_89ab_cdef);
    let version: VersionVector = [(ReplicaId::from_random(1), 3), (replica, 70_000)].into_iter().collect();
    let fingerprint = Fingerprint::from_bits(u128::MAX / 3);
    let shard = ShardIndex(3);
    let products = |count: u64| -> Vec<(Sku, Product)> {
        (1..=count).map(|number| (Sku::new(&format!("MUG-{number:02}")).unwrap(), product(number))).collect()
    };
    let hello = Hello {
        cluster: ClusterId::new("shops").unwrap(),
        replica,
        location: Location::new("berlin").unwrap(),
        shards: 256,
        clock_ms: 1_700_000_000_000,
        features_required: 0,
        features_known: 3,
        software: "stockmesh 0.1.0".into(),
        read_only: false,
        observed: None,
    };
    let reason = "the other node belongs to another cluster".to_owned();
    let summary = Summary { shard, fingerprint, version: version.clone() };
    let part =
        |version, count, full, last| Message::Part(Part { shard, version, products: products(count), full, last });
    let push = |count| {
        let part = PushShard { shard, from: 4, to: 9, products: products(count) };
        Message::Push(Push { origin: replica, told: vec![replica], shards: vec![part] })
    };
    let messages = [
        ("hello", Message::Hello(hello)),
        ("refuse", Message::Refuse(Refusal { code: RefusalCode::OtherCluster, reason })),
        ("open", Message::Open(Open { root: fingerprint, groups: vec![fingerprint; 16] })),
        ("summary", Message::Summary(vec![summary.clone(), summary])),
        ("pull", Message::Pull(Scope::new(vec![shard, ShardIndex(shard.0 + 9)]).unwrap())),
        ("survey", Message::Survey),
        ("standing", Message::Standing(Standing { catching_up: true, leaves: vec![fingerprint; 4] })),
        ("end", Message::End),
        ("equal", Message::Equal),
        ("part-empty", part(Some(version.clone()), 0, false, true)),
        ("part-first", part(Some(version.clone()), 2, true, false)),
        ("part-last", part(None, 9, false, true)),
        ("done", Message::Done(1)),
        ("push", push(1)),
        ("push-many", push(5)),
    ];
    for (name, message) in messages {
        save_for_decoders(name, &message.encode().unwrap()[4..]);
    }
    for count in [0, 1, 4] {
        let (products, version) = (products(count), version.clone());
        let record = ShardRecord { shard, products: products.clone(), version: version.clone(), fingerprint };
        let batch = BatchRecord { number: 12, clock: Stamp::from_bits(1 << 40), shards: vec![record; 2] };
        save_for_decoders(&format!("batch-{count}"), &batch.encode().unwrap());
        let snapshot = SnapshotRecord { shard, batch: 12, products, version, fingerprint };
        save_for_decoders(&format!("snapshot-{count}"), &snapshot.encode().unwrap());
    }
    // Hostile frames: nesting, and lengths that are announced and never come.
    save_for_decoders("nested", &[vec![20], vec![0x91; 600]].concat());
    save_for_decoders("announced", &[20, 0x95, 0, 0xc0, 0x93, 0xdd, 0xff, 0xff, 0xff, 0xff]);
    let products_65_536 = [20, 0x95, 0, 0xc0, 0x93, 0x91, 0xa1, b'x', 0x91, 1, 0xdd, 0, 1, 0, 0];
    save_for_decoders("announced-within-limits", &products_65_536);
}

/// What follows the names in a datagram of SWIM, and members as lists have them.
fn save_members() {
    let record = |bits: u64| MemberRecord {
        replica: ReplicaId::from_random(bits),
        generation: Generation::new(300).unwrap(),
        address: SocketAddr::from(([10, 0, 0, 7], 9000)),
        location: Location::new("berlin").unwrap(),
        labels: Labels::new([("floor", "2"), ("role", "shop")]).unwrap(),
        software: Software::new("stockmesh 0.1.0").unwrap(),
        read_only: false,
        left: false,
    };
    let standings = [
        ("alive", member::Standing::Alive),
        ("suspect", member::Standing::Suspect),
        ("down", member::Standing::Down),
        ("left", member::Standing::Left),
    ];
    for (name, standing) in standings {
        let down_for_s = if standing.is_up() { 0 } else { 70 };
        let record = Arc::new(MemberRecord { left: standing == member::Standing::Left, ..record(3) });
        let listed = ListedMember { record, incarnation: 3, standing, down_for_s };
        save_for_decoders(&format!("listed-{name}"), &listed.encode());
    }
    let third = [&2_u64.to_be_bytes()[..], &[1]].concat();
    let messages: [(&str, Vec<u8>); 6] = [
        ("ping", vec![0, 7]),
        ("ack", vec![1, 7]),
        ("ping-request", [&[2, 7], &third[..]].concat()),
        ("announce", vec![6]),
        ("feed", vec![7]),
        ("turn-undead", vec![10]),
    ];
    for (name, message) in messages {
        save("decode", &format!("swim-{name}"), &message);
    }
    let texts = [
        ("replica", "0000000000001"),
        ("hold", "0000000000001-3-7"),
        ("price", "2.550"),
        ("price-below-zero", "-2.55"),
        ("labels", "floor=2\nrole=shop"),
        ("labels-too-many", "0=\n1=\n2=\n3=\n4=\n5=\n6=\n7=\n8="),
    ];
    for (name, text) in texts {
        save("decode", &format!("text-{name}"), text.as_bytes());
    }
    // Products that break a rule: no slot, a write of sequence 0, and an heir of itself.
    let product =
        |slots: &[u8]| [&[20, 0x95, 0, 0xc0, 0x93, 0x91, 0xa1, b'x', 0x91, 1, 0x91][..], slots, &[0xc2, 0xc3]].concat();
    save_for_decoders("product-empty", &product(&[0x95, 0xa1, b'x', 0x90, 0x90, 0xc0, 0xc0]));
    let stock = [0x95, 0xa1, b'x', 0x91, 0x97, 0, 0, 0, 1, 0, 0, 0, 0x90, 0xc0, 0xc0];
    save_for_decoders("product-unwritten", &product(&stock));
    let heir = [0x96, 0xa1, b'x', 0x90, 0x90, 0xc0, 0xc0, 0x91, 0x99, 0, 0, 0, 1, 0, 0, 0, 0, 0xc3];
    save_for_decoders("product-own-heir", &product(&heir));
    save("decode", "length-most", &[0xff; 4]);
    let amount = [&[18, 0x81, 0xa5][..], b"price", &[0x81, 0xa6], b"amount", &[0xda, 1, 0], &[b'1'; 256]].concat();
    save_for_decoders("amount-long", &amount);
    let amount = [&[18, 0x81, 0xa5][..], b"price", &[0x81, 0xa6], b"amount", &[0xda, 1, 1], &[b'1'; 257]].concat();
    save_for_decoders("amount-too-long", &amount);
    // Beyond what is read of a message of the application, and of a client's request.
    save("decode", "tell-too-long", &[&[64, 0xc6, 0, 1, 0, 1][..], &[0; 65_537]].concat());
    save("decode", "too-long", &[0; 16_385]);
}

/// What the core's golden vectors freeze: frames, and records as they lie on disk.
fn save_vectors() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vectors");
    for entry in fs::read_dir(vectors).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let digits: String = text.split_once("\n\n").unwrap().1.split_whitespace().collect();
        if digits.len() % 2 == 1 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            // A table of numbers.
            continue;
        }
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        // Frames begin with their length, which the targets do not read.
        let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length));
        let is_frame = length.is_some_and(|length| usize::try_from(length).unwrap() == bytes.len() - 4);
        save_for_decoders(name, if is_frame { &bytes[4..] } else { &bytes });
    }
}

/// Two targets read any bytes.
fn save_for_decoders(name: &str, bytes: &[u8]) {
    save("decode", name, bytes);
    save("memory", name, bytes);
}

fn main() {
    save_encodings();
    save_vectors();
    save_members();
    // An even spread of bytes from a fixed generator: the typed targets make something of any bytes.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for target in ["differential", "merge", "session", "rights", "membership", "operations", "plans"] {
        for number in 0..16_usize {
            let bytes = (0..64 + number * 40).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            });
            save(target, &format!("spread-{number:02}"), &bytes.collect::<Vec<u8>>());
        }
    }
    // Scripts of a session without a fault: writes, then both sides send in turn.
    for writes in [0_u8, 1, 4, 9] {
        let mut bytes = vec![0, 0, 0, writes % 2 * 230];
        for number in 0..writes {
            bytes.extend([0, number, number.wrapping_mul(29), number % 2, 0]);
        }
        for number in 0..40 {
            bytes.extend([4, u8::from(number / 10 % 2 == 1), 0]);
        }
        save("session", &format!("turns-{writes}"), &bytes);
    }
    save_rights();
    save_clusters();
    // More peers than there are places for, each with shards of its own: which step it is, by the upper bits of four bytes.
    let offers = (0..12_u8).flat_map(|peer| [0, 0, 0, 0, peer, peer * 16, 8, 0]);
    let pulls = (0..12_u8).flat_map(|peer| [0, 0, 0, 0x30, peer]);
    save("plans", "crowd", &[0].into_iter().chain(offers).chain(pulls).collect::<Vec<u8>>());
}

/// Scripts of members, as triples (kind, who, number): what each kind is good for, and what follows it.
fn save_clusters() {
    let (pass, day, deliver, link, unlink, lists) = (0, 5, 10, 17, 20, 21);
    let (moves, read_only, resume, leave, restart) = (26, 27, 28, 29, 30);
    // Three that are linked and know each other.
    let known = [[link, 0, 1], [link, 1, 2], [link, 0, 2], [deliver, 0, 60], [pass, 0, 30], [deliver, 0, 60]];
    let scripts: [(&str, Vec<[u8; 3]>); 9] = [
        ("known", known.to_vec()),
        ("hint", [&known[..], &[[unlink, 0, 129], [pass, 0, 20], [deliver, 0, 60]]].concat()),
        ("cut-off", [&known[..], &[[unlink, 0, 1], [unlink, 1, 2], [pass, 0, 250], [pass, 0, 250]]].concat()),
        ("restart", [&known[..], &[[restart, 1, 0], [link, 0, 1], [deliver, 0, 60], [restart, 1, 0]]].concat()),
        ("leave", [&known[..], &[[leave, 2, 0], [deliver, 0, 60], [pass, 0, 100], [lists, 0, 1]]].concat()),
        ("moves", [&known[..], &[[moves, 0, 3], [deliver, 0, 60], [read_only, 1, 0], [deliver, 0, 60]]].concat()),
        ("resume", [&known[..], &[[resume, 0, 0], [lists, 0, 1], [lists, 1, 2], [deliver, 0, 60]]].concat()),
        ("stranger", [&known[..], &[[link, 3, 0], [lists, 3, 0], [deliver, 0, 60], [pass, 0, 90]]].concat()),
        ("forgotten", [&known[..], &[[leave, 2, 0], [deliver, 0, 60], [day, 0, 255], [restart, 0, 0]]].concat()),
    ];
    for (name, script) in scripts {
        for (timing, options) in [("lan", 0), ("wan", 1), ("slow", 2)] {
            save("membership", &format!("{name}-{timing}"), &[&[options][..], &script.concat()].concat());
        }
    }
}

/// Scripts of sales, as triples (kind, who, number): what each kind is good for, and what follows it.
fn save_rights() {
    let (receive, adjust, sell, hold, resolve, order) = (0, 2, 3, 6, 8, 11);
    let (ask, deliver, sync, crash, copy, meet, wait) = (12, 14, 18, 20, 21, 22, 23);
    // Replica 1 asks replica 0 for 5 units, and gets them.
    let grant = [[ask, 1, 5], [deliver, 0, 0], [sync, 0, 0], [deliver, 0, 0], [sync, 1, 0]];
    let stock = [[receive, 0, 19], [sync, 0, 0]];
    let scripts: [(&str, Vec<[u8; 3]>); 10] = [
        ("sales", vec![[receive, 0, 9], [sell, 0, 4], [sell, 0, 5], [meet, 0, 1], [sell, 1, 0]]),
        ("grant", [&stock[..], &grant, &[[sell, 1, 4], [sell, 1, 0], [meet, 0, 1]]].concat()),
        ("grant-lost", [&stock[..], &grant[..3], &[[deliver, 0, 6]], &grant, &[[sell, 1, 9]]].concat()),
        ("grant-doubled", [&stock[..], &grant[..3], &[[deliver, 0, 7], [deliver, 0, 230]], &grant].concat()),
        ("grant-crash", [&stock[..], &grant[..2], &[[crash, 0, 0], [sell, 0, 15]], &grant].concat()),
        ("holds", vec![[receive, 0, 19], [hold, 0, 35], [resolve, 0, 1], [hold, 0, 18], [wait, 0, 2], [resolve, 0, 7]]),
        (
            "holds-crash",
            [
                &stock[..],
                &[[hold, 0, 19], [sync, 0, 0], [crash, 0, 0], [resolve, 0, 0], [crash, 0, 0], [resolve, 0, 2]],
            ]
            .concat(),
        ),
        (
            "orders",
            [&stock[..], &[[order, 0, 1], [sync, 0, 0], [order, 0, 1], [crash, 0, 0], [order, 0, 129]]].concat(),
        ),
        (
            "losses",
            [&stock[..], &grant, &[[adjust, 0, 0], [adjust, 0, 0], [meet, 0, 1], [sell, 1, 4], [receive, 0, 9]]]
                .concat(),
        ),
        (
            "restore",
            [
                &stock[..],
                &[[copy, 0, 0], [sell, 0, 9], [meet, 0, 1], [copy, 0, 200], [meet, 0, 1], [sell, 0, 1]],
                &grant,
            ]
            .concat(),
        ),
    ];
    for (name, script) in scripts {
        save("rights", name, &script.concat());
    }
}
