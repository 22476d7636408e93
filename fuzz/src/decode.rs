//! Any bytes, read as every kind of frame and record: never a panic, and what can be read is written again and reads
//! as the same.

mod texts;

use std::net::SocketAddr;
use std::time::Duration;

use stockmesh_proto::check::{check_granted, shows_own_future};
use stockmesh_proto::hold::Hold;
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::wire::client::{Answer, Request};
use stockmesh_proto::wire::{
    Ask, BatchRecord, FrameKind, LedgerRecord, Message, SnapshotRecord, frame_length, split_kind,
};
use stockmesh_proto::{Location, ReplicaId, Shard, ShardCount, Sku};

/// The first byte of a datagram of SWIM (rule N3).
const KIND_SWIM: u8 = 0;
/// Logs show messages; long ones would only slow the fuzzer down.
const SHOWN_BYTES_MAX: usize = 256;

/// Reads bytes as everything that they could be.
pub fn run(data: &[u8]) {
    read_frame(data);
    read_prefix(data);
    read_datagram(data);
    texts::read(data);
    if let Some((_, body)) = data.split_first() {
        // The same body as every other kind, so that one input serves all of them.
        for kind in FrameKind::ALL {
            read_frame(&[&[kind.byte()], body].concat());
        }
        for kind in Request::KINDS.iter().chain(Answer::KINDS) {
            read_client_frame(&[&[kind.byte], body].concat());
        }
    }
    if let Ok(batch) = BatchRecord::decode(data) {
        assert_eq!(BatchRecord::decode(&batch.encode().unwrap()).unwrap(), batch);
    }
    if let Ok(snapshot) = SnapshotRecord::decode(data) {
        assert_eq!(SnapshotRecord::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
    }
    if let Ok(record) = LedgerRecord::decode(data) {
        assert_eq!(LedgerRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }
    if let Ok(hold) = Hold::decode(data) {
        assert_eq!(Hold::decode(&hold.encode().unwrap()).unwrap(), hold);
    }
}

/// A client's frame. Fields that are missing are written, so what was read may be too long to be written.
fn read_client_frame(frame: &[u8]) {
    if let Ok(request) = Request::decode(frame)
        && let Ok(again) = request.encode()
    {
        assert_eq!(Request::decode(&again[4..]).unwrap(), request);
        // Section 19 numbers them so.
        assert_eq!(request.is_write(), (0x10..=0x15).contains(&frame[0]));
    }
    if let Ok(answer) = Answer::decode(frame)
        && let Ok(again) = answer.encode()
    {
        assert_eq!(Answer::decode(&again[4..]).unwrap(), answer);
    }
}

/// A node that knows nobody.
pub(crate) fn member(replica: ReplicaId) -> Membership {
    let record = MemberRecord {
        replica,
        generation: Generation::FIRST,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        location: Location::new("here").unwrap(),
        labels: Labels::default(),
        software: Software::new("fuzzed").unwrap(),
        read_only: false,
        left: false,
    };
    let mut member = Membership::new(record, Timing::Lan, 1, Duration::ZERO);
    member.reserved(Generation::FIRST, Duration::ZERO);
    member
}

/// Rule N3: bytes of a member that is linked are refused, or leave a list that can be told. They are read as they are, and
/// as what follows the names of a datagram of SWIM from somebody who is known.
fn read_datagram(data: &[u8]) {
    let (own, peer) = (ReplicaId::from_random(1), ReplicaId::from_random(2));
    let mut node = member(own);
    node.linked(peer, Duration::ZERO);
    for effect in member(peer).linked(own, Duration::ZERO) {
        if let Effect::Send { bytes, .. } = effect {
            node.datagram(peer, &bytes, Duration::ZERO).unwrap();
        }
    }
    let _ = node.datagram(peer, data, Duration::ZERO);
    let generation = [1];
    let name = |replica: ReplicaId| [&replica.bits().to_be_bytes()[..], &generation].concat();
    let incarnation = [0];
    let swim = [&[KIND_SWIM], &name(peer)[..], &incarnation, &name(own), data].concat();
    let _ = node.datagram(peer, &swim, Duration::ZERO);
    node.advance(Duration::from_secs(1));
    for listed in node.list() {
        assert_eq!(ListedMember::decode(&listed.encode()).unwrap(), listed);
    }
    if let Ok(listed) = ListedMember::decode(data) {
        assert_eq!(listed.encode(), data, "one form only");
    }
}

/// What a receiver looks at before it takes slots in.
fn check_message(message: &Message) {
    let (own, giver) = (ReplicaId::from_random(1), ReplicaId::from_random(2));
    match message {
        Message::Granted(granted) => {
            let (sku, location) = match granted.products.first() {
                Some((sku, product)) => (sku.clone(), product.locations().first().copied().cloned()),
                None => (Sku::new("A").unwrap(), None),
            };
            let location = location.unwrap_or_else(|| Location::new("x").unwrap());
            let ask = Ask { sku, location, needed: 1, rights: 0, per_hour: 0 };
            let checked = check_granted(granted, &ask, (giver, own), ShardCount::new(4).unwrap());
            assert!(checked.is_err() || granted.units == 0 || granted.sequence > 0);
        }
        Message::Part(part) => {
            let empty = Shard::new(0);
            let claims = part.version.as_ref().is_some_and(|version| version.get(own) > 0);
            let shows = shows_own_future(&empty, own, &part.products, part.version.as_ref());
            assert!(shows || !claims, "who wrote nothing is shown a write");
        }
        _ => {}
    }
}

/// The length before a frame.
fn read_prefix(data: &[u8]) {
    let Some(prefix) = data.first_chunk::<4>() else { return };
    if let Ok(bytes) = frame_length(*prefix, FRAME_BYTES_MAX) {
        assert!((1..=FRAME_BYTES_MAX).contains(&bytes));
        assert_eq!(prefix, &u32::try_from(bytes).unwrap().to_be_bytes());
    }
}

fn read_frame(frame: &[u8]) {
    let Ok(message) = Message::decode(frame) else { return };
    let (kind, _) = split_kind(frame).unwrap();
    assert_eq!(kind, message.kind());
    if frame.len() <= SHOWN_BYTES_MAX {
        assert!(!format!("{message:?}").is_empty());
    }
    check_message(&message);
    let again = match message.encode() {
        Ok(again) => again,
        // A hello may arrive as an array, which is shorter than the map that is written.
        Err(_) if kind == FrameKind::Hello || kind == FrameKind::Refuse => return,
        // Numbers may arrive in a longer form than is written, names may arrive more than once, but never the reverse.
        Err(error) => panic!("what was read cannot be written: {error}"),
    };
    let prefix = <[u8; 4]>::try_from(&again[..4]).unwrap();
    assert_eq!(frame_length(prefix, usize::MAX).unwrap(), again.len() - 4);
    assert_eq!(Message::decode(&again[4..]).unwrap(), message);
}
