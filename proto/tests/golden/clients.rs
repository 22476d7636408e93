//! Requests of clients and their answers.

use std::collections::BTreeSet;

use stockmesh_proto::hold::HoldId;
use stockmesh_proto::wire::WireError;
use stockmesh_proto::wire::client::{
    AllHolds, AllMembers, Amount, Answer, Change, ChangeKind, CommitHold, Done, DurabilityInfo, DurabilityState,
    Effect, Failure, FailureCode, Get, Greeting, HoldInfo, HoldStanding, HoldsPage, Label, List, LocationStock,
    MemberCounts, MemberInfo, MemberStanding, MembersPage, NewHold, NewPrice, PeerInfo, PeerState, ProductInfo,
    ProductsPage, Receipt, RefusalInfo, ReleaseHold, Request, ResolvedInfo, Sale, Shown, StatusInfo, StatusWanted,
    Text, Watch, Watching, Welcome,
};
use stockmesh_proto::{ClusterId, Currency, Location, Price, ReplicaId, ShardIndex};

use crate::files::{frozen_body, unhex};
use crate::values::{NORTH, SOUTH, reference, replica, sku};
use crate::vectors::{Value, Vector};

fn location() -> Location {
    Location::new("berlin").unwrap()
}

fn north() -> Shown<ReplicaId> {
    Shown(replica(NORTH))
}

fn hold_id() -> Shown<HoldId> {
    Shown(HoldId { replica: replica(NORTH), shard: ShardIndex(17), sequence: 42 })
}

fn price() -> Amount {
    Amount(Price::from_parts(990, 2, Currency::EUR).unwrap())
}

fn requests() -> Vec<(&'static str, Request)> {
    let (order, at) = (Some(reference("order 4711")), Some(location()));
    vec![
        ("hello", Request::Hello(Greeting { software: Text::new("stockmesh 0.1.0") })),
        ("status", Request::Status(StatusWanted {})),
        ("members", Request::Members(AllMembers {})),
        ("get", Request::Get(Get { skus: vec![sku("MUG-01"), sku("ÄPFEL 1 kg")], at: None })),
        ("list", Request::List(List { prefix: Text::new("MUG"), at: at.clone() })),
        ("watch", Request::Watch(Watch { prefix: Text::new(""), below: Some(Shown(-5)), at: None, events_only: true })),
        (
            "sell",
            Request::Sell(Sale {
                sku: sku("MUG-01"),
                at: at.clone(),
                units: 2,
                reference: order.clone(),
                deadline_ms: Some(2_000),
            }),
        ),
        (
            "sell-plain",
            Request::Sell(Sale {
                sku: sku("MUG-01"),
                at: None,
                units: 1_000_000_000_000,
                reference: None,
                deadline_ms: None,
            }),
        ),
        ("receive", Request::Receive(Receipt { sku: sku("MUG-01"), at, units: 100, reference: order.clone() })),
        ("set-price", Request::SetPrice(NewPrice { sku: sku("MUG-01"), price: price(), reference: order.clone() })),
        (
            "hold",
            Request::Hold(NewHold {
                sku: sku("MUG-01"),
                at: None,
                units: 5,
                ttl_ms: 900_000,
                reference: order,
                deadline_ms: None,
            }),
        ),
        ("commit-hold", Request::CommitHold(CommitHold { id: hold_id(), units: Some(4) })),
        ("release-hold", Request::ReleaseHold(ReleaseHold { id: hold_id() })),
        ("holds", Request::Holds(AllHolds {})),
    ]
}

fn product() -> ProductInfo {
    let stock = LocationStock {
        location: location(),
        on_hand: Shown(-3),
        held: Shown(2),
        available: Shown(-5),
        oversold: Shown(5),
    };
    ProductInfo {
        sku: sku("MUG-01"),
        on_hand: Shown(i128::MAX),
        held: Shown(0),
        available: Shown(i128::MIN),
        oversold: Shown(5),
        price: Some(price()),
        listed: Some(true),
        locations: vec![stock],
        locations_total: 2,
    }
}

fn status() -> StatusInfo {
    let peer = PeerInfo {
        address: Text::new("paris.example:7400"),
        replica: Some(Shown(replica(SOUTH))),
        location: Some(Location::new("paris").unwrap()),
        certificate: Some(Text::new("0f".repeat(32))),
        state: PeerState::BackingOff,
        skew_ms: Some(-7),
        lag_writes: Some(12),
        reconciled_ago_ms: Some(800),
        round_trip_us: Some(350),
        last_error: Some(Text::new("no answer")),
    };
    StatusInfo {
        replica: north(),
        former_replicas: vec![Shown(replica(SOUTH))],
        cluster: ClusterId::new("shops").unwrap(),
        location: location(),
        software: Text::new("stockmesh 0.1.0"),
        fingerprint: Text::new("00".repeat(16)),
        products: 3,
        slots: 7,
        holds: 1,
        durability: DurabilityInfo { state: DurabilityState::Poisoned, cause: Some(Text::new("disk full")) },
        last_batch: 70_000,
        journal_bytes: 1 << 20,
        shards_in_doubt: vec![0, 4_095],
        offline: false,
        listen: Some(Text::new("0.0.0.0:7400")),
        identity_expires_ms: Some(1_790_000_000_000),
        members: MemberCounts { alive: 4, suspect: 1, down: 2, left: 3 },
        peers: vec![peer],
        peers_total: 1,
        refusals: vec![RefusalInfo { address: Text::new("192.0.2.1:9"), reason: Text::new("another cluster") }],
        bytes_sent: 1,
        bytes_received: 2,
    }
}

fn held() -> HoldInfo {
    HoldInfo {
        id: hold_id(),
        sku: sku("MUG-01"),
        location: location(),
        units: 5,
        expires_ms: 1_790_000_900_000,
        reference: Some(reference("order 4711")),
        state: HoldStanding::Active,
    }
}

fn answers() -> Vec<(&'static str, Answer)> {
    let member = MemberInfo {
        replica: north(),
        address: Text::new("192.0.2.7:7400"),
        location: location(),
        labels: vec![Label { name: Text::new("rack"), value: Text::new("7") }],
        version: Text::new("stockmesh 0.1.0"),
        read_only: true,
        state: MemberStanding::Suspect,
    };
    let welcome = Welcome {
        cluster: ClusterId::new("shops").unwrap(),
        replica: north(),
        location: location(),
        software: Text::new("stockmesh 0.1.0"),
    };
    let low = Change {
        product: Some(product()),
        available: Some(Shown(4)),
        below: Some(Shown(5)),
        ..Change::new(ChangeKind::LowStock)
    };
    let incarnation = Change {
        former: Some(north()),
        replica: Some(Shown(replica(SOUTH))),
        ..Change::new(ChangeKind::NewIncarnation)
    };
    let insufficient = Failure {
        wanted: Some(5),
        here: Some(1),
        elsewhere: Some(2),
        unreachable: Some(3),
        ..Failure::new(FailureCode::Insufficient, "too few; nothing was changed")
    };
    let unclear = Failure::indeterminate(FailureCode::TimedOut, "it may be done or not");
    vec![
        ("welcome", Answer::Welcome(welcome)),
        ("status-is", Answer::StatusIs(Box::new(status()))),
        ("members-are", Answer::MembersAre(MembersPage { members: vec![member], last: true })),
        ("products", Answer::Products(ProductsPage { products: vec![product()], unknown: vec![sku("B")], last: true })),
        ("watching", Answer::Watching(Watching {})),
        ("change-low-stock", Answer::Change(Box::new(low))),
        ("change-incarnation", Answer::Change(Box::new(incarnation))),
        ("done", Answer::Done(Done {})),
        ("held", Answer::Held(held())),
        ("resolved", Answer::Resolved(ResolvedInfo { sold: 4, released: 1 })),
        ("holds-are", Answer::HoldsAre(HoldsPage { holds: vec![held()], last: false })),
        ("failed", Answer::Failed(Box::new(insufficient))),
        ("failed-unclear", Answer::Failed(Box::new(unclear))),
    ]
}

pub(crate) fn client_vectors() -> Vec<Vector> {
    let vector =
        |name: &str, what: String, value| Vector { name: format!("client-{name}"), what, rules: "X2, X3", value };
    let requests = requests().into_iter().map(|(name, request)| {
        vector(&format!("ask-{name}"), format!("a request of a client: {name}"), Value::Request(request))
    });
    let answers = answers().into_iter().map(|(name, answer)| {
        vector(&format!("told-{name}"), format!("an answer to a client: {name}"), Value::Answer(answer))
    });
    requests.chain(answers).collect()
}

/// Rule X2: a vector for every kind, and kinds of requests and answers that are not mistaken for one another.
#[test]
fn every_kind_of_a_client_has_a_vector() {
    let covered: BTreeSet<u8> = client_vectors().iter().map(|vector| vector.value.encode()[4]).collect();
    let known: BTreeSet<u8> = Request::KINDS.iter().chain(Answer::KINDS).map(|kind| kind.byte).collect();
    assert_eq!(covered, known);
    assert_eq!(known.len(), Request::KINDS.len() + Answer::KINDS.len());
    for byte in u8::MIN..=u8::MAX {
        let is_request = Request::KINDS.iter().any(|kind| kind.byte == byte);
        assert_eq!(matches!(Request::decode(&[byte, 0x80]), Err(WireError::UnknownKind(_))), !is_request);
    }
}

/// Rule X3: fields of a later version are passed over, and what an older one leaves out is taken as missing.
#[test]
fn fields_may_be_added_and_left_out() {
    for vector in client_vectors() {
        let bytes = unhex(&frozen_body(&vector.name).unwrap());
        let (map, fields) = (bytes[5] & 0xf0, usize::from(bytes[5] & 0x0f));
        if map != 0x80 || fields == 15 {
            // A map of more than 15 fields has a longer head.
            continue;
        }
        let longer =
            [&bytes[4..5], &[0x80 | u8::try_from(fields + 1).unwrap()], &bytes[6..], b"\xa3new\x92\x01\x81\x02\x03"];
        assert!(vector.value.is(&longer.concat()).unwrap(), "{}", vector.name);
    }
    let sale = Request::decode(b"\x10\x82\xa3sku\xa1A\xa5units\x07").unwrap();
    let plain = Sale { sku: sku("A"), at: None, units: 7, reference: None, deadline_ms: None };
    assert_eq!(sale, Request::Sell(plain));
    assert_eq!(Request::decode(&[5, 0x80]).unwrap(), Request::List(List { prefix: Text::new(""), at: None }));
    assert!(Request::decode(b"\x10\x81\xa3sku\xa1A").is_err(), "units are needed");
    // Codes of a later version: what is not known to be harmless may have changed something.
    let later = b"\xff\x83\xa4code\xa3odd\xa6effect\xa5maybe\xa4text\xa0";
    let Answer::Failed(failure) = Answer::decode(later).unwrap() else { panic!("no failure") };
    assert_eq!((failure.code, failure.effect), (FailureCode::Other, Effect::Indeterminate));
}
