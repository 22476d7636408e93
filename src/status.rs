//! How a store stands, for the operator.

use std::net::SocketAddr;
use std::time::SystemTime;

use stockmesh_proto::{ClusterId, Fingerprint, Location, ReplicaId};

use crate::certificate::NodeName;
use crate::net::{DialStatus, JoinProgress, PeerStatus, Refused, SourceStatus};
use crate::witness::Incarnation;

/// Whether writes become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Every acknowledged write is synced to disk; with `in_memory`, to what stands for one.
    Synced,
    /// The disk failed: reads go on, writes are refused until the store is opened anew.
    Poisoned {
        /// What failed first.
        cause: String,
    },
    /// The store is closed.
    Closed,
}

/// How a store stands at one moment. Cheap enough to be asked for many times a second: a lock per shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The id under which this directory writes.
    pub replica: ReplicaId,
    /// Ids under which it wrote before: each is a copy or damage that was noticed.
    pub former_replicas: Vec<ReplicaId>,
    /// The latest changes of the id since the store was opened, each with the link over which its reason came: a node that
    /// is no copy finds there who forged writes in its name, or got them from who did.
    pub incarnations: Vec<Incarnation>,
    /// Whether this node is a read-only member by its certificate: every write is refused.
    pub read_only: bool,
    /// The name in this node's certificate, if it has one.
    pub node: Option<NodeName>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The home location.
    pub location: Location,
    /// Fingerprint of the whole state: equal at two nodes means that they hold the same.
    pub fingerprint: Fingerprint,
    /// Products known here.
    pub products: u64,
    /// Slots known here: counters of a replica at a location, and registers.
    pub slots: u64,
    /// Holds of this node that are not resolved.
    pub holds: u64,
    /// Whether writes become durable.
    pub durability: Durability,
    /// The number of the last durable batch.
    pub last_batch: u64,
    /// Bytes of the journal that are not folded into snapshots yet.
    pub journal_bytes: u64,
    /// Shards in which slots were missing that this node had claimed to hold, since the store was opened. They were
    /// repaired from a peer; that they were lost at all means a failing disk, a copied directory, or a bug.
    pub shards_in_doubt: Vec<u16>,
    /// Shards in which this node, a read-only member, holds writes that none of the full members it is linked with has got
    /// for six intervals of reconciliation, and for 30 s at least (10 min at the most). Nobody takes writes from a read-only
    /// member, so it shows something else than the others until somebody decides. Empty at a full member, and for such a time
    /// after each start.
    ///
    /// It comes about if a node loses its directory, or is put back to an old copy, after its last writes got no further than
    /// here; or if this directory was a full member's. Once *every* full member is up and has all the others have, also those
    /// that this node is not linked with, there are two ways out, for which the store is closed and its directory copied:
    /// - *Give these writes up:* delete the directory and open it again. It gets all from the others. Not if it was a full
    ///   member's: this may be the only copy of what that wrote.
    /// - *Have them again:* open the directory with the certificate of a full member of the same name, until another node
    ///   shows the same [`fingerprint`](Self::fingerprint). Then [`leave`](crate::Store::leave), so that no rights stay with
    ///   it, and begin anew as a read-only member with an empty directory. If the writer went on from an old copy meanwhile,
    ///   under the same id, only the greater of both of its counts is left: count what lies there
    ///   ([`Product::stocktake`](crate::Product::stocktake)).
    pub stranded: Vec<u16>,
    /// Whether this node may lack what its peers hold, since it was opened empty or had lost something, and has not
    /// reconciled in full since: what it serves to readers is not all yet. A node that never knew of a peer has nobody to
    /// catch up with, and one that has a state of its own when it meets its first peer does not count as catching up.
    pub catching_up: bool,
    /// How far it got, see [`Store::joining`](crate::Store::joining).
    pub joining: JoinProgress,
    /// Whether the node was told to keep no links.
    pub offline: bool,
    /// The address that it listens on.
    pub listen: Option<SocketAddr>,
    /// When this node's certificate expires: after that no peer lets it in, see
    /// [`Store::reload_identity`](crate::Store::reload_identity).
    pub identity_expires: Option<SystemTime>,
    /// Peers, configured and linked.
    pub peers: Vec<PeerStatus>,
    /// The last links that were refused, with the reason.
    pub refusals: Vec<Refused>,
    /// Where nodes are looked for, besides the configured peers.
    pub sources: Vec<SourceStatus>,
    /// Members and candidates that were dialled or will be, those that failed first; at most 256.
    pub dials: Vec<DialStatus>,
    /// Copies of pushes that arrived since the store was opened …
    pub pushes_received: u64,
    /// … and how many of them brought something new. The rest are what spreading by chance costs.
    pub pushes_new: u64,
    /// Bytes of UDP payload sent since the store was opened.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received since the store was opened.
    pub bytes_received: u64,
}
