//! Operations of this node's users, and what they do to the state: own slots with new dots.

mod books;
mod content;
mod draft;
mod refused;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use books::{Books, Remembered};
pub use refused::{OperationRefused, Shortfall};
pub use written::Written;

use crate::delta::Products;
use crate::hlc::Clock;
use crate::hold::{Hold, HoldId};
use crate::id::{Location, Quantity, Reference, ReplicaId, ShardCount, ShardIndex, Sku};
use crate::movement::{Movement, Reason};
use crate::price::Price;
use crate::product::KeyedProduct;
use draft::Draft;
use serde::{Deserialize, Serialize};

/// What a sale does that rights do not cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OversellPolicy {
    /// It is refused, and nothing is changed.
    #[default]
    Refuse,
    /// It is counted all the same: the stock falls below zero, to be delivered later. It shows as oversold, and what
    /// comes in pays it back first.
    Backorder,
}

/// One operation on one product.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Counts units in. They give rights to this replica.
    Receive {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units.
        units: Quantity,
    },
    /// Counts units in or out, whatever the rights: a physical fact.
    Adjust {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units: in if above zero, out if below.
        units: i64,
        /// Why.
        reason: Reason,
    },
    /// Counts the difference between what was counted and what this replica sees, whatever the rights.
    Stocktake {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// The units that were counted.
        counted: u64,
    },
    /// Counts units out, within this replica's rights.
    Sell {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units.
        units: Quantity,
        /// What to do without rights.
        policy: OversellPolicy,
    },
    /// Sets units aside, within this replica's rights.
    Hold {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units.
        units: Quantity,
        /// How long, in milliseconds.
        ttl_ms: u64,
    },
    /// Sells what a hold holds, or a part of it, and releases the rest.
    CommitHold {
        /// The hold.
        id: HoldId,
        /// Units to sell; all that are held if nothing is said.
        units: Option<Quantity>,
    },
    /// Releases a hold.
    ReleaseHold {
        /// The hold.
        id: HoldId,
    },
    /// Releases a hold if its time has run out and it was not resolved yet.
    ExpireHold {
        /// The hold.
        id: HoldId,
    },
    /// Moves units to another location, within this replica's rights at the first.
    Transfer {
        /// The product.
        sku: Sku,
        /// From where.
        from: Location,
        /// To where.
        to: Location,
        /// Units.
        units: Quantity,
    },
    /// Gives rights to another replica: as many as wanted, or as there are.
    Grant {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// To whom.
        to: ReplicaId,
        /// Units at the most.
        units: u64,
    },
    /// Takes over from a replica that will never return: its counters as they are known here, its rights, and its holds,
    /// whose units come as rights. To be done only once all live members have told all they know of that replica, and
    /// accept no further write of it (rules E4, E7). Done again it takes over what turned up since; nothing if there is
    /// nothing new, or another one is the heir.
    Inherit {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Who is retired. Never this replica itself.
        from: ReplicaId,
    },
    /// Counts what a retired replica had written, is known here, and was not taken over: a former id's writes that it
    /// alone had. Nothing if there is nothing, or if it was not retired there (rule E5).
    Reapply {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Who was retired. Never this replica itself.
        from: ReplicaId,
    },
    /// Sets the price.
    SetPrice {
        /// The product.
        sku: Sku,
        /// The price.
        price: Price,
    },
    /// Lists or delists the product.
    SetListed {
        /// The product.
        sku: Sku,
        /// Whether it is listed.
        listed: bool,
    },
}

impl Operation {
    /// The product that it touches; of an operation on a hold only the hold knows.
    pub fn sku(&self) -> Option<&Sku> {
        match self {
            Self::Receive { sku, .. }
            | Self::Adjust { sku, .. }
            | Self::Stocktake { sku, .. }
            | Self::Sell { sku, .. }
            | Self::Hold { sku, .. }
            | Self::Transfer { sku, .. }
            | Self::Grant { sku, .. }
            | Self::Inherit { sku, .. }
            | Self::Reapply { sku, .. }
            | Self::SetPrice { sku, .. }
            | Self::SetListed { sku, .. } => Some(sku),
            Self::CommitHold { .. } | Self::ReleaseHold { .. } | Self::ExpireHold { .. } => None,
        }
    }
}

/// Operations that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The operations, in their order.
    pub operations: Vec<Operation>,
    /// The caller's name of it: another request of that name and content is answered with this one's outcomes (rule O4).
    pub reference: Option<Reference>,
    /// Whether sales that allow it may be backordered already. Else what they lack is told, so that it can be asked for
    /// first.
    pub may_backorder: bool,
}

impl From<Vec<Operation>> for Request {
    fn from(operations: Vec<Operation>) -> Self {
        Self { operations, reference: None, may_backorder: true }
    }
}

/// What one operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// All that it says.
    Done,
    /// A stocktake found so many units more (above zero) or fewer.
    Difference(i64),
    /// Units are held.
    Held {
        /// Which hold it is.
        id: HoldId,
        /// When it expires, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// A hold was resolved, now or before.
    Resolved {
        /// Units sold.
        sold: u64,
        /// Units that can be sold again.
        released: u64,
    },
    /// Rights were given away.
    Granted {
        /// Units; 0 if there were none, and then nothing was written.
        units: u64,
        /// The sequence number of the write.
        sequence: u64,
    },
    /// The place of a retired replica was taken over.
    Inherited {
        /// Rights that came; below zero a deficit.
        units: i64,
        /// Of those, units that it held for customers, whose holds are dissolved: a hold of so many in the same request
        /// keeps them.
        held: u64,
    },
    /// Writes of a retired replica were counted that had been missing.
    Reapplied {
        /// Units that it had counted in.
        added: u64,
        /// Units that it had counted out.
        removed: u64,
    },
}

/// What an evaluation reads of the state.
pub trait Reader {
    /// The product as it stands.
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>>;
    /// How many writes `replica` has made to a shard.
    fn sequence(&self, shard: ShardIndex, replica: ReplicaId) -> u64;
}

/// The writes that operations make to one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardWrites {
    /// The first sequence number.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The own slots that changed.
    pub products: Written,
}

impl ShardWrites {
    /// The slots as a delta.
    pub fn into_products(self) -> Products {
        self.products.into_products()
    }
}

/// The outcome of evaluating a request: nothing is applied yet. Slots, holds, reference and movements belong in one
/// transaction (rule D6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// The writes, by shard.
    pub shards: BTreeMap<ShardIndex, ShardWrites>,
    /// What each operation did.
    pub outcomes: Vec<Outcome>,
    /// What goes into the ledger.
    pub movements: Vec<Movement>,
    /// Holds that were given or resolved, as they are now.
    pub holds: Vec<Hold>,
    /// The reference under which the outcomes are to be remembered, with the hash of the request's content.
    pub reference: Option<(Reference, u128)>,
    /// The request was done before: the outcomes are those of then, and nothing changes.
    pub repeated: bool,
}

impl Evaluation {
    /// By how many units each stocktake changed the stock on hand, 0 for other operations.
    pub fn differences(&self) -> Vec<i64> {
        let difference = |outcome: &Outcome| match outcome {
            Outcome::Difference(units) => *units,
            _ => 0,
        };
        self.outcomes.iter().map(difference).collect()
    }
}

/// Who writes, and where the shards are cut.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// The replica whose slots are written.
    pub own: ReplicaId,
    /// The cluster's number of shards.
    pub shards: ShardCount,
    /// How far an own stamp may run ahead of the wall clock, in milliseconds: what peers will take (rule C4).
    pub drift_ms_max: u64,
}

impl Writer {
    /// Evaluates a request: its operations in their order, all or none (rules O1 to O7). The clock advances only if all
    /// succeed.
    ///
    /// # Errors
    /// At the first operation that breaks a rule or limit; of those that only lack rights all are told together.
    pub fn evaluate(
        &self,
        request: &Request,
        reader: &dyn Reader,
        books: &Books,
        clock: &mut Clock,
        now_ms: u64,
    ) -> Result<Evaluation, OperationRefused> {
        let mut named = None;
        if let Some(reference) = &request.reference {
            let content = content::hash(&request.operations);
            if let Some(remembered) = books.remembered(reference) {
                if remembered.content != content {
                    return Err(OperationRefused::ReferenceReused { reference: reference.clone() });
                }
                let outcomes = remembered.outcomes();
                return Ok(Evaluation { outcomes, repeated: true, ..Evaluation::default() });
            }
            named = Some((reference.clone(), content));
        }
        let mut draft = Draft::new(*self, request, reader, books, clock.clone(), now_ms);
        for operation in &request.operations {
            draft.run(operation)?;
        }
        let (mut evaluation, ticked) = draft.finish()?;
        evaluation.reference = named;
        *clock = ticked;
        Ok(evaluation)
    }
}
