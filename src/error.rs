//! Errors of the store's operations. Each says what it means for the caller's data.

use std::path::PathBuf;
use std::time::SystemTime;

use stockmesh_proto::hold::HoldId;
use stockmesh_proto::operation::OperationRefused;
use stockmesh_proto::{InvalidInput, Location, ReplicaId, Sku};

use crate::limits::REVOCATIONS_BYTES_MAX;
use crate::storage::StorageError;

/// A write did not succeed. All but [`WriteError::Indeterminate`] mean that nothing was changed, here or elsewhere.
///
/// ```
/// use stockmesh::{Reason, WriteError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// match store.product("MUG-01")?.adjust(-1, Reason::Sold).await {
///     Ok(()) => println!("durable"),
///     Err(WriteError::Indeterminate { cause }) => println!("reopen the store to know: {cause}"),
///     Err(error) => println!("nothing was changed: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An argument is wrong. Nothing was changed.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// This node is leaving its cluster, and takes only writes that resolve holds. Nothing was changed.
    #[error("this node is leaving its cluster; nothing was changed: write at another")]
    Leaving,
    /// This node is a read-only member: its certificate gives it all writes and none of its own. Nothing was changed.
    #[error("this node is a read-only member by its certificate; nothing was changed: write at a full member")]
    ReadOnly,
    /// The operation would break a limit. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] OperationRefused),
    /// There is too little stock, or its rights lie where they could not be had in time. Nothing was changed. The figures
    /// are those that this node knows of the product at the location; of a batch the first that lacks.
    #[error(
        "product {sku} at {location}: {wanted} units are wanted; this node may sell {here}, linked nodes {elsewhere}, nodes out of reach {unreachable}; nothing was changed"
    )]
    Insufficient {
        /// The product.
        sku: Sku,
        /// Where.
        location: Location,
        /// Units wanted.
        wanted: u64,
        /// Units that this node may sell.
        here: u64,
        /// Units that linked nodes may sell. If they would cover it, they keep them, did not answer in time, or a
        /// deficit elsewhere is to be paid back first.
        elsewhere: u64,
        /// Units that only nodes without a link may sell.
        unreachable: u64,
    },
    /// The request was done before under the same reference, and gave a hold that is not known any more: it was resolved
    /// long ago, or the node has another replica id now. Nothing was changed by this call.
    #[error(
        "the request was done before and gave hold {id}, which is not known any more; nothing was changed by this call"
    )]
    HoldForgotten {
        /// The hold.
        id: HoldId,
    },
    /// The store was closed. Nothing was changed.
    #[error("the store is closed; nothing was changed")]
    Closed,
    /// An earlier write to the disk failed, and the store takes no more. Nothing was changed.
    #[error(
        "the store takes no more writes, since its disk failed earlier ({cause}); nothing was changed; reads go on, and a reopen tells what is durable"
    )]
    Poisoned {
        /// What failed first.
        cause: String,
    },
    /// Writing to the disk failed under this very write: whether it is durable, a reopen tells.
    #[error(
        "the disk failed during this write ({cause}); it is indeterminate: a reopen of the store tells whether it is durable, until then do not repeat it"
    )]
    Indeterminate {
        /// What failed.
        cause: String,
    },
}

/// A product cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The SKU is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// No write of this product has reached this node.
    #[error("product {sku} is unknown here: no write of it has reached this node")]
    Unknown {
        /// The SKU.
        sku: Sku,
    },
}

/// The store cannot be opened. Nothing on disk was changed, unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The list of revoked certificates cannot be used.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The directory is in use by another store, here or in another process.
    #[error("data directory {} is in use by another store; close that one first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another cluster, or was made with another number of shards.
    #[error(
        "data directory was made with {field} {stored}, the settings say {wanted}; use another directory, or the setting it was made with"
    )]
    OtherSettings {
        /// The setting.
        field: &'static str,
        /// What the directory says.
        stored: String,
        /// What the builder says.
        wanted: String,
    },
    /// What is stored is damaged.
    #[error("the store is damaged: {}; open it with `DamagePolicy::NewIncarnation` to keep what is intact under a new replica id and get the rest from its peers", damage.join("; "))]
    Damaged {
        /// What is damaged, and what it covers.
        damage: Vec<String>,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The network endpoint cannot be opened.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the committing thread: {0}")]
    Thread(std::io::Error),
}

/// Own writes are not known to be held by enough other replicas. They are durable here and go on spreading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// Time ran out.
    #[error(
        "within the time given, {confirmed} of {wanted} other replicas confirmed to hold all writes durably; they are durable here and go on spreading"
    )]
    TimedOut {
        /// How many confirmed.
        confirmed: usize,
        /// How many were wanted.
        wanted: usize,
    },
    /// The store has no network.
    #[error("the store was opened without a network, so no other replica can hold its writes; they are durable here")]
    NoNetwork,
    /// The store is closed or its disk failed.
    #[error("the store is closed or its disk failed; what was acknowledged is durable here")]
    Stopped,
}

/// Closing did not end cleanly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The disk had failed before.
    #[error(
        "the store is closed; its disk had failed ({cause}): a reopen tells what is durable of the writes that were indeterminate"
    )]
    Poisoned {
        /// What failed first.
        cause: String,
    },
}

/// The identity was not changed. Data and links go on as they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The store was opened without an identity, so it has no network.
    #[error("the store was opened without an `identity` and has no network; nothing was changed: open it with one")]
    NoNetwork,
    /// The new certificate has expired: with it no peer would let this node in.
    #[error(
        "the new certificate is expired; nothing was changed, the store goes on with the one it has: check the clock, or issue another"
    )]
    Expired {
        /// When it ended.
        at: SystemTime,
    },
    /// The new certificate is of a node at another location.
    #[error(
        "the new certificate is of a node at {certified}, this store is at {location}; nothing was changed: issue it for this location"
    )]
    OtherLocation {
        /// What the certificate says.
        certified: Location,
        /// The store's home location.
        location: Location,
    },
    /// The store is closed.
    #[error("the store is closed; its identity was not changed")]
    Closed,
}

/// A list of revoked certificates that cannot be used. At open nothing was opened; later the list from before counts on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationsError {
    /// The file cannot be read.
    #[error("the list of revoked certificates {} cannot be read: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The file is too long.
    #[error("the list of revoked certificates {} must have at most {REVOCATIONS_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line is no fingerprint.
    #[error("the list of revoked certificates {}, line {line}: {value:?} {rule}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, the first is 1.
        line: usize,
        /// What stands there, shortened.
        value: String,
        /// What must stand there.
        rule: String,
    },
}

/// A replica was not retired. Stock, rights and holds are as they were; the text says if members were told already to take
/// no more writes of it, and then the call should be made again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetireError {
    /// It is this node's own id.
    #[error("replica {0} is this very node: call `leave` instead; nothing was changed")]
    Own(ReplicaId),
    /// No write of it is known here, and no member of that id.
    #[error("replica {0} is not known here: check the id; nothing was changed")]
    Unknown(ReplicaId),
    /// It is linked with a member.
    #[error("replica {replica} is alive: member {at} is linked with it; rights and holds are as they were")]
    Alive {
        /// The replica.
        replica: ReplicaId,
        /// Who is linked with it.
        at: ReplicaId,
    },
    /// Members could not be asked in time. What they alone know of the replica's writes would be lost: units it sold would
    /// be sold again, units it received would be missing.
    #[error(
        "members {} cannot be reached: what they alone know of the replica's sales and receipts would be lost; wait for \
         them, or name them in `without`; rights and holds are as they were",
        list(members)
    )]
    Unreachable {
        /// The members, those included that do not know how to retire a replica.
        members: Vec<ReplicaId>,
    },
    /// Another heir was named before.
    #[error(
        "replica {replica} is retired already, or being retired, with {heir} as its heir; if that one is dead, retire it first; rights and holds are as they were"
    )]
    OtherHeir {
        /// The replica.
        replica: ReplicaId,
        /// Who takes over for it.
        heir: ReplicaId,
    },
    /// The heir cannot do it.
    #[error("the heir {heir} did not retire the replica: {why}")]
    Heir {
        /// The heir.
        heir: ReplicaId,
        /// What it says.
        why: String,
    },
    /// So many replicas are retired that no more are remembered.
    #[error("too many replicas are retired already; nothing was changed")]
    TooMany,
    /// The replica is fenced, but not all was taken over. This node goes on with it by itself, also after a restart.
    #[error("the replica is fenced, but not everything of it was taken over yet: {0}; this node goes on with it")]
    Write(#[from] WriteError),
    /// The store is closed, or its disk failed.
    #[error("the store is closed or its disk failed; reopen it and call again")]
    Stopped,
}

fn list(replicas: &[ReplicaId]) -> String {
    replicas.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(", ")
}

/// The node did not leave, and goes on as a member. What it gave away before stays with the heir.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The store has no network: there is nobody to leave.
    #[error("the store was opened without an `identity` and belongs to no cluster; call `close`")]
    NoNetwork,
    /// There is no link to the heir, or to anybody that can take over and does not leave itself.
    #[error("no linked node can take over: rights and holds would be out of reach; nothing was changed")]
    NobodyLinked,
    /// Another call is at it.
    #[error("the node is leaving already; this call changed nothing")]
    UnderWay,
    /// Holds are not resolved yet.
    #[error("{holds} holds are not resolved yet; nothing was handed over, the node goes on")]
    Held {
        /// How many.
        holds: usize,
    },
    /// It was not done in time, the heir went away, or something could not be written.
    #[error(
        "{why}; {} units of rights and {} holds are with {:?} already, the node goes on", left.units, left.holds.len(),
        left.heir
    )]
    Unfinished {
        /// What failed.
        why: String,
        /// What was handed over before.
        left: Left,
    },
    /// It left, but its disk had failed.
    #[error("the node left, but did not close cleanly: {0}")]
    Close(CloseError),
}

/// A node that left, and what it handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Who got its rights and holds; nobody if it had none.
    pub heir: Option<ReplicaId>,
    /// Units of rights that were given.
    pub units: u64,
    /// The holds that were handed over, by their former ids: the new id, or nothing if the heir could not hold as much.
    /// Then the units are the heir's to sell.
    pub holds: Vec<(HoldId, Option<HoldId>)>,
}
