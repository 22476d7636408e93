//! What a node answers (rules X3 to X5).

use serde::{Deserialize, Serialize};

use super::super::bounded;
use super::status::MemberInfo;
use super::text::{Amount, ErrorText, Shown, Text};
use crate::hold::HoldId;
use crate::id::{ClusterId, Location, Reference, ReplicaId, Sku};
use crate::limits::{CLIENT_LOCATIONS_MAX, CLIENT_PAGE_MAX, CLIENT_SKUS_MAX};

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The id under which it writes: references and holds are known to this replica alone.
    pub replica: Shown<ReplicaId>,
    /// Its home location.
    pub location: Location,
    /// Name and version of its software, for people.
    #[serde(default)]
    pub software: Text,
}

/// The write is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The subscription begins: every change after this is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {}

/// Stock at one location, in units. Sums may be below zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationStock {
    /// Where.
    pub location: Location,
    /// Units on hand.
    pub on_hand: Shown<i128>,
    /// Units held for somebody.
    pub held: Shown<i128>,
    /// Units on hand that are not held.
    pub available: Shown<i128>,
    /// Units below what replicas may sell.
    pub oversold: Shown<i128>,
}

/// A product as the node knows it. Figures are those of the location that was asked for, or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductInfo {
    /// Its key.
    pub sku: Sku,
    /// Units on hand.
    pub on_hand: Shown<i128>,
    /// Units held for somebody.
    pub held: Shown<i128>,
    /// Units on hand that are not held.
    pub available: Shown<i128>,
    /// Units below what replicas may sell.
    pub oversold: Shown<i128>,
    /// The price, if there is one.
    #[serde(default)]
    pub price: Option<Amount>,
    /// Whether it is listed, if anybody said so.
    #[serde(default)]
    pub listed: Option<bool>,
    /// Stock by location, in the order of their names.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_LOCATIONS_MAX>")]
    pub locations: Vec<LocationStock>,
    /// How many locations there are, also those that found no room.
    #[serde(default)]
    pub locations_total: u64,
}

/// Some products. The last page says so: an answer that ends without it was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductsPage {
    /// The products.
    #[serde(deserialize_with = "bounded::list::<_, _, CLIENT_PAGE_MAX>")]
    pub products: Vec<ProductInfo>,
    /// Of those that were asked for by name, the ones that the node does not know.
    #[serde(default, deserialize_with = "bounded::list::<_, _, CLIENT_SKUS_MAX>")]
    pub unknown: Vec<Sku>,
    /// Whether it is the last page.
    pub last: bool,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A product changed; it is told as it is now.
    Product,
    /// The units available fell below those that the client named.
    LowStock,
    /// None are available any more.
    OutOfStock,
    /// Some are available again.
    BackInStock,
    /// The node writes under another replica id from now on.
    NewIncarnation,
    /// The node's certificate expires soon.
    IdentityExpires,
    /// A member of the cluster stands otherwise than before.
    Member,
    /// The client was too slow and missed some; all products that it watches follow.
    Lagged,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// One change. What does not belong to its kind is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is about.
    pub change: ChangeKind,
    /// The product as it is now.
    #[serde(default)]
    pub product: Option<ProductInfo>,
    /// Units available after the write that took them below `below`.
    #[serde(default)]
    pub available: Option<Shown<i128>>,
    /// The number of units that the client named.
    #[serde(default)]
    pub below: Option<Shown<i128>>,
    /// The node's former replica id.
    #[serde(default)]
    pub former: Option<Shown<ReplicaId>>,
    /// The node's new replica id.
    #[serde(default)]
    pub replica: Option<Shown<ReplicaId>>,
    /// When the node's certificate expires, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: Option<u64>,
    /// The member, as it stands now.
    #[serde(default)]
    pub member: Option<Box<MemberInfo>>,
    /// How many committed batches were missed.
    #[serde(default)]
    pub missed: Option<u64>,
}

impl Change {
    /// One of this kind, without anything else.
    pub fn new(change: ChangeKind) -> Self {
        Self {
            change,
            product: None,
            available: None,
            below: None,
            former: None,
            replica: None,
            at_ms: None,
            member: None,
            missed: None,
        }
    }
}

/// How a hold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HoldStanding {
    /// The units are held.
    Active,
    /// Some or all were sold.
    Committed,
    /// All were released.
    Released,
    /// Its time ran out.
    Expired,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldInfo {
    /// Which.
    pub id: Shown<HoldId>,
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// Units that were held.
    pub units: u64,
    /// When it expires, in milliseconds since 1970 by the node's clock.
    pub expires_ms: u64,
    /// The reference of the request that gave it.
    #[serde(default)]
    pub reference: Option<Reference>,
    /// How it stands.
    pub state: HoldStanding,
}

/// Some holds. The last page says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldsPage {
    /// The holds, those that expire first before the others.
    #[serde(deserialize_with = "bounded::list::<_, _, CLIENT_PAGE_MAX>")]
    pub holds: Vec<HoldInfo>,
    /// Whether it is the last page.
    pub last: bool,
}

/// How a hold was resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedInfo {
    /// Units sold.
    pub sold: u64,
    /// Units that can be sold again.
    pub released: u64,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureCode {
    /// An argument is wrong, or the request cannot be read.
    Invalid,
    /// The node does not know this kind of request.
    Unsupported,
    /// The operation would break a limit, or is not possible as things stand.
    Refused,
    /// There is too little stock, or its rights could not be had in time.
    Insufficient,
    /// The reference belongs to a hold that is not known any more.
    HoldForgotten,
    /// The certificate of the client may only read.
    ReadOnly,
    /// The node closes.
    Closed,
    /// The node's disk failed.
    Poisoned,
    /// The node's disk failed during this very write.
    Indeterminate,
    /// The node has too much to do.
    Busy,
    /// It took too long.
    TimedOut,
    /// The answer is too long to be told.
    TooLong,
    /// Something of a later version.
    #[serde(other)]
    Other,
}

/// What a failure means for the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// Nothing was changed.
    None,
    /// The write may be done or not. A repetition under the same reference tells, if the node still remembers it.
    #[serde(other)]
    Indeterminate,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub code: FailureCode,
    /// What it means for the data.
    pub effect: Effect,
    /// The same for people.
    pub text: ErrorText,
    /// With [`FailureCode::Insufficient`]: units wanted.
    #[serde(default)]
    pub wanted: Option<u64>,
    /// With it: units that the node may sell.
    #[serde(default)]
    pub here: Option<u64>,
    /// With it: units that nodes linked with it may sell.
    #[serde(default)]
    pub elsewhere: Option<u64>,
    /// With it: units that nodes out of reach may sell.
    #[serde(default)]
    pub unreachable: Option<u64>,
}

impl Failure {
    /// One that changed nothing.
    pub fn new(code: FailureCode, text: impl std::fmt::Display) -> Self {
        let text = ErrorText::new(text);
        Self { code, effect: Effect::None, text, wanted: None, here: None, elsewhere: None, unreachable: None }
    }

    /// One of which it is not known whether anything was changed.
    pub fn indeterminate(code: FailureCode, text: impl std::fmt::Display) -> Self {
        Self { effect: Effect::Indeterminate, ..Self::new(code, text) }
    }
}
