//! Generates what a seed means: which faults and operations are on, and what happens when.

mod faults;
mod later;

use std::collections::BTreeSet;
use std::time::Duration;

use stockmesh::MembershipTiming;

use crate::chance::Chance;
use crate::endpoint::{NODES_MAX, READERS, TWIN};
use crate::network::Line;
use crate::plan::Feature::{
    Batches, Deaths, Distance, Drift, Facts, FailingDisks, FarJumps, Flapping, FullDisks, Holds, Joins, Jumps, Kills,
    Leaves, Narrow, Noise, OldCopies, OneWayCuts, Partitions, PowerLosses, Prices, Readers, Restarts, Returns, Rot,
    Rotations, SecretCopies, SlowDisks, Transfers, Twins,
};
use crate::plan::{Action, Directory, Event, Feature, PLACES, Plan, Size, is_guarded};

/// Each with how often of a thousand seeds it is on.
const FEATURES: [(Feature, u64); 29] = [
    (Holds, 600),
    (Prices, 700),
    (Facts, 400),
    (Transfers, 400),
    (Batches, 500),
    (Kills, 400),
    (PowerLosses, 400),
    (Restarts, 300),
    (Partitions, 500),
    (OneWayCuts, 300),
    (Flapping, 200),
    (Noise, 500),
    (Narrow, 150),
    (Distance, 200),
    (Jumps, 350),
    (Drift, 300),
    (SlowDisks, 300),
    (FailingDisks, 250),
    (FullDisks, 150),
    (OldCopies, 150),
    (Joins, 250),
    (SecretCopies, 100),
    (Rot, 150),
    (Leaves, 200),
    (Deaths, 200),
    (Returns, 300),
    (Rotations, 150),
    (FarJumps, 100),
    (Readers, 200),
];

/// How long nodes may take to agree if no clock was far off: to find each other again, …
const LINK_TIME_MAX: Duration = Duration::from_secs(30);
/// … to reconcile, with peers by chance, …
const RECONCILIATIONS_MAX: u32 = 12;
/// … and for a member that only reads to find out that it holds what no other does.
const STRANDED_TIME_MAX: Duration = Duration::from_secs(90);

/// Beyond so many nodes a cluster is large.
pub(crate) const LARGE: u16 = 20;

struct Generator {
    chance: Chance,
    features: BTreeSet<Feature>,
    events: Vec<Event>,
    nodes: u16,
    ends_ms: u64,
    products: usize,
    /// How much more is received than sold, roughly: where there is plenty, nobody sells too much.
    plenty: u64,
    price: u64,
    /// By how much clocks were ahead of what others take.
    ahead_ms: u64,
}

impl Plan {
    /// All features that a seed may have on.
    #[must_use]
    pub fn all_features() -> BTreeSet<Feature> {
        FEATURES.into_iter().chain(later::FEATURES).map(|(feature, _)| feature).collect()
    }

    /// What a seed means in a run of this size.
    #[must_use]
    pub fn generate(seed: u64, size: Size) -> Self {
        let mut chance = Chance::new(seed ^ 0x5EED_0F5E_EDED);
        let mut features: BTreeSet<Feature> =
            FEATURES.iter().filter(|(_, often)| chance.per_mille(*often)).map(|(feature, _)| *feature).collect();
        let mut later = Chance::new(seed ^ 0x1A7E_0F5E_EDED);
        features.extend(later::features(&mut later, size));
        let nodes = size.nodes.unwrap_or_else(|| [3, 3, 4, 4, 5, 5, 6, 7, 9][chance.below(9)]);
        let mut usual = Line::default();
        let mut timing = MembershipTiming::Lan;
        if features.contains(&Distance) {
            usual.delay = Duration::from_millis(chance.within(20..=150));
            usual.jitter = usual.delay / 4;
            timing = MembershipTiming::Wan;
        }
        let ends = Duration::from_secs(size.minutes * 60);
        let shards = [1, 4, 16][chance.below(3)];
        // Many nodes with as many links, or that reconcile as often, are the same few things over and over.
        let is_large = nodes > LARGE;
        let intervals = if is_large { [2_000, 5_000, 5_000, 10_000] } else { [250, 500, 1_000, 5_000] };
        let reconcile_every = Duration::from_millis(intervals[chance.below(4)]);
        let sync_time =
            (Duration::from_micros(chance.within(0..=3_000)), Duration::from_micros(chance.within(0..=9_000)));
        let links = [4, 8, if is_large { 12 } else { 64 }][chance.below(3)];
        let products = [3, 8, 24][chance.below(3)];
        let ends_ms = size.minutes * 60_000;
        let journal_bytes_max = [16 << 20, 64 << 10, 16 << 10][chance.below(3)];
        let (plenty, events) = ([1, 2, 10][chance.below(3)], Vec::new());
        let mut generator =
            Generator { chance, features, events, nodes, ends_ms, products, plenty, price: 100, ahead_ms: 0 };
        generator.operations();
        generator.crashes();
        generator.lines();
        generator.clocks_and_disks();
        generator.far_jumps();
        generator.joins();
        if generator.is_on(Readers) && generator.chance.per_mille(300) {
            generator.strand();
        }
        generator.departures();
        generator.later(later);
        let Generator { mut events, features, ahead_ms, .. } = generator;
        // What is still broken by then, the end of all faults mends.
        events.retain(|event| event.at <= ends);
        events.sort_by_key(|event| event.at);
        let mut numbers: Vec<u16> = (1..=NODES_MAX.min(nodes + JOINERS_MAX)).collect();
        numbers.extend(READERS);
        numbers.extend(features.contains(&Twins).then_some(TWIN));
        let mut agree_time_max =
            LINK_TIME_MAX + RECONCILIATIONS_MAX * reconcile_every + Duration::from_millis(ahead_ms);
        if features.contains(&Readers) {
            agree_time_max += STRANDED_TIME_MAX;
        }
        Self {
            seed,
            nodes,
            numbers,
            features,
            events,
            ends,
            usual,
            timing,
            reconcile_every,
            shards,
            links,
            agree_time_max,
            sync_time,
            journal_bytes_max,
        }
    }
}

impl Generator {
    fn is_on(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// One that was there from the beginning.
    fn founder(&mut self) -> u16 {
        let nodes = u64::from(self.nodes);
        u16::try_from(self.chance.within(1..=nodes)).unwrap_or(1)
    }

    /// All that may be there some time.
    fn everybody(&self) -> Vec<u16> {
        let joiners = if self.is_on(Joins) { JOINERS_MAX } else { 0 };
        let mut all: Vec<u16> = (1..=NODES_MAX.min(self.nodes + joiners)).collect();
        all.extend(READERS.iter().filter(|_| self.is_on(Readers)));
        all
    }

    fn node(&mut self) -> u16 {
        let all = self.everybody();
        all[self.chance.below(all.len())]
    }

    /// A time at which a fault may begin.
    fn time(&mut self) -> u64 {
        self.chance.within(3_000..=self.ends_ms)
    }

    fn push(&mut self, at_ms: u64, node: u16, action: Action) {
        self.events.push(Event { at: Duration::from_millis(at_ms), node, action });
    }

    /// How often something happens in this run.
    fn times(&mut self, per_five_minutes: u64) -> u64 {
        let most = (per_five_minutes * self.ends_ms).div_ceil(300_000).max(1);
        self.chance.within(1..=most)
    }

    fn product(&mut self) -> String {
        let product = self.chance.skewed(self.products);
        let kind = if product % 2 == 1 && self.is_on(Facts) { "counted" } else { "guarded" };
        format!("{kind}-{product:02}")
    }

    fn place(&mut self) -> &'static str {
        // Most of it in one, where the nodes compete for it.
        PLACES[usize::from(self.chance.per_mille(200))]
    }

    fn operations(&mut self) {
        let pause_ms = [200, 500, 1_500][self.chance.below(3)];
        let mut at = 500;
        while at < self.ends_ms {
            let node = self.node();
            let action = self.operation();
            self.push(at, node, action);
            // Now and then many at once.
            at += if self.chance.per_mille(100) { 0 } else { self.chance.within(1..=2 * pause_ms) };
        }
    }

    fn operation(&mut self) -> Action {
        let (sku, place, units) = (self.product(), self.place(), self.chance.within(1..=9));
        let dice = self.chance.below(100);
        match dice {
            0..=24 => Action::Receive { sku, place, units: self.plenty * units },
            25..=34 if self.is_on(Holds) => Action::Hold { sku, place, units, seconds: self.chance.within(2..=60) },
            35..=39 if self.is_on(Holds) => {
                Action::CommitHold { pick: self.chance.draw(), part: self.chance.per_mille(400) }
            }
            40..=42 if self.is_on(Holds) => Action::ReleaseHold { pick: self.chance.draw() },
            43..=49 if self.is_on(Prices) => {
                self.price += 1;
                Action::Price { sku, cents: self.price }
            }
            50..=53 if self.is_on(Transfers) => Action::Transfer { sku, from: PLACES[0], to: PLACES[1], units },
            54..=57 if self.is_on(Facts) && !is_guarded(&sku) => {
                let units = i64::try_from(units).unwrap_or(1);
                Action::Adjust { sku, place, units: if dice == 54 { units } else { -units } }
            }
            58 if self.is_on(Facts) && !is_guarded(&sku) => Action::Stocktake { sku, place, counted: 3 * units },
            59..=62 if self.is_on(Batches) => {
                let receive = vec![(self.product(), units + 20), (self.product(), units + 3)];
                let sell = if self.chance.per_mille(500) { vec![(sku, units)] } else { Vec::new() };
                Action::Batch { receive, sell }
            }
            _ => Action::Sell { sku, place, units },
        }
    }

    fn joins(&mut self) {
        for node in self.nodes + 1..=NODES_MAX.min(self.nodes + JOINERS_MAX) {
            if self.is_on(Joins) && self.chance.per_mille(700) {
                let at = self.time();
                self.push(at, node, Action::Open { with: Directory::Own });
            }
        }
        for node in READERS {
            if self.is_on(Readers) && self.chance.per_mille(600) {
                let at = self.time() / 2;
                self.push(at, node, Action::Open { with: Directory::Own });
                // It has no writes.
                for _ in 0..3 {
                    let (at, action) = (self.time(), self.operation());
                    self.push(at, node, action);
                }
            }
        }
    }

    /// Who leaves or dies stays away. A majority remains, though nothing rests on one.
    fn departures(&mut self) {
        for feature in [Leaves, Deaths] {
            for _ in 0..if self.is_on(feature) { self.chance.within(1..=u64::from(self.nodes / 5).max(1)) } else { 0 } {
                let (at, node) = (self.time(), self.founder());
                if feature == Leaves {
                    self.push(at, node, Action::Leave);
                    continue;
                }
                self.rush_before(at, node);
                self.push(at, node, Action::Die);
                let retired_ms = at + self.chance.within(1_000..=60_000);
                let heir = 1
                    + (node + u16::try_from(self.chance.below(usize::from(self.nodes) - 1)).unwrap_or(0)) % self.nodes;
                self.push(retired_ms, heir, Action::Retire { dead: node });
                if self.is_on(Returns) {
                    let back_ms = at + self.chance.within(500..=120_000);
                    self.push(back_ms, node, Action::Return);
                }
            }
        }
        for _ in 0..if self.is_on(Rotations) { self.times(6) } else { 0 } {
            let (at, node) = (self.time(), self.node());
            self.push(at, node, Action::Rotate);
        }
    }
}

/// How many nodes may come later.
const JOINERS_MAX: u16 = 2;
