//! How a node stands, and whom it knows (rule X3).

use serde::{Deserialize, Serialize};

use super::super::bounded;
use super::text::{Shown, Text};
use crate::id::{ClusterId, Location, ReplicaId};
use crate::limits::{CLIENT_NOTES_MAX, CLIENT_PAGE_MAX, CLIENT_PEERS_MAX, SHARDS_MAX};

const DOUBTS_MAX: usize = SHARDS_MAX as usize;

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemberStanding {
    /// It answers.
    Alive,
    /// It did not answer, and has some time to show that it lives.
    Suspect,
    /// It does not answer any more.
    Down,
    /// It said that it leaves for good.
    Left,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// What the builder of a member says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its name.
    pub name: Text,
    /// Its value.
    pub value: Text,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its replica id.
    pub replica: Shown<ReplicaId>,
    /// Where it accepts links.
    pub address: Text,
    /// Its home location.
    pub location: Location,
    /// What its builder says of it.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_NOTES_MAX>")]
    pub labels: Vec<Label>,
    /// Name and version of its software.
    #[serde(default)]
    pub version: Text,
    /// Whether it only reads.
    #[serde(default)]
    pub read_only: bool,
    /// How it stands.
    pub state: MemberStanding,
}

/// Some members. The last page says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// The members.
    #[serde(deserialize_with = "bounded::list::<_, _, CLIENT_PAGE_MAX>")]
    pub members: Vec<MemberInfo>,
    /// Whether it is the last page.
    pub last: bool,
}

/// How many members stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounts {
    /// Those that answer.
    pub alive: u64,
    /// Those that did not, and have some time.
    pub suspect: u64,
    /// Those that do not any more.
    pub down: u64,
    /// Those that left for good.
    pub left: u64,
}

/// Whether writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DurabilityState {
    /// Every acknowledged write is synced to disk.
    Synced,
    /// The disk failed: writes are refused.
    Poisoned,
    /// The store is closed.
    Closed,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// Whether writes become durable, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurabilityInfo {
    /// Whether they do.
    pub state: DurabilityState,
    /// What failed first.
    #[serde(default)]
    pub cause: Option<Text>,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PeerState {
    /// Being dialled.
    Connecting,
    /// Open.
    Up,
    /// Waiting before the next dial.
    BackingOff,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// A peer as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its address.
    pub address: Text,
    /// Its replica id, once known.
    #[serde(default)]
    pub replica: Option<Shown<ReplicaId>>,
    /// Its home location, once known.
    #[serde(default)]
    pub location: Option<Location>,
    /// The fingerprint of its certificate, while there is a link.
    #[serde(default)]
    pub certificate: Option<Text>,
    /// How the link stands.
    pub state: PeerState,
    /// Its clock less the node's, in milliseconds.
    #[serde(default)]
    pub skew_ms: Option<i64>,
    /// Writes of the node that it has not confirmed to hold.
    #[serde(default)]
    pub lag_writes: Option<u64>,
    /// Time since the last complete reconciliation with it, in milliseconds.
    #[serde(default)]
    pub reconciled_ago_ms: Option<u64>,
    /// Round-trip time of the link, in microseconds.
    #[serde(default)]
    pub round_trip_us: Option<u64>,
    /// Why the last link or attempt ended.
    #[serde(default)]
    pub last_error: Option<Text>,
}

/// A link that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalInfo {
    /// The peer's address.
    pub address: Text,
    /// Why.
    pub reason: Text,
}

/// How a node stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// The id under which it writes.
    pub replica: Shown<ReplicaId>,
    /// The latest ids under which it wrote before.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_NOTES_MAX>")]
    pub former_replicas: Vec<Shown<ReplicaId>>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its home location.
    pub location: Location,
    /// Name and version of its software.
    #[serde(default)]
    pub software: Text,
    /// Fingerprint of the whole state: equal at two nodes means that they hold the same.
    pub fingerprint: Text,
    /// Products that it knows.
    pub products: u64,
    /// Slots that it knows.
    pub slots: u64,
    /// Its holds that are not resolved.
    pub holds: u64,
    /// Whether writes become durable.
    pub durability: DurabilityInfo,
    /// The number of the last durable batch.
    pub last_batch: u64,
    /// Bytes of the journal that are not folded into snapshots yet.
    pub journal_bytes: u64,
    /// Shards that had lost something, and were repaired.
    #[serde(default, deserialize_with = "bounded::list::<_, _, DOUBTS_MAX>")]
    pub shards_in_doubt: Vec<u16>,
    /// Whether the node was told to keep no links.
    #[serde(default)]
    pub offline: bool,
    /// The address that it listens on.
    #[serde(default)]
    pub listen: Option<Text>,
    /// When its certificate expires, in milliseconds since 1970.
    #[serde(default)]
    pub identity_expires_ms: Option<u64>,
    /// The members that it knows.
    #[serde(default)]
    pub members: MemberCounts,
    /// Peers, configured and linked.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_PEERS_MAX>")]
    pub peers: Vec<PeerInfo>,
    /// How many there are, also those that found no room.
    #[serde(default)]
    pub peers_total: u64,
    /// The last links that were refused.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_NOTES_MAX>")]
    pub refusals: Vec<RefusalInfo>,
    /// Bytes of UDP payload sent to peers.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Bytes of UDP payload received from peers.
    #[serde(default)]
    pub bytes_received: u64,
}
