//! What all tasks of a node share.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use quinn::{Endpoint, ServerConfig};
use stockmesh_proto::limits::CHUNK_BYTES_TARGET;
use stockmesh_proto::reconcile::Settings as SessionSettings;
use stockmesh_proto::topology::LinkBudget;
use stockmesh_proto::{ClusterId, Location, ReplicaId};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use super::catch_up::CatchUp;
#[cfg(feature = "clients")]
use super::client_links::Clients;
use super::identity::{Current, Identity};
use super::mail::PeerMessage;
use super::members::Members;
use super::meter::PeerLimits;
use super::own_dials::OwnDials;
use super::penalties::Penalties;
use super::registry::Registry;
use super::retiring::Retiring;
use super::revocation::Revoked;
use super::rights::Rights;
use super::sightings::Sightings;
use super::stranded::StrandedWrites;
use super::targets::Targets;
use super::wishes::{Errand, LinkWanted, RetireRequest};
use crate::clock::WallClock;
use crate::commit::Committer;
use crate::table::Table;
use crate::watch;

/// What all tasks of a node share. It borrows the table and the committer, and owns no state of the replica.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<SharedInner>);

pub(super) struct SharedInner {
    pub(super) table: Arc<Table>,
    pub(super) committer: Committer,
    pub(super) registry: Registry,
    /// Who belongs to the cluster, besides this node.
    pub(super) members: Members,
    /// Whom this node dials, besides the peers that the registry knows.
    pub(super) targets: Targets,
    pub(super) own_dials: OwnDials,
    pub(super) budget: LinkBudget,
    /// Members are dialled; not in tests of a network whose shape is given.
    pub(super) follows_members: bool,
    pub(super) pushes: PushCounts,
    /// Where membership is told what happens.
    pub(super) sightings: Sightings,
    pub(super) rights: Arc<Rights>,
    /// Whether this node lacks what its peers hold, and what it pulls from whom.
    pub(super) catch_up: CatchUp,
    /// What this node, if it only reads, holds and full members lack.
    pub(super) stranded: StrandedWrites,
    /// Hands messages of peers to whoever listens here, until the node is closed.
    pub(super) inbox: Mutex<Option<broadcast::Sender<PeerMessage>>>,
    pub(super) endpoint: Endpoint,
    pub(super) current: watch::Sender<Current>,
    pub(super) revoked: watch::Sender<Revoked>,
    /// Peers that are not let in for a while.
    pub(super) penalties: Penalties,
    pub(super) peer_limits: PeerLimits,
    pub(super) cluster: ClusterId,
    pub(super) location: Location,
    pub(super) drift_ms_max: u64,
    pub(super) wall: WallClock,
    pub(super) fan_out: usize,
    /// Counts confirmations by peers, for those who wait for one.
    pub(super) confirmations: watch::Sender<u64>,
    pub(super) urgent: mpsc::Sender<ReplicaId>,
    /// Members to which a link is wanted now, for a while, though the topology may not ask for one.
    pub(super) links_wanted: mpsc::Sender<LinkWanted>,
    /// Wishes of peers that this node retire a replica.
    pub(super) retire_requests: mpsc::Sender<RetireRequest>,
    /// Replicas that this node retires right now.
    pub(super) retiring: Arc<Retiring>,
    /// The node leaves for good: it wants no more rights.
    pub(super) leaving: AtomicBool,
    pub(super) offline: watch::Sender<bool>,
    /// Programs that are connected, and those that wait for their first answer.
    #[cfg(feature = "clients")]
    pub(super) clients: Clients,
    pub(super) tasks: Mutex<JoinSet<()>>,
    /// The runtime that the store was opened on: a task must not end with that of a caller.
    pub(super) runtime: Handle,
}

/// Copies of pushes that arrived and were merged.
#[derive(Debug, Default)]
pub(super) struct PushCounts {
    pub(super) received: AtomicU64,
    /// Those that changed something here.
    pub(super) new: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Deref for Shared {
    type Target = SharedInner;
    fn deref(&self) -> &SharedInner {
        &self.0
    }
}

impl Shared {
    /// Starts a task that ends with the node at the latest.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        // Ended tasks are let go of here, so that the set stays as small as what runs.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }

    pub(super) fn session_settings(&self) -> SessionSettings {
        let (shards, drift_ms_max) = (self.table.count(), self.drift_ms_max);
        SessionSettings { shards, drift_ms_max, chunk_bytes_target: CHUNK_BYTES_TARGET }
    }

    /// What this node listens with under an identity: for clients too, if it takes them.
    pub(super) fn server(&self, identity: &Identity) -> Arc<ServerConfig> {
        #[cfg(feature = "clients")]
        if self.clients.are_wanted() {
            return identity.server_of_clients();
        }
        identity.server()
    }

    /// A peer was configured, found or linked.
    pub(super) fn note_peer_known(&self) {
        if self.catch_up.peer_known(self.table.is_empty(), self.registry.traffic().1) {
            self.committer.note_catching_up(true);
        }
    }

    /// Asks for a reconciliation with a peer as soon as possible.
    pub(super) fn want_reconciliation(&self, replica: ReplicaId) {
        let _ = self.urgent.try_send(replica);
    }

    /// Asks for a link to a member soon, which lasts for a while.
    pub(super) fn want_link(&self, replica: ReplicaId, errand: Errand) {
        let _ = self.links_wanted.try_send((replica, errand));
    }

    /// Whether this node is a read-only member.
    pub(super) fn is_read_only(&self) -> bool {
        self.current.borrow().identity.is_read_only()
    }

    /// Whether this node itself listens at an address, as far as that is known without dialling it.
    pub(super) fn is_listening_at(&self, address: SocketAddr) -> bool {
        self.endpoint.local_addr().is_ok_and(|own| own == address)
    }

    pub(super) fn is_offline(&self) -> bool {
        *self.offline.borrow()
    }

    pub(super) async fn until_online(&self) {
        let _ = self.offline.subscribe().wait_for(|offline| !offline).await;
    }

    pub(super) async fn until_offline(&self) {
        let _ = self.offline.subscribe().wait_for(|offline| *offline).await;
    }

    /// Resolves when the node goes offline or comes online again.
    pub(super) async fn until_toggled(&self) {
        let _ = self.offline.subscribe().changed().await;
    }

    /// Resolves when this node gets another identity: what was refused may be let in now.
    pub(super) async fn until_rotated(&self) {
        let _ = self.current.subscribe().changed().await;
    }

    /// Resolves when there is an open link to this replica; never if it is not known.
    pub(super) async fn until_linked(&self, replica: Option<ReplicaId>) {
        let Some(replica) = replica else { return std::future::pending().await };
        let mut changes = self.registry.changes();
        while self.registry.link(replica).is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves at the next change of links, or of being offline.
    pub(super) async fn until_changed(&self) {
        let (mut links, mut offline) = (self.registry.changes(), self.offline.subscribe());
        tokio::select! {
            biased;
            _ = links.changed() => {}
            _ = offline.changed() => {}
        }
    }
}
