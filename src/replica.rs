//! The parts of an open store, put together: what the handles of the API share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stockmesh_proto::operation::Operation;
use stockmesh_proto::{ClusterId, Location};

use crate::commit::Committer;
use crate::error::WriteError;
use crate::net::Node;
use crate::table::Table;

/// One open replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) table: Arc<Table>,
    pub(crate) committer: Committer,
    /// The node of the cluster, if the store has a network.
    pub(crate) node: Option<Node>,
    pub(crate) cluster: ClusterId,
    pub(crate) location: Location,
    closing: AtomicBool,
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

    /// Commits operations, all or none, and resolves once they are durable.
    pub(crate) async fn write(&self, operations: Vec<Operation>) -> Result<Vec<i64>, WriteError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(WriteError::Closed);
        }
        self.committer.write(operations).await
    }

    /// From here on every write is refused.
    pub(crate) fn refuse_writes(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}
