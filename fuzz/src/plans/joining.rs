//! Which shards are pulled from which peer, while peers come, go, fail, and are silent (rules J3 to J5).

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::joining::{Plan, PullNumber};
use stockmesh_proto::limits::{PULL_PAUSE_MS_MAX, PULL_PEERS_MAX, PULL_PORTION_SHARDS_MAX, PULL_SILENCE_MS_MAX};
use stockmesh_proto::{ReplicaId, ShardIndex};

/// More than there are places for, so that some must wait.
const PEERS: u8 = 12;
const STEPS_MAX: usize = 128;

/// One step of a script; the first number says of which peer or pull.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Step {
    /// From which shard on, how many, and how far apart.
    Offer(u8, u8, u8, u8),
    Next(u8),
    Heard(u8),
    /// So many shards of a pull.
    Arrived(u8, u8),
    Finished(u8),
    Failed(u8),
    Leave(u8),
    /// In steps of a twentieth of a second, then what is overdue is ended.
    Pass(u8),
}

#[derive(Default)]
struct World {
    plan: Plan,
    now_ms: u64,
    /// What is being pulled, as the script knows it.
    pulls: BTreeMap<PullNumber, (ReplicaId, BTreeSet<ShardIndex>)>,
    arrived: BTreeSet<ShardIndex>,
    offered: BTreeSet<ShardIndex>,
}

pub(super) fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let mut world = World { plan: Plan::new(), ..World::default() };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let step = Step::arbitrary(input)?;
        world.take(step);
        world.check();
    }
    world.finish();
    Ok(())
}

fn peer(number: u8) -> ReplicaId {
    ReplicaId::from_random(1 + u64::from(number % PEERS))
}

impl World {
    fn pull(&self, which: u8) -> Option<PullNumber> {
        self.pulls.keys().nth(usize::from(which) % self.pulls.len().max(1)).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Offer(who, from, count, apart) => {
                let shard = |number: u8| u16::from(from) + u16::from(number) * (1 + u16::from(apart % 4));
                let shards: Vec<ShardIndex> = (0..count).map(|number| ShardIndex(shard(number))).collect();
                self.offered.extend(&shards);
                self.plan.offer(peer(who), shards);
            }
            Step::Next(who) => {
                self.next(peer(who));
            }
            Step::Heard(which) => {
                if let Some(number) = self.pull(which) {
                    self.plan.heard(number, self.now_ms);
                }
            }
            Step::Arrived(which, count) => {
                for _ in 0..=count % 16 {
                    let Some(number) = self.pull(which) else { break };
                    let shards = self.pulls.get_mut(&number).map(|(_, shards)| shards).unwrap();
                    // Now and then one that was not asked for, or came before.
                    let shard = shards.pop_first().unwrap_or(ShardIndex(u16::from(count)));
                    let is_of_pull = self.plan.pulls().any(|pull| pull.0 == number && pull.2.contains(&shard));
                    self.plan.arrived(number, shard);
                    self.arrived.extend(is_of_pull.then_some(shard));
                }
            }
            Step::Finished(which) => {
                if let Some(number) = self.pull(which) {
                    self.finished(number);
                }
            }
            Step::Failed(which) => {
                if let Some(number) = self.pull(which) {
                    self.pulls.remove(&number);
                    self.plan.failed(number, self.now_ms);
                    // Twice is as once.
                    self.plan.failed(number, self.now_ms);
                }
            }
            Step::Leave(who) => {
                self.plan.leave(peer(who));
                self.pulls.retain(|_, (of, _)| *of != peer(who));
                assert!(!self.plan.may_need(peer(who)), "who is gone offers nothing");
            }
            Step::Pass(by) => {
                self.now_ms += u64::from(by) * 50;
                for number in self.plan.overdue(self.now_ms) {
                    let (of, _) = self.pulls.remove(&number).unwrap();
                    assert!(self.plan.next(of, self.now_ms).is_none(), "who was silent is asked at once");
                }
            }
        }
    }

    fn next(&mut self, who: ReplicaId) -> bool {
        let Some((number, scope)) = self.plan.next(who, self.now_ms) else { return false };
        let shards: BTreeSet<ShardIndex> = scope.shards().iter().copied().collect();
        assert!(shards.len() <= PULL_PORTION_SHARDS_MAX);
        assert!(shards.is_disjoint(&self.arrived), "a shard is pulled again");
        let pulled = self.pulls.values().flat_map(|(_, shards)| shards);
        assert!(pulled.into_iter().all(|shard| !shards.contains(shard)), "a shard is pulled twice at once");
        assert!(self.pulls.insert(number, (who, shards)).is_none(), "a number is used twice");
        let busy: BTreeSet<ReplicaId> = self.pulls.values().map(|(who, _)| *who).collect();
        assert!(busy.len() <= PULL_PEERS_MAX);
        true
    }

    fn finished(&mut self, number: PullNumber) {
        let (_, shards) = self.pulls.remove(&number).unwrap();
        self.arrived.extend(shards);
        self.plan.finished(number);
    }

    fn check(&self) {
        for who in (0..PEERS).map(peer).filter(|who| !self.plan.may_need(*who)) {
            assert!(self.plan.clone().next(who, self.now_ms).is_none(), "{who} is pulled from without need");
        }
        let known = self.plan.pulls().map(|(number, who, shards)| (number, (who, shards.clone())));
        assert_eq!(known.collect::<BTreeMap<_, _>>(), self.pulls);
        let (arrived, total) = self.plan.progress();
        assert_eq!(arrived, self.arrived.len());
        assert!(arrived <= total && total <= self.offered.len());
    }

    /// Whatever happened, what one peer offers that does not fail arrives in the end.
    fn finish(&mut self) {
        self.plan.offer(peer(0), self.offered.iter().copied());
        // Each pull ends within this time, and there are at most as many as shards.
        for _ in 0..4 + 4 * self.offered.len() {
            for number in self.pulls.keys().copied().collect::<Vec<_>>() {
                self.finished(number);
            }
            if self.plan.is_over() {
                break;
            }
            self.now_ms += PULL_PAUSE_MS_MAX.max(PULL_SILENCE_MS_MAX);
            assert!(self.next(peer(0)), "nothing is pulled, and not all arrived");
            self.check();
        }
        assert!(self.plan.is_over() && self.arrived == self.offered, "not all arrived");
    }
}
