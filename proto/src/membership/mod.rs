//! Who belongs to the cluster, and who of them lives: SWIM (Das et al. 2002), by the library foca, with identities that
//! are bound to links (section 14 of `PROTOCOL.md`).
//!
//! A [`Membership`] is a state machine: datagrams, lists, news of links and the passing of time go in, [`Effect`]s come
//! out. Its randomness is a seed, and time is an argument.

mod driver;
mod gossip;
mod judge;
mod list;
mod node;
mod packet;
mod room;
mod settle;
mod swim;
mod timing;

use std::sync::Arc;

use crate::id::ReplicaId;
use crate::member::{Generation, MalformedMember, MemberRecord, Standing};

pub use driver::Membership;
pub use timing::Timing;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Send a datagram to a member; it may be lost.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A member is new, or stands otherwise, or says something else of itself.
    Changed {
        /// What it says of itself.
        record: Arc<MemberRecord>,
        /// How it stands now.
        standing: Standing,
        /// How it stood before, if it was known.
        before: Option<Standing>,
    },
    /// A member is not listed any more: it was replaced, or has been down for long.
    Forgotten(ReplicaId),
    /// Store durably that generations up to this one are used, then call [`Membership::reserved`]. Nothing is sent
    /// under a generation that is not (rule N2).
    Reserve(Generation),
    /// This member goes on in a new generation.
    Renewed(Generation),
}

/// A peer broke a rule. Nothing of what it sent was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// The bytes are no datagram of membership.
    #[error("a datagram of membership cannot be read: {0}")]
    Malformed(#[from] MalformedMember),
    /// The datagram says that it is from another member than the link's.
    #[error(
        "a datagram of membership claims to be from replica {claimed}, the link is that of replica {linked}; nothing was applied"
    )]
    ForeignSource {
        /// The replica of the link.
        linked: ReplicaId,
        /// What the datagram says.
        claimed: ReplicaId,
    },
    /// The datagram has no place here.
    #[error("a datagram of membership has no place here: {0}")]
    Unexpected(String),
}
