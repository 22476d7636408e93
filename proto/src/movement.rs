//! Stock movements: what each operation of this replica did, for the ledger.

use std::fmt;

use crate::counter::Counters;
use crate::hold::HoldId;
use crate::id::{Location, ReplicaId, Sku};
use crate::product::Taken;

/// Why stock was adjusted: kept in the ledger and counted in the metrics. It does not change what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Sold to a customer.
    Sold,
    /// Returned by a customer.
    Returned,
    /// Damaged or spoiled.
    Damaged,
    /// Lost or stolen.
    Lost,
    /// Found again.
    Found,
    /// A correction of an earlier entry.
    Correction,
}

impl Reason {
    /// One word, as in metrics and exports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sold => "sold",
            Self::Returned => "returned",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
            Self::Found => "found",
            Self::Correction => "correction",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.label())
    }
}

/// What kind of movement it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MovementKind {
    /// Units came in.
    Received,
    /// Units were adjusted: in if the quantity is above zero, out if it is below.
    Adjusted(Reason),
    /// A stocktake; the quantity is the difference to what was seen, and may be 0.
    Counted,
    /// Units were sold.
    Sold,
    /// Units were held.
    Held(HoldId),
    /// Held units were sold.
    Committed(HoldId),
    /// Held units were released.
    Released(HoldId),
    /// Held units were released since their time ran out.
    Expired(HoldId),
    /// Units left for another location.
    TransferredTo(Location),
    /// Units came from another location.
    TransferredFrom(Location),
    /// Rights were given to another replica: no unit moved.
    Granted(ReplicaId),
    /// The place of a retired replica was taken over: rights came, a deficit if the quantity is below zero. No unit moved.
    Inherited(ReplicaId),
    /// Units that a retired replica had counted in, or out if the quantity is below zero, count from now on. It counted
    /// them, not this replica.
    Reapplied(ReplicaId),
}

impl MovementKind {
    /// One word, as in exports.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Adjusted(_) => "adjusted",
            Self::Counted => "counted",
            Self::Sold => "sold",
            Self::Held(_) => "held",
            Self::Committed(_) => "committed",
            Self::Released(_) => "released",
            Self::Expired(_) => "expired",
            Self::TransferredTo(_) => "transferred-to",
            Self::TransferredFrom(_) => "transferred-from",
            Self::Granted(_) => "granted",
            Self::Inherited(_) => "inherited",
            Self::Reapplied(_) => "reapplied",
        }
    }
}

/// One movement of stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// What happened.
    pub kind: MovementKind,
    /// Units: never below zero but for an adjustment, a stocktake that found fewer, and what came from a retired replica.
    pub quantity: i64,
}

impl Movement {
    /// By how much the movement raised the counters of its replica: the sum over the ledger is the replica's slot.
    pub fn counters(&self) -> Counters {
        let units = self.quantity.unsigned_abs();
        let none = Counters::default();
        match self.kind {
            MovementKind::Received | MovementKind::TransferredFrom(_) => Counters { added: units, ..none },
            MovementKind::Adjusted(_) | MovementKind::Counted if self.quantity < 0 => {
                Counters { removed: units, ..none }
            }
            MovementKind::Adjusted(_) | MovementKind::Counted => Counters { added: units, ..none },
            MovementKind::Sold | MovementKind::TransferredTo(_) => Counters { removed: units, ..none },
            MovementKind::Held(_) => Counters { held: units, ..none },
            MovementKind::Committed(_) => Counters { removed: units, released: units, ..none },
            MovementKind::Released(_) | MovementKind::Expired(_) => Counters { released: units, ..none },
            MovementKind::Granted(_) | MovementKind::Inherited(_) | MovementKind::Reapplied(_) => none,
        }
    }

    /// Rights that it gave away, and to whom.
    pub fn granted(&self) -> Option<(ReplicaId, u64)> {
        match self.kind {
            MovementKind::Granted(to) => Some((to, self.quantity.unsigned_abs())),
            _ => None,
        }
    }

    /// By how much it raised the inheritance slot of a retired replica, and whose: the sum over the ledger is what this
    /// replica took over. Of `added` and `removed` that is what it brought itself.
    pub fn inherited(&self) -> Option<(ReplicaId, Taken)> {
        let units = self.quantity.unsigned_abs();
        let (is_below, none) = (self.quantity < 0, Taken::default());
        match self.kind {
            MovementKind::Inherited(from) if is_below => Some((from, Taken { owed: units, is_heir: true, ..none })),
            MovementKind::Inherited(from) => Some((from, Taken { rights: units, is_heir: true, ..none })),
            MovementKind::Reapplied(from) if is_below => Some((from, Taken { removed: units, ..none })),
            MovementKind::Reapplied(from) => Some((from, Taken { added: units, ..none })),
            _ => None,
        }
    }
}
