//! The table of locked shards: the one place where the replica's state lives.
//!
//! Only the committer changes it, one thread; readers take one shard's lock at a time and no lock across an await.

use std::ops::Bound;
use std::sync::Arc;

use stockmesh_proto::delta::Products;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::operation::Reader;
use stockmesh_proto::product::KeyedProduct;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::Summary;
use stockmesh_proto::{Fingerprint, Location, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{RwLock, RwLockWriteGuard};

/// All shards of one replica.
#[derive(Debug)]
pub(crate) struct Table {
    count: ShardCount,
    shards: Vec<RwLock<Shard>>,
    tree: RwLock<FingerprintTree>,
    own: AtomicU64,
    own_writes: AtomicU64,
}

impl Table {
    /// An empty table. The seed keeps strangers' choice of SKUs from slowing the index down.
    pub(crate) fn new(count: ShardCount, own: ReplicaId, index_seed: u64) -> Self {
        Self::from_shards(count, own, count.indexes().map(|_| Shard::new(index_seed)).collect())
    }

    /// A table of these shards, one for each index.
    pub(crate) fn from_shards(count: ShardCount, own: ReplicaId, shards: Vec<Shard>) -> Self {
        let mut tree = FingerprintTree::new(count);
        for (shard, state) in count.indexes().zip(&shards) {
            tree.set(shard, state.fingerprint());
        }
        Self {
            count,
            shards: shards.into_iter().map(RwLock::new).collect(),
            tree: RwLock::new(tree),
            own: AtomicU64::new(own.bits()),
            own_writes: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self) -> ShardCount {
        self.count
    }

    /// Changes the id under which this replica writes.
    pub(crate) fn set_own(&self, own: ReplicaId) {
        self.own.store(own.bits(), Ordering::SeqCst);
    }

    /// Own writes since the store was opened.
    pub(crate) fn own_writes(&self) -> u64 {
        self.own_writes.load(Ordering::SeqCst)
    }

    pub(crate) fn add_own_writes(&self, writes: u64) {
        self.own_writes.fetch_add(writes, Ordering::SeqCst);
    }

    /// The product of this SKU, as a consistent view.
    pub(crate) fn get(&self, sku: &str) -> Option<Arc<KeyedProduct>> {
        self.shard(self.count.shard_of_name(sku))?.read().get(sku).cloned()
    }

    /// Stock, grants and inheritances of a product at one location; nothing if there are none.
    pub(crate) fn at_location(&self, sku: &Sku, location: &Location) -> Products {
        let Some(product) = self.get(sku.as_str()) else { return Products::new() };
        let seen = product.at_location(location);
        if seen.is_empty() { Products::new() } else { vec![(sku.clone(), seen)] }
    }

    /// Reads one shard under its lock.
    pub(crate) fn read<T>(&self, shard: ShardIndex, read: impl FnOnce(&Shard) -> T) -> Option<T> {
        Some(read(&self.shard(shard)?.read()))
    }

    /// Changes shards together: a reader sees all of the change or nothing. The shards must be in rising order, which
    /// is the order of locking.
    pub(crate) fn write_all<T>(
        &self,
        shards: impl Iterator<Item = ShardIndex>,
        write: impl FnOnce(&mut [(ShardIndex, RwLockWriteGuard<'_, Shard>)]) -> T,
    ) -> T {
        let mut guards: Vec<_> = shards.filter_map(|shard| Some((shard, self.shard(shard)?.write()))).collect();
        debug_assert!(guards.is_sorted_by(|left, right| left.0 < right.0));
        let result = write(&mut guards);
        let mut tree = self.tree.write();
        for (shard, guard) in &guards {
            tree.set(*shard, guard.fingerprint());
        }
        result
    }

    /// The fingerprint of the whole state.
    pub(crate) fn root(&self) -> Fingerprint {
        self.tree.read().root()
    }

    /// Products and slots over all shards. Costs a lock per shard.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(products, slots), shard| {
            let shard = shard.read();
            (products + u64::try_from(shard.products()).unwrap_or(u64::MAX), slots + shard.slots())
        })
    }

    /// Whether no slot is known here.
    pub(crate) fn is_empty(&self) -> bool {
        self.root() == Fingerprint::EMPTY
    }

    fn shard(&self, shard: ShardIndex) -> Option<&RwLock<Shard>> {
        self.shards.get(shard.as_usize())
    }
}

impl Reader for Table {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.get(sku.as_str())
    }

    fn sequence(&self, shard: ShardIndex, replica: ReplicaId) -> u64 {
        self.read(shard, |shard| shard.version().get(replica)).unwrap_or_default()
    }
}

impl StateView for Table {
    fn own(&self) -> ReplicaId {
        ReplicaId::from_random(self.own.load(Ordering::SeqCst))
    }

    fn tree(&self) -> FingerprintTree {
        self.tree.read().clone()
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        let read = |state: &Shard| (state.fingerprint(), state.version().clone());
        let (fingerprint, version) = self.read(shard, read).unwrap_or_default();
        Summary { shard, fingerprint, version }
    }

    fn extract(&self, shard: ShardIndex, covered: &VersionVector, from: Option<&Sku>, bytes_target: usize) -> Chunk {
        let from = from.map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        let empty = || Chunk { version: VersionVector::new(), products: Vec::new(), next: None };
        self.read(shard, |state| state.extract(covered, from, bytes_target)).unwrap_or_else(empty)
    }
}
