//! Several operations that happen together or not at all.

use std::sync::Arc;

use stockmesh_proto::limits::BATCH_OPERATIONS_MAX;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::{InvalidInput, Location, Price, Sku};

use crate::error::WriteError;
use crate::product::{Reason, check_adjustment, check_count, check_receipt};
use crate::replica::Replica;

/// Operations that are committed together: all are durable, or nothing was changed. At most 10,000.
///
/// Each setter checks its arguments at once, so a batch that was built can be refused only for its numbers.
///
/// One batch costs one sync, as one write does: this is the fast way to write much. Readers of this node see all of it
/// or nothing.
///
/// ```
/// use stockmesh::{Currency, Price, Reason};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// store
///     .batch()
///     .receive("MUG-01", 100)?
///     .set_price("MUG-01", Price::new("9.99".parse()?, Currency::EUR)?)?
///     .at("shop")?
///     .receive("PLATE-07", 5)?
///     .adjust("PLATE-07", -1, Reason::Sold)?
///     .commit()
///     .await?;
/// assert_eq!(store.get("PLATE-07")?.on_hand(), 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a batch does nothing until `commit` is called"]
pub struct Batch {
    replica: Arc<Replica>,
    location: Location,
    operations: Vec<Operation>,
    /// Of the adjustments, to be counted once they are durable.
    reasons: Vec<Reason>,
}

impl Batch {
    pub(crate) fn new(replica: Arc<Replica>, location: Location) -> Self {
        Self { replica, location, operations: Vec::new(), reasons: Vec::new() }
    }

    /// The location of the operations that follow.
    ///
    /// # Errors
    /// If the location is not valid.
    pub fn at(mut self, location: &str) -> Result<Self, InvalidInput> {
        self.location = Location::new(location)?;
        Ok(self)
    }

    /// Counts units in: 1 to 10^12.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn receive(self, sku: &str, units: u64) -> Result<Self, InvalidInput> {
        let (sku, location, units) = (Sku::new(sku)?, self.location.clone(), check_receipt(units)?);
        self.push(Operation::Adjust { sku, location, units })
    }

    /// Counts units in (above zero) or out (below zero), unconditionally: up to 10^12 either way, not 0.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn adjust(self, sku: &str, units: i64, reason: Reason) -> Result<Self, InvalidInput> {
        let (sku, location, units) = (Sku::new(sku)?, self.location.clone(), check_adjustment(units)?);
        let mut batch = self.push(Operation::Adjust { sku, location, units })?;
        batch.reasons.push(reason);
        Ok(batch)
    }

    /// Takes what was counted as the stock: the difference to what this replica sees then, with the operations before
    /// it in this batch, is written.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn stocktake(self, sku: &str, counted: u64) -> Result<Self, InvalidInput> {
        let (sku, location, counted) = (Sku::new(sku)?, self.location.clone(), check_count(counted)?);
        self.push(Operation::Stocktake { sku, location, counted })
    }

    /// Sets a price, at all locations.
    ///
    /// # Errors
    /// If the SKU is not valid, or the batch is full.
    pub fn set_price(self, sku: &str, price: Price) -> Result<Self, InvalidInput> {
        let sku = Sku::new(sku)?;
        self.push(Operation::SetPrice { sku, price })
    }

    /// Lists or delists a product, at all locations.
    ///
    /// # Errors
    /// If the SKU is not valid, or the batch is full.
    pub fn set_listed(self, sku: &str, listed: bool) -> Result<Self, InvalidInput> {
        let sku = Sku::new(sku)?;
        self.push(Operation::SetListed { sku, listed })
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Commits all operations, in their order. Returns once they are durable. An empty batch does nothing.
    ///
    /// # Errors
    /// See [`WriteError`]: refused means that none of them was applied.
    pub async fn commit(self) -> Result<(), WriteError> {
        if !self.operations.is_empty() {
            self.replica.write(self.operations).await?;
            self.reasons.into_iter().for_each(Reason::count);
        }
        Ok(())
    }

    fn push(mut self, operation: Operation) -> Result<Self, InvalidInput> {
        if self.operations.len() == BATCH_OPERATIONS_MAX {
            let rule = format!("must have at most {BATCH_OPERATIONS_MAX} operations");
            return Err(InvalidInput::new("batch", self.operations.len() + 1, rule));
        }
        self.operations.push(operation);
        Ok(self)
    }
}
