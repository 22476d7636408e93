//! The messages that peers exchange.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::frame::{FrameKind, WireError, decode_body, encode_frame, split_kind};
use super::members::MemberList;
use super::push::Push;
use super::{bounded, delta};
use crate::delta::Products;
use crate::fingerprint::Fingerprint;
use crate::id::{ClusterId, Location, ReplicaId, ShardIndex, Sku};
use crate::limits::{FINGERPRINT_GROUP_SHARDS, MESSAGE_BYTES_MAX, REPLICAS_MAX, SHARDS_MAX, SUMMARIES_PER_FRAME_MAX};
use crate::version::VersionVector;

/// Who a node is: the first frame of a link, both ways (rule H1). A map with named fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// Its replica id.
    pub replica: ReplicaId,
    /// Its home location.
    pub location: Location,
    /// Number of shards of its cluster.
    pub shards: u32,
    /// Its wall clock, in milliseconds since 1970.
    pub clock_ms: u64,
    /// Features that a peer must know to talk with it: a peer that lacks one refuses.
    pub features_required: u64,
    /// Features that it knows besides.
    pub features_known: u64,
    /// Name and version of its software, for people.
    pub software: String,
    /// The address at which it sees the peer: by it a node learns where others can reach it (rule N10).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "address_text")]
    pub observed: Option<SocketAddr>,
}

/// An address as text, as `10.0.0.7:9000` or `[fd00::7]:9000`.
mod address_text {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(|_| D::Error::custom("an observed address is no address"))).transpose()
    }
}

/// Why a link was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusalCode {
    /// Another cluster id.
    OtherCluster,
    /// Another number of shards.
    OtherShardCount,
    /// The same replica id: one directory, opened twice or copied.
    SameReplica,
    /// The clocks differ by more than the drift bound.
    ClockSkew,
    /// A required feature is unknown.
    UnknownFeature,
    /// The node takes no links now.
    Offline,
    /// Another link to the same node is kept.
    Duplicate,
    /// The certificate is on the list of revoked ones.
    Revoked,
    /// A code of a later version; the text says what it means.
    #[serde(other)]
    Other,
}

/// A refusal, told to the peer (rule H2). A map with named fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// The same for the operator, with both values and what to do.
    pub reason: String,
}

/// Opens a reconciliation (rule R1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The fingerprint of the whole state.
    pub root: Fingerprint,
    /// The sums of the groups of shards.
    #[serde(deserialize_with = "bounded::list::<_, _, GROUPS_MAX>")]
    pub groups: Vec<Fingerprint>,
}

const GROUPS_MAX: usize = (SHARDS_MAX / FINGERPRINT_GROUP_SHARDS) as usize;

/// Fingerprint and version vector of one shard, read under one lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The shard.
    pub shard: ShardIndex,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its version vector.
    pub version: VersionVector,
}

/// A chunk of one shard's delta (rules R3 to R5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The shard.
    pub shard: ShardIndex,
    /// The sender's version vector, as it was when the shard's first chunk was read. Sent with the first chunk only.
    pub version: Option<VersionVector>,
    /// The slots that the receiver lacks, or with `full` all slots.
    #[serde(with = "delta")]
    pub products: Products,
    /// The sender sends its whole shard and wants the receiver's: their vectors were equal, their fingerprints not.
    pub full: bool,
    /// Whether this is the shard's last chunk.
    pub last: bool,
}

impl Part {
    /// Whether it goes on behind the SKU that the chunk before it reached (rule R3). Only a last chunk may be empty.
    pub fn follows(&self, reached: Option<&Sku>) -> bool {
        self.products.first().map_or(self.last, |(sku, _)| reached.is_none_or(|reached| reached < sku))
    }
}

/// Asks a peer for rights to sell, for the asker itself (rule B4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// Units that the asker lacks for what waits now; 0 if it asks ahead of its demand.
    pub needed: u64,
    /// Rights that it has.
    pub rights: u64,
    /// Units per hour that it sells.
    pub per_hour: u64,
}

/// The answer: rights that were given, durably, and what the giver knows of the product there (rule B5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Units given; 0 if none were.
    pub units: u64,
    /// The sequence number of the write by which they were given.
    pub sequence: u64,
    /// The shard of the product.
    pub shard: ShardIndex,
    /// Stock and grants of the product at the location, as the giver knows them; nothing if it knows none.
    #[serde(with = "delta")]
    pub products: Products,
}

/// What became of a message of the application (rule A2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// It was handed to the application; or, to a ping, the peer is there.
    Received,
    /// Nobody listens at the peer.
    NobodyListens,
    /// The peer was sent too much within a second.
    TooMany,
    /// An answer of a later version.
    Other(u8),
}

impl Told {
    fn code(self) -> u8 {
        match self {
            Self::Received => 0,
            Self::NobodyListens => 1,
            Self::TooMany => 2,
            Self::Other(code) => code,
        }
    }

    fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Received,
            1 => Self::NobodyListens,
            2 => Self::TooMany,
            code => Self::Other(code),
        }
    }
}

/// Bytes as MessagePack has them, not as a list of numbers.
struct Bytes<T>(T);

impl Serialize for Bytes<&[u8]> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<Vec<u8>> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl serde::de::Visitor<'_> for BytesVisitor {
            type Value = Vec<u8>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > MESSAGE_BYTES_MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(BytesVisitor).map(Self)
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The first frame of a link.
    Hello(Hello),
    /// Why a link is not wanted.
    Refuse(Refusal),
    /// Opens a reconciliation.
    Open(Open),
    /// Fingerprints and version vectors of shards.
    Summary(Vec<Summary>),
    /// The end of one side's turn.
    End,
    /// Both roots are the same.
    Equal,
    /// A chunk of one shard's delta.
    Part(Part),
    /// All that arrived is durable. Carries the number of shards that were refused.
    Done(u32),
    /// A committed batch.
    Push(Push),
    /// Asks for rights.
    Ask(Ask),
    /// Answers that.
    Granted(Granted),
    /// A message of the application (rule A1).
    Tell(Vec<u8>),
    /// What became of it, or that the peer is there.
    Told(Told),
    /// Asks whether the peer is there (rule A3).
    Ping,
    /// Members of the cluster, or a question for them (rule N7).
    Members(MemberList),
}

#[derive(Serialize, Deserialize)]
struct SummaryList(#[serde(deserialize_with = "bounded::list::<_, _, SUMMARIES_PER_FRAME_MAX>")] Vec<Summary>);

impl Message {
    /// Writes the message as a frame, its length before it.
    ///
    /// # Errors
    /// If it exceeds a limit.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Hello(hello) => encode_frame(FrameKind::Hello, hello),
            Self::Refuse(refusal) => encode_frame(FrameKind::Refuse, refusal),
            Self::Open(open) => encode_frame(FrameKind::Open, open),
            Self::Summary(summaries) => encode_frame(FrameKind::Summary, &summaries),
            Self::End => encode_frame(FrameKind::End, &()),
            Self::Equal => encode_frame(FrameKind::Equal, &()),
            Self::Part(part) => encode_frame(FrameKind::Part, part),
            Self::Done(refused) => encode_frame(FrameKind::Done, refused),
            Self::Push(push) => encode_frame(FrameKind::Push, push),
            Self::Ask(ask) => encode_frame(FrameKind::Ask, ask),
            Self::Granted(granted) => encode_frame(FrameKind::Granted, granted),
            Self::Tell(bytes) => encode_frame(FrameKind::Tell, &Bytes(bytes.as_slice())),
            Self::Told(told) => encode_frame(FrameKind::Told, &told.code()),
            Self::Ping => encode_frame(FrameKind::Ping, &()),
            Self::Members(list) => encode_frame(FrameKind::Members, list),
        }
    }

    /// Reads a frame (without its length).
    ///
    /// # Errors
    /// If the bytes break a rule of the wire format.
    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let (kind, body) = split_kind(frame)?;
        Ok(match kind {
            FrameKind::Hello => Self::Hello(decode_body(body)?),
            FrameKind::Refuse => Self::Refuse(decode_body(body)?),
            FrameKind::Open => Self::Open(decode_body(body)?),
            FrameKind::Summary => Self::Summary(decode_body::<SummaryList>(body)?.0),
            FrameKind::End => {
                decode_body::<()>(body)?;
                Self::End
            }
            FrameKind::Equal => {
                decode_body::<()>(body)?;
                Self::Equal
            }
            FrameKind::Part => Self::Part(decode_body(body)?),
            FrameKind::Done => Self::Done(decode_body(body)?),
            FrameKind::Push => Self::Push(decode_body(body)?),
            FrameKind::Ask => Self::Ask(decode_body(body)?),
            FrameKind::Granted => Self::Granted(decode_body(body)?),
            FrameKind::Tell => Self::Tell(decode_body::<Bytes<Vec<u8>>>(body)?.0),
            FrameKind::Told => Self::Told(Told::of_code(decode_body(body)?)),
            FrameKind::Ping => {
                decode_body::<()>(body)?;
                Self::Ping
            }
            FrameKind::Members => Self::Members(decode_body(body)?),
        })
    }

    /// The kind of the frame that holds it.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Refuse(_) => FrameKind::Refuse,
            Self::Open(_) => FrameKind::Open,
            Self::Summary(_) => FrameKind::Summary,
            Self::End => FrameKind::End,
            Self::Equal => FrameKind::Equal,
            Self::Part(_) => FrameKind::Part,
            Self::Done(_) => FrameKind::Done,
            Self::Push(_) => FrameKind::Push,
            Self::Ask(_) => FrameKind::Ask,
            Self::Granted(_) => FrameKind::Granted,
            Self::Tell(_) => FrameKind::Tell,
            Self::Told(_) => FrameKind::Told,
            Self::Ping => FrameKind::Ping,
            Self::Members(_) => FrameKind::Members,
        }
    }
}

/// On the wire: pairs of (replica, sequence) in the order of replicas.
impl Serialize for VersionVector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let entries: Vec<(ReplicaId, u64)> = bounded::list::<D, _, REPLICAS_MAX>(deserializer)?;
        if !entries.is_sorted_by(|left, right| left.0 < right.0) || entries.iter().any(|entry| entry.1 == 0) {
            return Err(D::Error::custom("a version vector is not in strict order, or names a zero"));
        }
        Ok(entries.into_iter().collect())
    }
}
