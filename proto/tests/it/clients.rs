//! Frames between clients and nodes: whatever arrives is read or refused, within bounds (rules X2, X3).

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::{
    CLIENT_LOCATIONS_MAX, CLIENT_NOTES_MAX, CLIENT_PAGE_BYTES_TARGET, CLIENT_PAGE_MAX, CLIENT_PEERS_MAX,
    CLIENT_SKUS_MAX, LOCATION_BYTES_MAX, SKU_BYTES_MAX,
};
use stockmesh_proto::wire::WireError;
use stockmesh_proto::wire::client::{
    Amount, Answer, DurabilityInfo, DurabilityState, ErrorText, Failure, FailureCode, Get, LocationStock, MemberCounts,
    PeerInfo, PeerState, ProductInfo, ProductsPage, RefusalInfo, Request, Sale, Shown, StatusInfo, Text,
};
use stockmesh_proto::{ClusterId, Currency, Location, Price, Sku};

use crate::support::{config, location, replica_id, sku};

fn kinds() -> Vec<u8> {
    Request::KINDS.iter().chain(Answer::KINDS).map(|kind| kind.byte).collect()
}

/// What can be read is written again, and reads as the same. Numbers and texts may arrive in a longer form than is
/// written, and fields may be missing, so the new frame may be too long where the old one was not.
fn check(frame: &[u8]) {
    if let Ok(request) = Request::decode(frame)
        && let Ok(again) = request.encode()
    {
        assert_eq!(Request::decode(&again[4..]).unwrap(), request);
    }
    if let Ok(answer) = Answer::decode(frame)
        && let Ok(again) = answer.encode()
    {
        assert_eq!(Answer::decode(&again[4..]).unwrap(), answer);
    }
}

fn sale() -> impl Strategy<Value = Request> {
    let names = ("[A-Z]{1,8}", option::of("[a-z]{1,8}"), option::of("[ -~]{1,20}"));
    (names, any::<u64>(), option::of(any::<u64>())).prop_map(|((name, at, reference), units, deadline_ms)| {
        let at = at.map(|at| location(&at));
        let reference = reference.map(|text| text.parse().unwrap());
        Request::Sell(Sale { sku: sku(&name), at, units, reference, deadline_ms })
    })
}

fn product() -> impl Strategy<Value = Answer> {
    let sums = any::<[i128; 4]>().prop_map(|sums| sums.map(Shown));
    let price = option::of((0_u64..=1_000_000_000_000_000_000, 0_u8..=9));
    (sums, price, option::of(any::<bool>()), "[A-Z]{1,8}").prop_map(|(sums, price, listed, name)| {
        let [on_hand, held, available, oversold] = sums;
        let price = price.map(|(units, scale)| Amount(Price::from_parts(units, scale, Currency::EUR).unwrap()));
        let locations = vec![LocationStock { location: location("x"), on_hand, held, available, oversold }];
        let sku = sku(&name);
        let product =
            ProductInfo { sku, on_hand, held, available, oversold, price, listed, locations, locations_total: 1 };
        Answer::Products(ProductsPage { products: vec![product], unknown: vec![], last: true })
    })
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn any_bytes_are_read_or_refused(body in vec(any::<u8>(), 0..300), kind in any::<prop::sample::Index>()) {
        let kinds = kinds();
        check(&[&[kinds[kind.index(kinds.len())]], &body[..]].concat());
    }

    #[test]
    fn frames_with_one_byte_changed_are_read_or_refused(
        request in sale(),
        answer in product(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for frame in [request.encode().unwrap(), answer.encode().unwrap()] {
            let mut frame = frame[4..].to_vec();
            let at = at.index(frame.len());
            frame[at] = byte;
            check(&frame);
        }
    }

    #[test]
    fn what_is_written_is_read(request in sale(), answer in product()) {
        prop_assert_eq!(Request::decode(&request.encode().unwrap()[4..]).unwrap(), request);
        prop_assert_eq!(Answer::decode(&answer.encode().unwrap()[4..]).unwrap(), answer);
    }
}

/// Unknown fields are passed over, but not at any depth.
#[test]
fn depth_bombs_in_unknown_fields_are_refused() {
    for opener in [&[0x91][..], &[0x81, 0x01][..], &[0xdc, 0, 1][..], &[0xdd, 0, 0, 0, 1][..]] {
        let bomb = opener.repeat(16_000 / opener.len());
        for kind in kinds() {
            let field = [&[kind, 0x81, 0xa3][..], b"new", &bomb].concat();
            let body = [&[kind][..], &bomb].concat();
            for frame in [field, body] {
                let errors = [Request::decode(&frame).map(|_| ()), Answer::decode(&frame).map(|_| ())];
                for error in errors.map(Result::unwrap_err) {
                    assert!(matches!(error, WireError::Malformed(_) | WireError::UnknownKind(_)), "{error}");
                }
            }
        }
    }
}

#[test]
fn lists_and_texts_of_clients_are_read_up_to_their_limits() {
    let get = |count: usize| Request::Get(Get { skus: vec![sku("A"); count], at: None });
    let read = |request: Request| Request::decode(&request.encode().unwrap()[4..]);
    assert!(read(get(CLIENT_SKUS_MAX)).is_ok() && read(get(CLIENT_SKUS_MAX + 1)).is_err());
    let longest = vec![Sku::new(&"x".repeat(SKU_BYTES_MAX)).unwrap(); CLIENT_SKUS_MAX];
    assert!(read(Request::Get(Get { skus: longest, at: None })).is_ok(), "the longest question fits its frame");
    let long = Request::decode(&vec![2; Request::BYTES_MAX + 1]);
    assert!(matches!(long, Err(WireError::TooLong { .. })), "{long:?}");

    // Announced and never sent.
    let announced = [b"\x84\x82\xa8products\xdd\xff\xff\xff\xff".to_vec(), b"\xa4last\xc3".to_vec()].concat();
    let error = Answer::decode(&announced).unwrap_err().to_string();
    assert!(error.contains(&format!("at most {CLIENT_PAGE_MAX} elements")), "{error}");
    for (text, fits) in [("é".repeat(128), true), ("é".repeat(129), false)] {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let frame = [&[1, 0x81, 0xa8][..], b"software", &[0xda], &length, text.as_bytes()].concat();
        assert_eq!(Request::decode(&frame).is_ok(), fits);
        assert!(Text::new(&text).as_str().len() <= 256);
    }
    assert_eq!(ErrorText::new("short").as_str(), "short");
    assert!(Text::new("é".repeat(200)).as_str().ends_with("é…"), "cut between letters");
}

#[test]
fn values_as_text_are_checked() {
    let sell = |sku: &[u8]| Request::decode(&[b"\x10\x82\xa5units\x01\xa3sku", sku].concat());
    assert!(sell(b"\xa1A").is_ok());
    for bad in [&b"\xa0"[..], b"\xa1\n", b"\x01", b"\xa1\xff"] {
        assert!(sell(bad).is_err());
    }
    let price = |amount: &str, currency: &str| {
        let text = |text: &str| [&[0xa0 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let fields = [b"\xa6amount".to_vec(), text(amount), b"\xa8currency".to_vec(), text(currency)].concat();
        Request::decode(&[b"\x12\x82\xa3sku\xa1A\xa5price\x82".to_vec(), fields].concat())
    };
    assert!(price("9.90", "EUR").is_ok());
    let cases = [("9,90", "EUR"), ("-1", "EUR"), ("1", "QQQ"), ("0.0000000001", "EUR"), ("", "EUR"), ("NaN", "EUR")];
    for (amount, currency) in cases {
        assert!(price(amount, currency).is_err(), "{amount} {currency}");
    }
    let hold = |id: &str| {
        let id = [&[0xd9, u8::try_from(id.len()).unwrap()], id.as_bytes()].concat();
        Request::decode(&[&b"\x15\x81\xa2id"[..], &id].concat())
    };
    let id = "04hkaw9tspnr7-17-42";
    assert!(
        matches!(hold(id), Ok(Request::ReleaseHold(release)) if release.id == Shown(id.parse::<HoldId>().unwrap()))
    );
    assert!(hold("17-42").is_err());
}

/// The longest answers that a node makes fit a frame, so that none is refused for its length.
#[test]
fn the_longest_answers_fit_their_frames() {
    let name = Location::new(&"x".repeat(LOCATION_BYTES_MAX)).unwrap();
    let (long, text) = (Shown(i128::MIN), || Text::new("x".repeat(1_000)));
    let peer = PeerInfo {
        address: text(),
        replica: Some(Shown(replica_id(7))),
        location: Some(name.clone()),
        certificate: Some(Text::new("0f".repeat(32))),
        state: PeerState::BackingOff,
        skew_ms: Some(i64::MIN),
        lag_writes: Some(u64::MAX),
        reconciled_ago_ms: Some(u64::MAX),
        round_trip_us: Some(u64::MAX),
        last_error: Some(text()),
    };
    let status = StatusInfo {
        replica: Shown(replica_id(7)),
        former_replicas: vec![Shown(replica_id(7)); CLIENT_NOTES_MAX],
        cluster: ClusterId::new("c").unwrap(),
        location: name.clone(),
        software: text(),
        fingerprint: text(),
        products: u64::MAX,
        slots: u64::MAX,
        holds: u64::MAX,
        durability: DurabilityInfo { state: DurabilityState::Poisoned, cause: Some(text()) },
        last_batch: u64::MAX,
        journal_bytes: u64::MAX,
        shards_in_doubt: (0..4_096).collect(),
        offline: false,
        listen: Some(text()),
        identity_expires_ms: Some(u64::MAX),
        members: MemberCounts::default(),
        peers: vec![peer; CLIENT_PEERS_MAX],
        peers_total: u64::MAX,
        refusals: vec![RefusalInfo { address: text(), reason: text() }; CLIENT_NOTES_MAX],
        bytes_sent: u64::MAX,
        bytes_received: u64::MAX,
    };
    assert!(Answer::StatusIs(Box::new(status)).encode().is_ok());
    let stock = LocationStock { location: name, on_hand: long, held: long, available: long, oversold: long };
    let product = ProductInfo {
        sku: Sku::new(&"x".repeat(SKU_BYTES_MAX)).unwrap(),
        on_hand: long,
        held: long,
        available: long,
        oversold: long,
        price: Some(Amount(Price::from_parts(1_000_000_000_000_000_000, 9, Currency::EUR).unwrap())),
        listed: Some(true),
        locations: vec![stock; CLIENT_LOCATIONS_MAX],
        locations_total: u64::MAX,
    };
    // A page is closed once it has reached its target, by whatever product.
    let mut products = vec![ProductInfo { locations: vec![], ..product.clone() }; CLIENT_PAGE_BYTES_TARGET / 512];
    products.push(product);
    assert!(products.len() <= CLIENT_PAGE_MAX);
    let unknown = vec![Sku::new(&"x".repeat(SKU_BYTES_MAX)).unwrap(); CLIENT_SKUS_MAX];
    assert!(Answer::Products(ProductsPage { products, unknown, last: true }).encode().is_ok());
    let failure = Failure::new(FailureCode::Refused, "x".repeat(100_000));
    assert!(Answer::Failed(Box::new(failure)).encode().unwrap().len() < 8_192);
}
