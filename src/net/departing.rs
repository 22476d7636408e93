//! What a node does about replicas that never return, and when it leaves itself.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::wire::{Retire, Retired, TakeHold};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::node::Node;
use super::retiring::RetiringTurn;
use super::wishes::RetireRequest;
use super::{hand_over, retire};
use crate::error::RetireError;

impl Node {
    /// Whether a member of this id is known.
    pub(crate) fn is_member(&self, replica: ReplicaId) -> bool {
        self.shared.members.get(replica).is_some()
    }

    /// Fences a replica at all members, and pulls what they know of it, see `retire`.
    pub(crate) async fn fence(
        &self,
        retired: ReplicaId,
        without: &BTreeSet<ReplicaId>,
        until: Instant,
    ) -> Result<RetiringTurn, RetireError> {
        retire::fence_once(retired, without, until, &self.shared).await
    }

    /// Asks another node to retire a replica, as its heir.
    pub(crate) async fn retire_at(
        &self,
        heir: ReplicaId,
        wanted: Retire,
        until: Instant,
    ) -> Result<Retired, RetireError> {
        retire::retire_at(heir, wanted, until, &self.shared).await
    }

    /// Wishes of peers that this node retire a replica: for one listener.
    pub(crate) fn retire_requests(&self) -> Option<mpsc::Receiver<RetireRequest>> {
        self.retire_requests.lock().take()
    }

    /// From here on this node wants no more rights.
    pub(crate) fn begin_leaving(&self, leaving: bool) {
        self.shared.leaving.store(leaving, Ordering::SeqCst);
    }

    /// The linked nodes that can take over for one that leaves, those that answer fastest before the others.
    pub(crate) fn heirs(&self) -> Vec<ReplicaId> {
        let mut links = self.shared.registry.links();
        links.retain(|link| link.knows_retirement && link.knows_rights && !link.read_only);
        links.sort_by_key(|link| link.connection.rtt());
        links.iter().map(|link| link.replica).collect()
    }

    /// Hands a hold over to a linked node. Returns the hold that it gave instead, if it could, or why there is no answer.
    pub(crate) async fn hand_over(&self, to: ReplicaId, take: TakeHold) -> Result<Option<HoldId>, String> {
        hand_over::hand_over(to, take, &self.shared).await.map_err(|error| error.to_string())
    }
}
