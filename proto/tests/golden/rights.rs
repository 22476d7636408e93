//! Rights, holds, references and the ledger.

use std::sync::Arc;

use stockmesh_proto::check::{DeltaRefused, check_granted};
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::movement::{MovementKind, Reason};
use stockmesh_proto::operation::{Books, Operation, Outcome, OversellPolicy, Reader, Request, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::wire::{Ask, Granted, LedgerPart, LedgerRecord, LedgerRequest, Message, WireError, split_kind};
use stockmesh_proto::{Currency, Quantity, ReplicaId, ShardIndex, Sku, limits};
use xxhash_rust::xxh3::xxh3_128;

use crate::files::{check_text, hex, unhex};
use crate::values::{
    NORTH, REASONS, SMALL, SOUTH, ask, full_product, grant, granted, hold, hold_id, inheritance, ledger_plain,
    location, movement, price, reference, replica, shard_count, sku, stock,
};

// ---- Bytes that break a rule ----

/// Each case is `whole` with one rule broken. An empty right side puts the wrong bytes in the place of all.
fn check_refused<T>(whole: &str, read: impl Fn(&[u8]) -> Result<T, WireError>, cases: &[(&str, &str, &str)]) {
    assert!(read(&unhex(whole)).is_ok());
    for (rule, right, wrong) in cases {
        assert_eq!(whole.matches(right).count(), 1, "the case {rule:?} is not about one place");
        let broken = whole.replacen(right, wrong, 1);
        let read = read(&unhex(&broken));
        assert!(matches!(read, Err(WireError::Malformed(_) | WireError::Trailing(_))), "not refused: {rule}");
    }
}

/// Rule B4.
#[test]
fn a_question_that_breaks_a_rule_is_refused() {
    let whole = hex(&Message::Ask(ask()).encode().unwrap()[4..]);
    assert_eq!(whole, "3095a64d55472d3031a66265726c696e0346cd04b0");
    check_refused(
        &whole,
        Message::decode,
        &[
            ("an array has no fewer fields than it should", "309", "3094a64d55472d3031a66265726c696e0346"),
            ("an array has no more fields than it should", "cd04b0", "cd04b000"),
            ("an array says how many fields it has", "3095", "3096"),
            ("a SKU is not empty", "a64d55472d3031", "a0"),
            ("a SKU holds no control character", "2d3031", "2d300a"),
            ("a location is text", "a66265726c696e", "07"),
            ("units are not below 0", "0346", "ff46"),
            ("rights are not below 0", "0346", "03ff"),
            ("a rate is no float", "cd04b0", "ca44960000"),
            ("units are given, not left open", "0346", "c046"),
        ],
    );
}

/// Rule W2: a question is short, as whoever reads it has not asked for it.
#[test]
fn a_question_over_its_limit_is_refused() {
    let longest = Ask {
        sku: sku(&"x".repeat(limits::SKU_BYTES_MAX)),
        location: location(&"x".repeat(limits::LOCATION_BYTES_MAX)),
        needed: u64::MAX,
        rights: u64::MAX,
        per_hour: u64::MAX,
    };
    assert!(Message::Ask(longest.clone()).encode().is_ok());
    let mut frame = Message::Ask(longest).encode().unwrap().split_off(4);
    frame.resize(limits::HELLO_BYTES_MAX, 0);
    assert!(matches!(Message::decode(&frame), Err(WireError::Trailing(_))));
    frame.push(0);
    assert!(matches!(Message::decode(&frame), Err(WireError::TooLong { bytes: 1_025, bytes_max: 1_024 })));
    frame[0] = 49;
    assert!(split_kind(&frame).is_ok(), "an answer may be longer");
}

/// Rule B5.
#[test]
fn an_answer_that_breaks_a_rule_of_its_form_is_refused() {
    let shard = granted().shard.0;
    let whole = hex(&Message::Granted(granted()).encode().unwrap()[4..]);
    let head = format!("3194320d{shard:02x}9391");
    assert!(whole.starts_with(&head), "{whole}");
    let with = |start: &str| start.replace("SH", &format!("{shard:02x}9391"));
    check_refused(
        &whole,
        Message::decode,
        &[
            ("an array has no more fields than it should", &head, &with("3195320d00SH")),
            ("an array has no fewer fields than it should", &head, &with("3193320dSH")),
            ("units are not below 0", &head, &with("3194ff0dSH")),
            ("a sequence number is not below 0", &head, &with("319432ffSH")),
            ("a shard has 16 bits", &head, "3194320dce000100009391"),
            ("the products are a list", &head, &format!("3194320d{shard:02x}c091")),
            ("a grant's giver is in the list of replicas", "9195000100", "9195000200"),
        ],
    );
}

/// Rules O5 and D6.
#[test]
fn a_hold_that_breaks_a_rule_is_refused() {
    let whole = hex(&hold(HoldState::Committed { units: 4, at_ms: 5 }, Some(reference("order"))).encode().unwrap());
    let state = "81a9436f6d6d6974746564920405";
    assert!(whole.ends_with(&format!("06cf000001a0c4506c00cf000001a0c45e27a0a56f72646572{state}")), "{whole}");
    check_refused(
        &whole,
        Hold::decode,
        &[
            ("an array says how many fields it has", "9893cf", "9793cf"),
            ("a hold id has three fields", "93cf0123456789abcdef", "94cf0123456789abcdef"),
            ("a replica is not 0", "cf0123456789abcdef", "00"),
            ("a shard has 16 bits", "23ce00011170", "ce00010000ce00011170"),
            ("units are not below 0", "06cf000001a0c4506c00", "ffcf000001a0c4506c00"),
            ("a reference is not empty", "a56f72646572", "a0"),
            ("a reference holds no control character", "6f72646572", "6f72640072"),
            ("a state is known", "a9436f6d6d6974746564", "a9436f6d6d6974746563"),
            ("a state has its fields", state, "a9436f6d6d6974746564"),
            ("a state has no more than its fields", "920405", "93040500"),
            ("units sold are not below 0", "920405", "92ff05"),
        ],
    );
}

/// Rule D7.
#[test]
fn a_ledger_entry_that_breaks_a_rule_is_refused() {
    let whole = hex(&ledger_plain().encode().unwrap());
    assert_eq!(whole, "9300009192cf0123456789abcdef9194c0c0909198a64d55472d3031a66265726c696e040100c0c0c0");
    // What the cases below are made of is accepted where no rule is broken.
    for sound in ["020106c0c0c0", "02ff01c0c0c0", "06010093cf0123456789abcdef23ce00011170c0c0", "090100c0a46f736c6fc0"]
    {
        assert!(LedgerRecord::decode(&unhex(&whole.replacen("040100c0c0c0", sound, 1))).is_ok(), "{sound}");
    }
    check_refused(
        &whole,
        LedgerRecord::decode,
        &[
            ("an entry says how many fields it has", "9300009192", "9400009192"),
            ("a time is not below 0", "9300009192", "93ff009192"),
            ("a distance is not below 0", "9300009192", "9300ff9192"),
            ("a replica is not 0", "cf0123456789abcdef", "00"),
            ("a request says how many fields it has", "9194c0c0", "9193c0c0"),
            ("an outcome is known", "c0c090", "c0c091a4446f6e64"),
            ("a movement says how many fields it has", "9198", "9197"),
            ("a movement of kind 0 is unknown", "040100", "000100"),
            ("a movement of kind 14 is unknown", "040100", "0e0100"),
            ("a kind is not below 0", "040100", "ff0100"),
            ("a kind has 8 bits", "040100", "cd01040100"),
            ("a quantity has 63 bits", "040100", "04cf800000000000000000"),
            ("an adjustment has a reason", "040100", "020100"),
            ("an adjustment has a known reason", "040100", "020107"),
            ("a hold is named", "040100", "050100"),
            ("a sale of a hold names it", "040100", "060100"),
            ("a released hold is named", "040100", "070100"),
            ("an expired hold is named", "040100", "080100"),
            ("a transfer names where to", "040100", "090100"),
            ("a transfer names where from", "040100", "0a0100"),
            ("a grant names who got it", "040100", "0b0100"),
            ("an inheritance names of whom", "040100", "0c0100"),
            ("what is brought names whose it was", "040100", "0d0100"),
            ("a hold's place is not a place's", "040100c0c0c0", "050100c0a46f736c6fc0"),
        ],
    );
}

type Counted<'a> = (&'a str, usize, &'a dyn Fn(usize) -> LedgerRecord);

/// Rules D7 and W4: each list of an entry is read up to its limit.
#[test]
fn lists_of_a_ledger_entry_are_read_up_to_their_limits() {
    let request = || LedgerRequest { reference: None, content: None, outcomes: vec![], movements: vec![] };
    let part = |requests| LedgerPart { replica: replica(NORTH), requests };
    let record = |parts| LedgerRecord { time_ms: 0, references_back: 0, parts };
    let entry = |requests| record(vec![part(requests)]);
    let parts = |count| record(vec![part(vec![]); count]);
    let requests = |count| entry(vec![request(); count]);
    let outcomes = |count| entry(vec![LedgerRequest { outcomes: vec![Outcome::Done; count], ..request() }]);
    let sold = movement((MovementKind::Sold, 1));
    let movements = |count| entry(vec![LedgerRequest { movements: vec![sold.clone(); count], ..request() }]);
    let lists: [Counted; 4] = [
        ("parts", 1_024, &parts),
        ("requests", 65_536, &requests),
        ("outcomes", 10_000, &outcomes),
        ("movements", 20_000, &movements),
    ];
    for (name, limit, of) in lists {
        assert_eq!(LedgerRecord::decode(&of(limit).encode().unwrap()).unwrap(), of(limit), "{name}");
        let longer = LedgerRecord::decode(&of(limit + 1).encode().unwrap());
        assert!(matches!(longer, Err(WireError::Malformed(_))), "more than {limit} {name}");
    }
}

// ---- What an answer may say ----

type Change<'a> = (&'a str, &'a dyn Fn(&mut Granted));

/// Rule B5: each of these is the vector `granted` with one rule broken.
#[test]
fn an_answer_that_carries_no_such_grant_is_refused() {
    let (giver, asker) = (replica(NORTH), replica(SMALL));
    let shards = shard_count(256);
    let check = |granted: &Granted| check_granted(granted, &ask(), (giver, asker), shards);
    assert_eq!(check(&granted()), Ok(()));
    let mut inherited = granted();
    let slot = inheritance("berlin", (SOUTH, NORTH), 1, [1, 0, 1, 0], true);
    inherited.products[0].1.absorb(&Product::of_inheritance(slot));
    assert_eq!(check(&inherited), Ok(()), "what was inherited there is shown as well");
    let fewer = Granted { units: 1, ..granted() };
    assert_eq!(check(&fewer), Ok(()), "the slot counts all that was ever given");
    let none = Granted { units: 0, sequence: 0, products: vec![], ..granted() };
    assert_eq!(check(&none), Ok(()));
    assert_eq!(check(&Granted { units: 0, sequence: 0, ..granted() }), Ok(()), "stock may be shown all the same");
    assert_eq!(check(&Granted { units: 0, ..granted() }), Ok(()), "with no units the sequence means nothing");
    let product_of = |stock, grants| vec![(sku("MUG-01"), Product::from_slots(stock, grants, None, None).unwrap())];
    let cases: [Change; 11] = [
        ("the product is the one asked for", &|granted| granted.products[0].0 = sku("MUG-02")),
        ("there is one product", &|granted| granted.products.push((sku("MUG-02"), full_product()))),
        ("there is no price", &|granted| granted.products[0].1 = full_product()),
        ("units that were given are carried", &|granted| granted.products.clear()),
        ("no more is named than was given", &|granted| granted.units = 51),
        ("the write named is the one carried, not a later", &|granted| granted.sequence = 14),
        ("nor an earlier", &|granted| granted.sequence = 12),
        ("stock is of the place asked for", &|granted| {
            granted.products = product_of(vec![stock("oslo", NORTH, 1, [1, 0, 0, 0])], vec![]);
            granted.units = 0;
        }),
        ("an inheritance is of the place asked for", &|granted| {
            let slot = inheritance("oslo", (SMALL, NORTH), 1, [1, 0, 0, 0], true);
            granted.products[0].1.absorb(&Product::of_inheritance(slot));
        }),
        ("the grant is the giver's", &|granted| {
            granted.products = product_of(vec![], vec![grant("berlin", SOUTH, SMALL, 13, 50)]);
        }),
        ("the grant is to the asker", &|granted| {
            granted.products = product_of(vec![], vec![grant("berlin", NORTH, SOUTH, 13, 50)]);
        }),
    ];
    for (rule, change) in cases {
        let mut broken = granted();
        change(&mut broken);
        assert!(matches!(check(&broken), Err(DeltaRefused::NotGranted { .. })), "not refused: {rule}");
    }
    let elsewhere = Granted { shard: ShardIndex(0), ..granted() };
    assert!(matches!(check(&elsewhere), Err(DeltaRefused::ForeignProduct { .. })));
    let relayed = check_granted(&granted(), &ask(), (replica(SOUTH), asker), shards);
    assert!(relayed.is_err(), "the grant is of the replica at the other end of the link");
}

// ---- Holds and references ----

/// Rule O5.
#[test]
fn hold_ids_are_frozen() {
    let lines: Vec<String> = [(1, 0, 1), (SMALL, 35, 70_000), (NORTH, 255, 42), (u64::MAX, 4_095, u64::MAX)]
        .map(|(bits, shard, sequence)| {
            let id = HoldId { replica: replica(bits), shard: ShardIndex(shard), sequence };
            assert_eq!(id.to_string().parse(), Ok(id));
            format!("{bits:016x}, shard {shard}, write {sequence}: {id}")
        })
        .into();
    check_text("hold-id", "hold ids as replica, shard and write, and as text", "O5, I1", &lines);
    let shown = hold_id().to_string();
    assert_eq!(shown, "028t5cy4tqkff-35-70000");
    for wrong in ["", "028t5cy4tqkff-35", "028t5cy4tqkff-35-70000-1", "028t5cy4tqkff-035-70000"] {
        assert!(wrong.parse::<HoldId>().is_err(), "{wrong:?}");
    }
    for (right, wrong) in [("028t", "28t"), ("-35-", "-65536-"), ("-35-", "-+162-"), ("70000", "-1"), ("ff-", "fl-")] {
        let broken = shown.replacen(right, wrong, 1);
        assert!(broken != shown && broken.parse::<HoldId>().is_err(), "{broken:?}");
    }
}

/// A replica that has enough of everything.
struct Plenty(Product);

impl Reader for Plenty {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        Some(Arc::new(KeyedProduct { sku: sku.clone(), product: self.0.clone() }))
    }

    fn sequence(&self, _: ShardIndex, _: ReplicaId) -> u64 {
        100
    }
}

/// The hash of a request's content, as an evaluation gives it.
fn content_hash(operations: Vec<Operation>) -> u128 {
    let plenty = Plenty(Product::of_stock(stock("berlin", NORTH, 1, [1_000, 0, 6, 0])));
    let mut books = Books::default();
    books.put_hold(hold(HoldState::Active, None));
    let own = replica(NORTH);
    let writer = Writer { own, shards: shard_count(256), drift_ms_max: limits::DRIFT_MS_MAX };
    let request = Request { operations, reference: Some(reference("order 4711")), may_backorder: true };
    let now_ms = 1_790_000_000_000;
    let evaluation = writer.evaluate(&request, &plenty, &books, &mut Clock::default(), now_ms).unwrap();
    evaluation.reference.unwrap().1
}

/// The bytes of an operation's content, written here anew from rule O4.
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut bytes = self.number(u64::try_from(text.len()).unwrap());
        bytes.0.extend(text.bytes());
        bytes
    }

    fn mug(code: u64) -> Self {
        Self(vec![]).number(code).text("MUG-01").text("berlin")
    }

    fn listing(code: u64) -> Self {
        Self(vec![]).number(code).text("MUG-01").text("")
    }

    fn held(code: u64) -> Self {
        Self(vec![]).number(code).number(NORTH).number(35).number(70_000)
    }
}

/// Each kind of operation, in the order of the codes, with what differs in a kind.
fn operations() -> Vec<(&'static str, Operation, Bytes)> {
    let (mug, berlin) = (sku("MUG-01"), location("berlin"));
    let units = |units| Quantity::new(units).unwrap();
    let adjust =
        |amount, reason| Operation::Adjust { sku: mug.clone(), location: berlin.clone(), units: amount, reason };
    let sell = |policy| Operation::Sell { sku: mug.clone(), location: berlin.clone(), units: units(3), policy };
    let commit = |units| Operation::CommitHold { id: hold_id(), units };
    let listed = |listed| Operation::SetListed { sku: mug.clone(), listed };
    let mut all = vec![
        (
            "receive",
            Operation::Receive { sku: mug.clone(), location: berlin.clone(), units: units(300) },
            Bytes::mug(1).number(300),
        ),
        ("adjust, in", adjust(7, Reason::Found), Bytes::mug(2).number(0).number(7).text("found")),
    ];
    for reason in REASONS {
        all.push(("adjust, out", adjust(-7, reason), Bytes::mug(2).number(1).number(7).text(reason.label())));
    }
    all.extend([
        (
            "stocktake",
            Operation::Stocktake { sku: mug.clone(), location: berlin.clone(), counted: 0 },
            Bytes::mug(3).number(0),
        ),
        ("sell", sell(OversellPolicy::Refuse), Bytes::mug(4).number(3).number(0)),
        ("sell, backorder", sell(OversellPolicy::Backorder), Bytes::mug(4).number(3).number(1)),
        (
            "hold",
            Operation::Hold { sku: mug.clone(), location: berlin.clone(), units: units(6), ttl_ms: 900_000 },
            Bytes::mug(5).number(6).number(900_000),
        ),
        ("commit, all", commit(None), Bytes::held(6).number(0)),
        ("commit, some", commit(Some(units(4))), Bytes::held(6).number(4)),
        ("release", Operation::ReleaseHold { id: hold_id() }, Bytes::held(7)),
        ("expire", Operation::ExpireHold { id: hold_id() }, Bytes::held(8)),
        (
            "transfer",
            Operation::Transfer { sku: mug.clone(), from: berlin.clone(), to: location("zürich"), units: units(128) },
            Bytes::mug(9).text("zürich").number(128),
        ),
        (
            "grant",
            Operation::Grant { sku: mug.clone(), location: berlin.clone(), to: replica(SMALL), units: u64::MAX },
            Bytes::mug(10).number(SMALL).number(u64::MAX),
        ),
        (
            "price",
            Operation::SetPrice { sku: mug.clone(), price: price(1299, 2, Currency::EUR) },
            Bytes::listing(11).number(1299).number(2).text("EUR"),
        ),
        ("list", listed(true), Bytes::listing(12).number(1)),
        ("delist", listed(false), Bytes::listing(12).number(0)),
        (
            "inherit",
            Operation::Inherit { sku: mug.clone(), location: berlin.clone(), from: replica(SMALL) },
            Bytes::mug(13).number(SMALL),
        ),
        (
            "reapply",
            Operation::Reapply { sku: mug.clone(), location: berlin.clone(), from: replica(SMALL) },
            Bytes::mug(14).number(SMALL),
        ),
    ]);
    all
}

/// Rule O4: the hash of a content is stored, so it must never change.
#[test]
fn hashes_of_contents_are_frozen() {
    let mut lines = Vec::new();
    let mut two = Vec::new();
    let mut joined = Vec::new();
    for (name, operation, Bytes(bytes)) in operations() {
        let hash = content_hash(vec![operation.clone()]);
        assert_eq!(hash, xxh3_128(&bytes), "{name}");
        lines.push(format!("{name} {}: {hash:032x}", hex(&bytes)));
        if two.len() < 2 {
            two.push(operation);
            joined.extend(bytes);
        }
    }
    let both = content_hash(two.clone());
    assert_eq!(both, xxh3_128(&joined), "one after the other");
    two.reverse();
    lines.push(format!("receive, then adjust, in: {both:032x}"));
    lines.push(format!("adjust, in, then receive: {:032x}", content_hash(two)));
    lines.push(format!("nothing: {:032x}", content_hash(vec![])));
    let what = "the bytes of each operation's content, and the hash of a request of it alone; then of other requests";
    check_text("content-hashes", what, "O4", &lines);
}
