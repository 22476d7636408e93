//! What a read-only member holds and none of its peers does (rule K9).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{ReplicaId, ShardIndex};
use crate::version::VersionVector;

/// How a shard here stands to that of a full member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both hold the same slots, whatever the vectors say.
    Same,
    /// The vectors tell: each side lacks what the other's covers beyond its own.
    Vectors,
    /// Equal vectors, different slots (rule R7).
    InDoubt,
}

/// The shards in which a read-only member holds what its peers lack, and since when.
///
/// Most of it is on its way to them. What none of them ever gets died with its writer: nobody takes it from a member
/// that only reads, so the shard would differ for ever.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    shards: BTreeMap<ShardIndex, Doubt>,
}

#[derive(Clone, Debug)]
struct Doubt {
    since: Duration,
    /// The writes that no peer turned out to have since then; none if the vectors were equal.
    writes: VersionVector,
    /// Who made one of them lacks it too, or the peer claims all of it and holds something else.
    is_denied: bool,
}

/// For how long a shard may be in doubt.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While nobody has it who was asked: its writer may be cut off.
    pub unknown: Duration,
    /// Once its own writer lacks it, or a peer holds something else under an equal vector: only what is on its way can make it
    /// seem so.
    pub denied: Duration,
}

impl Doubts {
    /// Takes note of how a shard stands to that of a full member. `now` is the time since any fixed point.
    pub fn compared(
        &mut self,
        shard: ShardIndex,
        (ours, theirs, peer): (&VersionVector, &VersionVector, ReplicaId),
        standing: Standing,
        now: Duration,
    ) {
        let beyond = |writes: &VersionVector| -> VersionVector {
            writes.iter().filter(|(replica, sequence)| theirs.get(*replica) < *sequence).collect()
        };
        let writes = beyond(ours);
        let differs = match standing {
            Standing::Same => false,
            Standing::Vectors => !writes.is_empty(),
            Standing::InDoubt => true,
        };
        if !differs {
            self.shards.remove(&shard);
            return;
        }
        let in_doubt = standing == Standing::InDoubt;
        let known = self.shards.get(&shard);
        // Those that this peer has turned up after all. A doubt about others is a new one.
        let still = known.map(|doubt| beyond(&doubt.writes)).unwrap_or_default();
        let goes_on = known.filter(|doubt| !still.is_empty() || (doubt.writes.is_empty() && writes.is_empty()));
        let doubt = match goes_on {
            Some(doubt) => {
                let is_denied = doubt.is_denied || in_doubt || still.get(peer) > 0;
                Doubt { since: doubt.since, writes: still, is_denied }
            }
            None => Doubt { since: now, is_denied: in_doubt || writes.get(peer) > 0, writes },
        };
        self.shards.insert(shard, doubt);
    }

    /// All is the same as at a full member.
    pub fn agreed(&mut self) {
        self.shards.clear();
    }

    /// The shards that have been in doubt for too long, in rising order, at most `count` of them.
    pub fn due(&self, patience: Patience, now: Duration, count: usize) -> Vec<ShardIndex> {
        let is_due = |doubt: &Doubt| {
            let limit = if doubt.is_denied { patience.denied } else { patience.unknown };
            now.saturating_sub(doubt.since) >= limit
        };
        self.shards.iter().filter(|(_, doubt)| is_due(doubt)).map(|(shard, _)| *shard).take(count).collect()
    }

    /// Something was done about a shard: a doubt about it begins anew.
    pub fn settled(&mut self, shard: ShardIndex) {
        self.shards.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{InDoubt, Same, Vectors};
    use super::*;

    const SHARD: ShardIndex = ShardIndex(3);
    const PATIENCE: Patience = Patience { unknown: Duration::from_secs(10), denied: Duration::from_secs(5) };
    /// Made no write at all.
    const PEER: u64 = 9;

    type Entries<'a> = &'a [(u64, u64)];

    fn vector(entries: Entries<'_>) -> VersionVector {
        entries.iter().map(|(replica, sequence)| (ReplicaId::from_random(*replica), *sequence)).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Compares at these seconds what is here with what a peer has. Returns when the shard first was due.
    fn due_at(peer: u64, compared: &[(u64, Entries<'_>, Entries<'_>, Standing)]) -> Option<u64> {
        let mut doubts = Doubts::default();
        compared.iter().find_map(|(at, ours, theirs, standing)| {
            let seen = (&vector(ours), &vector(theirs), ReplicaId::from_random(peer));
            doubts.compared(SHARD, seen, *standing, seconds(*at));
            let due = doubts.due(PATIENCE, seconds(*at), 8);
            (!due.is_empty()).then_some(*at)
        })
    }

    #[test]
    fn what_no_peer_gets_is_due_in_the_end() {
        let lost: Entries<'_> = &[(1, 5), (2, 7)];
        let less: Entries<'_> = &[(1, 4)];
        let first = (0, lost, less, Vectors);
        assert_eq!(due_at(PEER, &[first, (9, lost, less, Vectors)]), None);
        // The other write turns up, this one does not.
        assert_eq!(due_at(PEER, &[first, (10, lost, &[(1, 4), (2, 9)], Vectors)]), Some(10));
        // It is seen at one peer.
        let other: Entries<'_> = &[(1, 4), (2, 7)];
        assert_eq!(
            due_at(PEER, &[(0, lost, other, Vectors), (5, lost, &[(1, 5)], Vectors), (12, lost, other, Vectors)]),
            None
        );
        // Nothing is ahead: nothing is wrong.
        assert_eq!(due_at(PEER, &[(0, less, lost, Vectors), (20, less, lost, Vectors)]), None);
        // The same slots, or not, under the same vector.
        assert_eq!(due_at(PEER, &[(0, lost, lost, InDoubt), (6, lost, lost, InDoubt)]), Some(6));
        assert_eq!(due_at(PEER, &[(0, lost, lost, InDoubt), (4, lost, lost, Same), (6, lost, lost, InDoubt)]), None);
        assert_eq!(due_at(PEER, &[first, (7, lost, lost, InDoubt), (11, lost, lost, InDoubt)]), None);
        assert_eq!(due_at(PEER, &[first, (5, lost, &[], Same), (11, lost, &[], Vectors)]), None);
    }

    #[test]
    fn who_writes_without_end_is_never_in_doubt() {
        let busy: Vec<[(u64, u64); 2]> = (0..60).map(|at| [(1, at + 5), (2, 7)]).collect();
        let behind: Vec<[(u64, u64); 2]> = (0..60).map(|at| [(1, at + 4), (2, 7)]).collect();
        let compared: Vec<_> = (0..).zip(busy.iter().zip(&behind)).collect();
        let compared: Vec<_> =
            compared.iter().map(|(at, (ours, theirs))| (*at, &ours[..], &theirs[..], Vectors)).collect();
        for peer in [PEER, 1] {
            assert_eq!(due_at(peer, &compared), None);
        }
    }

    #[test]
    fn what_its_writer_lacks_is_due_sooner() {
        let (lost, less): (Entries<'_>, Entries<'_>) = (&[(1, 5)], &[(1, 4)]);
        let compared: Vec<_> = (0..20).map(|at| (at, lost, less, Vectors)).collect();
        assert_eq!((due_at(1, &compared), due_at(PEER, &compared)), (Some(5), Some(10)));
    }

    #[test]
    fn a_doubt_ends_with_what_is_done_about_it() {
        let mut doubts = Doubts::default();
        for shard in 0..3 {
            let seen = (&vector(&[(1, 1)]), &VersionVector::new(), ReplicaId::from_random(PEER));
            doubts.compared(ShardIndex(shard), seen, Vectors, seconds(0));
        }
        assert_eq!(doubts.due(PATIENCE, seconds(10), 2), [ShardIndex(0), ShardIndex(1)]);
        doubts.settled(ShardIndex(1));
        assert_eq!(doubts.due(PATIENCE, seconds(10), 8), [ShardIndex(0), ShardIndex(2)]);
        doubts.agreed();
        assert_eq!(doubts.due(PATIENCE, seconds(10), 8), []);
    }
}
