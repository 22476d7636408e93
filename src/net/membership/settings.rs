//! What the embedder and the disk say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use stockmesh_proto::member::Labels;
use stockmesh_proto::membership::Timing;

/// What membership is started with.
#[derive(Debug)]
pub(crate) struct MembershipSettings {
    /// Where others reach this node, if the embedder knows.
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) labels: Labels,
    pub(crate) timing: Timing,
    /// What the side table held at open.
    pub(crate) rows: BTreeMap<String, Vec<u8>>,
}
