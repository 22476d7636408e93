//! What is expected of nodes that go on from an old copy of their directory.

use stockmesh::{ReplicaId, Store};

use crate::endpoint::READERS;
use crate::world::World;

/// Own writes that a node may make before it has met anybody, besides the ends of its holds: what it settles after others.
const WRITES_UNASKED: u64 = 4;

/// A node that was opened with an old copy, while another one knew more of it than it does.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// The id in the copy.
    pub replica: ReplicaId,
    /// The node that knows more. Once it is gone, maybe nobody does.
    pub witness: u16,
}

impl World {
    /// Whether somebody knows more of the node than itself, and goes on to do so: then it must take a new id. Until then its
    /// callers wait, since writes of its own would hide that.
    pub(crate) fn copied(&self, store: &Store) -> Option<Copied> {
        let (replica, own) = (store.replica_id(), store.version_vectors());
        let margin = WRITES_UNASKED + u64::try_from(store.holds().len()).unwrap_or(u64::MAX);
        let knows_more = |other: &Store| {
            let theirs = other.version_vectors();
            let of = |vectors: &[std::collections::BTreeMap<ReplicaId, u64>], shard: usize| {
                vectors.get(shard).and_then(|vector| vector.get(&replica)).copied().unwrap_or_default()
            };
            (0..theirs.len()).any(|shard| of(&theirs, shard) > of(&own, shard) + margin)
        };
        let others = self.up().into_iter().filter(|(number, _)| !READERS.contains(number));
        let witness = others.filter(|(_, other)| knows_more(other)).map(|(number, _)| number).next()?;
        Some(Copied { replica, witness })
    }

    /// A node's process ended: what it knew of others may be gone.
    pub(crate) fn witness_ended(&mut self, number: u16) {
        for node in &mut self.nodes {
            if node.copied.is_some_and(|copied| copied.witness == number) {
                node.copied = None;
            }
        }
    }
}
