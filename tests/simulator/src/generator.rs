//! Generates what a seed means: which faults and operations are on, and what happens when.

use std::collections::BTreeSet;
use std::time::Duration;

use stockmesh::MembershipTiming;

use crate::chance::{Chance, mix};
use crate::endpoint::{NODES_MAX, READERS};
use crate::network::Line;
use crate::plan::Feature::{
    Batches, Deaths, Distance, Drift, Facts, FailingDisks, FarJumps, Flapping, FullDisks, Holds, Joins, Jumps, Kills,
    Leaves, Narrow, Noise, OldCopies, OneWayCuts, Partitions, PowerLosses, Prices, Readers, Restarts, Returns, Rot,
    Rotations, SecretCopies, SlowDisks, Transfers,
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
const LARGE: u16 = 20;

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
    /// What a seed means in a run of this size.
    #[must_use]
    pub fn generate(seed: u64, size: Size) -> Self {
        let mut chance = Chance::new(seed ^ 0x5EED_0F5E_EDED);
        let features: BTreeSet<Feature> =
            FEATURES.iter().filter(|(_, often)| chance.per_mille(*often)).map(|(feature, _)| *feature).collect();
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
        generator.departures();
        let Generator { mut events, features, ahead_ms, .. } = generator;
        // What is still broken by then, the end of all faults mends.
        events.retain(|event| event.at <= ends);
        events.sort_by_key(|event| event.at);
        let mut numbers: Vec<u16> = (1..=NODES_MAX.min(nodes + JOINERS_MAX)).collect();
        numbers.extend(READERS);
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

    fn crashes(&mut self) {
        for (feature, often) in
            [(Kills, 6), (PowerLosses, 6), (Restarts, 4), (OldCopies, 2), (SecretCopies, 2), (Rot, 3)]
        {
            if !self.is_on(feature) {
                continue;
            }
            for _ in 0..self.times(often) {
                let (at, node) = (self.time(), self.node());
                let down_ms_max = if self.chance.per_mille(300) { 60_000 } else { 5_000 };
                let down_ms = self.chance.within(50..=down_ms_max);
                let action = match feature {
                    Kills | Rot => Action::Kill,
                    Restarts => Action::Close,
                    _ => {
                        self.rush_before(at, node);
                        Action::LosePower { seed: self.chance.draw() }
                    }
                };
                self.push(at, node, action);
                let with = match feature {
                    OldCopies => Directory::Copy,
                    SecretCopies => Directory::SecretCopy,
                    _ => Directory::Own,
                };
                if with != Directory::Own {
                    let before = self.chance.within(1_000..=at.min(60_000));
                    self.push(at - before, node, Action::Copy);
                }
                if feature == Rot {
                    let seed = self.chance.draw();
                    self.push(at + 20, node, Action::Rot { seed });
                }
                self.push(at + down_ms, node, Action::Open { with });
            }
        }
    }

    /// A slow disk and many writes just before power is lost, so that some of them are not on disk by then.
    fn rush_before(&mut self, at: u64, node: u16) {
        let sync_ms = self.chance.within(20..=500);
        self.push(at.saturating_sub(1_000), node, Action::SlowDisk { sync_ms });
        for _ in 0..self.chance.within(2..=12) {
            let before = self.chance.within(0..=300);
            let (sku, place, units) = (self.product(), self.place(), self.chance.within(1..=99));
            let action = if self.chance.per_mille(700) {
                Action::Receive { sku, place, units }
            } else {
                Action::Sell { sku, place, units: 1 }
            };
            self.push(at.saturating_sub(before), node, action);
        }
    }

    fn cut(&mut self, at: u64, for_ms: u64, from: u16, to: u16) {
        let cut = Line { cut: true, ..Line::default() };
        self.push(at, from, Action::Change { to, line: cut });
        self.push(at + for_ms, from, Action::Change { to, line: Line::default() });
    }

    fn lines(&mut self) {
        if self.is_on(Partitions) {
            for _ in 0..self.times(4) {
                let (at, for_ms) = (self.time(), self.chance.within(1_000..=90_000));
                let side = self.chance.draw();
                let (all, half) = (self.everybody(), |node: u16| mix(side ^ u64::from(node)) & 1);
                for from in &all {
                    for to in all.iter().filter(|to| half(*from) != half(**to)) {
                        self.cut(at, for_ms, *from, *to);
                    }
                }
            }
        }
        if self.is_on(OneWayCuts) {
            for _ in 0..self.times(8) {
                let (at, for_ms, from, to) = (self.time(), self.chance.within(500..=60_000), self.node(), self.node());
                self.cut(at, for_ms, from, to);
            }
        }
        if self.is_on(Flapping) {
            let (mut at, from, to) = (self.time(), self.node(), self.node());
            for _ in 0..self.chance.within(5..=40) {
                let for_ms = self.chance.within(50..=4_000);
                self.cut(at, for_ms, from, to);
                self.cut(at, for_ms, to, from);
                at += for_ms + self.chance.within(50..=4_000);
            }
        }
        for feature in [Noise, Narrow] {
            for _ in 0..if self.is_on(feature) { self.times(12) } else { 0 } {
                let (at, for_ms, from, to) =
                    (self.time(), self.chance.within(2_000..=90_000), self.node(), self.node());
                let line = self.bad_line(feature);
                self.push(at, from, Action::Change { to, line });
                self.push(at + for_ms, from, Action::Change { to, line: Line::default() });
            }
        }
    }

    fn bad_line(&mut self, feature: Feature) -> Line {
        let mut line = Line::default();
        if feature == Narrow {
            line.kilobytes_per_second = self.chance.within(2..=60);
            return line;
        }
        line.lost = [0, 10, 50, 300][self.chance.below(4)];
        line.doubled = [0, 20, 200][self.chance.below(3)];
        line.held_up = [0, 20, 200][self.chance.below(3)];
        line.delay = Duration::from_millis(self.chance.within(0..=80));
        line.jitter = Duration::from_millis(self.chance.within(0..=80));
        line
    }

    fn clocks_and_disks(&mut self) {
        for (feature, often) in [(Jumps, 6), (Drift, 4), (SlowDisks, 6), (FailingDisks, 3), (FullDisks, 2)] {
            for _ in 0..if self.is_on(feature) { self.times(often).min(6) } else { 0 } {
                let (at, node) = (self.time(), self.node());
                let action = match feature {
                    // Ahead by less than the drift bound over all, so that others take its stamps at the end.
                    Jumps => Action::ShiftClock { by_ms: jump(&mut self.chance) },
                    Drift => {
                        let millionths = i64::try_from(self.chance.within(0..=40_000)).unwrap_or_default();
                        Action::DriftClock { millionths: millionths - 20_000 }
                    }
                    SlowDisks => Action::SlowDisk { sync_ms: self.chance.within(20..=800) },
                    FailingDisks => Action::FailSync,
                    _ => Action::FillDisk,
                };
                self.push(at, node, action);
                match feature {
                    SlowDisks => {
                        let for_ms = self.chance.within(1_000..=30_000);
                        self.push(at + for_ms, node, Action::SlowDisk { sync_ms: 2 });
                    }
                    FailingDisks | FullDisks => {
                        let for_ms = self.chance.within(1_000..=20_000);
                        let is_power_lost = self.chance.per_mille(500);
                        let seed = self.chance.draw();
                        let end = if is_power_lost { Action::LosePower { seed } } else { Action::Kill };
                        self.push(at + for_ms, node, end);
                        self.push(at + for_ms + 100, node, Action::Open { with: Directory::Own });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Ahead by more than the drift bound: the others take its stamps once their clocks get there.
    fn far_jumps(&mut self) {
        for _ in 0..if self.is_on(FarJumps) { self.times(2) } else { 0 } {
            let (at, node, by_ms) = (self.time(), self.node(), self.chance.within(60_000..=200_000));
            self.ahead_ms += by_ms;
            self.push(at, node, Action::ShiftClock { by_ms: i64::try_from(by_ms).unwrap_or_default() });
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

fn jump(chance: &mut Chance) -> i64 {
    let by = i64::try_from(chance.within(0..=9_000)).unwrap_or_default();
    // Behind as far as it gets.
    if chance.per_mille(300) { -100 * by } else { by }
}
