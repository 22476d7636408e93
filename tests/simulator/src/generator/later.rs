//! Features that came later, drawn apart from the others, so that what a seed meant before it goes on to mean.

use super::{Generator, LARGE};
use crate::chance::Chance;
use crate::endpoint::TWIN;
use crate::plan::Feature::{Listings, Twins};
use crate::plan::{Action, Directory, Feature, Size};

/// Each with how often of a thousand seeds it is on.
pub(super) const FEATURES: [(Feature, u64); 2] = [(Listings, 250), (Twins, 60)];

/// What is on of them.
pub(super) fn features(chance: &mut Chance, size: Size) -> Vec<Feature> {
    let is_large = size.nodes.is_some_and(|nodes| nodes > LARGE);
    let drawn = FEATURES.map(|(feature, often)| (feature, chance.per_mille(often)));
    // The number of the twin is another node's there.
    let is_on = |(feature, is_on): &(Feature, bool)| *is_on && !(is_large && *feature == Twins);
    drawn.into_iter().filter(is_on).map(|(feature, _)| feature).collect()
}

impl Generator {
    pub(super) fn later(&mut self, chance: Chance) {
        self.chance = chance;
        if self.is_on(Listings) {
            self.listings();
        }
        if self.is_on(Twins) {
            self.twins();
        }
    }

    fn listings(&mut self) {
        for _ in 0..self.times(60) {
            let (at, node, sku, listed) = (self.time(), self.node(), self.product(), self.chance.per_mille(500));
            self.push(at, node, Action::List { sku, listed });
        }
    }

    /// Both go on at once; in some runs the copy sees nobody for a while, and in some it is restarted.
    fn twins(&mut self) {
        let (at, of) = (self.time(), self.founder());
        let has_its_certificate = self.chance.per_mille(500);
        if self.chance.per_mille(600) {
            let (for_ms, side) = (self.chance.within(500..=60_000), self.everybody());
            // It may be cut off from some and not from all, so that they see both.
            let most = [1000, 500][self.chance.below(2)];
            for other in side {
                if self.chance.per_mille(most) {
                    self.cut(at.saturating_sub(1), for_ms, TWIN, other);
                    self.cut(at.saturating_sub(1), for_ms, other, TWIN);
                }
            }
        }
        self.push(at, TWIN, Action::Twin { of, has_its_certificate });
        let mut then = at;
        for _ in 0..self.chance.within(2..=60) {
            then += self.chance.within(1..=2_000);
            let (node, action) = ([TWIN, of][self.chance.below(2)], self.operation());
            self.push(then, node, action);
        }
        if self.chance.per_mille(400) {
            let (down, seed) = (at + self.chance.within(100..=60_000), self.chance.draw());
            let end = [Action::Kill, Action::LosePower { seed }, Action::Close];
            let end = end[self.chance.below(3)].clone();
            self.push(down, TWIN, end);
            let up = down + self.chance.within(50..=5_000);
            self.push(up, TWIN, Action::Open { with: Directory::Own });
        }
    }
}
