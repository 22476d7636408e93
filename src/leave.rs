//! Leaving the cluster for good, so that it costs nobody stock.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::hold::{Hold as Record, HoldId};
use stockmesh_proto::operation::{Books, Operation, Outcome, Request};
use stockmesh_proto::product::SlotRef;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::TakeHold;
use stockmesh_proto::{Location, ReplicaId, ShardIndex, Sku};
use tokio::time::Instant;
use tracing::info;

use crate::error::{LeaveError, Left, WriteError};
use crate::limits::{CLOSE_TIME_MAX, PLACES_AT_ONCE_MAX, RETIRE_LOOK_EVERY, RETIRE_TIME_DEFAULT, RETIRE_TIME_MAX};
use crate::net::Node;
use crate::replica::Replica;
use crate::table::Table;

/// What becomes of holds when their node leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldsAtLeave {
    /// The heir holds as many units for as long, under a new id: [`Left::holds`] says which.
    #[default]
    HandOver,
    /// The node stays until they are resolved or have run out; other writes are refused meanwhile.
    RunOut,
}

/// A node that is to leave, made by [`Store::leave`](crate::Store::leave). Nothing happens until it is awaited.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Leave {
    replica: Arc<Replica>,
    heir: Option<ReplicaId>,
    held_by: usize,
    holds: HoldsAtLeave,
    deadline: Duration,
}

impl Leave {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        let (holds, deadline) = (HoldsAtLeave::default(), RETIRE_TIME_DEFAULT);
        Self { replica, heir: None, held_by: 1, holds, deadline }
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
        let mut left = Left::default();
        if self.deadline > RETIRE_TIME_MAX {
            let why = format!("the deadline {:?} must be at most an hour", self.deadline);
            return Err(LeaveError::Unfinished { why, left });
        }
        let until = Instant::now() + self.deadline;
        let node = self.replica.node.as_ref().ok_or(LeaveError::NoNetwork)?;
        // Rights that come from now on would be stranded.
        let pausing = Pausing::begin(&self.replica).ok_or(LeaveError::UnderWay)?;
        let heir =
            tokio::time::timeout_at(until, self.find_heir(node)).await.map_err(|_| LeaveError::NobodyLinked)??;
        if self.holds == HoldsAtLeave::RunOut {
            self.run_out(until).await?;
        }
        // Not cut off in the middle of a step, which would be done and not told.
        if let Err(why) = self.give_all(node, heir, until, &mut left).await {
            return Err(LeaveError::Unfinished { why, left });
        }
        info!(%heir, units = left.units, holds = left.holds.len(), "the node leaves the cluster");
        // From here on there is no way back: also if nobody waits for the end any more.
        std::mem::forget(pausing);
        let replica = Arc::clone(&self.replica);
        let closing = tokio::spawn(async move {
            if let Some(node) = &replica.node {
                let _ = tokio::time::timeout(CLOSE_TIME_MAX, node.leave_membership()).await;
            }
            replica.close().await
        });
        match closing.await {
            Ok(Err(error)) => Err(LeaveError::Close(error)),
            _ => Ok(left),
        }
    }

    /// A node that takes over, and does not leave itself.
    async fn find_heir(&self, node: &Node) -> Result<ReplicaId, LeaveError> {
        let mut heirs = node.heirs();
        heirs.retain(|replica| self.heir.is_none_or(|heir| heir == *replica));
        let (Ok(sku), location) = (Sku::new("-"), self.replica.location.clone()) else {
            return Err(LeaveError::NobodyLinked);
        };
        for heir in heirs {
            let hold = HoldId { replica: self.replica.table.own(), shard: ShardIndex(0), sequence: 1 };
            let (sku, location, products) = (sku.clone(), location.clone(), Vec::new());
            let question = TakeHold { hold, sku, location, units: 0, expires_ms: 0, products };
            if node.hand_over(heir, question).await == Ok(Some(hold)) {
                return Ok(heir);
            }
        }
        Err(LeaveError::NobodyLinked)
    }

    /// Gives everything to the heir, and waits until others hold all of it.
    async fn give_all(&self, node: &Node, heir: ReplicaId, until: Instant, left: &mut Left) -> Result<(), String> {
        // What waited in the queue when the pause began is done behind this.
        self.replica.committer.ledger().await.map_err(|error| error.to_string())?;
        loop {
            // Answers to questions that were under way may bring more, until a look finds nothing.
            while self.hand_over(node, heir, until, left).await? || self.give_rights(heir, until, left).await? {}
            let wait = until.saturating_duration_since(Instant::now());
            if self.held_by > 0 {
                node.await_replicated(self.held_by, wait).await.map_err(|error| error.to_string())?;
            }
            if places(&self.replica.table).is_empty() {
                return Ok(());
            }
        }
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

    /// Releases each hold and gives its units to the heir, which holds them on. Returns whether there was any.
    async fn hand_over(&self, node: &Node, heir: ReplicaId, until: Instant, left: &mut Left) -> Result<bool, String> {
        let Replica { table, committer, .. } = &*self.replica;
        let mut any = false;
        loop {
            in_time(until)?;
            let next = |books: &Books| books.active_holds(None).next().cloned();
            let Some(Record { id, sku, location, units, expires_ms, .. }) = committer.books(next) else {
                return Ok(any);
            };
            let grant = Operation::Grant { sku: sku.clone(), location: location.clone(), to: heir, units };
            let operations = vec![Operation::ReleaseHold { id }, grant];
            if let Err(error) = committer.write(Request::from(operations)).await {
                match error {
                    // Resolved by somebody else in this moment: the next look does not find it.
                    WriteError::Refused(_) if committer.books(|books| books.hold(id).is_some_and(is_resolved)) => {
                        continue;
                    }
                    error => return Err(error.to_string()),
                }
            }
            any = true;
            left.heir = Some(heir);
            left.holds.push((id, None));
            // What others have there the heir learns by reconciling; a frame has room for so much.
            let own = table.own();
            let mut products = table.at_location(&sku, &location);
            for (_, product) in &mut products {
                *product = product.filtered(&mut |slot| match slot {
                    SlotRef::Stock(stock) => stock.replica == own,
                    SlotRef::Grant(grant) => grant.from == own && grant.to == heir,
                    _ => false,
                });
            }
            committer.barrier().await.map_err(|error| error.to_string())?;
            let take = TakeHold { hold: id, sku, location, units, expires_ms, products };
            // Without an answer the others are not dissolved too.
            let taken = node.hand_over(heir, take).await?;
            if let Some(last) = left.holds.last_mut() {
                last.1 = taken;
            }
        }
    }

    /// Gives all rights that are found to the heir. Returns whether there were any.
    async fn give_rights(&self, heir: ReplicaId, until: Instant, left: &mut Left) -> Result<bool, String> {
        let Replica { table, committer, .. } = &*self.replica;
        let (before, places) = (left.units, places(table));
        for places in places.chunks(PLACES_AT_ONCE_MAX) {
            in_time(until)?;
            let grant = |(sku, location): &(Sku, Location)| {
                let (sku, location) = (sku.clone(), location.clone());
                Operation::Grant { sku, location, to: heir, units: u64::MAX }
            };
            let operations: Vec<Operation> = places.iter().map(grant).collect();
            let outcomes = committer.write(Request::from(operations)).await.map_err(|error| error.to_string())?;
            for outcome in outcomes {
                if let Outcome::Granted { units, .. } = outcome {
                    left.units = left.units.saturating_add(units);
                    left.heir = Some(heir);
                }
            }
        }
        if left.units == before && !places.is_empty() {
            return Err("the heir cannot be given rights: it was retired, or they were sold in this moment".into());
        }
        Ok(left.units > before)
    }
}

fn in_time(until: Instant) -> Result<(), String> {
    if Instant::now() < until { Ok(()) } else { Err("it was not done in time".into()) }
}

/// Writes of the application are refused, and no rights are wanted, until this is dropped.
struct Pausing<'a>(&'a Replica);

impl<'a> Pausing<'a> {
    /// `None` if another call is at it already: that one's pause must not end with this one.
    fn begin(replica: &'a Replica) -> Option<Self> {
        if replica.set_leaving(true) {
            return None;
        }
        if let Some(node) = &replica.node {
            node.begin_leaving(true);
        }
        Some(Self(replica))
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        if let Some(node) = &self.0.node {
            node.begin_leaving(false);
        }
        self.0.set_leaving(false);
    }
}

fn is_resolved(hold: &Record) -> bool {
    !matches!(hold.state, stockmesh_proto::hold::HoldState::Active)
}

/// Where this replica may still sell.
fn places(table: &Table) -> Vec<(Sku, Location)> {
    let own = table.own();
    let mut places = Vec::new();
    for shard in table.count().indexes() {
        table.read(shard, |state| {
            for product in state.range(Bound::Unbounded) {
                let with_rights = product.locations().into_iter().filter(|location| product.rights(location, own) > 0);
                places.extend(with_rights.map(|location| (product.sku.clone(), location.clone())));
            }
        });
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
