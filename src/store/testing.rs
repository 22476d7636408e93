//! What tests do to an open store that no user may.

use std::net::SocketAddr;

use stockmesh_proto::{Location, ReplicaId};

use super::Store;
use crate::member::{Member, MemberState};

impl Store {
    /// Puts a member into the table of members.
    #[doc(hidden)]
    pub fn learn_member(&self, replica: ReplicaId, address: SocketAddr, location: &str, state: MemberState) {
        if let (Some(node), Ok(location)) = (&self.inner.node, Location::new(location)) {
            let (labels, version) = Default::default();
            node.learn_member(Member {
                replica,
                address,
                location,
                labels,
                version,
                read_only: false,
                state,
                generation: 1,
            });
        }
    }

    /// Asks for a link to a member for a while.
    #[doc(hidden)]
    pub fn want_link(&self, replica: ReplicaId) {
        if let Some(node) = &self.inner.node {
            node.want_link(replica);
        }
    }
}
