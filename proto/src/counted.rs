//! What counts of a product: the counters of the living as they wrote them, those of the retired as they were taken over.
//!
//! Sums over the stock slots as they stand would be wrong once a replica was retired: its slot may still grow by writes
//! that turn up late, and those count for nothing until somebody takes them over (rule E2).

use std::collections::BTreeMap;

use crate::counter::Counters;
use crate::id::{Location, ReplicaId};
use crate::product::{InheritanceSlot, Product};

impl Product {
    /// What counts of a retired replica at a location: the greatest of what those who took over say. `None` if it was not
    /// retired there.
    pub fn frozen(&self, location: &Location, replica: ReplicaId) -> Option<Counters> {
        let slots = self.inheritances_of(location, replica);
        slots.iter().map(|slot| slot.taken.counters()).reduce(Counters::join)
    }

    /// Whether a replica was retired at a location: another one took its place.
    pub fn is_retired(&self, location: &Location, replica: ReplicaId) -> bool {
        !self.inheritances_of(location, replica).is_empty()
    }

    /// The counters of a replica at a location that count (rule E2): its own, or what was taken over if it was retired.
    pub fn counted_by(&self, location: &Location, replica: ReplicaId) -> Counters {
        self.frozen(location, replica).unwrap_or_else(|| self.counters(location, replica))
    }

    /// All counters that count, each (location, replica) once, in no particular order.
    pub fn counted(&self) -> impl Iterator<Item = (&Location, ReplicaId, Counters)> {
        let living = self.stock().iter().filter(|slot| !self.is_retired(&slot.location, slot.replica));
        let living = living.map(|slot| (&slot.location, slot.replica, slot.counters));
        let is_same = |left: &InheritanceSlot, right: &InheritanceSlot| {
            left.from == right.from && left.location == right.location
        };
        let retired = self.inheritances().chunk_by(is_same).filter_map(|slots| {
            let counters = slots.iter().map(|slot| slot.taken.counters()).reduce(Counters::join)?;
            slots.first().map(|slot| (&slot.location, slot.from, counters))
        });
        living.chain(retired)
    }

    fn counted_at(&self, location: &Location) -> impl Iterator<Item = (ReplicaId, Counters)> {
        let living = self.stock_at(location).iter().filter(|slot| !self.is_retired(location, slot.replica));
        let retired = self.inheritances_at(location).chunk_by(|left, right| left.from == right.from);
        let retired = retired.filter_map(|slots| {
            let counters = slots.iter().map(|slot| slot.taken.counters()).reduce(Counters::join)?;
            slots.first().map(|slot| (slot.from, counters))
        });
        living.map(|slot| (slot.replica, slot.counters)).chain(retired)
    }

    /// Units on hand at every location.
    pub fn on_hand(&self) -> i128 {
        self.sum(Counters::on_hand)
    }

    /// Units held at every location.
    pub fn held(&self) -> i128 {
        self.sum(Counters::units_held)
    }

    /// Most products have no inheritance, and reads of a million of them are to stay as fast as they are.
    fn sum(&self, units: impl Fn(Counters) -> i128) -> i128 {
        if self.inheritances().is_empty() {
            return self.stock().iter().map(|slot| units(slot.counters)).sum();
        }
        self.counted().map(|(_, _, counters)| units(counters)).sum()
    }

    /// Units on hand at one location, as all replicas together counted them.
    pub fn on_hand_at(&self, location: &Location) -> i128 {
        self.counted_at(location).map(|(_, counters)| counters.on_hand()).sum()
    }

    /// Units held at one location.
    pub fn held_at(&self, location: &Location) -> i128 {
        self.counted_at(location).map(|(_, counters)| counters.units_held()).sum()
    }

    /// Units on hand that are not held, at one location: the sum of all rights there. Below zero if more went out than
    /// came in.
    pub fn available_at(&self, location: &Location) -> i128 {
        self.counted_at(location).map(|(_, counters)| counters.available()).sum()
    }

    /// What each replica counted at a location and still has available of it, in the order of their ids.
    pub(crate) fn available_by_replica(&self, location: &Location) -> BTreeMap<ReplicaId, i128> {
        self.counted_at(location).map(|(replica, counters)| (replica, counters.available())).collect()
    }

    /// All locations that a stock slot, a grant or an inheritance names, in their order.
    pub fn locations(&self) -> Vec<&Location> {
        let mut locations: Vec<&Location> = self.stock().iter().map(|slot| &slot.location).collect();
        locations.extend(self.grants().iter().map(|grant| &grant.location));
        locations.extend(self.inheritances().iter().map(|slot| &slot.location));
        locations.sort_unstable();
        locations.dedup();
        locations
    }
}
