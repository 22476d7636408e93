//! Writes that a read-only member holds and no full member does (rule K9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{ReplicaId, ShardIndex};
use crate::limits::LINKS_MAX;
use crate::version::VersionVector;

/// How a shard here compares with that of a full member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Both hold the same slots, whatever the vectors say.
    Same,
    /// The vectors tell: each side lacks what the other's covers beyond its own.
    Vectors,
    /// Equal vectors, different slots (rule R7).
    InDoubt,
}

/// The shards in which a read-only member holds what full members lack, and who of them lacks it.
///
/// Most of it is on its way to them. What none of them ever gets died with its writer, or was written here before this node
/// became a read-only member: nobody takes it from one, so the shard differs until somebody sees to it.
///
/// Vectors tell what a member lacks, but not that it holds the same by other writes: what is found here is to be held against
/// the fingerprints of all linked full members before it is told.
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
    last: Duration,
    /// For how long it was seen. A time in which nobody showed anything counts a little.
    lasted: Duration,
    /// Since it lasts long enough.
    shown_by: BTreeSet<ReplicaId>,
    is_found: bool,
}

/// What follows from all that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The shards with stranded writes.
    pub shards: BTreeSet<ShardIndex>,
    /// Linked full members that have not shown yet what they lack.
    pub to_ask: BTreeSet<ReplicaId>,
}

impl Evidence {
    fn new(now: Duration) -> Self {
        Self { last: now, lasted: Duration::ZERO, shown_by: BTreeSet::new(), is_found: false }
    }

    fn goes_on(&mut self, now: Duration, patience: Duration) {
        self.lasted = self.lasted.saturating_add(now.saturating_sub(self.last).min(patience / LOOKS_MIN));
        self.last = now;
    }

    fn is_ripe(&self, patience: Duration) -> bool {
        self.lasted >= patience
    }

    /// What is shown before it lasts long enough will be too old to count.
    fn shown(&mut self, peer: ReplicaId, patience: Duration) {
        if self.is_ripe(patience) && self.shown_by.len() < LINKS_MAX {
            self.shown_by.insert(peer);
        }
    }

    /// Whether it lasts, and all who are linked lack it. Who has not said so yet is added to those to ask.
    fn judge(&mut self, patience: Duration, linked: &BTreeSet<ReplicaId>, to_ask: &mut BTreeSet<ReplicaId>) -> bool {
        self.shown_by.retain(|peer| linked.contains(peer));
        if self.is_ripe(patience) && !self.is_found && !linked.is_empty() {
            to_ask.extend(linked.difference(&self.shown_by));
            self.is_found = self.shown_by.len() == linked.len();
        }
        self.is_found
    }
}

/// How often it must be seen at the least, after it was seen first.
const LOOKS_MIN: u32 = 4;

impl Stranded {
    /// Nothing is known yet. Writes are stranded if they are lacking for as long as `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, writes: BTreeMap::new(), slots: BTreeMap::new() }
    }

    /// Takes note of how a shard compares with that of a full member. `now` is the time since any fixed point.
    pub fn compared(
        &mut self,
        shard: ShardIndex,
        (ours, theirs, peer): (&VersionVector, &VersionVector, ReplicaId),
        comparison: Comparison,
        now: Duration,
    ) {
        if comparison == Comparison::Same {
            // Whatever is here, a full member holds it.
            return self.settled(shard);
        }
        if comparison == Comparison::InDoubt {
            self.slots.entry(shard).or_insert_with(|| Evidence::new(now)).goes_on(now, self.patience);
        }
        // Not the same, at any rate: a member that is behind is not asked again and again.
        if let Some(evidence) = self.slots.get_mut(&shard) {
            evidence.shown(peer, self.patience);
        }
        let beyond = |writes: &VersionVector| -> VersionVector {
            writes.iter().filter(|(replica, sequence)| theirs.get(*replica) < *sequence).collect()
        };
        // Without those that this peer has turned up. If none is left, a doubt about others is a new one.
        let known = self.writes.remove(&shard).map(|(writes, evidence)| (beyond(&writes), evidence));
        let known = known.filter(|(writes, _)| !writes.is_empty());
        let (writes, mut evidence) = known.unwrap_or_else(|| (beyond(ours), Evidence::new(now)));
        if !writes.is_empty() {
            evidence.goes_on(now, self.patience);
            evidence.shown(peer, self.patience);
            self.writes.insert(shard, (writes, evidence));
        }
    }

    /// All is the same as at a full member.
    pub fn agreed(&mut self) {
        self.writes.clear();
        self.slots.clear();
    }

    /// A full member turned out to hold the same slots in this shard.
    pub fn settled(&mut self, shard: ShardIndex) {
        self.writes.remove(&shard);
        self.slots.remove(&shard);
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
        let mut findings = Findings::default();
        let of_writes = self.writes.iter_mut().map(|(shard, (_, evidence))| (shard, evidence));
        for (shard, evidence) in of_writes.chain(self.slots.iter_mut()) {
            if evidence.judge(self.patience, linked, &mut findings.to_ask) {
                findings.shards.insert(*shard);
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::Comparison::{InDoubt, Same, Vectors};
    use super::*;

    const SHARD: ShardIndex = ShardIndex(3);
    const PATIENCE: Duration = Duration::from_secs(10);

    type Entries<'a> = &'a [(u64, u64)];
    type Look<'a> = (u64, u64, Entries<'a>, Entries<'a>, Comparison);

    fn vector(entries: Entries<'_>) -> VersionVector {
        entries.iter().map(|(replica, sequence)| (ReplicaId::from_random(*replica), *sequence)).collect()
    }

    fn ids(of: &[u64]) -> BTreeSet<ReplicaId> {
        of.iter().copied().map(ReplicaId::from_random).collect()
    }

    fn look(stranded: &mut Stranded, (at, peer, ours, theirs, comparison): Look<'_>) {
        let peer = ReplicaId::from_random(peer);
        stranded.compared(SHARD, (&vector(ours), &vector(theirs), peer), comparison, Duration::from_secs(at));
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
        assert_eq!(found_at(&[8, 9], &both), Some(11), "each of them shows it after it lasted");
        assert_eq!(found_at(&[], &both), None, "nobody is linked any more");
        let holds_the_rest = |at| if at % 2 == 0 { &[(1, 4), (2, 7)][..] } else { &[(1, 5)] };
        let between_them: Vec<Look<'_>> =
            (0..40).map(|at| (at, 8 + at % 2, LOST, holds_the_rest(at), Vectors)).collect();
        assert_eq!(found_at(&[8, 9], &between_them), None);
    }

    /// What a peer showed long ago says nothing of now.
    #[test]
    fn each_peer_must_have_shown_it_lately() {
        let (mut stranded, linked) = (Stranded::new(PATIENCE), ids(&[8, 9]));
        look(&mut stranded, (0, 9, LOST, LESS, Vectors));
        (0..30).for_each(|at| look(&mut stranded, (at, 8, LOST, LESS, Vectors)));
        assert_eq!(stranded.findings(&linked), Findings { shards: BTreeSet::new(), to_ask: ids(&[9]) });
        look(&mut stranded, (30, 9, LOST, LESS, Vectors));
        assert_eq!(stranded.findings(&linked).shards, BTreeSet::from([SHARD]));
    }

    #[test]
    fn time_without_peers_counts_little() {
        assert_eq!(found_at(&[8], &[(0, 8, LOST, LESS, Vectors), (100, 8, LOST, LESS, Vectors)]), None);
        let seldom: Vec<Look<'_>> = (0..20).map(|at| (60 * at, 8, LOST, LESS, Vectors)).collect();
        assert_eq!(found_at(&[8], &seldom), Some(240));
    }

    /// One that is behind was asked, and is not asked again before it says something else.
    #[test]
    fn who_is_behind_is_asked_once() {
        let (mut stranded, linked) = (Stranded::new(PATIENCE), ids(&[8, 9]));
        (0..=10).for_each(|at| look(&mut stranded, (at, 8, LOST, LOST, InDoubt)));
        assert_eq!(stranded.findings(&linked).to_ask, ids(&[9]));
        look(&mut stranded, (11, 9, LOST, LESS, Vectors));
        assert_eq!(stranded.findings(&linked), Findings { shards: BTreeSet::from([SHARD]), to_ask: ids(&[]) });
    }

    #[test]
    fn the_memory_of_who_showed_it_is_bounded() {
        let mut stranded = Stranded::new(PATIENCE);
        (0..3_000).for_each(|peer| look(&mut stranded, (peer, peer, LOST, LESS, Vectors)));
        assert_eq!(stranded.writes[&SHARD].1.shown_by.len(), LINKS_MAX);
        assert_eq!(stranded.findings(&ids(&[3])).shards, BTreeSet::new());
        look(&mut stranded, (3_000, 3, LOST, LESS, Vectors));
        assert_eq!(stranded.findings(&ids(&[3])).shards, BTreeSet::from([SHARD]));
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
