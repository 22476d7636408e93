//! The parts of an open store, put together: what the handles of the API share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, OversellPolicy, Request, Shortfall};
use stockmesh_proto::product::KeyedProduct;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ClusterId, Location, Sku};
use tokio::time::Instant;

use crate::commit::Committer;
use crate::error::{CloseError, WriteError};
use crate::limits::CLOSE_DRAIN_TIME_MAX;
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
    /// The node leaves: only holds are resolved.
    leaving: AtomicBool,
}

/// Not with all that is stored: handles of the API show their replica.
impl std::fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, cluster, location) = (self.table.own(), &self.cluster, &self.location);
        let mut shown = formatter.debug_struct("Replica");
        shown.field("id", &id).field("cluster", cluster).field("location", location).finish_non_exhaustive()
    }
}

/// Whether an operation only resolves a hold.
fn resolves(operation: &Operation) -> bool {
    use Operation::{CommitHold, ExpireHold, ReleaseHold};
    matches!(operation, CommitHold { .. } | ReleaseHold { .. } | ExpireHold { .. })
}

fn may_backorder(operations: &[Operation]) -> bool {
    let may = |operation: &Operation| matches!(operation, Operation::Sell { policy: OversellPolicy::Backorder, .. });
    operations.iter().any(may)
}

impl Replica {
    pub(crate) fn new(
        table: Arc<Table>,
        committer: Committer,
        node: Option<Node>,
        cluster: ClusterId,
        location: Location,
    ) -> Self {
        Self {
            table,
            committer,
            node,
            cluster,
            location,
            closing: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// Commits a request, all or nothing, and resolves once it is durable. Asks nobody for rights: without them it is
    /// refused at once.
    pub(crate) async fn write(&self, request: Request) -> Result<Vec<Outcome>, WriteError> {
        self.write_asking(request, Duration::ZERO).await
    }

    /// Commits a request, all or nothing. If it lacks rights, peers are asked for them until the deadline has passed.
    pub(crate) async fn write_asking(&self, request: Request, deadline: Duration) -> Result<Vec<Outcome>, WriteError> {
        // Before any peer is asked for rights.
        if self.committer.is_read_only() {
            return Err(WriteError::ReadOnly);
        }
        let sales = Sales::of(&request.operations);
        if let Some(node) = &self.node {
            self.note_demand(node, &request.operations);
        }
        // What can be asked for is asked for before anything is backordered.
        let asks = deadline > Duration::ZERO && sales.any() && self.node.is_some();
        let first = Request { may_backorder: !asks, ..request };
        let again = asks.then(|| first.clone());
        let kept = if asks { self.kept_for_others(&first) } else { Vec::new() };
        let tried = if kept.is_empty() {
            self.commit(first).await
        } else {
            Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls: kept }))
        };
        let result = match (tried, again) {
            (Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls })), Some(again)) => {
                self.write_helped(again, shortfalls, deadline).await
            }
            (result, _) => result.inspect(|_| sales.count_local()),
        };
        result.map_err(|error| match error {
            // Not asked for any more, or kept for others whose time is over too.
            WriteError::Refused(OperationRefused::Insufficient { .. }) if self.closing.load(Ordering::SeqCst) => {
                WriteError::Closed
            }
            WriteError::Refused(OperationRefused::Insufficient { .. }) if self.leaving.load(Ordering::SeqCst) => {
                WriteError::Leaving
            }
            WriteError::Refused(OperationRefused::Insufficient { shortfalls }) => self.insufficient(&shortfalls),
            error => error,
        })
    }

    /// Asks for what is lacking and tries again, until it is done or cannot be.
    async fn write_helped(
        &self,
        request: Request,
        mut shortfalls: Vec<Shortfall>,
        deadline: Duration,
    ) -> Result<Vec<Outcome>, WriteError> {
        let (begun, sales) = (Instant::now(), Sales::of(&request.operations));
        let until = begun.checked_add(deadline).unwrap_or(begun);
        let (mut ticket, mut turn) = (None, None);
        while let Some(node) = &self.node {
            let helpable: Vec<Shortfall> = shortfalls.iter().filter(|lack| lack.can_be_helped()).cloned().collect();
            let is_hopeless = helpable.len() < shortfalls.len();
            if helpable.is_empty() || (is_hopeless && !may_backorder(&request.operations)) {
                break;
            }
            turn = node.obtain_rights(&helpable, until, &mut ticket).await;
            if turn.is_none() || is_hopeless {
                // What cannot be had at all is backordered, with what could be had at hand.
                break;
            }
            let result = self.commit(request.clone()).await;
            drop(turn.take());
            match result {
                // Somebody else was faster: the place in the queue is kept.
                Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls: still })) => shortfalls = still,
                result => return result.inspect(|_| sales.count_helped(begun.elapsed())),
            }
        }
        if !may_backorder(&request.operations) {
            // Rights may have come in the last moment; but not those that somebody else was told to take.
            let is_free = self.kept_for_others(&request).is_empty();
            let late = Err(WriteError::Refused(OperationRefused::Insufficient { shortfalls }));
            let result = if is_free { self.commit(request).await } else { late };
            return result.inspect(|_| sales.count_helped(begun.elapsed()));
        }
        let result = self.commit(Request { may_backorder: true, ..request }).await;
        drop(turn);
        result.inspect(|_| sales.count_backordered())
    }

    /// What a request would take of rights that are meant for others, who wait for them: as if it lacked them, so that it
    /// waits behind those.
    fn kept_for_others(&self, request: &Request) -> Vec<Shortfall> {
        let Some(node) = self.node.as_ref().filter(|node| node.anybody_waits()) else { return Vec::new() };
        // What was done before takes nothing any more.
        let is_known = |reference| self.committer.books(|books| books.remembered(reference).is_some());
        if request.reference.as_ref().is_some_and(is_known) {
            return Vec::new();
        }
        let operations = &request.operations;
        let mut taken: BTreeMap<(&Sku, &Location), u64> = BTreeMap::new();
        for operation in operations {
            if let Operation::Sell { sku, location, units, .. }
            | Operation::Hold { sku, location, units, .. }
            | Operation::Transfer { sku, from: location, units, .. } = operation
            {
                let units = taken.entry((sku, location)).or_default().saturating_add(units.get());
                taken.insert((sku, location), units);
            }
        }
        let own = self.table.own();
        let shortfall = |((sku, location), wanted): ((&Sku, &Location), u64)| {
            let product = self.table.get(sku.as_str())?;
            let (rights, available) = (product.rights(location, own), product.available_at(location));
            let in_stock = available >= i128::from(wanted);
            let (sku, location) = (sku.clone(), location.clone());
            let is_kept = in_stock && node.is_kept(&sku, &location, wanted, rights);
            is_kept.then_some(Shortfall { sku, location, wanted, rights, available, in_stock })
        };
        taken.into_iter().filter_map(shortfall).collect()
    }

    async fn commit(&self, request: Request) -> Result<Vec<Outcome>, WriteError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(WriteError::Closed);
        }
        if self.leaving.load(Ordering::SeqCst) && !request.operations.iter().all(resolves) {
            return Err(WriteError::Leaving);
        }
        // Before, since a caller may go away while it waits.
        self.note_deficits(&request.operations);
        self.committer.write(request).await
    }

    /// Notes where facts will take this replica below zero, so that others' rights pay it back.
    fn note_deficits(&self, operations: &[Operation]) {
        let Some(node) = &self.node else { return };
        for operation in operations {
            let Some((sku, location, change)) = self.fact(operation) else { continue };
            let rights = |product: Arc<KeyedProduct>| product.rights(location, self.table.own());
            if self.table.get(sku.as_str()).map_or(0, rights) + change < 0 {
                node.note_deficit(sku, location);
            }
        }
    }

    /// What an operation takes whatever the rights, and where.
    fn fact<'a>(&self, operation: &'a Operation) -> Option<(&'a Sku, &'a Location, i128)> {
        match operation {
            Operation::Adjust { sku, location, units, .. } if *units < 0 => Some((sku, location, i128::from(*units))),
            Operation::Stocktake { sku, location, counted } => {
                let on_hand = self.table.get(sku.as_str()).map_or(0, |product| product.on_hand_at(location));
                Some((sku, location, i128::from(*counted) - on_hand))
            }
            Operation::Sell { sku, location, units, policy: OversellPolicy::Backorder } => {
                Some((sku, location, -i128::from(units.get())))
            }
            // An heir takes over what the retired replica owes.
            Operation::Inherit { sku, location, from } => {
                let product = self.table.get(sku.as_str());
                Some((sku, location, product.map_or(0, |product| product.legacy(location, *from).rights)))
            }
            _ => None,
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
        let Some(Shortfall { sku, location, wanted, in_stock, .. }) = shortfalls.first().cloned() else {
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
        crate::sales::count_denied(in_stock);
        WriteError::Insufficient { sku, location, wanted, here, elsewhere, unreachable }
    }

    /// From here on every write is refused.
    fn refuse_writes(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// From here on every write is refused but those that resolve holds, or none is any more.
    /// Returns how it was before.
    pub(crate) fn set_leaving(&self, leaving: bool) -> bool {
        self.leaving.swap(leaving, Ordering::SeqCst)
    }

    /// Closes links and files, see [`Store::close`](crate::Store::close).
    pub(crate) async fn close(&self) -> Result<(), CloseError> {
        self.refuse_writes();
        let Self { committer, node, .. } = self;
        let _ = committer.barrier().await;
        if let Some(node) = node {
            node.drain(CLOSE_DRAIN_TIME_MAX).await;
            node.close().await;
        }
        committer.close().await;
        match committer.failure() {
            Some(cause) => Err(CloseError::Poisoned { cause }),
            None => Ok(()),
        }
    }
}
