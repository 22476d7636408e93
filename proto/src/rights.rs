//! Rights to sell: the bounded counter inside the slots of a product.
//!
//! Balegas et al. 2015, "Extending Eventually Consistent Cloud Databases for Enforcing Numeric Invariants". The units
//! available at a location are shared out among the replicas as rights; each replica sells only within its own, so that
//! no two can sell the same unit, whether or not they hear of each other (rules B1 to B3).

use std::collections::BTreeMap;

use crate::id::{Location, ReplicaId};
use crate::product::Product;

impl Product {
    /// Rights of `replica` at a location as far as is known here, in units (rule B1): what it counted in less what it
    /// counted out and holds, less what it gave to others, and what others gave to it. Of the own replica that is
    /// exact or too low, never too high; below zero it is a deficit, made by physical facts. Costs a look at every grant
    /// of the location.
    pub fn rights(&self, location: &Location, replica: ReplicaId) -> i128 {
        let moved: i128 = self
            .grants_at(location)
            .map(|grant| match (grant.from == replica, grant.to == replica) {
                (true, false) => -i128::from(grant.units),
                (false, true) => i128::from(grant.units),
                _ => 0,
            })
            .sum();
        self.counters(location, replica).available() + moved
    }

    /// The rights of every replica that counted, gave or got any at a location, in the order of their ids.
    pub fn rights_at(&self, location: &Location) -> BTreeMap<ReplicaId, i128> {
        let mut rights: BTreeMap<ReplicaId, i128> = BTreeMap::new();
        for slot in self.stock_at(location) {
            *rights.entry(slot.replica).or_default() += slot.counters.available();
        }
        for grant in self.grants_at(location) {
            *rights.entry(grant.from).or_default() -= i128::from(grant.units);
            *rights.entry(grant.to).or_default() += i128::from(grant.units);
        }
        rights
    }

    /// Units on hand that are not held, at one location: the sum of all rights there. Below zero if more went out than
    /// came in.
    pub fn available_at(&self, location: &Location) -> i128 {
        self.stock_at(location).iter().map(|slot| slot.counters.available()).sum()
    }

    /// Units by which replicas are below zero at one location, added up: what physical facts took beyond the rights of
    /// those who recorded them, and nobody has paid back yet.
    pub fn oversold_at(&self, location: &Location) -> i128 {
        self.rights_at(location).values().map(|rights| (-rights).max(0)).sum()
    }

    /// The same over all locations.
    pub fn oversold(&self) -> i128 {
        let mut locations: Vec<&Location> = self.stock().iter().map(|slot| &slot.location).collect();
        locations.extend(self.grants().iter().map(|grant| &grant.location));
        locations.sort_unstable();
        locations.dedup();
        locations.into_iter().map(|location| self.oversold_at(location)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Counters;
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
}
