//! The committer: the one thread that changes the replica's state, and makes every change durable.
//!
//! It takes what has queued up, evaluates and applies it to the table, appends one batch to the journal, syncs once,
//! and only then acknowledges and lets anything of it leave the node (rules D1 to D4, R8). While it syncs the next group
//! gathers: that is the group commit.

mod answer;
mod batch;
mod committer;
mod fold;
mod gathering;
mod incarnation;
mod own;
mod retired;
mod room;
mod side;
#[cfg(feature = "testing")]
mod simulated;
mod worker;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use stockmesh_proto::delta::Products;
use stockmesh_proto::operation::{Books, Outcome, Request};
use stockmesh_proto::wire::PushShard;
use stockmesh_proto::{Location, ReplicaId, ShardIndex, Sku, VersionVector};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use committer::{Committer, WeakCommitter};
pub(crate) use fold::snapshot;
pub(crate) use side::{HOLD_KEY_PREFIX, delete_holds};
pub(crate) use worker::Worker;

use crate::error::WriteError;
use crate::retirements::{HeirClaim, Retirements};
use crate::settings::Stored;
use crate::storage::{LedgerView, StorageError};
use crate::subscribe::Watchers;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Mutex, RwLock, mpsc, oneshot};
use crate::watch;
use crate::witness::{Incarnation, Witness};

/// What a remote delta lets this replica claim once it is merged.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// Nothing: more chunks of the shard follow.
    Nothing,
    /// What the peer's vector claims: the delta arrived whole (rule M2).
    Version(VersionVector),
    /// The range that a push names, if it joins on (rule M3).
    Range { origin: ReplicaId, from: u64, to: u64 },
}

/// Slots of one shard from elsewhere, checked.
#[derive(Clone, Debug)]
pub(crate) struct RemoteDelta {
    pub(crate) shard: ShardIndex,
    pub(crate) products: Products,
    pub(crate) claim: Claim,
}

/// Where remote deltas came from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The link over which they came.
    pub(crate) witness: Arc<Witness>,
    /// The room that they take, let go of when they are merged.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Source {
    /// Of this link, without counting the room.
    pub(crate) fn of(witness: &Arc<Witness>) -> Self {
        Self { witness: Arc::clone(witness), room: None }
    }
}

/// What merging remote deltas did, now durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteOutcome {
    /// Slots that changed: above zero means that it was news.
    pub(crate) slots_changed: u64,
    /// Shards in which a push's range did not join on to what was claimed.
    pub(crate) gaps: Vec<ShardIndex>,
    /// Slots that changed although they were claimed (rule F4).
    pub(crate) slots_repaired: u64,
    /// Shards of which something was turned away for lack of room, so that nothing was claimed.
    pub(crate) shards_refused: BTreeSet<ShardIndex>,
}

/// Told what merging did once it is durable.
pub(crate) type Merged = oneshot::Receiver<Result<RemoteOutcome, Stopped>>;

/// Rights that a peer asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) sku: Sku,
    pub(crate) location: Location,
    /// To whom they go: the peer itself, as its link knows it.
    pub(crate) to: ReplicaId,
    /// The id under which the peer knows this replica: under another one it would not recognise the grant.
    pub(crate) from: ReplicaId,
    /// Units at the most.
    pub(crate) units: u64,
}

/// Rights that were given, durably.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Units; 0 if there were none to give.
    pub(crate) units: u64,
    /// The sequence number of the write.
    pub(crate) sequence: u64,
    /// Stock and grants of the product at the location, as of the write.
    pub(crate) products: Products,
}

/// What became of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FenceOutcome {
    /// It stands, durably, for this heir: the one that was asked for, or one that was named before.
    Fenced(ReplicaId),
    /// It is this very replica.
    Own,
    /// So many are retired that no more are remembered.
    Full,
}

/// One piece of work.
enum Work {
    Own {
        request: Request,
        reply: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
    },
    Grant {
        asked: Asked,
        reply: oneshot::Sender<Result<Given, Stopped>>,
    },
    Remote {
        deltas: Vec<RemoteDelta>,
        source: Source,
        /// Told when it can be read in the table, up to a sync before it is durable.
        applied: Option<oneshot::Sender<()>>,
        reply: oneshot::Sender<Result<RemoteOutcome, Stopped>>,
    },
    OwnFuture {
        replica: ReplicaId,
        shard: ShardIndex,
        sequence: u64,
        from: Arc<Witness>,
    },
    IdTaken {
        replica: ReplicaId,
    },
    Fence {
        retired: ReplicaId,
        claim: HeirClaim,
        reply: oneshot::Sender<Result<FenceOutcome, Stopped>>,
    },
    /// Peers say that this replica was retired.
    RetiredHere {
        replica: ReplicaId,
    },
    CatchingUp {
        is_so: bool,
    },
    Settings {
        stored: Stored,
        reply: oneshot::Sender<Result<(), StorageError>>,
    },
    Ledger {
        reply: oneshot::Sender<Result<LedgerView, StorageError>>,
    },
    Close,
}

/// The committer takes no more work: the store was closed, or its disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store is closed or its disk failed; nothing was applied")]
pub(crate) struct Stopped;

/// What can be read of the committer without asking it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The number of the group that is being applied: set before anything of it can be read.
    applied: AtomicU64,
    /// The number of the last group that is durable.
    durable: watch::Sender<Durable>,
    last_batch: AtomicU64,
    journal_bytes: AtomicU64,
    /// Holds and references. Changed by the committing thread alone.
    books: RwLock<Books>,
    /// When the next hold expires, in milliseconds since 1970.
    next_expiry_ms: watch::Sender<Option<u64>>,
    /// Subscriptions that watch for stock that runs low.
    watchers: Watchers,
    /// Ids under which this directory wrote before.
    former: Mutex<Vec<ReplicaId>>,
    /// Replicas that were retired. Changed by the committing thread alone.
    retired: RwLock<Retirements>,
    /// Held by whoever takes over for a retired replica.
    taking_over: Arc<tokio::sync::Mutex<()>>,
    /// Counts what may have to be taken over for the retired, or done again by one that returned.
    retirement_news: watch::Sender<u64>,
    /// The latest changes of the id since the store was opened.
    incarnations: Mutex<VecDeque<Incarnation>>,
    /// No own write is made: this node is a read-only member (rule K2).
    read_only: AtomicBool,
    /// Shards in which a merge repaired something (rule F4).
    repaired: Mutex<BTreeSet<ShardIndex>>,
    /// The thread ended, and with it the engine and the lock of the directory.
    ended: watch::Sender<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Durable {
    Group(u64),
    Failed(String),
    Closed,
}

impl Progress {
    fn new((former, retired): (Vec<ReplicaId>, Retirements), books: Books) -> Self {
        Self {
            applied: AtomicU64::new(0),
            durable: watch::Sender::new(Durable::Group(0)),
            last_batch: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            next_expiry_ms: watch::Sender::new(books.next_expiry().map(|(expires_ms, _)| expires_ms)),
            books: RwLock::new(books),
            watchers: Arc::default(),
            former: Mutex::new(former),
            retired: RwLock::new(retired),
            retirement_news: watch::Sender::new(0),
            taking_over: Arc::default(),
            incarnations: Mutex::default(),
            read_only: AtomicBool::new(false),
            repaired: Mutex::default(),
            ended: watch::Sender::new(false),
        }
    }
}

/// Something that the rest of the node must act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The replica writes under a new id: links made under the old one must be made anew (rule I2).
    NewIncarnation,
    /// A replica was retired: nobody links with it any more (rule Q2).
    Retired(ReplicaId),
}

/// A committed group's own writes, as they were committed (rule P1).
#[derive(Debug)]
pub(crate) struct OwnWrites {
    /// The id under which they were made.
    pub(crate) origin: ReplicaId,
    /// By shard.
    pub(crate) shards: Vec<PushShard>,
}

/// The committed groups' own writes, in their order.
pub(crate) type Commits = mpsc::Receiver<OwnWrites>;
