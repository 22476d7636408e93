//! What SWIM needs to know of a member.

use std::sync::Arc;

use foca::Identity;

use crate::id::ReplicaId;
use crate::member::{Generation, MemberRecord};

/// A member's name, with its record where that is known. Names alone are compared (rule N2).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) replica: ReplicaId,
    pub(super) generation: Generation,
    pub(super) record: Option<Arc<MemberRecord>>,
}

impl Node {
    pub(super) fn new(record: Arc<MemberRecord>) -> Self {
        Self { replica: record.replica, generation: record.generation, record: Some(record) }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        (self.replica, self.generation) == (other.replica, other.generation)
    }
}

impl Eq for Node {}

impl Identity for Node {
    type Addr = ReplicaId;

    fn renew(&self) -> Option<Self> {
        let record = self.record.as_ref().filter(|record| !record.left)?;
        let generation = self.generation.next()?;
        Some(Self::new(Arc::new(MemberRecord { generation, ..(**record).clone() })))
    }

    fn addr(&self) -> ReplicaId {
        self.replica
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}
