//! Datagrams to members: sent at once over a link, or kept for a moment until there is one.

use std::collections::{BTreeMap, VecDeque};

use metrics::counter;
use stockmesh_proto::ReplicaId;
use tokio::time::Instant;

use crate::limits::{DATAGRAMS_AWAITING_MAX, DATAGRAMS_AWAITING_TIME, MEMBERS_AWAITED_MAX};
use crate::net::link::Link;
use crate::net::shared::Shared;
use crate::net::wishes::Errand;

/// Datagrams that wait for links.
#[derive(Debug, Default)]
pub(super) struct Post {
    awaiting: BTreeMap<ReplicaId, VecDeque<(Instant, Vec<u8>)>>,
}

impl Post {
    /// Sends a datagram in the name of this replica id, or asks for a link and keeps it for a moment. Loss is expected by
    /// whoever sends.
    pub(super) fn send(&mut self, own: ReplicaId, to: ReplicaId, bytes: Vec<u8>, shared: &Shared) {
        if let Some(link) = shared.registry.link(to) {
            return send_over(own, &link, bytes);
        }
        self.drop_old();
        if !self.awaiting.contains_key(&to) && self.awaiting.len() >= MEMBERS_AWAITED_MAX {
            counter!("stockmesh_datagrams_dropped_total").increment(1);
            return;
        }
        let waiting = self.awaiting.entry(to).or_default();
        if waiting.len() == DATAGRAMS_AWAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back((Instant::now(), bytes));
        shared.want_link(to, Errand::Messages);
    }

    /// Sends what has waited for this link.
    pub(super) fn linked(&mut self, own: ReplicaId, link: &Link) {
        self.drop_old();
        for (_, bytes) in self.awaiting.remove(&link.replica).into_iter().flatten() {
            send_over(own, link, bytes);
        }
    }

    fn drop_old(&mut self) {
        self.awaiting.retain(|_, waiting| {
            waiting.retain(|(since, _)| since.elapsed() < DATAGRAMS_AWAITING_TIME);
            !waiting.is_empty()
        });
    }
}

fn send_over(own: ReplicaId, link: &Link, bytes: Vec<u8>) {
    // Over a link that was made under another id of this node it would be in a foreign name.
    if !link.knows_membership || link.told != own {
        return;
    }
    match link.connection.send_datagram(bytes.into()) {
        Ok(()) => counter!("stockmesh_datagrams_sent_total").increment(1),
        Err(_) => counter!("stockmesh_datagrams_dropped_total").increment(1),
    }
}
