//! A cluster as a graph: what each node chooses is carried out at once, and nothing else happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stockmesh_proto::topology::{LinkBudget, Linked, Peer, View};
use stockmesh_proto::{Location, ReplicaId};

use crate::support::location;

/// Random numbers: splitmix64.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A link as one of its ends sees it.
#[derive(Clone, Copy)]
struct Half {
    is_own: bool,
    since: u64,
}

pub(super) struct Cluster {
    budget: LinkBudget,
    pub(super) locations: BTreeMap<ReplicaId, Location>,
    links: BTreeMap<ReplicaId, BTreeMap<ReplicaId, Half>>,
    pub(super) chance: Chance,
    clock: u64,
}

impl Cluster {
    pub(super) fn new(links: usize, seed: u64) -> Self {
        let budget = LinkBudget::new(links).unwrap();
        let (locations, links) = (BTreeMap::new(), BTreeMap::new());
        Self { budget, locations, links, chance: Chance::new(seed), clock: 0 }
    }

    /// Members of which the location is given by their number; unlinked.
    pub(super) fn join(&mut self, count: usize, at: impl Fn(usize) -> usize) {
        for number in 0..count {
            let replica = ReplicaId::from_random(self.chance.draw());
            self.locations.insert(replica, location(&format!("location-{}", at(number))));
            self.links.insert(replica, BTreeMap::new());
        }
    }

    pub(super) fn members(&self) -> Vec<ReplicaId> {
        self.locations.keys().copied().collect()
    }

    /// The peers of a node, in the order of their ids.
    pub(super) fn linked(&self, replica: ReplicaId) -> Vec<ReplicaId> {
        self.links[&replica].keys().copied().collect()
    }

    fn link(&mut self, from: ReplicaId, to: ReplicaId) {
        let since = self.clock;
        self.links.get_mut(&from).unwrap().entry(to).or_insert(Half { is_own: true, since });
        self.links.get_mut(&to).unwrap().entry(from).or_insert(Half { is_own: false, since });
    }

    fn unlink(&mut self, one: ReplicaId, other: ReplicaId) {
        self.links.get_mut(&one).unwrap().remove(&other);
        self.links.get_mut(&other).unwrap().remove(&one);
    }

    /// One node looks at the cluster.
    fn with_view<T>(&mut self, own: ReplicaId, look: impl FnOnce(&View<'_>, &mut dyn FnMut() -> u64) -> T) -> T {
        let peers: Vec<Peer<'_>> = (self.locations.iter())
            .map(|(replica, location)| Peer { replica: *replica, location, may_be_dialled: true })
            .collect();
        let mut halves: Vec<_> = self.links[&own].iter().collect();
        halves.sort_by_key(|(_, half)| half.since);
        let linked = |(replica, half): (&ReplicaId, &Half)| Linked {
            replica: *replica,
            location: &self.locations[replica],
            is_own: half.is_own,
            may_be_ended: true,
        };
        let links: Vec<Linked<'_>> = halves.into_iter().map(linked).collect();
        let view = View { own, home: &self.locations[&own], peers: &peers, links: &links, budget: self.budget };
        look(&view, &mut || self.chance.draw())
    }

    /// Each node plans once, one after the other in no order. Returns how many links were made and ended.
    pub(super) fn plan(&mut self) -> usize {
        let mut changes = 0;
        for own in self.shuffled() {
            self.clock += 1;
            let plan = self.with_view(own, |view, random| view.plan(random));
            changes += plan.dial.len() + plan.end.len();
            plan.dial.iter().for_each(|peer| self.link(own, *peer));
            plan.end.iter().for_each(|peer| self.unlink(own, *peer));
        }
        changes
    }

    /// Plans until nothing changes any more.
    pub(super) fn settle(&mut self) -> usize {
        (1..=20).find(|_| self.plan() == 0).expect("the choices come to rest within 20 rounds")
    }

    /// Each node replaces a link, then all plan: what happens in a minute.
    pub(super) fn minute(&mut self) {
        for own in self.shuffled() {
            self.clock += 1;
            if let Some(replaced) = self.with_view(own, |view, random| view.refresh(random)) {
                self.link(own, replaced.new);
                self.unlink(own, replaced.old);
            }
        }
        self.plan();
    }

    /// These are gone, and everybody knows.
    pub(super) fn die(&mut self, dead: &BTreeSet<ReplicaId>) {
        self.locations.retain(|replica, _| !dead.contains(replica));
        self.links.retain(|replica, _| !dead.contains(replica));
        for links in self.links.values_mut() {
            links.retain(|replica, _| !dead.contains(replica));
        }
    }

    pub(super) fn shuffled(&mut self) -> Vec<ReplicaId> {
        let mut keyed: Vec<_> = self.members().into_iter().map(|replica| (self.chance.draw(), replica)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, replica)| replica).collect()
    }

    /// How many members the largest connected part leaves out.
    pub(super) fn apart(&self) -> usize {
        let mut seen = BTreeSet::new();
        let mut largest = 0;
        for start in self.links.keys() {
            let before = seen.len();
            let mut queue = VecDeque::from([*start]);
            while let Some(next) = queue.pop_front() {
                if seen.insert(next) {
                    queue.extend(self.links[&next].keys().filter(|peer| !seen.contains(peer)));
                }
            }
            largest = largest.max(seen.len() - before);
        }
        self.links.len() - largest
    }

    pub(super) fn degrees(&self) -> Degrees {
        let mut degrees: Vec<usize> = self.links.values().map(BTreeMap::len).collect();
        degrees.sort_unstable();
        let own = |links: &BTreeMap<ReplicaId, Half>| links.values().filter(|half| half.is_own).count();
        Degrees {
            least: degrees[0],
            mean: degrees.iter().sum::<usize>() as f64 / degrees.len() as f64,
            most: degrees[degrees.len() - 1],
            own_least: self.links.values().map(own).min().unwrap(),
        }
    }

    /// The part of all links that lead from one location to another.
    pub(super) fn far_share(&self) -> f64 {
        let pairs = self.links.iter().flat_map(|(one, links)| links.keys().map(move |other| (one, other)));
        let (mut far, mut all) = (0, 0);
        for (one, other) in pairs {
            all += 1;
            far += usize::from(self.locations[one] != self.locations[other]);
        }
        f64::from(u32::try_from(far).unwrap()) / f64::from(u32::try_from(all).unwrap())
    }
}

#[derive(Debug)]
pub(super) struct Degrees {
    pub(super) least: usize,
    pub(super) mean: f64,
    pub(super) most: usize,
    /// The fewest links that a node dialled itself.
    pub(super) own_least: usize,
}
