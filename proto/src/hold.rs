//! Holds: units set aside for a time, and resolved once (rules O5 to O7).
//!
//! The two phases of payment systems and shops: first the units are held, then the hold is committed, whole or in part,
//! or released, or it expires. All of that happens at the replica that gave the hold: the others see its counters only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{InvalidInput, Location, Reference, ReplicaId, ShardIndex, Sku};

/// Which hold: the write that gave it. Shown as `replica-shard-sequence`.
///
/// ```
/// use stockmesh_proto::hold::HoldId;
/// let id: HoldId = "04hkaw9tspnr7-17-42".parse().unwrap();
/// assert_eq!((id.shard.0, id.sequence, id.to_string().as_str()), (17, 42, "04hkaw9tspnr7-17-42"));
/// assert!("17-42".parse::<HoldId>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldId {
    /// Who gave it, and alone can resolve it.
    pub replica: ReplicaId,
    /// The shard of its product.
    pub shard: ShardIndex,
    /// The sequence number of the write.
    pub sequence: u64,
}

impl fmt::Display for HoldId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.replica, self.shard, self.sequence)
    }
}

impl FromStr for HoldId {
    type Err = InvalidInput;
    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let invalid =
            || InvalidInput::new("hold id", text, "must be a replica id, a shard and a number, as in `r-1-2`");
        let mut parts = text.split('-');
        let (Some(replica), Some(shard), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| number.to_string() == digits);
        let shard = number(shard).and_then(|shard| u16::try_from(shard).ok()).ok_or_else(invalid)?;
        let sequence = number(sequence).ok_or_else(invalid)?;
        Ok(Self { replica: replica.parse().map_err(|_| invalid())?, shard: ShardIndex(shard), sequence })
    }
}

/// How a hold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// The units are held.
    Active,
    /// So many of them were sold, the rest was released.
    Committed {
        /// Units sold.
        units: u64,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// All were released.
    Released {
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Its time ran out, and all were released.
    Expired {
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

impl HoldState {
    /// When it was resolved, if it was.
    pub fn resolved_ms(self) -> Option<u64> {
        match self {
            Self::Active => None,
            Self::Committed { at_ms, .. } | Self::Released { at_ms } | Self::Expired { at_ms } => Some(at_ms),
        }
    }
}

impl fmt::Display for HoldState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => formatter.write_str("active"),
            Self::Committed { units, .. } => write!(formatter, "committed with {units} units"),
            Self::Released { .. } => formatter.write_str("released"),
            Self::Expired { .. } => formatter.write_str("expired"),
        }
    }
}

/// Units that were set aside by this replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which hold.
    pub id: HoldId,
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// Units held.
    pub units: u64,
    /// When it was given, in milliseconds since 1970.
    pub given_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The reference of the request that gave it.
    pub reference: Option<Reference>,
    /// How it stands.
    pub state: HoldState,
}
