//! The parts of an open store, put together: what the handles of the API share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, OversellPolicy, Request, Shortfall};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ClusterId, Location, Sku};
use tokio::time::Instant;

use crate::commit::Committer;
use crate::error::WriteError;
use crate::net::Node;
use crate::sales::Sales;
use crate::table::Table;

/// One open replica.
pub(crate) struct Replica {
    pub(crate) table: Arc<Table>,
    pub(crate) committer: Committer,
    /// The node of the cluster, if the store has a network.
    pub(crate) node: Option<Node>,
    pub(crate) cluster: ClusterId,
    pub(crate) location: Location,
    closing: AtomicBool,
}

/// Not with all that is stored: handles of the API show their replica.
impl std::fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, cluster, location) = (self.table.own(), &self.cluster, &self.location);
        let mut shown = formatter.debug_struct("Replica");
        shown.field("id", &id).field("cluster", cluster).field("location", location).finish_non_exhaustive()
    }
}

/// Where a request may take this replica below zero.
fn facts(operations: &[Operation]) -> Vec<(Sku, Location)> {
    let place = |operation: &Operation| match operation {
        Operation::Adjust { sku, location, units, .. } if *units < 0 => Some((sku.clone(), location.clone())),
        Operation::Stocktake { sku, location, .. }
        | Operation::Sell { sku, location, policy: OversellPolicy::Backorder, .. } => {
            Some((sku.clone(), location.clone()))
        }
        _ => None,
    };
    operations.iter().filter_map(place).collect()
}

impl Replica {
    pub(crate) fn new(
        table: Arc<Table>,
        committer: Committer,
        node: Option<Node>,
        cluster: ClusterId,
        location: Location,
    ) -> Self {
        Self { table, committer, node, cluster, location, closing: AtomicBool::new(false) }
    }

    /// Commits a request, all or nothing, and resolves once it is durable. Asks nobody for rights: without them it is
    /// refused at once.
    pub(crate) async fn write(&self, request: Request) -> Result<Vec<Outcome>, WriteError> {
        self.write_asking(request, Duration::ZERO).await
    }

    /// Commits a request, all or nothing. If it lacks rights, peers are asked for them until the deadline has passed.
    pub(crate) async fn write_asking(&self, request: Request, deadline: Duration) -> Result<Vec<Outcome>, WriteError> {
        let sales = Sales::of(&request.operations);
        if let Some(node) = &self.node {
            self.note_demand(node, &request.operations);
        }
        // What can be asked for is asked for before anything is backordered.
        let asks = deadline > Duration::ZERO && sales.any();
        let first = Request { may_backorder: !asks, ..request };
        let result = match self.commit(first.clone()).await {
            Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls })) if asks => {
                self.write_helped(first, shortfalls, deadline).await
            }
            result => result.inspect(|_| sales.count_local()),
        };
        result.map_err(|error| match error {
            WriteError::Refused(OperationRefused::Insufficient { shortfalls }) => self.insufficient(&shortfalls),
            error => error,
        })
    }

    async fn write_helped(
        &self,
        request: Request,
        mut shortfalls: Vec<Shortfall>,
        deadline: Duration,
    ) -> Result<Vec<Outcome>, WriteError> {
        let (begun, sales) = (Instant::now(), Sales::of(&request.operations));
        if let Some(node) = &self.node {
            let until = begun.checked_add(deadline).unwrap_or(begun);
            let mut place = None;
            while shortfalls.iter().all(Shortfall::can_be_helped) {
                let Some(turn) = node.obtain_rights(&shortfalls, until, &mut place).await else { break };
                let result = self.commit(request.clone()).await;
                drop(turn);
                match result {
                    // Somebody else was faster: the place in the queue is kept.
                    Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls: still })) => {
                        shortfalls = still
                    }
                    result => return result.inspect(|_| sales.count_helped(begun.elapsed())),
                }
            }
        }
        let result = self.commit(Request { may_backorder: true, ..request }).await;
        result.inspect(|_| sales.count_local())
    }

    async fn commit(&self, request: Request) -> Result<Vec<Outcome>, WriteError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(WriteError::Closed);
        }
        let places = if self.node.is_some() { facts(&request.operations) } else { Vec::new() };
        let outcomes = self.committer.write(request).await?;
        places.iter().for_each(|place| self.note_deficit(place));
        Ok(outcomes)
    }

    fn note_deficit(&self, (sku, location): &(Sku, Location)) {
        let rights = self.table.get(sku.as_str()).map_or(0, |product| product.rights(location, self.table.own()));
        if let Some(node) = self.node.as_ref().filter(|_| rights < 0) {
            node.note_deficit(sku, location);
        }
    }

    fn note_demand(&self, node: &Node, operations: &[Operation]) {
        for operation in operations {
            if let Operation::Sell { sku, location, units, .. } | Operation::Hold { sku, location, units, .. } =
                operation
            {
                node.note_demand(sku, location, units.get());
            }
        }
    }

    /// Where the rights lie that a request would have needed, as far as is known here.
    fn insufficient(&self, shortfalls: &[Shortfall]) -> WriteError {
        let Some(Shortfall { sku, location, wanted, rights: _, available }) = shortfalls.first().cloned() else {
            return WriteError::Closed;
        };
        let own = self.table.own();
        let rights = self.table.get(sku.as_str()).map(|product| product.rights_at(&location)).unwrap_or_default();
        let (mut here, mut elsewhere, mut unreachable) = (0, 0, 0);
        for (replica, units) in rights {
            let units = u64::try_from(units.max(0)).unwrap_or(u64::MAX);
            let reachable = self.node.as_ref().is_some_and(|node| node.is_linked(replica));
            let place = match replica {
                _ if replica == own => &mut here,
                _ if reachable => &mut elsewhere,
                _ => &mut unreachable,
            };
            *place = units.saturating_add(*place);
        }
        crate::sales::count_denied(available >= i128::from(wanted));
        WriteError::Insufficient { sku, location, wanted, here, elsewhere, unreachable }
    }

    /// From here on every write is refused.
    pub(crate) fn refuse_writes(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}
