//! Faults: of processes, disks, lines and clocks.

use std::time::Duration;

use super::Generator;
use crate::chance::{Chance, mix};
use crate::endpoint::READERS;
use crate::network::Line;
use crate::plan::Feature::{
    Drift, FailingDisks, FarJumps, Flapping, FullDisks, Jumps, Kills, Narrow, Noise, OldCopies, OneWayCuts, Partitions,
    PowerLosses, Restarts, Rot, SecretCopies, SlowDisks,
};
use crate::plan::{Action, Directory, Feature};

/// How long a node is cut off with those that only read.
const STRANDED_MS: u64 = 5_000;

impl Generator {
    pub(super) fn crashes(&mut self) {
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
    pub(super) fn rush_before(&mut self, at: u64, node: u16) {
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

    pub(super) fn cut(&mut self, at: u64, for_ms: u64, from: u16, to: u16) {
        let cut = Line { cut: true, ..Line::default() };
        self.push(at, from, Action::Change { to, line: cut });
        self.push(at + for_ms, from, Action::Change { to, line: Line::default() });
    }

    pub(super) fn lines(&mut self) {
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

    pub(super) fn clocks_and_disks(&mut self) {
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
    pub(super) fn far_jumps(&mut self) {
        for _ in 0..if self.is_on(FarJumps) { self.times(2) } else { 0 } {
            let (at, node, by_ms) = (self.time(), self.node(), self.chance.within(60_000..=200_000));
            self.ahead_ms += by_ms;
            self.push(at, node, Action::ShiftClock { by_ms: i64::try_from(by_ms).unwrap_or_default() });
        }
    }

    /// A node that is cut off from all but those that only read writes something, and then goes on from an old copy: what it
    /// wrote is nowhere but with them.
    pub(super) fn strand(&mut self) {
        let (at, node) = (self.chance.within(self.ends_ms / 3..=self.ends_ms), self.founder());
        self.push(at, node, Action::Copy);
        for other in self.everybody().into_iter().filter(|other| *other != node && !READERS.contains(other)) {
            self.cut(at + 1_000, STRANDED_MS, node, other);
            self.cut(at + 1_000, STRANDED_MS, other, node);
        }
        for _ in 0..3 {
            let (sku, place, units) = (self.product(), self.place(), self.chance.within(1..=99));
            self.push(at + 2_000, node, Action::Receive { sku, place, units });
        }
        let seed = self.chance.draw();
        self.push(at + STRANDED_MS, node, Action::LosePower { seed });
        let with = if self.chance.per_mille(500) { Directory::Copy } else { Directory::SecretCopy };
        self.push(at + 2 * STRANDED_MS, node, Action::Open { with });
    }
}

fn jump(chance: &mut Chance) -> i64 {
    let by = i64::try_from(chance.within(0..=9_000)).unwrap_or_default();
    // Behind as far as it gets.
    if chance.per_mille(300) { -100 * by } else { by }
}
