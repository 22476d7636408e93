//! Messages about replicas that will never return, and about those that leave (rules Q1 to Q8).

use serde::{Deserialize, Serialize};

use super::{bounded, delta};
use crate::delta::Products;
use crate::hold::HoldId;
use crate::id::{Location, ReplicaId, Sku};
use crate::limits::{RETIRE_WITHOUT_MAX, RIVALS_MAX};

/// Asks a member to take no more writes of a replica from itself, and no more links of it (rule Q1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The replica that will never return.
    pub retired: ReplicaId,
    /// Who takes over its rights: the node that asks.
    pub heir: ReplicaId,
    /// Only asked whether it would be done: nothing changes.
    pub is_trial: bool,
    /// Others that had begun to retire it, and have agreed to this question since. Left out if there are none, as mostly.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::list::<_, _, RIVALS_MAX>")]
    pub gave_way: Vec<ReplicaId>,
}

/// The answer, given once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Whom this member knows as the heir: the replica is fenced if it is the one that asks. Nobody if it is not fenced.
    pub heir: Option<ReplicaId>,
    /// The replica is linked with this member: it is not fenced.
    pub is_alive: bool,
}

/// Hands a hold over to a peer, with the rights that it rests on (rule Q8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeHold {
    /// The hold, as it was.
    pub hold: HoldId,
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// Units held.
    pub units: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Stock and grants of the product at the location, with the grant of the rights.
    #[serde(with = "delta")]
    pub products: Products,
}

/// The answer: the hold that the peer gave instead, if it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTaken {
    /// The new hold.
    pub hold: Option<HoldId>,
}

/// Asks the heir to retire a replica (rule Q5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// The replica that will never return.
    pub retired: ReplicaId,
    /// Members that are not waited for.
    #[serde(deserialize_with = "bounded::list::<_, _, RETIRE_WITHOUT_MAX>")]
    pub without: Vec<ReplicaId>,
    /// How long the members may be waited for, in milliseconds.
    pub deadline_ms: u64,
    /// How long units that the retired replica held stay held, in milliseconds.
    pub hold_ms: u64,
}

/// The answer: what was taken over, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Places of which something was taken over: products at locations.
    pub places: u64,
    /// Units of rights.
    pub units: u64,
    /// Units among them that were held, and are held on.
    pub held: u64,
    /// Why it was not done.
    pub refused: Option<NotRetired>,
}

/// Why a replica was not retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRetired {
    /// Members that cannot be reached, and were not named to be left out.
    #[serde(deserialize_with = "bounded::list::<_, _, RETIRE_WITHOUT_MAX>")]
    pub unreachable: Vec<ReplicaId>,
    /// The member that sees the replica alive.
    pub alive_at: Option<ReplicaId>,
    /// The heir that was named before.
    pub other_heir: Option<ReplicaId>,
    /// For people.
    pub reason: String,
}
