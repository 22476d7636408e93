//! Whose turn it is, and what is still to be sent in it.

use std::collections::VecDeque;

use crate::id::{ShardIndex, Sku};
use crate::version::VersionVector;
use crate::wire::{Open, Scope};

/// The four turns of a reconciliation. The opener sends in the first and third, the other side in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Fingerprints and version vectors.
    Opening,
    /// Deltas that the opener lacks, and questions about shards that it did not summarise.
    Reply,
    /// Deltas that the other side lacks.
    Answer,
    /// Deltas of the shards that were asked for, and the receipt.
    Receipt,
    /// Over.
    Finished,
}

impl Turn {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Opening => Self::Reply,
            Self::Reply => Self::Answer,
            Self::Answer => Self::Receipt,
            Self::Receipt | Self::Finished => Self::Finished,
        }
    }

    pub(super) fn belongs_to_opener(self) -> bool {
        matches!(self, Self::Opening | Self::Answer)
    }
}

/// Something to be sent, made into messages one at a time, so that memory is bounded by the frame limit.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Open,
    Pull(Scope),
    Summaries(VecDeque<ShardIndex>),
    Part(PartJob),
    End,
    Equal,
    Done,
}

/// A shard's delta that is being sent.
#[derive(Clone, Debug)]
pub(super) struct PartJob {
    pub(super) shard: ShardIndex,
    /// What the peer holds; empty to send all.
    pub(super) covered: VersionVector,
    pub(super) full: bool,
    /// Send it even if it holds nothing: the peer needs this side's version vector to answer.
    pub(super) needed: bool,
    pub(super) state: PartState,
}

/// How far a shard's delta was sent.
#[derive(Clone, Debug)]
pub(super) enum PartState {
    Unsent,
    From(Sku),
}

/// How the opening began.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    /// Of all shards, with the opener's sums.
    Whole(Open),
    /// Of some shards alone.
    Scoped,
}
