//! Who belongs to the cluster, as this node knows it: written by membership, read by whoever chooses peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stockmesh_proto::ReplicaId;

use crate::watch;

#[allow(unused_imports)]
pub(super) use crate::member::{Member, MemberState};

/// All members but this node, by replica. Each is shared: whoever chooses peers looks at all of them, and often.
#[derive(Debug)]
pub(super) struct Members {
    entries: Mutex<BTreeMap<ReplicaId, Arc<Member>>>,
    changes: watch::Sender<u64>,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Wakes up at each change.
    #[allow(dead_code)]
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is known of a member.
    #[allow(dead_code)]
    pub(super) fn get(&self, replica: ReplicaId) -> Option<Arc<Member>> {
        self.entries.lock().get(&replica).cloned()
    }

    /// All of them, those that are down or left too.
    pub(super) fn all(&self) -> Vec<Arc<Member>> {
        self.entries.lock().values().cloned().collect()
    }

    /// Notes what is known of a member now.
    pub(super) fn set(&self, member: Member) {
        let member = Arc::new(member);
        let before = self.entries.lock().insert(member.replica, Arc::clone(&member));
        let is_news = before.is_none_or(|before| before != member);
        if is_news {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Forgets a member.
    pub(super) fn remove(&self, replica: ReplicaId) {
        if self.entries.lock().remove(&replica).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
