//! What peers ask of this node and only the store can do, and what tasks ask of the topology.

use stockmesh_proto::ReplicaId;
use stockmesh_proto::wire::{Retire, Retired};
use tokio::sync::oneshot;

/// A peer asks this node to retire a replica, as the heir.
pub(crate) struct RetireRequest {
    /// The peer.
    pub(crate) from: ReplicaId,
    pub(crate) wanted: Retire,
    pub(crate) reply: oneshot::Sender<Retired>,
}

/// What a link is wanted for that need not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// Messages of membership, which wait for it.
    Messages,
    /// A retirement, of which the member must know.
    Retirement,
}

/// Somebody needs a link to a member for a while.
pub(super) type LinkWanted = (ReplicaId, Errand);
