//! What is known of links and peers: for choosing whom to talk to, and for the operator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh_proto::{Location, ReplicaId};

use super::bindings::{Bindings, NodeKey};
use super::certificate::{CertificateFingerprint, NodeName};
use super::link::Link;
use super::refusal::CloseCode;
use crate::limits::{REFUSALS_MAX, SAME_TIME};
use crate::watch;

/// How a link to a configured peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Being dialled.
    Connecting,
    /// Open.
    Up,
    /// Waiting before the next dial.
    BackingOff,
}

/// A peer, as this node sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The address that it was configured with, or that it dialled from.
    pub address: String,
    /// Its replica id, once known.
    pub replica: Option<ReplicaId>,
    /// Its home location, once known.
    pub location: Option<Location>,
    /// The fingerprint of its certificate, while there is a link.
    pub certificate: Option<CertificateFingerprint>,
    /// The name in its certificate, while there is a link and if it has one.
    pub node: Option<NodeName>,
    /// Whether it is a read-only member: it gets all writes, and none are taken from it. False without a link.
    pub read_only: bool,
    /// How the link stands.
    pub state: LinkState,
    /// Its clock less this node's, in milliseconds, as measured at the hello.
    pub skew_ms: Option<i64>,
    /// Own writes that it has not confirmed to hold durably.
    pub lag_writes: Option<u64>,
    /// Time since the last complete reconciliation with it.
    pub reconciled_ago: Option<Duration>,
    /// Round-trip time of the link.
    pub round_trip: Option<Duration>,
    /// Bytes of UDP payload sent to it on this link.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received from it on this link.
    pub bytes_received: u64,
    /// For how long in all it was held back on this link, since it sent faster than
    /// [`Builder::peer_limits`](crate::Builder::peer_limits) allows.
    pub slowed: Duration,
    /// Why the last link or attempt ended.
    pub last_error: Option<String>,
}

/// A link that was refused, by this node or by the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The peer's address.
    pub address: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// A configured peer.
#[derive(Clone, Debug)]
struct Peer {
    address: String,
    replica: Option<ReplicaId>,
    state: LinkState,
    last_error: Option<String>,
}

/// Peers besides some that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// One is linked.
    Linked,
    /// One is configured, and there is no link to it.
    Missing,
    /// There is none.
    None,
}

#[derive(Debug, Default)]
struct Entries {
    links: BTreeMap<ReplicaId, Arc<Link>>,
    bindings: Bindings,
    peers: Vec<Peer>,
    refusals: VecDeque<Refused>,
    /// Bytes of links that are closed.
    bytes_sent: u64,
    bytes_received: u64,
}

/// A link is refused, since its replica is another node as far as this one can tell. Both sides read the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error(
        "replica {0} is linked with another certificate: one of the two nodes is an impostor or a copy and must be \
         stopped; or the node has a renewed certificate, and is let in once its old link has ended"
    )]
    OtherCertificate(ReplicaId),
    #[error(
        "replica {replica} is known as that of {owner}, and this is {node}: one of the two is an impostor or a copy and must be \
         stopped; or the node was renamed, and takes a new replica id"
    )]
    OtherNode { replica: ReplicaId, owner: NodeKey, node: NodeKey },
}

/// All links and configured peers of a node.
#[derive(Debug)]
pub(super) struct Registry {
    entries: Mutex<Entries>,
    /// Counts changes of the links, for those who wait for one.
    changes: watch::Sender<u64>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Wakes up at each change of the links.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds a peer to dial; `None` if it is known already. The number names it in the calls below.
    pub(super) fn add_peer(&self, address: &str) -> Option<usize> {
        let mut entries = self.entries.lock();
        if entries.peers.iter().any(|peer| peer.address == address) {
            return None;
        }
        let state = LinkState::Connecting;
        entries.peers.push(Peer { address: address.to_owned(), replica: None, state, last_error: None });
        Some(entries.peers.len() - 1)
    }

    /// Whether a configured peer was found to be this replica.
    pub(super) fn is_peer(&self, replica: ReplicaId) -> bool {
        self.entries.lock().peers.iter().any(|peer| peer.replica == Some(replica))
    }

    /// Notes how a configured peer stands.
    pub(super) fn note_peer(&self, number: usize, state: LinkState, error: Option<String>, replica: Option<ReplicaId>) {
        let mut entries = self.entries.lock();
        if let Some(peer) = entries.peers.get_mut(number) {
            peer.state = state;
            peer.replica = replica.or(peer.replica);
            if error.is_some() || state == LinkState::Up {
                peer.last_error = error;
            }
        }
    }

    /// Takes in a link. Of two links to the same peer that were dialled at the same time, the one dialled by the lower
    /// id is kept; else the newer, since a peer that dials though there is a link has lost that one, as after a crash.
    /// Returns the link that is superfluous, if there is one.
    ///
    /// # Errors
    /// If the replica is linked with another certificate, or was with one of another node: members must not take each
    /// other's place (rules H3, K5).
    pub(super) fn admit(
        &self,
        link: &Arc<Link>,
        is_pinned: impl Fn(CertificateFingerprint) -> bool,
    ) -> Result<Option<Arc<Link>>, NotAdmitted> {
        let superfluous = {
            let mut entries = self.entries.lock();
            let entries = &mut *entries;
            let replica = link.replica;
            let known = entries.links.get(&replica).filter(|known| known.is_open());
            if known.is_some_and(|known| known.fingerprint != link.fingerprint) {
                return Err(NotAdmitted::OtherCertificate(replica));
            }
            if let Some(owner) = entries.bindings.other_owner(replica, &link.node, is_pinned) {
                return Err(NotAdmitted::OtherNode { replica, owner, node: link.node.clone() });
            }
            let superfluous = match known {
                Some(known) if known.dialled_by < link.dialled_by && known.since.elapsed() < SAME_TIME => {
                    Some(Arc::clone(link))
                }
                _ => entries.links.insert(link.replica, Arc::clone(link)).filter(|old| old.is_open()),
            };
            entries.bindings.note(replica, &link.node);
            superfluous
        };
        self.changes.send_modify(|count| *count += 1);
        Ok(superfluous)
    }

    /// Forgets whose the replica ids were: this node tells nodes apart otherwise now.
    pub(super) fn forget_nodes(&self) {
        self.entries.lock().bindings.clear();
    }

    /// What other peers there are besides these, of those that bring something: not those that only read.
    pub(super) fn others(&self, known: &BTreeSet<ReplicaId>) -> Others {
        let entries = self.entries.lock();
        let mut linked = entries.links.iter().filter(|(_, link)| link.is_open() && !link.read_only);
        if linked.any(|(replica, _)| !known.contains(replica)) {
            return Others::Linked;
        }
        let mut configured = entries.peers.iter().map(|peer| peer.replica);
        let is_missing = configured.any(|replica| replica.is_none_or(|replica| !known.contains(&replica)));
        if is_missing { Others::Missing } else { Others::None }
    }

    /// Forgets a link that ended.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        {
            let mut entries = self.entries.lock();
            if entries.links.get(&link.replica).is_some_and(|known| Arc::ptr_eq(known, link)) {
                entries.links.remove(&link.replica);
            }
            let stats = link.connection.stats();
            entries.bytes_sent += stats.udp_tx.bytes;
            entries.bytes_received += stats.udp_rx.bytes;
        }
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn link(&self, replica: ReplicaId) -> Option<Arc<Link>> {
        self.entries.lock().links.get(&replica).filter(|link| link.is_open()).cloned()
    }

    /// All open links, by replica.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.entries.lock().links.values().filter(|link| link.is_open()).cloned().collect()
    }

    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for link in self.links() {
            link.close(code, reason);
        }
    }

    pub(super) fn note_refusal(&self, address: SocketAddr, reason: String) {
        let mut entries = self.entries.lock();
        if entries.refusals.len() == REFUSALS_MAX {
            entries.refusals.pop_front();
        }
        entries.refusals.push_back(Refused { address: address.to_string(), reason });
    }

    /// The same, unless the reason is among those that are remembered.
    pub(super) fn note_refusal_once(&self, address: SocketAddr, reason: String) {
        if !self.entries.lock().refusals.iter().any(|known| known.reason == reason) {
            self.note_refusal(address, reason);
        }
    }

    pub(super) fn refusals(&self) -> Vec<Refused> {
        self.entries.lock().refusals.iter().cloned().collect()
    }

    /// Bytes of UDP payload sent and received.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let entries = self.entries.lock();
        entries
            .links
            .values()
            .map(|link| link.connection.stats())
            .fold((entries.bytes_sent, entries.bytes_received), |(sent, received), stats| {
                (sent + stats.udp_tx.bytes, received + stats.udp_rx.bytes)
            })
    }

    /// Configured peers in their order, then those that dialled in.
    pub(super) fn status(&self, own_writes: u64) -> Vec<PeerStatus> {
        let entries = self.entries.lock();
        let mut links = entries.links.clone();
        let mut status = Vec::new();
        for peer in &entries.peers {
            let link = peer.replica.and_then(|replica| links.remove(&replica)).filter(|link| link.is_open());
            status.push(PeerStatus {
                address: peer.address.clone(),
                replica: peer.replica,
                state: if link.is_some() { LinkState::Up } else { peer.state },
                last_error: peer.last_error.clone(),
                ..of_link(link.as_deref(), own_writes)
            });
        }
        let others = links.values().filter(|link| link.is_open());
        status.extend(others.map(|link| of_link(Some(link), own_writes)));
        status
    }
}

fn of_link(link: Option<&Link>, own_writes: u64) -> PeerStatus {
    let reconciled = link.and_then(|link| *link.last_reconciled.lock());
    let stats = link.map(|link| link.connection.stats());
    PeerStatus {
        address: link.map(|link| link.address.to_string()).unwrap_or_default(),
        replica: link.map(|link| link.replica),
        location: link.map(|link| link.location.clone()),
        certificate: link.map(|link| link.fingerprint),
        node: link.and_then(|link| link.witness.node.clone()),
        read_only: link.is_some_and(|link| link.read_only),
        state: if link.is_some() { LinkState::Up } else { LinkState::BackingOff },
        skew_ms: link.map(|link| link.skew_ms),
        lag_writes: link.map(|link| own_writes.saturating_sub(link.confirmed_writes.load(Ordering::SeqCst))),
        reconciled_ago: reconciled.map(|at| at.elapsed()),
        round_trip: link.map(|link| link.connection.rtt()),
        bytes_sent: stats.map_or(0, |stats| stats.udp_tx.bytes),
        bytes_received: stats.map_or(0, |stats| stats.udp_rx.bytes),
        slowed: link.map_or(Duration::ZERO, |link| link.meter.slowed()),
        last_error: None,
    }
}
