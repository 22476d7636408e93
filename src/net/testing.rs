//! What tests do to a running node that no user may.

use stockmesh_proto::ReplicaId;

use super::members::Member;
use super::node::Node;

impl Node {
    /// Puts a member into the table.
    pub(crate) fn learn_member(&self, member: Member) {
        self.shared.members.set(member);
    }

    /// Asks for a link to a member for a while.
    pub(crate) fn want_link(&self, replica: ReplicaId) {
        self.shared.want_link(replica, super::wishes::Errand::Messages);
    }
}
