//! A node of the cluster: the endpoint and the tasks that keep it linked and reconciled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use quinn::Endpoint;
use stockmesh_proto::grant::GrantPolicy;
use stockmesh_proto::limits::PUSH_FAN_OUT_DEFAULT;
use stockmesh_proto::operation::Shortfall;
use stockmesh_proto::wire::Message;
use stockmesh_proto::{ClusterId, Location, ReplicaId, Sku};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::accept::accept;
use super::catch_up::{CatchUp, JoinProgress};
use super::certificate::NodeName;
use super::dial::keep_linked;
use super::exchange::{obtain, rebalance_for_ever};
use super::expiring::{is_due, is_past, watch_expiry};
#[cfg(feature = "testing")]
use super::faulty::TestNetwork;
use super::identity::{Current, Identity};
use super::mail::{PeerMessage, SendError};
use super::members::{Member, Members};
use super::membership::{MembershipSettings, find_out_who_lives, tell_leaving};
use super::meter::PeerLimits;
use super::own_dials::OwnDials;
use super::penalties::Penalties;
use super::push::push_commits;
use super::refusal::CloseCode;
use super::registry::{PeerStatus, Refused, Registry};
use super::revocation::RevocationFile;
use super::rights::Rights;
use super::rights::queue::{self, Turn};
use super::shared::{PushCounts, Shared, SharedInner};
use super::sightings::Sightings;
use super::sources::{TopologySettings, start_topology};
use super::stranded::StrandedWrites;
use super::targets::{DialStatus, SourceStatus, Targets};
use super::trust::{self, watch_revocations};
use super::turns::{reconcile_for_ever, relink_after_incarnation};
use super::wishes::RetireRequest;
use crate::clock::WallClock;
use crate::commit::{Commits, Committer};
use crate::error::ReloadError;
use crate::limits::{CLOSE_TIME_MAX, MESSAGES_WAITING_MAX, RETIRE_REQUESTS_MAX, URGENT_MAX};
use crate::table::Table;
use crate::watch;

/// What a node is started with.
pub(crate) struct NodeSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) revocations: Option<RevocationFile>,
    pub(crate) peer_limits: PeerLimits,
    pub(crate) cluster: ClusterId,
    pub(crate) location: Location,
    pub(crate) reconcile_every: Duration,
    pub(crate) drift_ms_max: u64,
    pub(crate) wall: WallClock,
    pub(crate) policy: Arc<dyn GrantPolicy>,
    #[cfg(feature = "testing")]
    pub(crate) network: Option<TestNetwork>,
    /// Whether programs may connect.
    #[cfg(feature = "clients")]
    pub(crate) clients: bool,
    /// Something of the state was lost at open.
    pub(crate) lossy: bool,
    pub(crate) topology: TopologySettings,
    pub(crate) membership: MembershipSettings,
}

impl NodeSettings {
    #[cfg(not(feature = "testing"))]
    fn endpoint(&self) -> std::io::Result<Endpoint> {
        Endpoint::server((*self.identity.server()).clone(), self.listen)
    }

    #[cfg(feature = "testing")]
    fn endpoint(&self) -> std::io::Result<Endpoint> {
        let server = (*self.identity.server()).clone();
        match &self.network {
            Some(network) => network.endpoint(server, self.listen),
            None => Endpoint::server(server, self.listen),
        }
    }
}

/// A running node. Its tasks end when it is dropped.
pub(crate) struct Node {
    pub(super) shared: Shared,
    /// Until somebody takes them.
    pub(super) retire_requests: Mutex<Option<mpsc::Receiver<RetireRequest>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.endpoint.close(CloseCode::Closing.code(), b"the node closes");
        // The tasks hold the shared state; ending them lets go of it.
        self.shared.tasks.lock().abort_all();
    }
}

impl Node {
    /// Opens the endpoint and starts the tasks. Must be called within a tokio runtime.
    pub(crate) fn start(
        settings: NodeSettings,
        table: Arc<Table>,
        committer: Committer,
        commits: Commits,
    ) -> std::io::Result<Self> {
        let endpoint = settings.endpoint()?;
        let (urgent, urgent_queue) = mpsc::channel(URGENT_MAX);
        let (retire_requests, retire_queue) = mpsc::channel(RETIRE_REQUESTS_MAX);
        let (sightings, sightings_queue) = Sightings::new();
        let (links_wanted, links_queue) = mpsc::channel(URGENT_MAX);
        let shared = Shared(Arc::new(SharedInner {
            table,
            committer,
            registry: Registry::new(),
            members: Members::new(),
            targets: Targets::new(),
            own_dials: OwnDials::default(),
            budget: settings.topology.budget,
            follows_members: settings.topology.follows_members,
            pushes: PushCounts::default(),
            sightings,
            rights: Arc::new(Rights::new(settings.policy)),
            catch_up: CatchUp::new(settings.lossy),
            stranded: StrandedWrites::new(settings.reconcile_every),
            inbox: Mutex::new(Some(broadcast::Sender::new(MESSAGES_WAITING_MAX))),
            endpoint,
            current: watch::Sender::new(Current { identity: settings.identity, rotated: None }),
            revoked: watch::Sender::new(settings.revocations.as_ref().map(RevocationFile::list).unwrap_or_default()),
            penalties: Penalties::default(),
            peer_limits: settings.peer_limits,
            cluster: settings.cluster,
            location: settings.location,
            drift_ms_max: settings.drift_ms_max,
            wall: settings.wall,
            fan_out: PUSH_FAN_OUT_DEFAULT,
            confirmations: watch::Sender::new(0),
            urgent,
            links_wanted,
            retire_requests,
            retiring: Arc::default(),
            leaving: AtomicBool::new(false),
            offline: watch::Sender::new(false),
            #[cfg(feature = "clients")]
            clients: super::client_links::Clients::new(settings.clients),
            tasks: Mutex::new(JoinSet::new()),
            runtime: Handle::current(),
        }));
        shared.spawn(accept(shared.clone()));
        shared.spawn(push_commits(commits, shared.clone()));
        shared.spawn(reconcile_for_ever(settings.reconcile_every, urgent_queue, shared.clone()));
        shared.spawn(relink_after_incarnation(shared.clone()));
        shared.spawn(rebalance_for_ever(shared.clone()));
        shared.spawn(watch_expiry(shared.clone()));
        start_topology(settings.topology, links_queue, &shared)?;
        shared.spawn(find_out_who_lives(settings.membership, sightings_queue, &shared));
        if let Some(file) = settings.revocations {
            shared.spawn(watch_revocations(file, shared.clone()));
        }
        Ok(Self { shared, retire_requests: Mutex::new(Some(retire_queue)) })
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.shared.endpoint.local_addr().ok()
    }

    /// Dials a peer from now on, for ever.
    pub(crate) fn add_peer(&self, address: &str) {
        if let Some(number) = self.shared.registry.add_peer(address) {
            self.shared.note_peer_known();
            self.shared.spawn(keep_linked(number, address.to_owned(), self.shared.clone()));
        }
    }

    /// Uses another identity from now on.
    pub(crate) fn reload_identity(&self, identity: Identity) -> Result<(), ReloadError> {
        if let Some(at) = identity.expires().filter(|at| is_past(*at, &self.shared)) {
            return Err(ReloadError::Expired { at });
        }
        let location = &self.shared.location;
        if let Some(certified) = identity.location().filter(|certified| *certified != location) {
            return Err(ReloadError::OtherLocation { certified: certified.clone(), location: location.clone() });
        }
        trust::rotate(&self.shared, identity);
        Ok(())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.shared.is_read_only()
    }

    pub(crate) fn node_name(&self) -> Option<NodeName> {
        self.shared.current.borrow().identity.node_name().cloned()
    }

    pub(crate) fn identity_expires(&self) -> Option<SystemTime> {
        self.shared.current.borrow().identity.expires()
    }

    /// When the certificate expires, if that is soon.
    pub(crate) fn identity_due(&self) -> Option<SystemTime> {
        self.identity_expires().filter(|at| is_due(*at, &self.shared))
    }

    pub(crate) fn set_offline(&self, offline: bool) {
        self.shared.offline.send_replace(offline);
        if offline {
            self.shared.registry.close_all(CloseCode::Offline, "the node goes offline for now");
            #[cfg(feature = "clients")]
            self.shared.clients.close_all(CloseCode::Offline, "the node goes offline for now");
        }
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.shared.is_offline()
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        self.shared.registry.status(self.shared.table.own_writes())
    }

    /// The members of the cluster, besides this node.
    pub(crate) fn members(&self) -> Vec<Member> {
        let mut members = self.shared.members.all();
        self.shared.committer.retired(|retired| members.retain(|member| !retired.contains_key(&member.replica)));
        members.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// How far this node has caught up with its peers, now and from now on.
    pub(crate) fn joining(&self) -> Option<tokio::sync::watch::Receiver<JoinProgress>> {
        self.shared.catch_up.progress()
    }

    /// The shards with writes that no full member has, if this node only reads.
    pub(crate) fn stranded(&self) -> Vec<u16> {
        if self.shared.is_read_only() { self.shared.stranded.shards() } else { Vec::new() }
    }

    pub(crate) fn join_progress(&self) -> JoinProgress {
        self.shared.catch_up.figures()
    }

    /// Where nodes are looked for, and what became of it.
    pub(crate) fn dials(&self) -> (Vec<SourceStatus>, Vec<DialStatus>) {
        (self.shared.targets.sources(), self.shared.targets.status())
    }

    /// Copies of pushes that arrived, and how many of them changed something.
    pub(crate) fn pushes(&self) -> (u64, u64) {
        let pushes = &self.shared.pushes;
        (pushes.received.load(Ordering::SeqCst), pushes.new.load(Ordering::SeqCst))
    }

    pub(crate) fn refusals(&self) -> Vec<Refused> {
        self.shared.registry.refusals()
    }

    pub(crate) fn traffic(&self) -> (u64, u64) {
        self.shared.registry.traffic()
    }

    /// Whether there is an open link to this replica, over which it can be asked for rights.
    pub(crate) fn is_linked(&self, replica: ReplicaId) -> bool {
        self.shared.registry.link(replica).is_some_and(|link| link.knows_rights)
    }

    /// Counts units that somebody wants to buy here, so that rights come where the demand is.
    pub(crate) fn note_demand(&self, sku: &Sku, location: &Location, units: u64) {
        self.shared.rights.note_demand(sku, location, units);
    }

    /// Whether rights at hand are meant for others who wait for them.
    pub(crate) fn is_kept(&self, sku: &Sku, location: &Location, units: u64, rights: i128) -> bool {
        queue::is_kept(&self.shared.rights, &(sku.clone(), location.clone()), units, rights)
    }

    /// Whether anybody waits for rights of anything.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.shared.rights.anybody_waits()
    }

    /// Sends a message or a ping to a linked node, and waits for its answer.
    pub(crate) async fn send(&self, peer: ReplicaId, message: Message) -> Result<Duration, SendError> {
        super::messages::send(peer, message, &self.shared).await
    }

    /// Messages of peers from now on.
    pub(crate) fn messages(&self) -> Option<broadcast::Receiver<PeerMessage>> {
        self.shared.inbox.lock().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Clients that connect from now on, if they are wanted. For one caller only.
    #[cfg(feature = "clients")]
    pub(crate) fn clients(&self) -> Option<mpsc::Receiver<super::client_links::ClientLink>> {
        self.shared.clients.queue()
    }

    /// Runs a task until the node ends.
    #[cfg(feature = "clients")]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(task);
    }

    /// The nodes to which there are open links.
    pub(crate) fn linked(&self) -> Vec<ReplicaId> {
        self.shared.registry.links().iter().map(|link| link.replica).collect()
    }

    /// Notes that this replica is below zero somewhere, so that others' rights pay it back.
    pub(crate) fn note_deficit(&self, sku: &Sku, location: &Location) {
        self.shared.rights.note_deficit((sku.clone(), location.clone()));
    }

    /// Asks peers for the rights that are lacking, until the deadline. `None` if they cannot be had.
    pub(crate) async fn obtain_rights(
        &self,
        shortfalls: &[Shortfall],
        until: Instant,
        ticket: &mut Option<u64>,
    ) -> Option<Turn> {
        obtain(&self.shared, shortfalls, until, ticket).await
    }

    /// Tells the other members that this node leaves for good. It takes part in membership no more after that. Returns once
    /// the linked ones have taken it in, or have had time for it.
    pub(crate) async fn leave_membership(&self) {
        self.shared.sightings.leave().await;
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, tell_leaving(&self.shared)).await;
    }

    /// Closes all links, and waits a little for the peers to learn of it.
    pub(crate) async fn close(&self) {
        let leaves = self.shared.leaving.load(Ordering::SeqCst);
        let (code, reason) = if leaves {
            (CloseCode::Left, "the node leaves for good")
        } else {
            (CloseCode::Closing, "the node closes")
        };
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.shared.sightings.flush()).await;
        // First, so that the peers read this reason; then no further link comes up.
        self.shared.registry.close_all(code, reason);
        self.shared.offline.send_replace(true);
        self.shared.endpoint.close(code.code(), reason.as_bytes());
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.shared.endpoint.wait_idle()).await;
        drop(self.shared.inbox.lock().take());
        self.shared.catch_up.close();
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }
}
