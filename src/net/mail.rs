//! What applications of linked nodes send each other.

use std::sync::Arc;

use stockmesh_proto::{Location, ReplicaId};

/// A message from another node's application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerMessage {
    /// The node that sent it.
    pub from: ReplicaId,
    /// Its home location.
    pub location: Location,
    /// What it sent.
    pub bytes: Arc<[u8]>,
}

/// A message was not delivered, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is too long. It was not sent.
    #[error(transparent)]
    Invalid(#[from] stockmesh_proto::InvalidInput),
    /// The store has no network. Nothing was sent.
    #[error("the store was opened without a network; nothing was sent")]
    NoNetwork,
    /// There is no link to the node now. Nothing was sent.
    #[error("there is no link to replica {peer} now; nothing was sent")]
    NotLinked {
        /// The node.
        peer: ReplicaId,
    },
    /// The node's software does not know messages. Nothing was sent.
    #[error("replica {peer} does not know messages: update it; nothing was sent")]
    Unsupported {
        /// The node.
        peer: ReplicaId,
    },
    /// Nobody reads messages at the node. The message was dropped there.
    #[error("nobody reads messages at replica {peer}; the message was dropped there")]
    NobodyListens {
        /// The node.
        peer: ReplicaId,
    },
    /// This node sent too much within a second. The message was dropped there.
    #[error("replica {peer} was sent more than it takes within a second; the message was dropped there")]
    TooMany {
        /// The node.
        peer: ReplicaId,
    },
    /// No answer came in time, or the link ended: the message may have arrived or not. It is not sent again.
    #[error("no answer came from replica {peer} ({why}): the message may have arrived or not")]
    NoAnswer {
        /// The node.
        peer: ReplicaId,
        /// What happened.
        why: String,
    },
}
