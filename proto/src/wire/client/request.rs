//! What a client may ask for (rule X3).

use serde::{Deserialize, Serialize};

use super::super::bounded;
use super::text::{Amount, Shown, Text};
use crate::hold::HoldId;
use crate::id::{Location, Reference, Sku};
use crate::limits::CLIENT_SKUS_MAX;

/// The first request of a connection: it is answered by [`Welcome`](super::Welcome) or a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Name and version of the client's software, for people.
    #[serde(default)]
    pub software: Text,
}

/// How the node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusWanted {}

/// The members that the node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllMembers {}

/// The holds of the node that are not resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllHolds {}

/// Some products by their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    #[serde(deserialize_with = "bounded::list::<_, _, CLIENT_SKUS_MAX>")]
    pub skus: Vec<Sku>,
    /// Only the stock at this location.
    #[serde(default)]
    pub at: Option<Location>,
}

/// All products whose key begins so, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The beginning; empty for all.
    #[serde(default)]
    pub prefix: Text,
    /// Only the stock at this location.
    #[serde(default)]
    pub at: Option<Location>,
}

/// Changes from now on, until the client goes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Of products whose key begins so.
    #[serde(default)]
    pub prefix: Text,
    /// Tell also when fewer than so many units are available.
    #[serde(default)]
    pub below: Option<Shown<i128>>,
    /// Only the stock at this location, also for `below`.
    #[serde(default)]
    pub at: Option<Location>,
    /// Leave out changes that are told only as such, see [`ChangeKind::Product`](super::ChangeKind::Product).
    #[serde(default)]
    pub events_only: bool,
}

/// A sale within what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// The product.
    pub sku: Sku,
    /// Where, if not at the node's home location.
    #[serde(default)]
    pub at: Option<Location>,
    /// Units.
    pub units: u64,
    /// By which a repetition is known (rule O4).
    #[serde(default)]
    pub reference: Option<Reference>,
    /// How long peers may be asked for rights, in milliseconds; as the node does by itself if it is not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// Units that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The product.
    pub sku: Sku,
    /// Where, if not at the node's home location.
    #[serde(default)]
    pub at: Option<Location>,
    /// Units.
    pub units: u64,
    /// By which a repetition is known (rule O4).
    #[serde(default)]
    pub reference: Option<Reference>,
}

/// A new price, at all locations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPrice {
    /// The product.
    pub sku: Sku,
    /// The price.
    pub price: Amount,
    /// By which a repetition is known (rule O4).
    #[serde(default)]
    pub reference: Option<Reference>,
}

/// Units to set aside for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewHold {
    /// The product.
    pub sku: Sku,
    /// Where, if not at the node's home location.
    #[serde(default)]
    pub at: Option<Location>,
    /// Units.
    pub units: u64,
    /// For how long, in milliseconds.
    pub ttl_ms: u64,
    /// By which a repetition is known (rule O4).
    #[serde(default)]
    pub reference: Option<Reference>,
    /// How long peers may be asked for rights, in milliseconds; as the node does by itself if it is not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// A hold to be sold. A repetition gets the first answer (rule O6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitHold {
    /// Which.
    pub id: Shown<HoldId>,
    /// So many units of it, and the rest is released; all if it is not said.
    #[serde(default)]
    pub units: Option<u64>,
}

/// A hold to be released. A repetition gets the first answer (rule O6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseHold {
    /// Which.
    pub id: Shown<HoldId>,
}
