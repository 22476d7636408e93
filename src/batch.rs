//! Several operations that happen together or not at all.

use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::BATCH_OPERATIONS_MAX;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy, Request};
use stockmesh_proto::{InvalidInput, Location, Price, Quantity, Reference, Sku};

use crate::error::WriteError;
use crate::hold::Hold;
use crate::limits::ASKING_TIME_DEFAULT;
use crate::product::{Reason, check_adjustment, check_count, count_reason};
use crate::replica::Replica;
use crate::withdraw::{self, check_deadline};

/// What a batch did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Committed {
    /// The holds that it gave, in the order of its operations.
    pub holds: Vec<Hold>,
    /// The differences that its stocktakes found, in their order.
    pub differences: Vec<i64>,
}

fn reason(operation: &Operation) -> Option<Reason> {
    match operation {
        Operation::Adjust { reason, .. } => Some(*reason),
        _ => None,
    }
}

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
    reference: Option<Reference>,
    policy: OversellPolicy,
    deadline: Duration,
}

impl Batch {
    pub(crate) fn new(replica: Arc<Replica>, location: Location) -> Self {
        let (policy, deadline) = (OversellPolicy::Refuse, ASKING_TIME_DEFAULT);
        Self { replica, location, operations: Vec::new(), reference: None, policy, deadline }
    }

    /// The caller's own name of the whole batch, see [`Product::reference`](crate::Product::reference).
    ///
    /// # Errors
    /// If the reference is not valid.
    pub fn reference(mut self, reference: &str) -> Result<Self, InvalidInput> {
        self.reference = Some(Reference::new(reference)?);
        Ok(self)
    }

    /// What the sales that follow do if rights do not cover them and cannot be had: they refuse the batch, unless said.
    pub fn policy(mut self, policy: OversellPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long peers may be asked for rights if those at hand do not suffice: 500 ms unless said, an hour at the most,
    /// zero to ask nobody.
    ///
    /// # Errors
    /// If it is longer than an hour.
    pub fn deadline(mut self, deadline: Duration) -> Result<Self, InvalidInput> {
        self.deadline = check_deadline(deadline)?;
        Ok(self)
    }

    /// Sells units within rights, see [`Product::sell`](crate::Product::sell). If one sale of the batch cannot be done,
    /// none is.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn sell(self, sku: &str, units: u64) -> Result<Self, InvalidInput> {
        let operation = withdraw::sell(Sku::new(sku)?, self.location.clone(), units, self.policy)?;
        self.push(operation)
    }

    /// Sets units aside, see [`Product::hold`](crate::Product::hold). The holds are in what
    /// [`commit`](Batch::commit) returns.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn hold(self, sku: &str, units: u64, ttl: Duration) -> Result<Self, InvalidInput> {
        let operation = withdraw::hold(Sku::new(sku)?, self.location.clone(), units, ttl)?;
        self.push(operation)
    }

    /// Sells all that a hold holds, see [`Hold::commit`].
    ///
    /// # Errors
    /// If the batch is full.
    pub fn commit_hold(self, id: HoldId) -> Result<Self, InvalidInput> {
        self.push(Operation::CommitHold { id, units: None })
    }

    /// Releases a hold, see [`Hold::release`].
    ///
    /// # Errors
    /// If the batch is full.
    pub fn release_hold(self, id: HoldId) -> Result<Self, InvalidInput> {
        self.push(Operation::ReleaseHold { id })
    }

    /// Moves units between locations, see [`Product::transfer`](crate::Product::transfer).
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn transfer(self, sku: &str, from: &str, to: &str, units: u64) -> Result<Self, InvalidInput> {
        let operation = withdraw::transfer(Sku::new(sku)?, from, to, units)?;
        self.push(operation)
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
        let (sku, location, units) = (Sku::new(sku)?, self.location.clone(), Quantity::new(units)?);
        self.push(Operation::Receive { sku, location, units })
    }

    /// Counts units in (above zero) or out (below zero), unconditionally: up to 10^12 either way, not 0.
    ///
    /// # Errors
    /// If an argument is not valid, or the batch is full.
    pub fn adjust(self, sku: &str, units: i64, reason: Reason) -> Result<Self, InvalidInput> {
        let (sku, location, units) = (Sku::new(sku)?, self.location.clone(), check_adjustment(units)?);
        self.push(Operation::Adjust { sku, location, units, reason })
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
    pub async fn commit(self) -> Result<Committed, WriteError> {
        let Self { replica, operations, reference, deadline, .. } = self;
        let mut committed = Committed::default();
        if operations.is_empty() {
            return Ok(committed);
        }
        let reasons: Vec<Reason> = operations.iter().filter_map(reason).collect();
        let outcomes = replica.write_asking(Request { operations, reference, may_backorder: true }, deadline).await?;
        reasons.into_iter().for_each(count_reason);
        for outcome in outcomes {
            match outcome {
                Outcome::Held { .. } => committed.holds.push(Hold::of_outcome(&replica, outcome)?),
                Outcome::Difference(units) => committed.differences.push(units),
                _ => {}
            }
        }
        Ok(committed)
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
