//! Gossip goes over links that there are: none is made for it (rule N12).

use std::ops::Bound;
use std::sync::Arc;

use super::driver::Membership;
use super::node::Node;
use super::packet;
use crate::id::ReplicaId;

impl Membership {
    /// Whether a datagram only passes news on: it should not cost a link. If there is none, it goes to the member that
    /// [`Membership::stand_in_for`] names.
    pub fn is_gossip(bytes: &[u8]) -> bool {
        packet::is_gossip(bytes)
    }

    /// Gossip that has no link, for a linked member: each in turn. News is sent a limited number of times, so what is
    /// dropped would be missed.
    pub fn stand_in_for(&mut self, bytes: &[u8]) -> Option<(ReplicaId, Vec<u8>)> {
        let after = self.stand_in.map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = self.links.range((after, Bound::Unbounded)).chain(&self.links);
        let known = in_turn.filter_map(|(replica, _)| self.entries.get(replica));
        let record = Arc::clone(&known.into_iter().find(|entry| entry.standing.is_up())?.record);
        let receiver = record.replica;
        self.stand_in = Some(receiver);
        Some((receiver, packet::readdressed(bytes, Node::new(record))?))
    }
}
