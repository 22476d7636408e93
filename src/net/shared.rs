//! What all tasks of a node share.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use quinn::Endpoint;
use stockmesh_proto::limits::CHUNK_BYTES_TARGET;
use stockmesh_proto::reconcile::Settings as SessionSettings;
use stockmesh_proto::{ClusterId, Location, ReplicaId};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::identity::Current;
use super::mail::PeerMessage;
use super::members::Members;
use super::registry::Registry;
use super::revocation::Revoked;
use super::rights::Rights;
use super::sightings::Sightings;
use crate::clock::WallClock;
use crate::commit::Committer;
use crate::table::Table;

/// What all tasks of a node share. It borrows the table and the committer, and owns no state of the replica.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<SharedInner>);

pub(super) struct SharedInner {
    pub(super) table: Arc<Table>,
    pub(super) committer: Committer,
    pub(super) registry: Registry,
    /// Who belongs to the cluster, besides this node.
    pub(super) members: Members,
    /// Where membership is told what happens.
    pub(super) sightings: Sightings,
    pub(super) rights: Arc<Rights>,
    /// Hands messages of peers to whoever listens here, until the node is closed.
    pub(super) inbox: Mutex<Option<broadcast::Sender<PeerMessage>>>,
    pub(super) endpoint: Endpoint,
    pub(super) current: watch::Sender<Current>,
    pub(super) revoked: watch::Sender<Revoked>,
    pub(super) cluster: ClusterId,
    pub(super) location: Location,
    pub(super) drift_ms_max: u64,
    pub(super) wall: WallClock,
    pub(super) fan_out: usize,
    /// Counts confirmations by peers, for those who wait for one.
    pub(super) confirmations: watch::Sender<u64>,
    pub(super) urgent: mpsc::Sender<ReplicaId>,
    /// Members to which a link is wanted now, for a while, though the topology may not ask for one.
    pub(super) links_wanted: mpsc::Sender<ReplicaId>,
    pub(super) offline: watch::Sender<bool>,
    pub(super) tasks: Mutex<JoinSet<()>>,
    /// The runtime that the store was opened on: a task must not end with that of a caller.
    pub(super) runtime: Handle,
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

    /// Asks for a reconciliation with a peer as soon as possible.
    pub(super) fn want_reconciliation(&self, replica: ReplicaId) {
        let _ = self.urgent.try_send(replica);
    }

    /// Asks for a link to a member soon, which lasts for a while.
    pub(super) fn want_link(&self, replica: ReplicaId) {
        let _ = self.links_wanted.try_send(replica);
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
            _ = links.changed() => {}
            _ = offline.changed() => {}
        }
    }
}
