//! The store: what an embedder holds.

mod cluster;
#[cfg(feature = "testing")]
mod testing;

use std::net::SocketAddr;
use std::sync::Arc;

use stockmesh_proto::hold::{Hold as Record, HoldId};
use stockmesh_proto::operation::Books;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{InvalidInput, ReplicaId, Sku};

use crate::batch::Batch;
use crate::error::{CloseError, GetError};
use crate::hold::Hold;
use crate::ledger::Movements;
use crate::limits::HOLDS_PAGE;
use crate::net::Node;
use crate::product::Product;
use crate::query::Query;
use crate::replica::Replica;
use crate::retire::serve_retirements;
use crate::status::{Durability, Status};
use crate::subscribe::{Changes, Filter};
use crate::view::ProductView;

/// A replica of the inventory, embedded in this process.
///
/// Reads are local and synchronous, and take about as long as a look-up in a map. Writes return once they are durable
/// on this node's disk; peers get them at once where a link is up, and later where not. Clones share one store; it ends
/// with the last of them, or with [`Store::close`].
///
/// ```
/// use stockmesh::Reason;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mug = store.product("MUG-01")?;
/// mug.receive(100).await?;
/// mug.adjust(-1, Reason::Sold).await?;
/// assert_eq!(store.get("MUG-01")?.available(), 99);
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Replica>,
}

impl Store {
    pub(crate) fn new(replica: Replica) -> Self {
        let inner = Arc::new(replica);
        tokio::spawn(serve_retirements(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// What the handles share, for whoever must not keep the store open.
    #[cfg(feature = "clients")]
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.inner
    }

    /// The store again.
    #[cfg(feature = "clients")]
    pub(crate) fn of(inner: Arc<Replica>) -> Self {
        Self { inner }
    }

    /// A product at the home location, to operate on. It need not exist yet, and costs nothing until an operation is
    /// called.
    ///
    /// # Errors
    /// If the SKU is not valid: empty, longer than 128 bytes, or with control characters.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.receive(12).await?;
    /// assert!(store.product("").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn product(&self, sku: &str) -> Result<Product, InvalidInput> {
        Ok(Product::new(Arc::clone(&self.inner), Sku::new(sku)?, self.inner.location.clone()))
    }

    /// Operations to commit together, at the home location, see [`Batch`].
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.inner), self.inner.location.clone())
    }

    /// The product as this node knows it now. Local, without an await: a lock and a look-up.
    ///
    /// A write of this node may be seen up to one sync before it is durable; of other nodes only what is durable there.
    ///
    /// # Errors
    /// If the SKU is not valid, or no write of the product has reached this node.
    ///
    /// ```
    /// use stockmesh::GetError;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// store.product("MUG-01")?.receive(12).await?;
    /// assert_eq!(store.get("MUG-01")?.on_hand(), 12);
    /// assert!(matches!(store.get("PLATE-07"), Err(GetError::Unknown { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, sku: &str) -> Result<ProductView, GetError> {
        // What is found is valid, so the rules of a SKU need checking only where nothing is.
        match self.inner.table.get(sku) {
            Some(product) => Ok(ProductView::new(product)),
            None => Err(GetError::Unknown { sku: Sku::new(sku)? }),
        }
    }

    /// The hold of this id, if it is active or was resolved lately, as long as 7 days.
    pub fn hold(&self, id: HoldId) -> Option<Hold> {
        let record = self.inner.committer.books(|books| books.hold(id).cloned());
        record.map(|record| Hold::new(Arc::clone(&self.inner), record))
    }

    /// The holds of this node that are not resolved, those that expire first before the others. Those that others gave are not known one
    /// by one: they show as held in the views.
    pub fn holds(&self) -> Vec<Hold> {
        let mut holds: Vec<Record> = Vec::new();
        loop {
            // A page at a time, so that no write waits for a long list.
            let after = holds.last().map(|hold| (hold.expires_ms, hold.id));
            let page = |books: &Books| books.active_holds(after).take(HOLDS_PAGE).cloned().collect::<Vec<_>>();
            let page = self.inner.committer.books(page);
            if page.is_empty() {
                break;
            }
            holds.extend(page);
        }
        holds.into_iter().map(|record| Hold::new(Arc::clone(&self.inner), record)).collect()
    }

    /// The stock movements of one product that this node recorded, oldest first, see [`Movements`].
    ///
    /// # Errors
    /// If the SKU is not valid.
    pub fn movements(&self, sku: &str) -> Result<Movements, InvalidInput> {
        Ok(Movements::new(Arc::clone(&self.inner), Some(Sku::new(sku)?)))
    }

    /// The stock movements of all products that this node recorded, oldest first, see [`Movements`].
    pub fn ledger(&self) -> Movements {
        Movements::new(Arc::clone(&self.inner), None)
    }

    /// Selects products, in SKU order, see [`Query`].
    pub fn query(&self) -> Query {
        Query::new(Arc::clone(&self.inner.table))
    }

    /// Changes from now on, of this node's and of others' writes, once they are durable here, see [`Changes`].
    pub fn subscribe(&self, filter: Filter) -> Changes {
        let Replica { table, committer, node, .. } = &*self.inner;
        let due = node.as_ref().and_then(Node::identity_due);
        Changes::new(Arc::clone(table), filter, committer.changes(), committer.watchers()).beginning_with(due)
    }

    /// How the store stands: state, disk, peers. Costs a lock per shard.
    ///
    /// ```
    /// use stockmesh::Durability;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// store.product("MUG-01")?.receive(12).await?;
    /// let status = store.status();
    /// assert_eq!((status.products, status.slots), (1, 1));
    /// assert_eq!(status.durability, Durability::Synced);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        let Replica { table, committer, node, cluster, location, .. } = &*self.inner;
        let (products, slots) = table.sizes();
        let (bytes_sent, bytes_received) = node.as_ref().map(Node::traffic).unwrap_or_default();
        let joining = node.as_ref().map(Node::join_progress).unwrap_or_default();
        let (sources, dials) = node.as_ref().map(Node::dials).unwrap_or_default();
        let (pushes_received, pushes_new) = node.as_ref().map(Node::pushes).unwrap_or_default();
        let durability = match committer.failure() {
            Some(cause) => Durability::Poisoned { cause },
            None if committer.is_closed() => Durability::Closed,
            None => Durability::Synced,
        };
        Status {
            replica: table.own(),
            former_replicas: committer.former_replicas(),
            incarnations: committer.incarnations(),
            read_only: committer.is_read_only(),
            node: node.as_ref().and_then(Node::node_name),
            cluster: cluster.clone(),
            location: location.clone(),
            fingerprint: table.root(),
            products,
            slots,
            holds: u64::try_from(committer.books(Books::holds_active)).unwrap_or(u64::MAX),
            durability,
            last_batch: committer.last_batch(),
            journal_bytes: committer.journal_bytes(),
            shards_in_doubt: committer.shards_repaired().iter().map(|shard| shard.0).collect(),
            stranded: node.as_ref().map(Node::stranded).unwrap_or_default(),
            catching_up: joining.catching_up,
            joining,
            offline: node.as_ref().is_some_and(Node::is_offline),
            listen: self.local_addr(),
            identity_expires: node.as_ref().and_then(Node::identity_expires),
            peers: node.as_ref().map(Node::peers).unwrap_or_default(),
            refusals: node.as_ref().map(Node::refusals).unwrap_or_default(),
            sources,
            dials,
            pushes_received,
            pushes_new,
            bytes_sent,
            bytes_received,
        }
    }

    /// The id under which this store writes. It changes if the directory turns out to be an old copy or a clone.
    pub fn replica_id(&self) -> ReplicaId {
        self.inner.table.own()
    }

    /// The address that the store listens on, if it does: with the port that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.node.as_ref().and_then(Node::local_address)
    }

    /// Closes the store: writes under way become durable, linked peers get up to a second to take in what they lack,
    /// then links and files are closed. Further writes are refused; reads go on.
    ///
    /// Dropping the last clone closes too, but does not wait: what is under way becomes durable, peers are not told.
    /// Once this returns, the directory can be opened again.
    ///
    /// # Errors
    /// If the disk had failed before.
    ///
    /// ```
    /// use stockmesh::WriteError;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.receive(12).await?;
    /// store.close().await?;
    /// assert!(matches!(mug.receive(1).await, Err(WriteError::Closed)));
    /// assert_eq!(store.get("MUG-01")?.on_hand(), 12);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self) -> Result<(), CloseError> {
        self.inner.close().await
    }
}
