//! Writes that a read-only member holds and no full member does (rule K9).

use std::collections::{BTreeMap, BTreeSet};
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

/// The shards in which a read-only member holds what full members lack, since when, and who of them lacks it.
///
/// Most of it is on its way to them. What none of them ever gets died with its writer, or was written here before this node
/// became a read-only member: nobody takes it from one, so the shard differs until somebody sees to it.
#[derive(Clone, Debug)]
pub struct Stranded {
    patience: Duration,
    /// Writes that full members' vectors do not cover.
    writes: BTreeMap<ShardIndex, (VersionVector, Evidence)>,
    /// Equal vectors over different slots.
    slots: BTreeMap<ShardIndex, Evidence>,
}

/// Who showed it, and when.
#[derive(Clone, Debug)]
struct Evidence {
    since: Duration,
    last: Duration,
    shown_by: BTreeSet<ReplicaId>,
    is_enough: bool,
}

/// What follows from all that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The shards with stranded writes.
    pub shards: BTreeSet<ShardIndex>,
    /// Linked full members that should be asked, since they have not shown yet what they lack.
    pub to_ask: BTreeSet<ReplicaId>,
}

impl Evidence {
    fn new(now: Duration) -> Self {
        Self { since: now, last: now, shown_by: BTreeSet::new(), is_enough: false }
    }

    fn add(&mut self, peer: ReplicaId, now: Duration, patience: Duration) {
        // A time without peers shows nothing.
        if now.saturating_sub(self.last) >= patience && !self.is_enough {
            *self = Self::new(now);
        }
        self.last = now;
        self.shown_by.insert(peer);
    }

    /// Whether it lasts, and all who are linked lack it. If one has not said so yet, it is added to those to ask.
    fn judge(&mut self, patience: Duration, linked: &BTreeSet<ReplicaId>, to_ask: &mut BTreeSet<ReplicaId>) -> bool {
        self.shown_by.retain(|peer| linked.contains(peer));
        if !self.is_enough && self.last.saturating_sub(self.since) >= patience && !linked.is_empty() {
            to_ask.extend(linked.difference(&self.shown_by));
            self.is_enough = self.shown_by.len() == linked.len();
        }
        self.is_enough
    }
}

impl Stranded {
    /// Nothing is known yet. Writes are stranded if they are lacking for as long as `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, writes: BTreeMap::new(), slots: BTreeMap::new() }
    }

    /// Takes note of how a shard stands to that of a full member. `now` is the time since any fixed point.
    pub fn compared(
        &mut self,
        shard: ShardIndex,
        (ours, theirs, peer): (&VersionVector, &VersionVector, ReplicaId),
        standing: Standing,
        now: Duration,
    ) {
        let patience = self.patience;
        let beyond = |writes: &VersionVector| -> VersionVector {
            writes.iter().filter(|(replica, sequence)| theirs.get(*replica) < *sequence).collect()
        };
        match standing {
            // Whatever is here, a full member holds it.
            Standing::Same => return self.settled(shard),
            Standing::InDoubt => {
                self.slots.entry(shard).or_insert_with(|| Evidence::new(now)).add(peer, now, patience);
            }
            Standing::Vectors => {}
        }
        // Without those that this peer has turned up. If none is left, a doubt about others is a new one.
        let known = self.writes.remove(&shard).map(|(writes, evidence)| (beyond(&writes), evidence));
        let known = known.filter(|(writes, _)| !writes.is_empty());
        let (writes, mut evidence) = known.unwrap_or_else(|| (beyond(ours), Evidence::new(now)));
        if !writes.is_empty() {
            evidence.add(peer, now, patience);
            self.writes.insert(shard, (writes, evidence));
        }
    }

    /// All is the same as at a full member.
    pub fn agreed(&mut self) {
        self.writes.clear();
        self.slots.clear();
    }

    /// The shards of which a comparison may tell more, in rising order.
    #[must_use]
    pub fn suspects(&self) -> BTreeSet<ShardIndex> {
        self.writes.keys().chain(self.slots.keys()).copied().collect()
    }

    /// What is stranded by the word of these full members, which are linked. What once is found stays so until a full member
    /// turns up with it.
    #[must_use]
    pub fn findings(&mut self, linked: &BTreeSet<ReplicaId>) -> Findings {
        let Self { patience, writes, slots } = self;
        let mut findings = Findings::default();
        let of_writes = writes.iter_mut().map(|(shard, (_, evidence))| (shard, evidence));
        for (shard, evidence) in of_writes.chain(slots.iter_mut()) {
            if evidence.judge(*patience, linked, &mut findings.to_ask) {
                findings.shards.insert(*shard);
            }
        }
        findings
    }

    fn settled(&mut self, shard: ShardIndex) {
        self.writes.remove(&shard);
        self.slots.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{InDoubt, Same, Vectors};
    use super::*;

    const SHARD: ShardIndex = ShardIndex(3);
    const PATIENCE: Duration = Duration::from_secs(10);

    type Entries<'a> = &'a [(u64, u64)];
    type Look<'a> = (u64, u64, Entries<'a>, Entries<'a>, Standing);

    fn vector(entries: Entries<'_>) -> VersionVector {
        entries.iter().map(|(replica, sequence)| (ReplicaId::from_random(*replica), *sequence)).collect()
    }

    fn ids(of: &[u64]) -> BTreeSet<ReplicaId> {
        of.iter().copied().map(ReplicaId::from_random).collect()
    }

    fn look(stranded: &mut Stranded, (at, peer, ours, theirs, standing): Look<'_>) {
        let peer = ReplicaId::from_random(peer);
        stranded.compared(SHARD, (&vector(ours), &vector(theirs), peer), standing, Duration::from_secs(at));
    }

    /// Compares at these seconds what is here with what these peers have. Returns when it was found to be stranded first,
    /// while these are linked.
    fn found_at(linked: &[u64], looks: &[Look<'_>]) -> Option<u64> {
        let (mut stranded, linked) = (Stranded::new(PATIENCE), ids(linked));
        looks.iter().find_map(|seen| {
            look(&mut stranded, *seen);
            (!stranded.findings(&linked).shards.is_empty()).then_some(seen.0)
        })
    }

    const LOST: Entries<'_> = &[(1, 5), (2, 7)];
    const LESS: Entries<'_> = &[(1, 4)];

    #[test]
    fn what_no_peer_gets_is_found_in_the_end() {
        let every_second: Vec<Look<'_>> = (0..20).map(|at| (at, 8, LOST, LESS, Vectors)).collect();
        assert_eq!(found_at(&[8], &every_second), Some(10));
        // The one write turns up, the other does not.
        let late: Vec<Look<'_>> =
            (0..20).map(|at| (at, 8, LOST, if at < 5 { LESS } else { &[(1, 4), (2, 9)] }, Vectors)).collect();
        assert_eq!(found_at(&[8], &late), Some(10));
        // Nothing is ahead: nothing is wrong.
        let behind: Vec<Look<'_>> = (0..20).map(|at| (at, 8, LESS, LOST, Vectors)).collect();
        assert_eq!(found_at(&[8], &behind), None);
        // Equal vectors over different slots; now and then another write is on its way.
        let slots: Vec<Look<'_>> = (0..20)
            .map(|at| if at % 4 == 3 { (at, 8, LESS, LOST, Vectors) } else { (at, 8, LOST, LOST, InDoubt) })
            .collect();
        assert_eq!(found_at(&[8], &slots), Some(10));
    }

    /// A peer that is cut off from another lacks for long what the other has.
    #[test]
    fn what_a_linked_peer_holds_is_not_stranded() {
        let (mut stranded, linked) = (Stranded::new(PATIENCE), ids(&[8, 9]));
        for at in 0..40 {
            look(&mut stranded, (at, 8, LOST, LESS, Vectors));
            let findings = stranded.findings(&linked);
            assert!(findings.shards.is_empty(), "nobody has asked the other");
            assert_eq!(findings.to_ask, if at < 10 { ids(&[]) } else { ids(&[9]) });
        }
        look(&mut stranded, (41, 9, LOST, LOST, Same));
        assert_eq!((stranded.findings(&linked), stranded.suspects().len()), (Findings::default(), 0));

        let both: Vec<Look<'_>> = (0..40).map(|at| (at, 8 + at % 2, LOST, LESS, Vectors)).collect();
        assert_eq!(found_at(&[8, 9], &both), Some(10));
        assert_eq!(found_at(&[], &both), None, "nobody is linked any more");
        let holds_the_rest = |at| if at % 2 == 0 { &[(1, 4), (2, 7)][..] } else { &[(1, 5)] };
        let between_them: Vec<Look<'_>> =
            (0..40).map(|at| (at, 8 + at % 2, LOST, holds_the_rest(at), Vectors)).collect();
        assert_eq!(found_at(&[8, 9], &between_them), None);
    }

    #[test]
    fn time_without_peers_shows_nothing() {
        assert_eq!(found_at(&[8], &[(0, 8, LOST, LESS, Vectors), (100, 8, LOST, LESS, Vectors)]), None);
        let again = (100..120).map(|at| (at, 8, LOST, LESS, Vectors));
        let looks: Vec<Look<'_>> = std::iter::once((0, 8, LOST, LESS, Vectors)).chain(again).collect();
        assert_eq!(found_at(&[8], &looks), Some(110));
    }

    #[test]
    fn who_writes_without_end_strands_nothing() {
        let busy: Vec<[(u64, u64); 2]> = (0..60).map(|at| [(1, at + 5), (2, 7)]).collect();
        let behind: Vec<[(u64, u64); 2]> = (0..60).map(|at| [(1, at + 4), (2, 7)]).collect();
        let looks: Vec<Look<'_>> = (0..)
            .zip(busy.iter().zip(&behind))
            .map(|(at, (ours, theirs))| (at, 8, &ours[..], &theirs[..], Vectors))
            .collect();
        assert_eq!(found_at(&[8], &looks), None);
    }

    #[test]
    fn a_finding_lasts_until_somebody_turns_up_with_it() {
        let (mut stranded, linked) = (Stranded::new(PATIENCE), ids(&[8]));
        (0..=10).for_each(|at| look(&mut stranded, (at, 8, LOST, LESS, Vectors)));
        assert_eq!(stranded.findings(&linked).shards, BTreeSet::from([SHARD]));
        // Links come and go, also for long.
        assert_eq!(stranded.findings(&ids(&[])).shards, BTreeSet::from([SHARD]));
        look(&mut stranded, (500, 9, LOST, LESS, Vectors));
        assert_eq!(stranded.findings(&ids(&[9, 10])).shards, BTreeSet::from([SHARD]));
        look(&mut stranded, (501, 10, LOST, &[(1, 5), (2, 7), (3, 1)], Vectors));
        assert_eq!((stranded.findings(&linked), stranded.suspects().len()), (Findings::default(), 0));

        (0..=10).for_each(|at| look(&mut stranded, (at, 8, LOST, LOST, InDoubt)));
        assert_eq!(stranded.findings(&linked).shards, BTreeSet::from([SHARD]));
        stranded.agreed();
        assert_eq!(stranded.findings(&linked), Findings::default());
    }
}
