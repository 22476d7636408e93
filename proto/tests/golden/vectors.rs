//! Which vectors there are, and what each freezes.

use stockmesh_proto::ShardIndex;
use stockmesh_proto::hold::{Hold, HoldState};
use stockmesh_proto::wire::{
    BatchRecord, Granted, Hello, LedgerRecord, Message, Part, Refusal, RefusalCode, SnapshotRecord, Told, WireError,
};

use stockmesh_proto::wire::client::{Answer, Request};

use crate::clients::client_vectors;
use crate::values::{
    NORTH, SMALL, ask, batch, fence, fence_of_two, fenced, granted, hello, hold, ledger, ledger_inherited,
    ledger_plain, members, missing, mixed_products, named_products, open, part_inheritances, part_middle, pull, push,
    reference, retire, retired, snapshot, stamp, standing, summary, take, taken, version,
};

pub(crate) enum Value {
    Message(Message),
    Batch(BatchRecord),
    Snapshot(SnapshotRecord),
    Hold(Hold),
    Ledger(LedgerRecord),
    Request(Request),
    Answer(Answer),
}

impl Value {
    /// A message, request or answer as a frame with its length before it, a record as it is.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => message.encode().unwrap(),
            Self::Batch(record) => record.encode().unwrap(),
            Self::Snapshot(record) => record.encode().unwrap(),
            Self::Hold(record) => record.encode().unwrap(),
            Self::Ledger(record) => record.encode().unwrap(),
            Self::Request(request) => request.encode().unwrap(),
            Self::Answer(answer) => answer.encode().unwrap(),
        }
    }

    /// The bytes that `decode` takes: a frame without its length, or a record.
    pub(crate) fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Message(_) | Self::Request(_) | Self::Answer(_) => &bytes[4..],
            _ => bytes,
        }
    }

    /// Whether the content reads as this very value.
    pub(crate) fn is(&self, content: &[u8]) -> Result<bool, WireError> {
        Ok(match self {
            Self::Message(message) => Message::decode(content)? == *message,
            Self::Batch(record) => BatchRecord::decode(content)? == *record,
            Self::Snapshot(record) => SnapshotRecord::decode(content)? == *record,
            Self::Hold(record) => Hold::decode(content)? == *record,
            Self::Ledger(record) => LedgerRecord::decode(content)? == *record,
            Self::Request(request) => Request::decode(content)? == *request,
            Self::Answer(answer) => Answer::decode(content)? == *answer,
        })
    }
}

pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) rules: &'static str,
    pub(crate) value: Value,
}

pub(crate) fn messages() -> Vec<(&'static str, &'static str, &'static str, Message)> {
    [messages_about_state(), messages_about_nodes()].concat()
}

fn messages_about_state() -> Vec<(&'static str, &'static str, &'static str, Message)> {
    let part = |version, products, full, last| Part { shard: ShardIndex(5), version, products, full, last };
    vec![
        ("hello", "a hello, with named fields", "H1, W1, W2, W5", Message::Hello(hello())),
        (
            "hello-read-only",
            "the hello of a read-only member: one field more",
            "K2, W5",
            Message::Hello(Hello { read_only: true, ..hello() }),
        ),
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
            "part-inheritances",
            "products with inheritances, whose names come last in each product",
            "E1, 6.2",
            Message::Part(part_inheritances()),
        ),
        (
            "part-full-empty",
            "a full exchange of a shard that holds nothing",
            "R7",
            Message::Part(part(Some(version(&[])), vec![], true, true)),
        ),
        ("done", "the receipt, with 3 shards refused", "R5, R8", Message::Done(3)),
        ("pull", "the opening of a pull of three shards", "J2", pull()),
        ("survey", "asks how the peer stands", "J1", Message::Survey),
        ("standing", "the answer to survey: a replica of two shards that catches up itself", "J1", standing()),
        ("push", "a batch that touched two shards, told to two replicas", "P1, P4", Message::Push(push())),
        ("ask", "a question for rights to sell", "B4", Message::Ask(ask())),
        (
            "granted",
            "the answer to ask: rights that were given, and the product there",
            "B5",
            Message::Granted(granted()),
        ),
        (
            "granted-none",
            "the answer of a replica that gives nothing and knows nothing of the product",
            "B4, B5",
            Message::Granted(Granted { units: 0, sequence: 0, products: vec![], ..granted() }),
        ),
    ]
}

/// Messages about everything but the state.
fn messages_about_nodes() -> Vec<(&'static str, &'static str, &'static str, Message)> {
    vec![
        ("tell", "a message of the application", "A1", Message::Tell(b"order 7 is ready".to_vec())),
        ("told-received", "it was handed to the application", "A2", Message::Told(Told::Received)),
        ("told-nobody-listens", "nobody listens", "A2", Message::Told(Told::NobodyListens)),
        ("told-too-many", "the sender has sent too much", "A2", Message::Told(Told::TooMany)),
        ("ping", "asks for an answer", "A3", Message::Ping),
        ("fence", "the heir asks a member to fence a replica", "Q1", Message::Fence(fence())),
        ("fence-gave-way", "the same in earnest, after another heir gave way", "Q1", Message::Fence(fence_of_two())),
        ("fenced", "the member fenced it for that heir", "Q1", Message::Fenced(fenced(false))),
        ("fenced-alive", "the replica is alive", "Q1", Message::Fenced(fenced(true))),
        ("take", "a node that leaves hands a hold over", "Q8", Message::Take(take())),
        ("taken", "the peer holds as many units under an id of its own", "Q8", Message::Taken(taken())),
        ("retire", "asks the heir to retire a replica without one of the members", "Q5", Message::Retire(retire())),
        ("retired", "the heir did", "Q5", Message::Retired(retired(None))),
        (
            "retired-not",
            "the heir did not, since a member is missing",
            "Q5",
            Message::Retired(retired(Some(missing()))),
        ),
        (
            "hello-observed",
            "a hello that tells the peer its address",
            "H1, N10, W5",
            Message::Hello(Hello { observed: Some("[fd00::7]:9000".parse().unwrap()), ..hello() }),
        ),
        ("members", "two members: one is alive, one left an hour ago", "N3, N7", members()),
    ]
}

pub(crate) fn vectors() -> Vec<Vector> {
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
        ("revoked", RefusalCode::Revoked),
        ("retired", RefusalCode::Retired),
        ("read-only", RefusalCode::ReadOnly),
        ("other-node", RefusalCode::OtherNode),
        ("too-much", RefusalCode::TooMuch),
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
    let at_ms = 1_790_000_600_000;
    for (name, state, named) in [
        ("active", HoldState::Active, None),
        ("committed", HoldState::Committed { units: 4, at_ms }, Some(reference("order 4711"))),
        ("released", HoldState::Released { at_ms }, None),
        ("expired", HoldState::Expired { at_ms: 1_790_000_900_000 }, Some(reference("order 4711"))),
    ] {
        let what = if named.is_some() { "given under a reference" } else { "given without a reference" };
        record(
            &format!("hold-{name}"),
            &format!("a hold that is {name}, {what}"),
            "O5, O6, D6",
            Value::Hold(hold(state, named)),
        );
    }
    let what = "an entry of the ledger: every kind of movement, every reason, every outcome, two replica ids";
    record("ledger", what, "D7", Value::Ledger(ledger()));
    let what = "an entry of the ledger of an heir, and of a replica that came back after it was retired";
    record("ledger-inherited", what, "D7, E4, E5", Value::Ledger(ledger_inherited()));
    let what = "the first entry of a ledger: one sale, and no reference is remembered";
    record("ledger-plain", what, "D7", Value::Ledger(ledger_plain()));
    vectors.extend(client_vectors());
    vectors
}
