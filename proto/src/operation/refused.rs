//! Why operations are refused. Nothing was changed then.

use crate::hlc::ClockExhausted;
use crate::hold::{HoldId, HoldState};
use crate::id::{Location, Reference, ReplicaId, Sku};

/// What a request lacks of one product at one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// Rights that this replica must have for the request: for a single operation the units that it takes.
    pub wanted: u64,
    /// Rights that it has; below zero if it has a deficit to pay back.
    pub rights: i128,
    /// Units available there as known here, over all replicas, deficits taken off.
    pub available: i128,
    /// Whether they cover the request, so that others' rights could help.
    pub in_stock: bool,
}

impl Shortfall {
    /// Rights that this replica needs besides its own, in units.
    pub fn lacking(&self) -> u64 {
        u64::try_from((i128::from(self.wanted) - self.rights).max(0)).unwrap_or(u64::MAX)
    }

    /// Whether rights from others could help: only if there is enough stock over all.
    pub fn can_be_helped(&self) -> bool {
        self.in_stock
    }
}

/// A request was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationRefused {
    /// This replica has too few rights, or there is too little stock over all.
    #[error("{}", insufficient(shortfalls))]
    Insufficient {
        /// What is lacking; at least one.
        shortfalls: Vec<Shortfall>,
    },
    /// A counter of the product would overflow.
    #[error("product {sku}: a counter would exceed 2^64 - 1; nothing was changed")]
    Overflow {
        /// The product.
        sku: Sku,
    },
    /// The difference of a stocktake does not fit 63 bits.
    #[error("product {sku}: the difference to the count exceeds 2^63 - 1; nothing was changed")]
    Difference {
        /// The product.
        sku: Sku,
    },
    /// The product has too many locations.
    #[error("product {sku}: it has slots of {slots} locations and replicas already, the limit; nothing was changed")]
    TooManySlots {
        /// The product.
        sku: Sku,
        /// How many it has.
        slots: usize,
    },
    /// A transfer names one location twice.
    #[error("product {sku}: a transfer needs two locations, both are {location}; nothing was changed")]
    SameLocation {
        /// The product.
        sku: Sku,
        /// The location.
        location: Location,
    },
    /// The hold is not known here: it never was, or it was resolved so long ago that it is forgotten.
    #[error("hold {id} is not known here; nothing was changed")]
    HoldUnknown {
        /// The hold.
        id: HoldId,
    },
    /// The hold was given by another replica, which alone can resolve it.
    #[error("hold {id} was given by replica {}, not by this one, which is {own}; nothing was changed", id.replica)]
    HoldElsewhere {
        /// The hold.
        id: HoldId,
        /// This replica.
        own: ReplicaId,
    },
    /// The hold was resolved in another way before, or its time has run out.
    #[error("hold {id} is {state} already; nothing was changed")]
    HoldResolved {
        /// The hold.
        id: HoldId,
        /// How it was resolved.
        state: HoldState,
    },
    /// More is to be sold than the hold holds.
    #[error("hold {id} holds {held} units, {wanted} were to be sold; nothing was changed")]
    HoldTooSmall {
        /// The hold.
        id: HoldId,
        /// Units held.
        held: u64,
        /// Units wanted.
        wanted: u64,
    },
    /// Too many holds are active.
    #[error("{holds} holds are active at this replica, the limit; nothing was changed")]
    TooManyHolds {
        /// How many are.
        holds: usize,
    },
    /// A replica cannot take over from itself.
    #[error("product {sku}: a replica cannot take over from itself; nothing was changed")]
    InheritsFromItself {
        /// The product.
        sku: Sku,
    },
    /// Another replica has taken over from this one: what it writes under its id counts for nothing there.
    #[error("product {sku} at {location}: replica {own} was retired; nothing was changed; it must take a new id")]
    Retired {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// This replica.
        own: ReplicaId,
    },
    /// Another replica takes over from the retired one, or this one cannot yet.
    #[error("product {sku} at {location}: this replica is not the heir of {retired} now; nothing was changed")]
    NotTheHeir {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// From whom it was to take over.
        retired: ReplicaId,
    },
    /// The reference was used for a request of other content.
    #[error("reference {reference} was used for another request; nothing was changed")]
    ReferenceReused {
        /// The reference.
        reference: Reference,
    },
    /// The wall clock was set back, or was far ahead when an earlier price was set: a stamp that goes on after the
    /// highest seen would run ahead of this clock by more than the drift bound, and no peer would take it.
    #[error(
        "product {sku}: its stamp would run {ahead_ms} ms ahead of this clock, {drift_ms_max} ms are allowed, since the clock was set back or was wrong before; nothing was changed; prices can be set again once the clock has caught up"
    )]
    ClockAhead {
        /// The product.
        sku: Sku,
        /// How far the stamp would run ahead.
        ahead_ms: u64,
        /// The drift bound.
        drift_ms_max: u64,
    },
    /// The clock cannot issue a stamp.
    #[error(transparent)]
    Clock(#[from] ClockExhausted),
}

fn insufficient(shortfalls: &[Shortfall]) -> String {
    let told = shortfalls.iter().map(|shortfall| {
        let Shortfall { sku, location, wanted, rights, available, .. } = shortfall;
        format!(
            "product {sku} at {location}: {wanted} units are wanted, this replica may sell {}, {available} are available over all",
            (*rights).max(0)
        )
    });
    let told: Vec<String> = told.collect();
    format!("{}; nothing was changed", told.join("; "))
}
