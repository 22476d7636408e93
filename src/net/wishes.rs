//! What peers ask of this node and only the store can do.

use stockmesh_proto::wire::{Retire, Retired};
use tokio::sync::oneshot;

/// A peer asks this node to retire a replica, as the heir.
pub(crate) struct RetireRequest {
    pub(crate) wanted: Retire,
    pub(crate) reply: oneshot::Sender<Retired>,
}
