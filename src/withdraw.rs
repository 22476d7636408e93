//! What takes units from stock: sales, holds and transfers, each within the rights of this replica or those it gets.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::limits::HOLD_TTL_MS_MAX;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy, Request};
use stockmesh_proto::{InvalidInput, Location, Quantity, Reference, Sku};

use crate::error::WriteError;
use crate::hold::Hold;
use crate::limits::{ASKING_TIME_DEFAULT, ASKING_TIME_MAX};
use crate::replica::Replica;

/// Checks how long peers may be asked for rights.
pub(crate) fn check_deadline(deadline: Duration) -> Result<Duration, InvalidInput> {
    if deadline > ASKING_TIME_MAX {
        return Err(InvalidInput::new("deadline", format!("{deadline:?}"), "must be at most an hour"));
    }
    Ok(deadline)
}

/// Checks how long a hold may last, and returns it in milliseconds.
pub(crate) fn check_ttl(ttl: Duration) -> Result<u64, InvalidInput> {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    if !(1..=HOLD_TTL_MS_MAX).contains(&ttl_ms) {
        return Err(InvalidInput::new("ttl", format!("{ttl:?}"), "must be 1 ms to 30 days"));
    }
    Ok(ttl_ms)
}

/// An operation that takes units, as it was called: what is wrong with it is told when it is awaited.
#[derive(Clone, Debug)]
struct Withdrawal {
    replica: Arc<Replica>,
    operation: Result<Operation, InvalidInput>,
    reference: Option<Reference>,
    deadline: Duration,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, WriteError>> + Send>>;

impl Withdrawal {
    async fn run(self) -> Result<Outcome, WriteError> {
        let request = Request { operations: vec![self.operation?], reference: self.reference, may_backorder: false };
        let outcomes = self.replica.write_asking(request, check_deadline(self.deadline)?).await?;
        Ok(outcomes.first().copied().unwrap_or(Outcome::Done))
    }
}

macro_rules! withdrawal {
    ($name:ident -> $output:ty, $finish:expr) => {
        impl $name {
            pub(crate) fn new(
                replica: Arc<Replica>,
                operation: Result<Operation, InvalidInput>,
                reference: Option<Reference>,
            ) -> Self {
                Self(Withdrawal { replica, operation, reference, deadline: ASKING_TIME_DEFAULT })
            }

            /// How long peers may be asked for rights if those at hand do not suffice: 500 ms unless said, an hour at
            /// the most, zero to ask nobody.
            #[must_use = "nothing happens until it is awaited"]
            pub fn deadline(mut self, deadline: Duration) -> Self {
                self.0.deadline = deadline;
                self
            }
        }

        impl IntoFuture for $name {
            type Output = Result<$output, WriteError>;
            type IntoFuture = Answer<$output>;
            fn into_future(self) -> Answer<$output> {
                Box::pin(async move {
                    let replica = Arc::clone(&self.0.replica);
                    let operation = self.0.operation.clone();
                    let outcome = self.0.run().await?;
                    $finish(replica, operation, outcome)
                })
            }
        }
    };
}

/// A sale, made by [`Product::sell`](crate::Product::sell). Awaiting it does it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Sell(Withdrawal);

withdrawal!(Sell -> (), |_, _, _| Ok(()));

impl Sell {
    /// What to do if rights do not cover the sale and cannot be had: refuse it, unless said.
    #[must_use = "nothing happens until it is awaited"]
    pub fn policy(mut self, wanted: OversellPolicy) -> Self {
        if let Ok(Operation::Sell { policy, .. }) = &mut self.0.operation {
            *policy = wanted;
        }
        self
    }
}

/// A transfer, made by [`Product::transfer`](crate::Product::transfer). Awaiting it does it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Transfer(Withdrawal);

withdrawal!(Transfer -> (), |_, _, _| Ok(()));

/// A hold to be given, made by [`Product::hold`](crate::Product::hold). Awaiting it does it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct HoldUnits(Withdrawal);

withdrawal!(HoldUnits -> Hold, |replica: Arc<Replica>, _, outcome| Hold::of_outcome(&replica, outcome));

/// The operation of a sale.
pub(crate) fn sell(
    sku: Sku,
    location: Location,
    units: u64,
    policy: OversellPolicy,
) -> Result<Operation, InvalidInput> {
    Ok(Operation::Sell { sku, location, units: Quantity::new(units)?, policy })
}

/// The operation of a hold.
pub(crate) fn hold(sku: Sku, location: Location, units: u64, ttl: Duration) -> Result<Operation, InvalidInput> {
    Ok(Operation::Hold { sku, location, units: Quantity::new(units)?, ttl_ms: check_ttl(ttl)? })
}

/// The operation of a transfer.
pub(crate) fn transfer(sku: Sku, from: &str, to: &str, units: u64) -> Result<Operation, InvalidInput> {
    let (from, to) = (Location::new(from)?, Location::new(to)?);
    Ok(Operation::Transfer { sku, from, to, units: Quantity::new(units)? })
}
