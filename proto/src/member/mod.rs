//! Who a member of the cluster is, and what is told of it (section 14 of `PROTOCOL.md`).

mod bytes;
mod label;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub use bytes::MalformedMember;
pub(crate) use bytes::{Reader, put_number};
pub use label::{Labels, Software};

use crate::id::{InvalidInput, Location, ReplicaId};
use crate::limits::GENERATION_MAX;

/// Counts the lives of a member: the greater one is the newer one (rule N2). Kept on disk and never taken from a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// Checks a generation.
    ///
    /// # Errors
    /// If it is 0 or beyond the limit.
    pub fn new(generation: u64) -> Result<Self, InvalidInput> {
        if generation == 0 || generation > GENERATION_MAX {
            return Err(InvalidInput::new("generation", generation, format!("must be 1 to {GENERATION_MAX}")));
        }
        Ok(Self(generation))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it, unless it is the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1)).ok()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a member says of itself (rule N1). Replica and generation name it; whatever changes takes a new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its replica id.
    pub replica: ReplicaId,
    /// Which life of the member this is.
    pub generation: Generation,
    /// Where it accepts links; an unspecified IP address says that it does not know.
    pub address: SocketAddr,
    /// Its home location.
    pub location: Location,
    /// What its operator says of it.
    pub labels: Labels,
    /// Name and version of its software.
    pub software: Software,
    /// Whether it only reads.
    pub read_only: bool,
    /// Whether it leaves the cluster: its last generation says so.
    pub left: bool,
}

/// How a member stands, as far as others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It answers.
    Alive,
    /// It did not answer, and has some time to show that it lives.
    Suspect,
    /// It does not answer any more.
    Down,
    /// It said that it leaves.
    Left,
}

impl Standing {
    /// Whether the member is counted on: alive or suspect.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member as lists have it (rule N7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMember {
    /// What it says of itself.
    pub record: Arc<MemberRecord>,
    /// How often it has refuted suspicions in this generation.
    pub incarnation: u16,
    /// How it stands.
    pub standing: Standing,
    /// How long it has been down or gone, in seconds; 0 for others.
    pub down_for_s: u32,
}

impl ListedMember {
    /// What is newer of the same member: the greater generation, then what cannot be taken back, then the greater
    /// incarnation, then suspicion.
    pub fn order(&self) -> (Generation, bool, u16, Standing) {
        (self.record.generation, !self.standing.is_up(), self.incarnation, self.standing)
    }
}
