//! Which node each replica id belongs to, as far as this node has seen (rule K5).

use std::collections::BTreeMap;
use std::fmt;

use stockmesh_proto::ReplicaId;

use super::certificate::{CertificateFingerprint, NodeName};
use crate::limits::{BINDINGS_MAX, BINDINGS_OF_NODE_MAX};

/// A node, as its peers tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NodeKey {
    /// By the name in its certificate, which it keeps when that is renewed.
    Name(NodeName),
    /// By its raw public key.
    RawKey(CertificateFingerprint),
    /// Its certificate has no name: any node may be the one that had the id before.
    Unknown,
}

impl fmt::Display for NodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(formatter, "node {name}"),
            Self::RawKey(key) => write!(formatter, "the node with key {key}"),
            Self::Unknown => write!(formatter, "a node whose certificate has no name"),
        }
    }
}

/// The nodes that replica ids were seen with. An entry of [`NodeKey::Unknown`] would say nothing, so there is none.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    entries: BTreeMap<ReplicaId, (NodeKey, u64)>,
    /// Counts what was noted: what was seen last has the highest number.
    noted: u64,
}

impl Bindings {
    /// The node that the id belongs to, if that is another one. A raw key that is not pinned any more gave its ids up.
    pub(super) fn other_owner(
        &self,
        replica: ReplicaId,
        node: &NodeKey,
        is_pinned: impl Fn(CertificateFingerprint) -> bool,
    ) -> Option<NodeKey> {
        let (owner, _) = self.entries.get(&replica)?;
        let has_given_up = matches!(owner, NodeKey::RawKey(key) if !is_pinned(*key));
        (owner != node && !has_given_up).then(|| owner.clone())
    }

    /// The id was seen with this node. No node can make so many up that those of others are forgotten for them.
    pub(super) fn note(&mut self, replica: ReplicaId, node: &NodeKey) {
        if *node == NodeKey::Unknown {
            return;
        }
        self.noted += 1;
        self.entries.insert(replica, (node.clone(), self.noted));
        let of_node = self.entries.values().filter(|(owner, _)| owner == node).count();
        if of_node > BINDINGS_OF_NODE_MAX {
            self.forget_oldest(|owner| owner == node);
        } else if self.entries.len() > BINDINGS_MAX {
            self.forget_oldest(|_| true);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn forget_oldest(&mut self, may_go: impl Fn(&NodeKey) -> bool) {
        let candidates = self.entries.iter().filter(|(_, (owner, _))| may_go(owner));
        let oldest = candidates.min_by_key(|(_, (_, noted))| *noted).map(|(replica, _)| *replica);
        oldest.and_then(|oldest| self.entries.remove(&oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(bits: u64) -> ReplicaId {
        ReplicaId::from_random(bits)
    }

    fn node(name: &str) -> NodeKey {
        NodeKey::Name(NodeName::new(name).unwrap())
    }

    #[test]
    fn an_id_belongs_to_the_name_that_it_was_seen_with() {
        let (mut bindings, nobody) = (Bindings::default(), |_| false);
        bindings.note(replica(1), &NodeKey::Unknown);
        assert_eq!(bindings.other_owner(replica(1), &node("a"), nobody), None);
        bindings.note(replica(1), &node("a"));
        assert_eq!(bindings.other_owner(replica(1), &node("a"), nobody), None);
        for other in [node("b"), NodeKey::Unknown] {
            assert_eq!(bindings.other_owner(replica(1), &other, nobody), Some(node("a")), "{other}");
        }
        assert_eq!(bindings.other_owner(replica(2), &node("b"), nobody), None);
    }

    #[test]
    fn a_raw_key_has_its_ids_while_it_is_pinned() {
        let mut bindings = Bindings::default();
        let key = |bytes: &[u8]| CertificateFingerprint::of_der(bytes);
        bindings.note(replica(1), &NodeKey::RawKey(key(b"a")));
        let other = NodeKey::RawKey(key(b"b"));
        assert!(bindings.other_owner(replica(1), &other, |pinned| pinned == key(b"a")).is_some());
        assert!(bindings.other_owner(replica(1), &other, |pinned| pinned == key(b"b")).is_none());
    }

    #[test]
    fn no_node_makes_the_ids_of_others_forgotten() {
        let mut bindings = Bindings::default();
        bindings.note(replica(1), &node("a"));
        for bits in 10..1_000 {
            bindings.note(replica(bits), &node("greedy"));
        }
        assert_eq!(bindings.entries.len(), 1 + BINDINGS_OF_NODE_MAX);
        assert!(bindings.other_owner(replica(1), &node("greedy"), |_| false).is_some());
        assert!(bindings.other_owner(replica(999), &node("a"), |_| false).is_some(), "the latest are kept");
    }
}
