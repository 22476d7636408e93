//! Carries operations to the nodes, in batches: one task and one bounded queue per node.

use anyhow::Context;
use stockmesh::{Price, Reason, Sku, Store};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::describe;

/// Batches that may wait for one node. Enough to keep it busy while the reader serves others; more would only delay
/// what a cut is meant to hit.
const QUEUED_BATCHES: usize = 4;

/// One write.
#[derive(Debug)]
pub(super) enum Operation {
    Adjust { sku: Sku, units: i64 },
    SetPrice { sku: Sku, price: Price },
}

/// The reader's end of a node's queue.
pub(super) struct Feed {
    pending: Vec<Operation>,
    batch_operations: usize,
    queue: mpsc::Sender<Vec<Operation>>,
}

/// The node no longer takes batches, because one failed; its task tells why.
#[derive(Debug)]
pub(super) struct Stopped;

impl Feed {
    /// Adds an operation; sends the batch when it is full, and waits while the queue is.
    pub(super) fn push(&mut self, operation: Operation) -> Result<(), Stopped> {
        self.pending.push(operation);
        if self.pending.len() < self.batch_operations {
            return Ok(());
        }
        self.flush()
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(self.batch_operations);
        let batch = std::mem::replace(&mut self.pending, next);
        self.queue.blocking_send(batch).map_err(|_| Stopped)
    }
}

/// The nodes' ends of the queues.
pub(super) struct Feeders {
    tasks: JoinSet<(u64, anyhow::Result<()>)>,
}

/// What the nodes acknowledged.
#[derive(Debug, Default)]
pub(super) struct Fed {
    pub(super) operations: u64,
    /// Why nodes stopped; empty if all went well.
    pub(super) errors: Vec<String>,
}

/// Starts a task per node.
pub(super) fn start(cluster: &Cluster, batch_operations: usize) -> (Vec<Feed>, Feeders) {
    let mut tasks = JoinSet::new();
    let mut feeds = Vec::with_capacity(cluster.nodes.len());
    for node in &cluster.nodes {
        let (queue, batches) = mpsc::channel(QUEUED_BATCHES);
        feeds.push(Feed { pending: Vec::with_capacity(batch_operations), batch_operations, queue });
        tasks.spawn(commit_all(node.name.clone(), node.store.clone(), batches));
    }
    (feeds, Feeders { tasks })
}

impl Feeders {
    /// Waits until all batches are acknowledged, or one failed at each node that stopped.
    pub(super) async fn finish(mut self) -> Fed {
        let mut fed = Fed::default();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((operations, result)) => {
                    fed.operations += operations;
                    fed.errors.extend(result.err().map(|error| describe(&error)));
                }
                Err(error) => fed.errors.push(format!("a node's feeder broke off: {error}")),
            }
        }
        fed
    }
}

/// Commits batches one after the other, so that a node's writes keep the order of the file. Returns how many
/// operations were acknowledged.
async fn commit_all(
    name: String,
    store: Store,
    mut batches: mpsc::Receiver<Vec<Operation>>,
) -> (u64, anyhow::Result<()>) {
    let mut acknowledged = 0;
    while let Some(operations) = batches.recv().await {
        let count = u64::try_from(operations.len()).unwrap_or(u64::MAX);
        let committed = commit(&store, operations).await;
        if let Err(error) = committed.with_context(|| format!("{name}: a write failed")) {
            return (acknowledged, Err(error));
        }
        acknowledged += count;
    }
    (acknowledged, Ok(()))
}

async fn commit(store: &Store, operations: Vec<Operation>) -> anyhow::Result<()> {
    let mut batch = store.batch();
    for operation in operations {
        batch = match operation {
            Operation::Adjust { sku, units } => {
                let reason = if units < 0 { Reason::Sold } else { Reason::Returned };
                batch.adjust(sku.as_str(), units, reason)?
            }
            Operation::SetPrice { sku, price } => batch.set_price(sku.as_str(), price)?,
        };
    }
    batch.commit().await?;
    Ok(())
}
