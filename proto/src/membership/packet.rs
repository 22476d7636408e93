//! Datagrams of membership (rule N3).

use std::sync::Arc;

use foca::{Header, Member, Message, State};

use super::node::Node;
use crate::id::ReplicaId;
use crate::limits::MEMBERSHIP_DATAGRAM_BYTES_MAX;
use crate::member::{Generation, MalformedMember, MemberRecord, Reader, Standing, put_number};

const KIND_SWIM: u8 = 0;
const KIND_WORD: u8 = 1;
const KIND_ASK: u8 = 2;

const NO_BELIEF: u8 = 0xff;

/// A datagram that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Packet {
    Swim {
        header: Header<Node>,
        updates: Vec<Member<Node>>,
    },
    /// What a member says of itself.
    Word {
        record: Arc<MemberRecord>,
        incarnation: u16,
    },
    /// The same, and asks the other for its word, having believed this of it.
    Ask {
        record: Arc<MemberRecord>,
        incarnation: u16,
        belief: Option<Belief>,
    },
}

/// What a member believes of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) generation: Generation,
    pub(super) incarnation: u16,
    pub(super) standing: Standing,
}

impl Packet {
    /// Who it says that it is from.
    pub(super) fn source(&self) -> ReplicaId {
        match self {
            Self::Swim { header, .. } => header.src.replica,
            Self::Word { record, .. } | Self::Ask { record, .. } => record.replica,
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MalformedMember> {
        if bytes.len() > MEMBERSHIP_DATAGRAM_BYTES_MAX {
            return Err(MalformedMember::new("a datagram is too long"));
        }
        let mut reader = Reader(bytes);
        if bytes.first() == Some(&KIND_SWIM) {
            return Self::take_swim(&mut reader);
        }
        let packet = match reader.byte()? {
            KIND_WORD => {
                let (record, incarnation) = take_word(&mut reader)?;
                Self::Word { record, incarnation }
            }
            KIND_ASK => {
                let (record, incarnation) = take_word(&mut reader)?;
                Self::Ask { record, incarnation, belief: take_belief(&mut reader)? }
            }
            _ => return Err(MalformedMember::new("a datagram is of no kind that is known")),
        };
        if reader.is_empty() { Ok(packet) } else { Err(MalformedMember::new("bytes follow a datagram's content")) }
    }

    fn take_swim(reader: &mut Reader<'_>) -> Result<Self, MalformedMember> {
        let header = take_header(reader)?;
        let mut updates = Vec::new();
        if !reader.is_empty() {
            for _ in 0..u16::from_be_bytes(reader.array()?) {
                updates.push(take_update(reader)?);
            }
        }
        if !reader.is_empty() {
            return Err(MalformedMember::new("bytes follow a datagram's content"));
        }
        Ok(Self::Swim { header, updates })
    }
}

/// A datagram of SWIM with these updates.
pub(super) fn swim(header: &Header<Node>, updates: &[Member<Node>]) -> Result<Vec<u8>, MalformedMember> {
    let mut bytes = Vec::with_capacity(256);
    put_header(header, &mut bytes);
    if !updates.is_empty() {
        bytes.extend_from_slice(&u16::try_from(updates.len()).unwrap_or(u16::MAX).to_be_bytes());
        for update in updates {
            put_update(update, &mut bytes)?;
        }
    }
    Ok(bytes)
}

/// Whether a datagram only passes news on, and so is as good for any other receiver.
pub(super) fn is_gossip(bytes: &[u8]) -> bool {
    take_header(&mut Reader(bytes)).is_ok_and(|header| header.message == Message::Gossip)
}

/// The same gossip for another receiver, if it still fits a datagram.
pub(super) fn readdressed(bytes: &[u8], receiver: Node) -> Option<Vec<u8>> {
    let mut reader = Reader(bytes);
    let header = Header { dst: receiver, ..take_header(&mut reader).ok()? };
    let mut readdressed = Vec::with_capacity(MEMBERSHIP_DATAGRAM_BYTES_MAX);
    put_header(&header, &mut readdressed);
    readdressed.extend_from_slice(reader.0);
    (readdressed.len() <= MEMBERSHIP_DATAGRAM_BYTES_MAX).then_some(readdressed)
}

/// A datagram that says what this member is.
pub(super) fn word(record: &MemberRecord, incarnation: u16) -> Vec<u8> {
    let mut bytes = vec![KIND_WORD];
    put_word(record, incarnation, &mut bytes);
    bytes
}

/// A datagram that says what this member is, and asks the receiver the same, telling it what was believed of it.
pub(super) fn ask(record: &MemberRecord, incarnation: u16, belief: Option<Belief>) -> Vec<u8> {
    let mut bytes = vec![KIND_ASK];
    put_word(record, incarnation, &mut bytes);
    match belief {
        None => bytes.push(NO_BELIEF),
        Some(belief) => {
            bytes.push(belief.standing.byte());
            put_number(belief.generation.get(), &mut bytes);
            put_number(u64::from(belief.incarnation), &mut bytes);
        }
    }
    bytes
}

fn put_word(record: &MemberRecord, incarnation: u16, bytes: &mut Vec<u8>) {
    record.put(bytes);
    put_number(u64::from(incarnation), bytes);
}

fn take_word(reader: &mut Reader<'_>) -> Result<(Arc<MemberRecord>, u16), MalformedMember> {
    Ok((Arc::new(MemberRecord::take(reader)?), reader.small()?))
}

fn take_belief(reader: &mut Reader<'_>) -> Result<Option<Belief>, MalformedMember> {
    match reader.byte()? {
        NO_BELIEF => Ok(None),
        byte => {
            let standing = Standing::of_byte(byte, false)?;
            Ok(Some(Belief { generation: reader.generation()?, incarnation: reader.small()?, standing }))
        }
    }
}

fn put_name(node: &Node, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&node.replica.bits().to_be_bytes());
    put_number(node.generation.get(), bytes);
}

fn take_name(reader: &mut Reader<'_>) -> Result<Node, MalformedMember> {
    Ok(Node { replica: reader.replica()?, generation: reader.generation()?, record: None })
}

pub(super) fn put_header(header: &Header<Node>, bytes: &mut Vec<u8>) {
    bytes.push(KIND_SWIM);
    put_name(&header.src, bytes);
    put_number(u64::from(header.src_incarnation), bytes);
    put_name(&header.dst, bytes);
    let (kind, probe, third) = match &header.message {
        Message::Ping(probe) => (0, Some(probe), None),
        Message::Ack(probe) => (1, Some(probe), None),
        Message::PingReq { target, probe_number } => (2, Some(probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (3, Some(probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (4, Some(probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    bytes.push(kind);
    bytes.extend(probe);
    if let Some(third) = third {
        put_name(third, bytes);
    }
}

/// The header with the kind of the datagram before it.
pub(super) fn take_header(reader: &mut Reader<'_>) -> Result<Header<Node>, MalformedMember> {
    if reader.byte()? != KIND_SWIM {
        return Err(MalformedMember::new("a datagram is not of SWIM"));
    }
    let (src, src_incarnation, dst) = (take_name(reader)?, reader.small()?, take_name(reader)?);
    Ok(Header { src, src_incarnation, dst, message: take_message(reader)? })
}

/// The incarnation that a datagram of SWIM names for its source.
pub(super) fn source_incarnation(bytes: &[u8]) -> Option<u16> {
    let mut reader = Reader(bytes);
    let kind = reader.byte().ok()?;
    take_name(&mut reader).ok()?;
    reader.small().ok().filter(|_| kind == KIND_SWIM)
}

fn take_message(reader: &mut Reader<'_>) -> Result<Message<Node>, MalformedMember> {
    let kind = reader.byte()?;
    Ok(match kind {
        0 => Message::Ping(reader.byte()?),
        1 => Message::Ack(reader.byte()?),
        2..=5 => {
            let (probe_number, third) = (reader.byte()?, take_name(reader)?);
            match kind {
                2 => Message::PingReq { target: third, probe_number },
                3 => Message::IndirectPing { origin: third, probe_number },
                4 => Message::IndirectAck { target: third, probe_number },
                _ => Message::ForwardedAck { origin: third, probe_number },
            }
        }
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        10 => Message::TurnUndead,
        _ => return Err(MalformedMember::new("a datagram holds no message that is known")),
    })
}

/// Appends what is told of a member. Nothing can be told of one whose record is not known.
pub(super) fn put_update(member: &Member<Node>, bytes: &mut Vec<u8>) -> Result<(), MalformedMember> {
    let record = member.id().record.as_ref().ok_or_else(|| MalformedMember::new("a member has no record"))?;
    record.put(bytes);
    put_number(u64::from(member.incarnation()), bytes);
    bytes.push(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
    Ok(())
}

pub(super) fn take_update(reader: &mut Reader<'_>) -> Result<Member<Node>, MalformedMember> {
    let (record, incarnation) = take_word(reader)?;
    let state = match reader.byte()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(MalformedMember::new("a member stands in no way that is known")),
    };
    Ok(Member::new(Node::new(record), incarnation, state))
}
