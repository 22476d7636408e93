//! Who showed this node writes under its own id that it never made.

use std::net::SocketAddr;

use stockmesh_proto::ReplicaId;

use crate::certificate::{CertificateFingerprint, NodeName};

/// A link over which this node learnt of writes under its own id that it never made: somebody forged them, or this node's
/// directory is an old copy. The peer may have got them from others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Witness {
    /// The peer's replica id.
    pub replica: ReplicaId,
    /// Its address.
    pub address: SocketAddr,
    /// The fingerprint of its certificate.
    pub certificate: CertificateFingerprint,
    /// The name in its certificate, if it has one.
    pub node: Option<NodeName>,
}

impl std::fmt::Display for Witness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { replica, address, certificate, node } = self;
        match node {
            Some(node) => write!(formatter, "{node} (replica {replica}, {address}, certificate {certificate})"),
            None => write!(formatter, "replica {replica} ({address}, certificate {certificate})"),
        }
    }
}

/// A change of this node's replica id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incarnation {
    /// The id that was left.
    pub former: ReplicaId,
    /// The id that was taken.
    pub own: ReplicaId,
    /// The link over which the reason came, if it came over one.
    pub shown_by: Option<Witness>,
}
