//! Who belongs to the cluster, as this node knows it: written by membership, read by whoever chooses peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use stockmesh_proto::{Location, ReplicaId};
use tokio::sync::watch;

/// How a member stands, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer, and has some time to show that it lives.
    Suspect,
    /// It does not answer any more.
    Down,
    /// It said that it leaves for good.
    Left,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its replica id.
    pub replica: ReplicaId,
    /// Where it accepts links.
    pub address: SocketAddr,
    /// Its home location.
    pub location: Location,
    /// What its builder says of it.
    pub labels: BTreeMap<String, String>,
    /// Name and version of its software.
    pub version: String,
    /// Whether it only reads: nobody takes writes from it.
    pub read_only: bool,
    /// How it stands.
    pub state: MemberState,
}

/// All members but this node, by replica.
#[derive(Debug)]
pub(super) struct Members {
    entries: Mutex<BTreeMap<ReplicaId, Member>>,
    changes: watch::Sender<u64>,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Wakes up at each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn get(&self, replica: ReplicaId) -> Option<Member> {
        self.entries.lock().get(&replica).cloned()
    }

    /// All of them, those that are down or left too.
    pub(super) fn all(&self) -> Vec<Member> {
        self.entries.lock().values().cloned().collect()
    }

    /// Notes what is known of a member now.
    pub(super) fn set(&self, member: Member) {
        let is_news = {
            let mut entries = self.entries.lock();
            let before = entries.insert(member.replica, member.clone());
            before.is_none_or(|before| before != member)
        };
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
