//! Holds: units that were set aside, to be sold or released.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stockmesh_proto::hold::Hold as Record;
pub use stockmesh_proto::hold::{HoldId, HoldState};
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome};
use stockmesh_proto::{Location, Quantity, Reference, Sku};

use crate::error::WriteError;
use crate::replica::Replica;

/// Units that this node set aside, and what became of them when this was made.
///
/// A hold is resolved once: committed, whole or in part, released, or expired. It lives in the store, not in this handle:
/// dropping the handle changes nothing, and after a restart [`Store::hold`](crate::Store::hold) finds it by its id.
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mug = store.product("MUG-01")?;
/// mug.receive(10).await?;
/// let hold = mug.hold(3, Duration::from_secs(900)).await?;
/// let view = store.get("MUG-01")?;
/// assert_eq!((view.on_hand(), view.held(), view.available()), (10, 3, 7));
///
/// // Two are sold, one goes back.
/// let resolved = hold.commit_part(2).await?;
/// assert_eq!((resolved.sold, resolved.released), (2, 1));
/// assert_eq!(store.get("MUG-01")?.available(), 8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Hold {
    replica: Arc<Replica>,
    record: Record,
}

/// How a hold was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// Units sold.
    pub sold: u64,
    /// Units that can be sold again.
    pub released: u64,
}

impl Hold {
    pub(crate) fn new(replica: Arc<Replica>, record: Record) -> Self {
        Self { replica, record }
    }

    /// The hold that an operation gave, or gave earlier under the same reference.
    pub(crate) fn of_outcome(replica: &Arc<Replica>, outcome: Outcome) -> Result<Self, WriteError> {
        let forgotten = |id| WriteError::Refused(OperationRefused::HoldUnknown { id });
        match outcome {
            Outcome::Held { id, .. } => {
                let record = replica.committer.books(|books| books.hold(id).cloned());
                record.map(|record| Self::new(Arc::clone(replica), record)).ok_or_else(|| forgotten(id))
            }
            // A hold has no other outcome.
            _ => Err(WriteError::Closed),
        }
    }

    /// Which hold it is: to be kept with the order that it is for.
    pub fn id(&self) -> HoldId {
        self.record.id
    }

    /// The product.
    pub fn sku(&self) -> &Sku {
        &self.record.sku
    }

    /// Where.
    pub fn location(&self) -> &Location {
        &self.record.location
    }

    /// Units that were held.
    pub fn units(&self) -> u64 {
        self.record.units
    }

    /// When it expires, by this node's wall clock.
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.record.expires_ms)
    }

    /// The reference of the request that gave it.
    pub fn reference(&self) -> Option<&Reference> {
        self.record.reference.as_ref()
    }

    /// How it stood when this handle was made.
    pub fn state(&self) -> HoldState {
        self.record.state
    }

    /// Sells all that it holds. Called again it returns the same and changes nothing.
    ///
    /// # Errors
    /// If it was released, has expired, or was committed with other units. See [`WriteError`].
    pub async fn commit(&self) -> Result<Resolved, WriteError> {
        self.resolve(Operation::CommitHold { id: self.record.id, units: None }).await
    }

    /// Sells a part of what it holds, at least one unit, and releases the rest.
    ///
    /// # Errors
    /// As [`Hold::commit`], and if it holds fewer.
    pub async fn commit_part(&self, units: u64) -> Result<Resolved, WriteError> {
        let units = Some(Quantity::new(units)?);
        self.resolve(Operation::CommitHold { id: self.record.id, units }).await
    }

    /// Releases all that it holds, so that others can have it. Called again, or after it has expired, it returns the same
    /// and changes nothing.
    ///
    /// # Errors
    /// If it was committed. See [`WriteError`].
    pub async fn release(&self) -> Result<Resolved, WriteError> {
        self.resolve(Operation::ReleaseHold { id: self.record.id }).await
    }

    async fn resolve(&self, operation: Operation) -> Result<Resolved, WriteError> {
        let outcomes = self.replica.write(vec![operation].into()).await?;
        match outcomes.first() {
            Some(Outcome::Resolved { sold, released }) => Ok(Resolved { sold: *sold, released: *released }),
            // Nothing else comes of it.
            _ => Err(WriteError::Closed),
        }
    }
}
