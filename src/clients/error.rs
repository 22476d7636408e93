//! Why a request of a client failed.

use stockmesh_proto::wire::client::{Effect, Failure, FailureCode};
use stockmesh_proto::{InvalidInput, Reference};

/// A request failed. All but [`ClientError::Indeterminate`] mean that nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An argument is wrong. Nothing was asked.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// There is no connection to the node, and the request did not reach it. Nothing was changed.
    #[error("node {address} cannot be reached: {reason}; nothing was changed")]
    Connect {
        /// The node's address.
        address: String,
        /// Why not, and what to do about it.
        reason: String,
    },
    /// The node refused. Nothing was changed.
    #[error("{text}")]
    Refused {
        /// Why.
        code: FailureCode,
        /// The same for people, in the node's words.
        text: String,
    },
    /// There is too little stock, or its rights lie where they could not be had in time. Nothing was changed.
    #[error("{text}")]
    Insufficient {
        /// Units wanted.
        wanted: u64,
        /// Units that the node may sell.
        here: u64,
        /// Units that nodes linked with it may sell.
        elsewhere: u64,
        /// Units that nodes out of reach of it may sell.
        unreachable: u64,
        /// The same for people, in the node's words.
        text: String,
    },
    /// The write may be done or not. To ask the same node again under the same reference is safe, and tells; so is asking
    /// again for what resolves a hold.
    #[error("the write may be done or not: {reason}{}", again(reference.as_ref()))]
    Indeterminate {
        /// The reference of the write; none where the hold's own id serves as one.
        reference: Option<Reference>,
        /// What happened.
        reason: String,
    },
    /// The answer to a question was cut off. Nothing was to be changed.
    #[error("the answer was cut off: {reason}; nothing was changed")]
    Lost {
        /// What happened.
        reason: String,
    },
}

fn again(reference: Option<&Reference>) -> String {
    match reference {
        Some(reference) => {
            format!("; ask the same node again under the reference {reference}, which does it once at the most")
        }
        None => "; ask the same node again, which does it once at the most".into(),
    }
}

impl ClientError {
    /// A failure that the node told.
    pub(super) fn told(failure: &Failure, reference: Option<&Reference>) -> Self {
        let text = failure.text.to_string();
        match failure {
            Failure { effect: Effect::Indeterminate, .. } => {
                Self::Indeterminate { reference: reference.cloned(), reason: text }
            }
            Failure {
                code: FailureCode::Insufficient,
                wanted: Some(wanted),
                here: Some(here),
                elsewhere: Some(elsewhere),
                unreachable: Some(unreachable),
                ..
            } => Self::Insufficient {
                wanted: *wanted,
                here: *here,
                elsewhere: *elsewhere,
                unreachable: *unreachable,
                text,
            },
            Failure { code, .. } => Self::Refused { code: *code, text },
        }
    }
}
