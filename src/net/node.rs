//! A node of the cluster: the endpoint and the tasks that keep it linked and reconciled.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use metrics::counter;
use parking_lot::Mutex;
use quinn::{Endpoint, Incoming};
use stockmesh_proto::grant::GrantPolicy;
use stockmesh_proto::limits::PUSH_FAN_OUT_DEFAULT;
use stockmesh_proto::operation::Shortfall;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::Message;
use stockmesh_proto::{ClusterId, Location, ReplicaId, Sku};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::dial::keep_linked;
use super::exchange::{obtain, rebalance_for_ever};
use super::expiring::{is_due, is_past, watch_expiry};
use super::handshake::welcome;
use super::handshakes::Handshakes;
use super::identity::{Current, Identity};
use super::mail::{PeerMessage, SendError};
use super::members::{Member, Members};
use super::membership::{MembershipSettings, find_out_who_lives};
use super::push::push_commits;
use super::refusal::{CloseCode, NEW_INCARNATION, explain};
use super::registry::{PeerStatus, Refused, Registry};
use super::revocation::RevocationFile;
use super::rights::Rights;
use super::rights::queue::{self, Turn};
use super::serve::establish;
use super::session::reconcile;
use super::shared::{Shared, SharedInner};
use super::sightings::Sightings;
use super::trust::{self, watch_revocations};
use super::verdict::judge;
use crate::clock::WallClock;
use crate::commit::{Committer, Event, OwnWrites};
use crate::error::{ReloadError, ReplicationError};
use crate::limits::{ASK_AGAIN_AFTER, CLOSE_TIME_MAX, HANDSHAKE_TIME_MAX, LINKS_MAX, MESSAGES_WAITING_MAX, URGENT_MAX};
use crate::table::Table;

/// What a node is started with.
pub(crate) struct NodeSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) revocations: Option<RevocationFile>,
    pub(crate) cluster: ClusterId,
    pub(crate) location: Location,
    pub(crate) reconcile_every: Duration,
    pub(crate) drift_ms_max: u64,
    pub(crate) wall: WallClock,
    pub(crate) policy: Arc<dyn GrantPolicy>,
    pub(crate) membership: MembershipSettings,
}

/// A running node. Its tasks end when it is dropped.
pub(crate) struct Node {
    shared: Shared,
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
        commits: mpsc::Receiver<OwnWrites>,
    ) -> std::io::Result<Self> {
        let endpoint = Endpoint::server((*settings.identity.server()).clone(), settings.listen)?;
        let (urgent, urgent_queue) = mpsc::channel(URGENT_MAX);
        let (sightings, sightings_queue) = Sightings::new();
        let (links_wanted, links_queue) = mpsc::channel(URGENT_MAX);
        let shared = Shared(Arc::new(SharedInner {
            table,
            committer,
            registry: Registry::new(),
            members: Members::new(),
            sightings,
            rights: Arc::new(Rights::new(settings.policy)),
            inbox: Mutex::new(Some(broadcast::Sender::new(MESSAGES_WAITING_MAX))),
            endpoint,
            current: watch::Sender::new(Current { identity: settings.identity, rotated: None }),
            revoked: watch::Sender::new(settings.revocations.as_ref().map(RevocationFile::list).unwrap_or_default()),
            cluster: settings.cluster,
            location: settings.location,
            drift_ms_max: settings.drift_ms_max,
            wall: settings.wall,
            fan_out: PUSH_FAN_OUT_DEFAULT,
            confirmations: watch::Sender::new(0),
            urgent,
            links_wanted,
            offline: watch::Sender::new(false),
            tasks: Mutex::new(JoinSet::new()),
            runtime: Handle::current(),
        }));
        shared.spawn(accept(shared.clone()));
        shared.spawn(push_commits(commits, shared.clone()));
        shared.spawn(reconcile_for_ever(settings.reconcile_every, urgent_queue, shared.clone()));
        shared.spawn(relink_after_incarnation(shared.clone()));
        shared.spawn(rebalance_for_ever(shared.clone()));
        shared.spawn(watch_expiry(shared.clone()));
        drop(links_queue);
        shared.spawn(find_out_who_lives(settings.membership, sightings_queue, &shared));
        if let Some(file) = settings.revocations {
            shared.spawn(watch_revocations(file, shared.clone()));
        }
        Ok(Self { shared })
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.shared.endpoint.local_addr().ok()
    }

    /// Dials a peer from now on, for ever.
    pub(crate) fn add_peer(&self, address: &str) {
        if let Some(number) = self.shared.registry.add_peer(address) {
            self.shared.spawn(keep_linked(number, address.to_owned(), self.shared.clone()));
        }
    }

    /// Uses another identity from now on.
    pub(crate) fn reload_identity(&self, identity: Identity) -> Result<(), ReloadError> {
        if let Some(at) = identity.expires().filter(|at| is_past(*at, &self.shared)) {
            return Err(ReloadError::Expired { at });
        }
        trust::rotate(&self.shared, identity);
        Ok(())
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
        self.shared.members.all()
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

    /// Waits until so many linked peers hold all that is applied now. Asks them by reconciling.
    pub(crate) async fn await_replicated(&self, wanted: usize, timeout: Duration) -> Result<(), ReplicationError> {
        let target = self.shared.committer.applied();
        let waiting = self.await_confirmed(target, |confirmed, _| confirmed >= wanted);
        let late = |_| ReplicationError::TimedOut { confirmed: self.confirmed(target).0, wanted };
        tokio::time::timeout(timeout, waiting).await.map_err(late)?
    }

    /// Waits until all peers that are still linked hold all that is applied now, or time runs out.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let target = self.shared.committer.applied();
        let waiting = self.await_confirmed(target, |confirmed, linked| confirmed >= linked);
        let _ = tokio::time::timeout(timeout, waiting).await;
    }

    /// How many linked peers confirmed to hold all that was applied up to `target`, and how many are linked.
    fn confirmed(&self, target: u64) -> (usize, usize) {
        let links = self.shared.registry.links();
        let confirmed = links.iter().filter(|link| link.confirmed_group.load(Ordering::SeqCst) >= target).count();
        (confirmed, links.len())
    }

    async fn await_confirmed(
        &self,
        target: u64,
        enough: impl Fn(usize, usize) -> bool,
    ) -> Result<(), ReplicationError> {
        let shared = &self.shared;
        let mut confirmations = shared.confirmations.subscribe();
        let mut asked = BTreeSet::new();
        loop {
            let (confirmed, linked) = self.confirmed(target);
            if enough(confirmed, linked) {
                return Ok(());
            }
            if shared.committer.failure().is_some() || shared.committer.is_closed() {
                return Err(ReplicationError::Stopped);
            }
            if asked.is_empty() {
                // What is not durable yet cannot be confirmed: to ask before would be to ask twice. A committer that
                // stopped is noticed in the next round.
                let _ = shared.committer.barrier().await;
            }
            for link in shared.registry.links() {
                if link.confirmed_group.load(Ordering::SeqCst) >= target {
                    continue;
                }
                if link.may_ask(asked.insert(link.replica)) {
                    link.wanted.store(true, Ordering::SeqCst);
                    shared.want_reconciliation(link.replica);
                }
            }
            tokio::select! {
                _ = confirmations.changed() => {}
                () = shared.until_changed() => {}
                () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
            }
        }
    }

    /// Tells the other members that this node leaves for good. It takes part in membership no more after that.
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    pub(crate) async fn leave_membership(&self) {
        self.shared.sightings.leave().await;
    }

    /// Closes all links, and waits a little for the peers to learn of it.
    pub(crate) async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.shared.sightings.flush()).await;
        // First, so that the peers read this reason; then no further link comes up.
        self.shared.registry.close_all(CloseCode::Closing, "the node closes");
        self.shared.offline.send_replace(true);
        self.shared.endpoint.close(CloseCode::Closing.code(), b"the node closes");
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.shared.endpoint.wait_idle()).await;
        drop(self.shared.inbox.lock().take());
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }
}

/// Accepts links, for as long as the node lives.
async fn accept(shared: Shared) {
    let handshakes = Handshakes::default();
    while let Some(incoming) = shared.endpoint.accept().await {
        if shared.is_offline() {
            incoming.refuse();
            continue;
        }
        // An address that was not proven yet may be forged: let it prove itself before memory is spent on it.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Some(handshake) = handshakes.begin(incoming.remote_address().ip()) else {
            counter!("stockmesh_handshakes_refused_total").increment(1);
            incoming.refuse();
            continue;
        };
        let shared_of_task = shared.clone();
        shared.spawn(async move {
            welcome_one(incoming, &shared_of_task).await;
            drop(handshake);
        });
    }
}

async fn welcome_one(incoming: Incoming, shared: &Shared) {
    let address = incoming.remote_address();
    let refused = |reason: String| {
        counter!("stockmesh_links_refused_total").increment(1);
        warn!(%address, reason, "a link was refused");
        shared.registry.note_refusal(address, reason);
    };
    // Named, and not left to the endpoint, so that it is known which one the link was made with.
    let identity = shared.current.borrow().identity.clone();
    let connecting = async { incoming.accept_with(identity.server())?.await };
    let deadline = Instant::now() + HANDSHAKE_TIME_MAX;
    let connection = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(explain(&error)),
        Err(_) => return refused("the handshake took too long".into()),
    };
    match welcome(&connection, deadline, shared).await {
        Ok(_) if shared.registry.links().len() >= LINKS_MAX => {
            let reason = format!("this node keeps {LINKS_MAX} links already");
            connection.close(CloseCode::Refused.code(), reason.as_bytes());
            refused(reason);
        }
        Ok(greeting) => {
            let dialled_by = greeting.theirs.replica;
            if let Err(error) = establish(connection, greeting, (dialled_by, identity), shared) {
                refused(error.reason);
            }
        }
        Err(error) => {
            connection.close(CloseCode::Refused.code(), error.reason.as_bytes());
            refused(error.reason);
        }
    }
}

/// Reconciles with a random peer now and then, and at once with those who are wanted urgently.
async fn reconcile_for_ever(every: Duration, mut urgent: mpsc::Receiver<ReplicaId>, shared: Shared) {
    let next_turn = || Instant::now() + every.mul_f64(rand::random_range(0.75..=1.25));
    // Urgent wishes do not put it off, or a peer that always has one would keep the others from theirs.
    let mut turn = next_turn();
    loop {
        let link = tokio::select! {
            replica = urgent.recv() => match replica {
                Some(replica) => shared.registry.link(replica),
                None => return,
            },
            () = tokio::time::sleep_until(turn) => {
                turn = next_turn();
                let links = shared.registry.links();
                if links.is_empty() { None } else { links.get(rand::random_range(0..links.len())).cloned() }
            }
        };
        let Some(link) = link else { continue };
        // One at a time per link: whoever finds it busy leaves its wish behind.
        link.wanted.store(true, Ordering::SeqCst);
        if link.reconciling.try_lock().is_err() {
            continue;
        }
        let shared_of_task = shared.clone();
        shared.spawn(async move {
            if let Err(error) = reconcile(&link, &shared_of_task).await {
                judge(&error, error.violation(), &link, &shared_of_task);
            } else if link.wanted.load(Ordering::SeqCst) && link.is_open() {
                shared_of_task.want_reconciliation(link.replica);
            }
        });
    }
}

/// A new incarnation has another replica id than its links know.
async fn relink_after_incarnation(shared: Shared) {
    let mut events = shared.committer.events();
    loop {
        match events.recv().await {
            Ok(Event::NewIncarnation) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        debug!(own = %shared.table.own(), "links are made anew under the new replica id");
        shared.registry.close_all(CloseCode::NewIncarnation, NEW_INCARNATION);
    }
}
