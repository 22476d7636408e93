//! Version vectors: per shard, how many writes of each replica are contained or superseded here.

use crate::id::{Dot, ReplicaId};

/// Replica → highest n such that every write of that replica up to n, in one shard, is contained or superseded here.
///
/// Kept as a sorted list: a shard has few writers, and a scan of the list is what delta extraction does most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector {
    entries: Vec<(ReplicaId, u64)>,
}

impl VersionVector {
    /// A vector that covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of writes of `replica` that are covered.
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.position(replica).ok().and_then(|index| self.entries.get(index)).map_or(0, |entry| entry.1)
    }

    /// Whether the write that `dot` names is contained or superseded here.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.sequence <= self.get(dot.replica)
    }

    /// Whether every write that `other` covers is covered here.
    pub fn dominates(&self, other: &Self) -> bool {
        other.entries.iter().all(|(replica, sequence)| self.get(*replica) >= *sequence)
    }

    /// Covers the writes of `replica` up to `sequence`. Never takes anything back. Returns whether anything changed.
    pub fn advance(&mut self, replica: ReplicaId, sequence: u64) -> bool {
        if sequence == 0 {
            return false;
        }
        match self.position(replica) {
            Ok(index) => match self.entries.get_mut(index) {
                Some(entry) if entry.1 < sequence => {
                    entry.1 = sequence;
                    true
                }
                _ => false,
            },
            Err(index) => {
                self.entries.insert(index, (replica, sequence));
                true
            }
        }
    }

    /// Covers what either covers (the join of the two). Returns whether anything changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (replica, sequence) in &other.entries {
            changed |= self.advance(*replica, *sequence);
        }
        changed
    }

    /// The entries, by replica.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ReplicaId, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Number of replicas it names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, replica: ReplicaId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&replica, |entry| entry.0)
    }
}

impl FromIterator<(ReplicaId, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, u64)>>(entries: I) -> Self {
        let mut version = Self::new();
        for (replica, sequence) in entries {
            version.advance(replica, sequence);
        }
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(bits: u64) -> ReplicaId {
        ReplicaId::from_random(bits)
    }

    #[test]
    fn join_covers_what_either_covers() {
        let mut left: VersionVector = [(replica(1), 5), (replica(3), 1)].into_iter().collect();
        let right: VersionVector = [(replica(1), 2), (replica(2), 7)].into_iter().collect();
        assert!(!left.dominates(&right));
        assert!(left.join(&right));
        assert!(!left.join(&right));
        assert!(left.dominates(&right));
        assert_eq!(left.iter().collect::<Vec<_>>(), [(replica(1), 5), (replica(2), 7), (replica(3), 1)]);
        assert!(left.covers(Dot { replica: replica(2), sequence: 7 }));
        assert!(!left.covers(Dot { replica: replica(2), sequence: 8 }));
    }

    #[test]
    fn it_never_takes_back() {
        let mut version = VersionVector::new();
        assert!(!version.advance(replica(1), 0));
        assert!(version.is_empty());
        assert!(version.advance(replica(1), 4));
        assert!(!version.advance(replica(1), 3));
        assert_eq!(version.get(replica(1)), 4);
    }
}
