//! Operations of this node's users, and what they do to the state: own slots with new dots.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delta::Products;
use crate::hlc::{Clock, ClockExhausted, Stamp};
use crate::id::{Dot, Location, ReplicaId, ShardCount, ShardIndex, Sku};
use crate::limits::STOCK_SLOTS_OPENED_MAX;
use crate::price::Price;
use crate::product::{KeyedProduct, Product, StockSlot};
use crate::register::Register;

/// One operation on one product.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Counts units in or out.
    Adjust {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units: in if above zero, out if below.
        units: i64,
    },
    /// Counts the difference between what was counted and what this replica sees.
    Stocktake {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// The units that were counted.
        counted: u64,
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

/// A group of operations was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationRefused {
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
    #[error(
        "product {sku}: it has stock slots of {slots} locations and replicas already, the limit; nothing was changed"
    )]
    TooManySlots {
        /// The product.
        sku: Sku,
        /// How many it has.
        slots: usize,
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

impl Operation {
    /// The product that it touches.
    pub fn sku(&self) -> &Sku {
        match self {
            Self::Adjust { sku, .. }
            | Self::Stocktake { sku, .. }
            | Self::SetPrice { sku, .. }
            | Self::SetListed { sku, .. } => sku,
        }
    }
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
    pub products: BTreeMap<Sku, Product>,
}

impl ShardWrites {
    /// The slots as a delta.
    pub fn into_products(self) -> Products {
        self.products.into_iter().collect()
    }
}

/// The outcome of evaluating operations: nothing is applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The writes, by shard.
    pub shards: BTreeMap<ShardIndex, ShardWrites>,
    /// By how many units each operation changed the stock on hand.
    pub differences: Vec<i64>,
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
    /// Evaluates operations in their order, all or none (rule O1). The clock advances only if all succeed.
    ///
    /// # Errors
    /// At the first operation that would break a limit.
    pub fn evaluate(
        &self,
        operations: &[Operation],
        reader: &dyn Reader,
        clock: &mut Clock,
        now_ms: u64,
    ) -> Result<Evaluation, OperationRefused> {
        let mut ticking = clock.clone();
        let mut evaluation = Evaluation { shards: BTreeMap::new(), differences: Vec::with_capacity(operations.len()) };
        for operation in operations {
            let shard = self.shards.shard_of(operation.sku());
            let writes = evaluation.shards.entry(shard).or_insert_with(|| {
                let written = reader.sequence(shard, self.own);
                ShardWrites { from: written.saturating_add(1), to: written, products: BTreeMap::new() }
            });
            let sequence = writes.to.saturating_add(1);
            let difference = self.apply(operation, sequence, &mut writes.products, reader, &mut ticking, now_ms)?;
            // A stocktake that finds nothing to correct writes nothing.
            if let Some(difference) = difference {
                writes.to = sequence;
                evaluation.differences.push(difference);
            } else {
                evaluation.differences.push(0);
            }
        }
        evaluation.shards.retain(|_, writes| writes.from <= writes.to);
        *clock = ticking;
        Ok(evaluation)
    }

    fn apply(
        &self,
        operation: &Operation,
        sequence: u64,
        written: &mut BTreeMap<Sku, Product>,
        reader: &dyn Reader,
        clock: &mut Clock,
        now_ms: u64,
    ) -> Result<Option<i64>, OperationRefused> {
        let dot = Dot { replica: self.own, sequence };
        let change = match operation {
            Operation::Adjust { sku, location, units } => {
                return self.adjust(sku, location, *units, sequence, written, reader).map(Some);
            }
            Operation::Stocktake { sku, location, counted } => {
                let units = self.difference(sku, location, *counted, written, reader)?;
                if units == 0 {
                    return Ok(None);
                }
                return self.adjust(sku, location, units, sequence, written, reader).map(Some);
            }
            Operation::SetPrice { price, .. } => {
                Product::of_price(Register { value: *price, stamp: self.stamp(operation.sku(), clock, now_ms)?, dot })
            }
            Operation::SetListed { listed, .. } => {
                Product::of_listed(Register { value: *listed, stamp: self.stamp(operation.sku(), clock, now_ms)?, dot })
            }
        };
        written.entry(operation.sku().clone()).or_default().absorb(&change);
        Ok(Some(0))
    }

    fn stamp(&self, sku: &Sku, clock: &mut Clock, now_ms: u64) -> Result<Stamp, OperationRefused> {
        let stamp = clock.tick(now_ms)?;
        let (ahead_ms, drift_ms_max) = (stamp.ahead_ms(now_ms), self.drift_ms_max);
        if ahead_ms > drift_ms_max {
            return Err(OperationRefused::ClockAhead { sku: sku.clone(), ahead_ms, drift_ms_max });
        }
        Ok(stamp)
    }

    fn adjust(
        &self,
        sku: &Sku,
        location: &Location,
        units: i64,
        sequence: u64,
        written: &mut BTreeMap<Sku, Product>,
        reader: &dyn Reader,
    ) -> Result<i64, OperationRefused> {
        let keyed = reader.product(sku);
        let product = keyed.as_ref().map(|keyed| &keyed.product);
        let slot_written = written.get(sku).map(|product| product.counters(location, self.own));
        let is_open = |product: &Product| {
            product.stock().iter().any(|slot| slot.replica == self.own && slot.location == *location)
        };
        let opened = product.is_some_and(is_open) || written.get(sku).is_some_and(is_open);
        if !opened {
            let mut seen = product.cloned().unwrap_or_default();
            written.get(sku).into_iter().for_each(|written| seen.absorb(written));
            let slots = seen.stock().len();
            if slots >= STOCK_SLOTS_OPENED_MAX {
                return Err(OperationRefused::TooManySlots { sku: sku.clone(), slots });
            }
        }
        let stored = product.map(|product| product.counters(location, self.own)).unwrap_or_default();
        let counters = slot_written.unwrap_or_default().join(stored);
        let counters = counters.adjusted(units).map_err(|_| OperationRefused::Overflow { sku: sku.clone() })?;
        let slot = StockSlot { location: location.clone(), replica: self.own, sequence, counters };
        written.entry(sku.clone()).or_default().absorb(&Product::of_stock(slot));
        Ok(units)
    }

    /// Units counted less units on hand at the location, as seen here and with what this group has written so far.
    fn difference(
        &self,
        sku: &Sku,
        location: &Location,
        counted: u64,
        written: &BTreeMap<Sku, Product>,
        reader: &dyn Reader,
    ) -> Result<i64, OperationRefused> {
        let mut seen = reader.product(sku).map(|product| Product::clone(&product)).unwrap_or_default();
        if let Some(written) = written.get(sku) {
            seen.absorb(written);
        }
        let difference = i128::from(counted) - seen.on_hand_at(location);
        i64::try_from(difference).map_err(|_| OperationRefused::Difference { sku: sku.clone() })
    }
}
