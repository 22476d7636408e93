//! Rights to sell: the bounded counter inside the slots of a product.
//!
//! Balegas et al. 2015, "Extending Eventually Consistent Cloud Databases for Enforcing Numeric Invariants". The units
//! available at a location are shared out among the replicas as rights; each replica sells only within its own, so that
//! no two can sell the same unit, whether or not they hear of each other (rules B1 to B3).

use std::collections::BTreeMap;

use crate::counter::Counters;
use crate::id::{Location, ReplicaId};
use crate::product::{InheritanceSlot, Product};

impl Product {
    /// Rights of `replica` at a location as far as is known here, in units (rules B1, E3): what it counted in less what it
    /// counted out and holds, less what it gave to others, and what others gave to it; and what passed by inheritance. Of
    /// the own replica that is exact or too low, never too high; below zero it is a deficit, made by physical facts. Costs
    /// a look at every grant and inheritance of the location.
    pub fn rights(&self, location: &Location, replica: ReplicaId) -> i128 {
        let moved = |from: ReplicaId, to: ReplicaId, units: i128| match (from == replica, to == replica) {
            (true, false) => -units,
            (false, true) => units,
            _ => 0,
        };
        let granted: i128 =
            self.grants_at(location).map(|grant| moved(grant.from, grant.to, i128::from(grant.units))).sum();
        let inherited = self.inheritances_at(location).iter();
        let inherited: i128 = inherited.map(|slot| moved(slot.from, slot.to, slot.taken.rights_passed())).sum();
        self.counted_by(location, replica).available() + granted + inherited
    }

    /// The rights of every replica that counted, gave or got any at a location, in the order of their ids.
    pub fn rights_at(&self, location: &Location) -> BTreeMap<ReplicaId, i128> {
        let mut rights = self.available_by_replica(location);
        let granted = self.grants_at(location).map(|grant| (grant.from, grant.to, i128::from(grant.units)));
        let inherited = self.inheritances_at(location).iter();
        let inherited = inherited.map(|slot| (slot.from, slot.to, slot.taken.rights_passed()));
        for (from, to, units) in granted.chain(inherited) {
            *rights.entry(from).or_default() -= units;
            *rights.entry(to).or_default() += units;
        }
        rights
    }

    /// Units by which replicas are below zero at one location, added up: what physical facts took beyond the rights of
    /// those who recorded them, and nobody has paid back yet.
    pub fn oversold_at(&self, location: &Location) -> i128 {
        self.rights_at(location).values().map(|rights| (-rights).max(0)).sum()
    }

    /// The same over all locations.
    pub fn oversold(&self) -> i128 {
        self.locations().into_iter().map(|location| self.oversold_at(location)).sum()
    }
}

/// What a replica leaves to an heir at one location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Its rights once its holds are dissolved; below zero its deficit.
    pub rights: i128,
    /// Units that it held, of those; 0 if it was retired there before, as its holds are dissolved already.
    pub held: u64,
}

impl Product {
    /// What an heir would take over of `replica` at a location now (rule E4), as far as is known here.
    pub fn legacy(&self, location: &Location, replica: ReplicaId) -> Legacy {
        let held = self.counted_by(location, replica).units_held().max(0);
        let rights = self.rights(location, replica) + held;
        Legacy { rights, held: u64::try_from(held.min(rights.max(0))).unwrap_or(u64::MAX) }
    }

    /// The heir of `replica` at a location who settles what turns up late: of those who were not retired there themselves
    /// the one with the lowest id (rule E4). There are two only if both inherited without hearing of each other.
    pub fn heir(&self, location: &Location, replica: ReplicaId) -> Option<ReplicaId> {
        let heirs = self.inheritances_of(location, replica).iter().filter(|slot| slot.taken.is_heir);
        heirs.map(|slot| slot.to).find(|heir| !self.is_retired(location, *heir))
    }

    /// What an heir of a replica must take over, in this order (rule E4): at each location where that replica counted, gave,
    /// got or inherited anything its own place, and then those that it was the heir of.
    pub fn estate(&self, replica: ReplicaId) -> Vec<(&Location, ReplicaId)> {
        let is_there = |location: &Location| {
            self.stock_at(location).iter().any(|slot| slot.replica == replica)
                || self.grants_at(location).any(|slot| slot.from == replica || slot.to == replica)
                || self.inheritances_at(location).iter().any(|slot| slot.from == replica || slot.to == replica)
        };
        let mut estate = Vec::new();
        for location in self.locations().into_iter().filter(|location| is_there(location)) {
            estate.push((location, replica));
            let inherited = self.inheritances_at(location).iter();
            let inherited = inherited.filter(|slot| slot.to == replica && slot.taken.is_heir);
            estate.extend(inherited.map(|slot| (location, slot.from)));
        }
        estate
    }

    /// Where `own` is the heir who settles, and rights of the retired replica have turned up late: another `Inherit` takes
    /// them over. Free for a product without inheritances.
    pub fn to_settle(&self, own: ReplicaId) -> Vec<(&Location, ReplicaId)> {
        let is_heir = |slot: &&InheritanceSlot| slot.to == own && slot.taken.is_heir;
        let inherited = self.inheritances().iter().filter(is_heir).map(|slot| (&slot.location, slot.from));
        let to_settle = |(location, from): &(&Location, ReplicaId)| {
            self.heir(location, *from) == Some(own) && self.rights(location, *from) != 0
        };
        inherited.filter(to_settle).collect()
    }

    /// Where writes of a retired replica that `is_own` picks are known here and do not count: a `Reapply` brings them (rule
    /// E5). Free for a product without inheritances.
    pub fn to_reapply(&self, is_own: impl Fn(ReplicaId) -> bool) -> Vec<(&Location, ReplicaId)> {
        let retired =
            self.inheritances().chunk_by(|left, right| left.from == right.from && left.location == right.location);
        let retired = retired.filter_map(|slots| slots.first()).map(|slot| (&slot.location, slot.from));
        retired
            .filter(|(location, from)| is_own(*from) && self.uncounted(location, *from) != Counters::default())
            .collect()
    }

    /// What a retired replica wrote at a location that is known here and does not count; nothing if it was not retired.
    pub(crate) fn uncounted(&self, location: &Location, replica: ReplicaId) -> Counters {
        let Some(frozen) = self.frozen(location, replica) else { return Counters::default() };
        let written = self.counters(location, replica);
        let added = written.added.saturating_sub(frozen.added);
        Counters { added, removed: written.removed.saturating_sub(frozen.removed), ..Counters::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::{GrantSlot, StockSlot};

    fn replica(bits: u64) -> ReplicaId {
        ReplicaId::from_random(bits)
    }

    fn place(name: &str) -> Location {
        Location::new(name).unwrap()
    }

    fn stock(location: &str, bits: u64, counters: Counters) -> StockSlot {
        StockSlot { location: place(location), replica: replica(bits), sequence: 1, counters }
    }

    fn grant(location: &str, from: u64, to: u64, units: u64) -> GrantSlot {
        GrantSlot { location: place(location), from: replica(from), to: replica(to), sequence: 2, units }
    }

    #[test]
    fn rights_are_shared_out_and_sum_to_what_is_available() {
        let counters = |added, removed, held, released| Counters { added, removed, held, released };
        let slots = vec![
            stock("a", 1, counters(100, 10, 7, 2)),
            stock("a", 2, counters(0, 4, 0, 0)),
            stock("b", 1, counters(5, 9, 0, 0)),
        ];
        let grants = vec![grant("a", 1, 2, 20), grant("a", 1, 3, 3), grant("a", 2, 1, 1), grant("c", 2, 1, 8)];
        let product = Product::from_slots(slots, grants, None, None).unwrap();
        let at = |name| place(name);
        assert_eq!(product.rights(&at("a"), replica(1)), 100 - 10 - 5 - 23 + 1);
        assert_eq!(product.rights(&at("a"), replica(2)), -4 + 20 - 1);
        assert_eq!(product.rights(&at("a"), replica(3)), 3);
        assert_eq!(product.rights(&at("a"), replica(4)), 0);
        for (name, available) in [("a", 81), ("b", -4), ("c", 0), ("d", 0)] {
            let rights = product.rights_at(&at(name));
            assert_eq!(rights.values().sum::<i128>(), available, "{name}");
            assert_eq!(product.available_at(&at(name)), available, "{name}");
            for (replica, units) in rights {
                assert_eq!(product.rights(&at(name), replica), units, "{name} {replica}");
            }
        }
        assert_eq!((product.oversold_at(&at("a")), product.oversold_at(&at("b"))), (0, 4));
        assert_eq!(product.oversold_at(&at("c")), 8, "a grant of what the giver does not have");
        assert_eq!(product.oversold(), 12);
    }

    fn taken(bits: (u64, u64), [added, removed, rights, owed]: [u64; 4], is_heir: bool) -> InheritanceSlot {
        let taken = crate::product::Taken { added, removed, rights, owed, is_heir };
        InheritanceSlot { location: place("a"), from: replica(bits.0), to: replica(bits.1), sequence: 3, taken }
    }

    #[test]
    fn of_the_retired_counts_what_was_taken_over() {
        let counters = |added, removed, held, released| Counters { added, removed, held, released };
        let slots = vec![
            stock("a", 1, counters(100, 10, 7, 2)),
            stock("a", 2, counters(5, 0, 1, 0)),
            stock("b", 1, counters(5, 0, 2, 0)),
        ];
        let product = Product::from_slots(slots, vec![grant("a", 1, 3, 20)], None, None).unwrap();
        let (at, elsewhere, [one, two, three]) = (place("a"), place("b"), [1, 2, 3].map(replica));
        assert_eq!(product.legacy(&at, one), Legacy { rights: 70, held: 5 }, "its holds are dissolved");
        assert_eq!((product.heir(&at, one), product.frozen(&at, one)), (None, None));

        let heirs = vec![taken((1, 2), [90, 9, 61, 0], true), taken((1, 3), [80, 10, 0, 0], false)];
        let retired = product.clone().with_inheritances(heirs).unwrap();
        assert_eq!(retired.counted_by(&at, one), counters(90, 10, 0, 0), "the greatest of each");
        assert_eq!((retired.on_hand_at(&at), retired.held_at(&at), retired.available_at(&at)), (85, 1, 84));
        assert_eq!((retired.on_hand(), retired.held()), (90, 3), "elsewhere it was not retired");
        assert_eq!([one, two, three].map(|id| retired.rights(&at, id)), [-1, 65, 20]);
        assert_eq!(retired.rights_at(&at), BTreeMap::from([(one, -1), (two, 65), (three, 20)]));
        assert_eq!(retired.legacy(&at, one), Legacy { rights: -1, held: 0 });
        assert_eq!((retired.heir(&at, one), retired.is_retired(&elsewhere, one)), (Some(two), false));
        assert_eq!(retired.to_settle(two), [(&at, one)]);
        assert_eq!(retired.to_settle(three), [], "who only brought something is no heir");
        assert_eq!(retired.to_reapply(|id| id == one), [(&at, one)], "10 units came in that do not count");
        assert_eq!(retired.to_reapply(|id| id == two), []);
        assert_eq!(retired.estate(one), [(&at, one), (&elsewhere, one)]);
        assert_eq!(retired.estate(two), [(&at, two), (&at, one)]);
        assert_eq!(retired.at_location(&elsewhere).slot_count(), 1);
        assert_eq!(retired.at_location(&at).rights_at(&at), retired.rights_at(&at));

        // An heir that is retired itself settles nothing any more.
        let mut both = retired.clone();
        both.absorb(&Product::of_inheritance(taken((2, 3), [5, 0, 66, 0], true)));
        assert_eq!((both.heir(&at, one), both.heir(&at, two)), (None, Some(three)));
        assert_eq!([one, two, three].map(|id| both.rights(&at, id)), [-1, 0, 86]);
        assert_eq!(both.available_at(&at), 85, "its hold is dissolved");
    }

    #[test]
    fn a_location_where_nothing_but_an_inheritance_is_counts() {
        let slot = taken((1, 2), [8, 3, 5, 0], true);
        let product = Product::of_inheritance(slot);
        assert_eq!(
            (product.on_hand(), product.on_hand_at(&place("a")), product.rights(&place("a"), replica(2))),
            (5, 5, 5)
        );
        assert_eq!(product.locations(), [&place("a")]);
        let counted: Vec<_> = product.counted().collect();
        assert_eq!(counted, [(&place("a"), replica(1), Counters { added: 8, removed: 3, ..Counters::default() })]);
    }
}
