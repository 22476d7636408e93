//! What peers ask of this node and only the store can do, and what tasks ask of the topology.

use std::sync::Weak;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::wire::{Retire, Retired};
use tokio::sync::oneshot;

use super::link::Link;

/// A peer asks this node to retire a replica, as the heir.
pub(crate) struct RetireRequest {
    /// The peer.
    pub(crate) asker: Asker,
    pub(crate) wanted: Retire,
    pub(crate) reply: oneshot::Sender<Retired>,
}

/// A peer that waits for an answer, for as long as its link lasts.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) replica: ReplicaId,
    pub(super) link: Weak<Link>,
}

impl Asker {
    /// Whether an answer would reach it.
    pub(crate) fn waits(&self) -> bool {
        self.link.upgrade().is_some_and(|link| link.is_open())
    }
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
