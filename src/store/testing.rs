//! What tests do to an open store that no user may.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use stockmesh_proto::operation::Operation;
use stockmesh_proto::{Location, Price, ReplicaId, Sku};

use super::Store;
use crate::commit::snapshot;
use crate::error::WriteError;
use crate::member::{Member, MemberState};

impl Store {
    /// About what the state takes on disk when it is folded, in bytes: all shards' snapshots. Costs a look at everything.
    #[doc(hidden)]
    pub fn state_bytes(&self) -> usize {
        let table = &self.inner.table;
        let snapshots = table.count().indexes().filter_map(|shard| snapshot(table, shard, 0).ok());
        snapshots.map(|snapshot| snapshot.len()).sum()
    }

    /// The version vectors, shard by shard.
    #[doc(hidden)]
    pub fn version_vectors(&self) -> Vec<BTreeMap<ReplicaId, u64>> {
        let table = &self.inner.table;
        let of = |shard| table.read(shard, |state| state.version().iter().collect());
        table.count().indexes().map(|shard| of(shard).unwrap_or_default()).collect()
    }

    /// A price, with its stamp and who wrote it, which decide which of two prices wins.
    #[doc(hidden)]
    pub fn price_written(&self, sku: &str) -> Option<(Price, u64, ReplicaId)> {
        let product = self.inner.table.get(sku)?;
        product.price().map(|register| (register.value, register.stamp.bits(), register.dot.replica))
    }

    /// Whether a product is listed, with the stamp of that and who wrote it.
    #[doc(hidden)]
    pub fn listed_written(&self, sku: &str) -> Option<(bool, u64, ReplicaId)> {
        let product = self.inner.table.get(sku)?;
        product.listed().map(|register| (register.value, register.stamp.bits(), register.dot.replica))
    }

    /// Takes over from a retired replica at one place, as what was decided a moment ago would.
    #[doc(hidden)]
    pub async fn inherit(&self, sku: &str, location: &str, from: ReplicaId) -> Result<(), WriteError> {
        let (sku, location) = (Sku::new(sku)?, Location::new(location)?);
        let operations = vec![Operation::Inherit { sku, location, from }];
        self.inner.committer.write(operations.into()).await.map(drop)
    }

    /// Puts a member into the table of members.
    #[doc(hidden)]
    pub fn learn_member(&self, replica: ReplicaId, address: SocketAddr, location: &str, state: MemberState) {
        if let (Some(node), Ok(location)) = (&self.inner.node, Location::new(location)) {
            let (labels, version) = Default::default();
            node.learn_member(Member {
                replica,
                address,
                location,
                labels,
                version,
                read_only: false,
                state,
                generation: 1,
            });
        }
    }

    /// Asks for a link to a member for a while.
    #[doc(hidden)]
    pub fn want_link(&self, replica: ReplicaId) {
        if let Some(node) = &self.inner.node {
            node.want_link(replica);
        }
    }
}
