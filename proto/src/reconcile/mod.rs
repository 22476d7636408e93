//! Reconciliation (anti-entropy): push-pull between two replicas, as a state machine without I/O.
//!
//! The two sides take turns on one stream, over all shards or, in a pull, over some of them (rules R1 to R8 and J2, diagram in `PROTOCOL.md`, section 4). A session borrows a
//! view of the state, and returns messages and effects; it owns no state of the replica, so there is one truth.
//!
//! The caller's part is small: hand every message that arrives to [`Session::handle`] and carry out the effects in
//! their order; then call [`Session::poll_transmit`] until it returns `None` and send what it returns, each only once
//! everything that was readable is durable; stop at [`Effect::Finished`].

mod session;
mod stranded;
mod turn;

pub use session::Session;
pub use stranded::{Comparison, Findings, Stranded};

use crate::delta::ShardDelta;
use crate::fingerprint::{Fingerprint, FingerprintTree};
use crate::id::{ReplicaId, ShardCount, ShardIndex, Sku};
use crate::shard::Chunk;
use crate::version::VersionVector;
use crate::wire::{FrameKind, Summary};

/// What a session reads of the replica's state. Each call reads under one lock.
pub trait StateView {
    /// The id under which this replica writes now.
    fn own(&self) -> ReplicaId;
    /// The sums over all shards.
    fn tree(&self) -> FingerprintTree;
    /// Fingerprint and version vector of one shard.
    fn summary(&self, shard: ShardIndex) -> Summary;
    /// A chunk of the slots that `covered` does not cover, from `from` on.
    fn extract(&self, shard: ShardIndex, covered: &VersionVector, from: Option<&Sku>, bytes_target: usize) -> Chunk;
}

/// What both sides must have in common, and this side's drift bound.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The cluster's number of shards.
    pub shards: ShardCount,
    /// How far a stamp may run ahead of this node's clock, in milliseconds.
    pub drift_ms_max: u64,
    /// Size at which a chunk is closed, in bytes.
    pub chunk_bytes_target: usize,
}

/// Which way slots go in a session. Version vectors and fingerprints go both ways always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both sides get what they lack.
    #[default]
    Both,
    /// This side is a read-only member: it takes slots and sends none (rule K3).
    PullOnly,
    /// The peer is a read-only member: it is sent what it lacks, and nothing that it claims is taken (rule K3).
    ServeOnly,
}

/// The shards' fingerprints when this replica and a peer last agreed: which shards to summarise at once next time.
/// Only a hint; a wrong one costs half a round trip, never convergence.
#[derive(Clone, Debug)]
pub struct Agreement {
    leaves: Vec<Fingerprint>,
}

impl Agreement {
    /// Takes note of the fingerprints as they are now.
    pub fn of(tree: &FingerprintTree, shards: ShardCount) -> Self {
        Self { leaves: shards.indexes().map(|shard| tree.leaf(shard)).collect() }
    }

    fn differs(&self, tree: &FingerprintTree, shard: ShardIndex) -> bool {
        self.leaves.get(shard.as_usize()) != Some(&tree.leaf(shard))
    }
}

/// What the caller must do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Merge the delta and, if a claim is given, join it into the shard's version vector in the same step. A claim
    /// comes with the last chunk of a shard only (rule R4).
    Merge {
        /// The slots.
        delta: ShardDelta,
        /// What may be claimed once they are merged.
        claim: Option<VersionVector>,
    },
    /// The peer claims a write of this replica that it never made (rule I2): mint a new incarnation.
    OwnFuture {
        /// The shard in which it shows.
        shard: ShardIndex,
        /// The peer's count of this replica's writes.
        sequence: u64,
    },
    /// A shard's delta was refused, since a stamp runs ahead too far; it will come again at a later session.
    Refused {
        /// The shard.
        shard: ShardIndex,
        /// How far the stamp runs ahead, in milliseconds.
        ahead_ms: u64,
    },
    /// Equal version vectors, different fingerprints: the shard is exchanged in full (rule F4). Either a side holds
    /// slots beyond a gap, which is no fault, or one has lost something: then its merge repairs slots.
    InDoubt {
        /// The shard.
        shard: ShardIndex,
    },
    /// How a shard of this read-only member stands to that of the peer (rule K9), for [`Stranded`].
    Compared {
        /// The shard.
        shard: ShardIndex,
        /// The version vector here, and that of the peer.
        vectors: (VersionVector, VersionVector),
        /// What else is known of it.
        comparison: Comparison,
    },
    /// The session is over.
    Finished(Outcome),
}

/// How a session went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The roots were equal: nothing was exchanged.
    pub equal: bool,
    /// Shards of which something arrived.
    pub shards_received: u32,
    /// Shards of which something was sent.
    pub shards_sent: u32,
    /// Slots that arrived, those refused included.
    pub slots_received: u64,
    /// Slots that were sent.
    pub slots_sent: u64,
    /// Shards whose delta was refused here.
    pub shards_refused: u32,
    /// The session was a pull: it speaks of the shards in its scope alone (rule J2).
    pub scoped: bool,
    /// The peer gave its receipt: all that arrived there is durable. Given to the side that opened.
    pub receipt: bool,
    /// Shards whose delta the peer refused. Known to the side that opened.
    pub shards_refused_by_peer: u32,
}

impl Outcome {
    /// Whether the peer durably holds everything this side had when the session began. Known to the side that opened, once
    /// the session is finished. A pull tells no such thing.
    pub fn peer_holds_all(&self) -> bool {
        self.receipt && !self.scoped && self.shards_refused_by_peer == 0
    }
}

/// A peer broke a rule of the protocol. Chunks that were merged before stay; nothing is claimed of a shard that did not
/// arrive whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A message that has no place at this point.
    #[error("a message of kind {0:?} has no place at this point of a reconciliation; it was not applied")]
    Unexpected(FrameKind),
    /// A shard came twice, or out of order.
    #[error("shard {0} came twice or out of order; it was not applied")]
    Disorder(ShardIndex),
    /// A frame of summaries without any: a peer could send them for ever.
    #[error("a frame of summaries holds none; it was not applied")]
    Empty,
    /// The groups of fingerprints do not fit the cluster's number of shards.
    #[error("{got} groups of fingerprints came, the cluster has {wanted}; nothing was applied")]
    Groups {
        /// What came.
        got: usize,
        /// What the cluster has.
        wanted: usize,
    },
    /// A pull came to a shard that its scope does not name.
    #[error("shard {0} is not in the scope of the pull; it was not applied")]
    OutOfScope(ShardIndex),
    /// A pull did not summarise a shard of its scope.
    #[error("the pull names {wanted} shards and summarises {got}; nothing was applied")]
    Unsummarised {
        /// Shards that were summarised.
        got: usize,
        /// Shards in the scope.
        wanted: usize,
    },
    /// The version vectors of a session exceed the limit on its memory.
    #[error("the peer's version vectors exceed {0} entries; nothing more was applied")]
    TooManyEntries(usize),
    /// A read-only member sent slots.
    #[error("shard {0}: a read-only member sent slots; they were not applied")]
    ReadOnly(ShardIndex),
    /// The delta breaks a rule.
    #[error(transparent)]
    Delta(#[from] crate::check::DeltaRefused),
}
