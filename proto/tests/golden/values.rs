//! The values that the vectors freeze.

use std::sync::Arc;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::limits;
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software, Standing as MemberStanding};
use stockmesh_proto::movement::{Movement, MovementKind, Reason};
use stockmesh_proto::operation::Outcome;
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{
    Ask, BatchRecord, Fence, Fenced, Granted, Hello, HoldTaken, LedgerPart, LedgerRecord, LedgerRequest, MemberList,
    Message, NotRetired, Open, Part, Push, PushShard, Retire, Retired, Scope, ShardRecord, SnapshotRecord, Standing,
    Summary, TakeHold,
};
use stockmesh_proto::{
    ClusterId, Currency, Dot, Fingerprint, Location, Price, Reference, ReplicaId, ShardCount, ShardIndex, Sku,
    VersionVector,
};

pub(crate) const NORTH: u64 = 0x0123_4567_89ab_cdef;
pub(crate) const SOUTH: u64 = 0xfedc_ba98_7654_3210;
pub(crate) const SMALL: u64 = 7;

pub(crate) fn replica(bits: u64) -> ReplicaId {
    ReplicaId::from_bits(bits).unwrap()
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub(crate) fn location(name: &str) -> Location {
    Location::new(name).unwrap()
}

pub(crate) fn shard_count(shards: u32) -> ShardCount {
    ShardCount::new(shards).unwrap()
}

pub(crate) fn version(entries: &[(u64, u64)]) -> VersionVector {
    entries.iter().map(|(bits, sequence)| (replica(*bits), *sequence)).collect()
}

pub(crate) fn fingerprint(upper: u64, lower: u64) -> Fingerprint {
    Fingerprint::from_bits((u128::from(upper) << 64) | u128::from(lower))
}

pub(crate) fn stamp(milliseconds: u64, counter: u64) -> Stamp {
    Stamp::from_bits((milliseconds << 16) | counter)
}

/// Counters in the order of the wire: added, removed, held, released.
pub(crate) fn stock(place: &str, bits: u64, sequence: u64, [added, removed, held, released]: [u64; 4]) -> StockSlot {
    let counters = Counters { added, removed, held, released };
    StockSlot { location: location(place), replica: replica(bits), sequence, counters }
}

pub(crate) fn grant(place: &str, from: u64, to: u64, sequence: u64, units: u64) -> GrantSlot {
    GrantSlot { location: location(place), from: replica(from), to: replica(to), sequence, units }
}

pub(crate) fn register<T>(value: T, stamp: Stamp, bits: u64, sequence: u64) -> Register<T> {
    Register { value, stamp, dot: Dot { replica: replica(bits), sequence } }
}

pub(crate) fn price(units: u64, scale: u8, currency: Currency) -> Price {
    Price::from_parts(units, scale, currency).unwrap()
}

/// All kinds of slots: two locations, two writers of stock, a grant, both registers.
pub(crate) fn full_product() -> Product {
    Product::from_slots(
        vec![stock("berlin", SMALL, 3, [20, 0, 0, 0]), stock("berlin", NORTH, 12, [300, 120, 6, 2])],
        vec![grant("berlin", NORTH, SMALL, 13, 50)],
        Some(register(price(1299, 2, Currency::EUR), stamp(1_790_000_000_000, 5), NORTH, 10)),
        Some(register(true, stamp(1_790_000_000_001, 0), SMALL, 2)),
    )
    .unwrap()
}

/// Numbers at their limits and names that are not ASCII.
pub(crate) fn extreme_product() -> Product {
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

pub(crate) fn mixed_products() -> Products {
    vec![(sku("MUG-01"), full_product()), (sku("ÄPFEL 1 kg"), extreme_product())]
}

pub(crate) fn stock_products() -> Products {
    vec![
        (sku("A"), Product::of_stock(stock("berlin", NORTH, 41, [10, 0, 0, 0]))),
        (sku("B"), Product::of_stock(stock("berlin", NORTH, 42, [0, 70_000, 0, 0]))),
    ]
}

/// Each name occurs in one place of its product first, in an order that is not that of its value.
pub(crate) fn named_products() -> Products {
    let first = Product::from_slots(
        vec![stock("ulm", 50, 1, [1, 0, 0, 0])],
        vec![grant("aue", 40, 30, 1, 2), grant("aue", 40, 90, 2, 3), grant("ulm", 20, 10, 1, 4)],
        Some(register(price(0, 0, Currency::CHF), stamp(1, 0), 80, 1)),
        Some(register(true, stamp(1, 0), 70, 1)),
    );
    let second = Product::from_slots(vec![stock("bonn", 5, 1, [1, 0, 0, 0])], vec![], None, None);
    vec![(sku("A"), first.unwrap()), (sku("B"), second.unwrap())]
}

/// What the replica `to` took over of `from`: added, removed, rights, owed.
pub(crate) fn inheritance(
    place: &str,
    (from, to): (u64, u64),
    sequence: u64,
    [added, removed, rights, owed]: [u64; 4],
    is_heir: bool,
) -> InheritanceSlot {
    let taken = Taken { added, removed, rights, owed, is_heir };
    InheritanceSlot { location: location(place), from: replica(from), to: replica(to), sequence, taken }
}

/// Two heirs and one that brought late writes; an inheritance alone; numbers at their limits. The names of each product's
/// inheritances come after all its others.
pub(crate) fn inherited_products() -> Products {
    let listed = Some(register(true, stamp(1, 0), 70, 1));
    let slots = vec![
        inheritance("aue", (50, 60), 3, [0, 0, 0, 0], true),
        inheritance("ulm", (50, 40), 4, [300, 120, 176, 0], true),
        inheritance("ulm", (50, 45), 1, [301, 125, 0, 0], false),
        inheritance("ulm", (50, 60), 2, [300, 121, 0, 70_000], true),
    ];
    let first = Product::from_slots(
        vec![stock("ulm", 50, 12, [300, 120, 6, 2])],
        vec![grant("ulm", 50, 20, 13, 50)],
        None,
        listed,
    );
    let largest = inheritance("bonn", (NORTH, SOUTH), u64::MAX, [u64::MAX, u64::MAX - 1, u64::MAX, u64::MAX], true);
    vec![(sku("A"), first.unwrap().with_inheritances(slots).unwrap()), (sku("B"), Product::of_inheritance(largest))]
}

pub(crate) fn part_inheritances() -> Part {
    Part { shard: ShardIndex(5), version: None, products: inherited_products(), full: false, last: false }
}

pub(crate) fn part_middle() -> Part {
    Part { shard: ShardIndex(5), version: None, products: stock_products(), full: false, last: false }
}

pub(crate) fn hello() -> Hello {
    Hello {
        cluster: ClusterId::new("shops").unwrap(),
        replica: replica(NORTH),
        location: location("berlin"),
        shards: 256,
        clock_ms: 1_790_000_000_000,
        features_required: 0,
        features_known: 1,
        software: "stockmesh 0.1.0".into(),
        read_only: false,
        observed: None,
    }
}

pub(crate) fn member(bits: u64, generation: u64, address: &str) -> MemberRecord {
    MemberRecord {
        replica: replica(bits),
        generation: Generation::new(generation).unwrap(),
        address: address.parse().unwrap(),
        location: location("berlin"),
        labels: Labels::default(),
        software: Software::new("stockmesh 0.1.0").unwrap(),
        read_only: false,
        left: false,
    }
}

pub(crate) fn members() -> Message {
    let labels = Labels::new([("rack", "7"), ("role", "shop")]).unwrap();
    let alive = MemberRecord { labels, ..member(NORTH, 300, "10.0.0.7:9000") };
    let left = MemberRecord { read_only: true, left: true, ..member(SOUTH, 2, "[fd00::7]:9000") };
    let listed = |record, incarnation, standing, down_for_s| ListedMember {
        record: Arc::new(record),
        incarnation,
        standing,
        down_for_s,
    };
    let members = vec![listed(alive, 1, MemberStanding::Alive, 0), listed(left, 0, MemberStanding::Left, 3600)];
    Message::Members(MemberList { digest: 0x0011_2233_4455_6677, last: true, members })
}

pub(crate) fn open() -> Message {
    let groups = vec![fingerprint(0, 0), fingerprint(1, 2), fingerprint(u64::MAX, u64::MAX), fingerprint(0, 1)];
    Message::Open(Open { root: fingerprint(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff), groups })
}

pub(crate) fn pull() -> Message {
    Message::Pull(Scope::new(vec![ShardIndex(5), ShardIndex(130), ShardIndex(4095)]).unwrap())
}

pub(crate) fn standing() -> Message {
    let leaves = vec![fingerprint(3, 4), Fingerprint::EMPTY];
    Message::Standing(Standing { catching_up: true, leaves })
}

pub(crate) fn summary() -> Message {
    let vector = version(&[(SMALL, 1), (NORTH, 65_536), (SOUTH, u64::MAX)]);
    Message::Summary(vec![
        Summary { shard: ShardIndex(5), fingerprint: fingerprint(3, 4), version: vector },
        Summary { shard: ShardIndex(4095), fingerprint: Fingerprint::EMPTY, version: version(&[]) },
    ])
}

pub(crate) fn push() -> Push {
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

pub(crate) fn batch() -> BatchRecord {
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

pub(crate) fn snapshot() -> SnapshotRecord {
    SnapshotRecord {
        shard: ShardIndex(6),
        batch: 69_999,
        products: mixed_products(),
        version: version(&[(SMALL, 3), (NORTH, 13), (SOUTH, 1)]),
        fingerprint: fingerprint(7, 8),
    }
}

pub(crate) fn reference(name: &str) -> Reference {
    Reference::new(name).unwrap()
}

/// A replica of small id asks for units of the full product.
pub(crate) fn ask() -> Ask {
    Ask { sku: sku("MUG-01"), location: location("berlin"), needed: 3, rights: 70, per_hour: 1_200 }
}

/// What the question is answered with: all 50 of the grant in the full product were given at once.
pub(crate) fn granted() -> Granted {
    let product = full_product();
    let seen = Product::from_slots(product.stock().to_vec(), product.grants().to_vec(), None, None).unwrap();
    let shard = shard_count(256).shard_of(&sku("MUG-01"));
    Granted { units: 50, sequence: 13, shard, products: vec![(sku("MUG-01"), seen)] }
}

pub(crate) fn fence() -> Fence {
    Fence { retired: replica(SMALL), heir: replica(NORTH), is_trial: true, gave_way: vec![] }
}

/// Another had begun it, and gave way.
pub(crate) fn fence_of_two() -> Fence {
    Fence { is_trial: false, gave_way: vec![replica(SOUTH)], ..fence() }
}

pub(crate) fn fenced(is_alive: bool) -> Fenced {
    Fenced { heir: (!is_alive).then(|| replica(NORTH)), is_alive }
}

/// A hold of the replica that granted in the full product, handed over with what the other sees of the product.
pub(crate) fn take() -> TakeHold {
    let (sku, location) = (sku("MUG-01"), location("berlin"));
    TakeHold { hold: hold_id(), sku, location, units: 6, expires_ms: 1_790_000_900_000, products: granted().products }
}

pub(crate) fn taken() -> HoldTaken {
    HoldTaken { hold: Some(HoldId { replica: replica(SOUTH), ..hold_id() }) }
}

pub(crate) fn retire() -> Retire {
    Retire { retired: replica(SMALL), without: vec![replica(SOUTH)], deadline_ms: 30_000, hold_ms: 86_400_000 }
}

pub(crate) fn retired(refused: Option<NotRetired>) -> Retired {
    let (places, units, held) = if refused.is_some() { (0, 0, 0) } else { (2, 70_000, 6) };
    Retired { places, units, held, refused }
}

pub(crate) fn missing() -> NotRetired {
    let reason = "a member cannot be reached".into();
    NotRetired { unreachable: vec![replica(SOUTH)], alive_at: None, other_heir: None, reason }
}

pub(crate) fn hold_id() -> HoldId {
    HoldId { replica: replica(NORTH), shard: ShardIndex(35), sequence: 70_000 }
}

pub(crate) fn hold(state: HoldState, reference: Option<Reference>) -> Hold {
    Hold {
        id: hold_id(),
        sku: sku("MUG-01"),
        location: location("berlin"),
        units: 6,
        given_ms: 1_790_000_000_000,
        expires_ms: 1_790_000_900_000,
        reference,
        state,
    }
}

pub(crate) const REASONS: [Reason; 6] =
    [Reason::Sold, Reason::Returned, Reason::Damaged, Reason::Lost, Reason::Found, Reason::Correction];

/// Each kind of movement once, in the order of their codes, with a quantity as it may have.
pub(crate) fn movement_kinds() -> [(MovementKind, i64); 11] {
    [
        (MovementKind::Received, 300),
        (MovementKind::Adjusted(Reason::Damaged), -2),
        (MovementKind::Counted, 0),
        (MovementKind::Sold, 1),
        (MovementKind::Held(hold_id()), 6),
        (MovementKind::Committed(hold_id()), 4),
        (MovementKind::Released(hold_id()), 2),
        (MovementKind::Expired(hold_id()), 70_000),
        (MovementKind::TransferredTo(location("oslo")), 128),
        (MovementKind::TransferredFrom(location("oslo")), 1_000_000_000_000),
        (MovementKind::Granted(replica(SMALL)), i64::MAX),
    ]
}

/// The kinds that came with retired replicas, in the order of their codes.
pub(crate) fn retirement_kinds() -> [(MovementKind, i64); 4] {
    [
        (MovementKind::Inherited(replica(SMALL)), 176),
        (MovementKind::Inherited(replica(SMALL)), -70_000),
        (MovementKind::Reapplied(replica(SOUTH)), 1),
        (MovementKind::Reapplied(replica(SOUTH)), -5),
    ]
}

pub(crate) fn movement((kind, quantity): (MovementKind, i64)) -> Movement {
    Movement { sku: sku("MUG-01"), location: location("berlin"), kind, quantity }
}

/// Each outcome, and each kind of number in it.
pub(crate) fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Done,
        Outcome::Difference(-300),
        Outcome::Difference(5),
        Outcome::Held { id: hold_id(), expires_ms: 1_790_000_900_000 },
        Outcome::Resolved { sold: 4, released: 2 },
        Outcome::Granted { units: 50, sequence: 13 },
    ]
}

/// Two ids, requests with and without a reference, every kind of movement, every reason, every outcome.
pub(crate) fn ledger() -> LedgerRecord {
    let named = LedgerRequest {
        reference: Some(reference("order 4711/ü")),
        content: Some(fingerprint(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff)),
        outcomes: outcomes(),
        movements: movement_kinds().map(movement).into(),
    };
    let adjusted = |reason| movement((MovementKind::Adjusted(reason), i64::MIN + 1));
    let unnamed =
        LedgerRequest { reference: None, content: None, outcomes: vec![], movements: REASONS.map(adjusted).into() };
    LedgerRecord {
        time_ms: 1_790_000_000_000,
        references_back: 70_000,
        parts: vec![
            LedgerPart { replica: replica(SMALL), requests: vec![named] },
            LedgerPart { replica: replica(NORTH), requests: vec![unnamed] },
        ],
    }
}

/// What an heir did, and a replica that had been retired and came back.
pub(crate) fn ledger_inherited() -> LedgerRecord {
    let request = LedgerRequest {
        reference: Some(reference("retire 7")),
        content: Some(fingerprint(1, 2)),
        outcomes: vec![
            Outcome::Inherited { units: 176, held: 4 },
            Outcome::Inherited { units: -70_000, held: 0 },
            Outcome::Reapplied { added: 1, removed: 5 },
        ],
        movements: retirement_kinds().map(movement).into(),
    };
    let parts = vec![LedgerPart { replica: replica(NORTH), requests: vec![request] }];
    LedgerRecord { time_ms: 1_790_000_000_000, references_back: 0, parts }
}

/// No reference was remembered.
pub(crate) fn ledger_plain() -> LedgerRecord {
    let movements = vec![movement((MovementKind::Sold, 1))];
    let request = LedgerRequest { reference: None, content: None, outcomes: vec![], movements };
    let parts = vec![LedgerPart { replica: replica(NORTH), requests: vec![request] }];
    LedgerRecord { time_ms: 0, references_back: 0, parts }
}
