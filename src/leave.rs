//! Leaving the cluster for good, so that it costs nobody stock.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::hold::{Hold as Record, HoldId};
use stockmesh_proto::operation::{Books, Operation, Outcome, Request};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::TakeHold;
use stockmesh_proto::{InvalidInput, Location, ReplicaId, Shard, Sku};
use tokio::time::Instant;
use tracing::info;

use crate::error::{LeaveError, WriteError};
use crate::limits::{PLACES_AT_ONCE_MAX, RETIRE_LOOK_EVERY, RETIRE_TIME_DEFAULT, RETIRE_TIME_MAX};
use crate::net::Node;
use crate::replica::Replica;
use crate::store::Store;

/// What becomes of holds when their node leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldsAtLeave {
    /// The heir holds as many units for as long, under a new id: [`Left::holds`] says which.
    #[default]
    HandOver,
    /// The node stays until they are resolved or have run out.
    RunOut,
}

/// A node that is to leave, made by [`Store::leave`]. Nothing happens until it is awaited.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Leave {
    store: Store,
    replica: Arc<Replica>,
    heir: Option<ReplicaId>,
    held_by: usize,
    holds: HoldsAtLeave,
    deadline: Duration,
}

/// A node that left, and what it handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Who got its rights and holds; nobody if it had none.
    pub heir: Option<ReplicaId>,
    /// Units of rights that were given.
    pub units: u64,
    /// The holds that were handed over, by their former ids: the new id, or nothing if the heir did not answer. Then the
    /// units are the heir's to sell.
    pub holds: Vec<(HoldId, Option<HoldId>)>,
}

impl Leave {
    pub(crate) fn new(store: Store, replica: Arc<Replica>) -> Self {
        let (holds, deadline) = (HoldsAtLeave::default(), RETIRE_TIME_DEFAULT);
        Self { store, replica, heir: None, held_by: 1, holds, deadline }
    }

    /// Who gets the rights and the holds: the linked node that answers fastest unless said.
    pub fn heir(mut self, heir: ReplicaId) -> Self {
        self.heir = Some(heir);
        self
    }

    /// How many linked nodes must hold all of this node's writes before it goes: 1 unless said.
    pub fn held_by(mut self, replicas: usize) -> Self {
        self.held_by = replicas;
        self
    }

    /// What becomes of its holds: they are handed over unless said.
    pub fn holds(mut self, holds: HoldsAtLeave) -> Self {
        self.holds = holds;
        self
    }

    /// How long all of it may take: 30 s unless said, an hour at the most.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    async fn run(self) -> Result<Left, LeaveError> {
        if self.deadline > RETIRE_TIME_MAX {
            let deadline = format!("{:?}", self.deadline);
            return Err(WriteError::from(InvalidInput::new("deadline", deadline, "must be at most an hour")).into());
        }
        let until = Instant::now() + self.deadline;
        let node = self.replica.node.as_ref().ok_or(LeaveError::NoNetwork)?;
        let heir = match self.heir {
            Some(heir) if !node.is_linked(heir) => return Err(LeaveError::NobodyLinked),
            Some(heir) => heir,
            None => node.nearest().ok_or(LeaveError::NobodyLinked)?,
        };
        // Rights that come from now on would be stranded.
        let pausing = Pausing::begin(&self.replica);
        let left = self.give_all(node, heir, until).await?;
        node.leave_membership().await;
        let closed = self.store.close().await;
        std::mem::forget(pausing);
        info!(%heir, units = left.units, holds = left.holds.len(), "the node left the cluster");
        closed.map_err(LeaveError::Close)?;
        Ok(left)
    }

    async fn give_all(&self, node: &Node, heir: ReplicaId, until: Instant) -> Result<Left, LeaveError> {
        let mut left = Left { heir: None, units: 0, holds: Vec::new() };
        match self.holds {
            HoldsAtLeave::HandOver => self.hand_over(node, heir, &mut left).await?,
            HoldsAtLeave::RunOut => self.run_out(until).await?,
        }
        self.give_rights(heir, &mut left).await?;
        if left.units > 0 || !left.holds.is_empty() {
            left.heir = Some(heir);
        }
        let wait = until.saturating_duration_since(Instant::now());
        if self.held_by > 0 {
            node.await_replicated(self.held_by, wait).await.map_err(LeaveError::NotReplicated)?;
        }
        Ok(left)
    }

    /// Waits until no hold is left.
    async fn run_out(&self, until: Instant) -> Result<(), LeaveError> {
        let active = || self.replica.committer.books(Books::holds_active);
        while active() > 0 {
            if Instant::now() >= until {
                return Err(LeaveError::Held { holds: active() });
            }
            tokio::time::sleep(RETIRE_LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Releases each hold and gives its units to the heir, which holds them on.
    async fn hand_over(&self, node: &Node, heir: ReplicaId, left: &mut Left) -> Result<(), LeaveError> {
        let Replica { table, committer, .. } = &*self.replica;
        loop {
            let next = |books: &Books| books.active_holds(None).next().cloned();
            let Some(Record { id, sku, location, units, expires_ms, .. }) = committer.books(next) else {
                return Ok(());
            };
            let grant = Operation::Grant { sku: sku.clone(), location: location.clone(), to: heir, units };
            let operations = vec![Operation::ReleaseHold { id }, grant];
            // Resolved by somebody else in this moment: the next look does not find it.
            if let Err(error) = committer.write(Request::from(operations)).await {
                match error {
                    WriteError::Refused(_) if committer.books(|books| books.hold(id).is_some_and(is_resolved)) => {
                        continue;
                    }
                    error => return Err(error.into()),
                }
            }
            let products = table.at_location(&sku, &location);
            let _ = committer.barrier().await;
            let take = TakeHold { hold: id, sku, location, units, expires_ms, products };
            left.holds.push((id, node.hand_over(heir, take).await));
        }
    }

    /// Gives all rights to the heir, place by place, until there are none.
    async fn give_rights(&self, heir: ReplicaId, left: &mut Left) -> Result<(), LeaveError> {
        let Replica { table, committer, .. } = &*self.replica;
        let own = table.own();
        for shard in table.count().indexes() {
            let places = table.read(shard, |state| places_with_rights(state, own)).unwrap_or_default();
            for places in places.chunks(PLACES_AT_ONCE_MAX) {
                let grant = |(sku, location): &(Sku, Location)| {
                    let (sku, location) = (sku.clone(), location.clone());
                    Operation::Grant { sku, location, to: heir, units: u64::MAX }
                };
                let operations: Vec<Operation> = places.iter().map(grant).collect();
                for outcome in committer.write(Request::from(operations)).await? {
                    if let Outcome::Granted { units, .. } = outcome {
                        left.units = left.units.saturating_add(units);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes of the application are refused, and no rights are wanted, until this is dropped.
struct Pausing<'a>(&'a Replica);

impl<'a> Pausing<'a> {
    fn begin(replica: &'a Replica) -> Self {
        let pausing = Self(replica);
        pausing.set(true);
        pausing
    }

    fn set(&self, paused: bool) {
        self.0.refuse_writes(paused);
        if let Some(node) = &self.0.node {
            node.begin_leaving(paused);
        }
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

fn is_resolved(hold: &Record) -> bool {
    !matches!(hold.state, stockmesh_proto::hold::HoldState::Active)
}

/// Where a replica may still sell.
fn places_with_rights(state: &Shard, own: ReplicaId) -> Vec<(Sku, Location)> {
    let mut places = Vec::new();
    for product in state.range(Bound::Unbounded) {
        let with_rights = product.locations().into_iter().filter(|location| product.rights(location, own) > 0);
        places.extend(with_rights.map(|location| (product.sku.clone(), location.clone())));
    }
    places
}

impl IntoFuture for Leave {
    type Output = Result<Left, LeaveError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
