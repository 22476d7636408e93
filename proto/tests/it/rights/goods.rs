//! The omniscient model: what callers were told was done, in all lives of all directories, and every state that a slot
//! ever had.

use std::collections::{BTreeMap, BTreeSet};

use stockmesh_proto::counter::Counters;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::operation::{Evaluation, Operation, Outcome};
use stockmesh_proto::product::Taken;
use stockmesh_proto::{Location, ReplicaId, ShardCount, ShardIndex, Sku};

/// One product at one location.
pub(super) type Place = (Sku, Location);

/// A request that was done, as its caller saw it.
#[derive(Clone, Debug)]
pub(super) struct Ack {
    pub(super) id: ReplicaId,
    pub(super) operations: Vec<Operation>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) now_ms: u64,
    /// By how many units facts and backorders of the request went beyond the rights.
    pub(super) excess: BTreeMap<Place, i128>,
}

/// Units, as callers were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Units {
    pub(super) came_in: i128,
    pub(super) went_out: i128,
    pub(super) held: i128,
}

impl Units {
    pub(super) fn available(self) -> i128 {
        self.came_in - self.went_out - self.held
    }
}

#[derive(Clone, Debug)]
struct Held {
    place: Place,
    units: i128,
    expires_ms: u64,
}

/// Acknowledged requests, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Goods {
    pub(super) units: BTreeMap<(ReplicaId, Place), Units>,
    pub(super) excess: BTreeMap<(ReplicaId, Place), i128>,
    holds: BTreeMap<HoldId, Held>,
    resolved: BTreeSet<HoldId>,
    /// Ids under which two holds were given.
    pub(super) given_twice: Vec<HoldId>,
}

impl Goods {
    pub(super) fn acknowledge(&mut self, ack: &Ack) {
        for (place, units) in &ack.excess {
            *self.excess.entry((ack.id, place.clone())).or_default() += units;
        }
        for (operation, outcome) in ack.operations.iter().zip(&ack.outcomes) {
            self.enter(ack.id, operation, outcome, ack.now_ms);
        }
    }

    fn at(&mut self, id: ReplicaId, sku: &Sku, location: &Location) -> &mut Units {
        self.units.entry((id, (sku.clone(), location.clone()))).or_default()
    }

    fn enter(&mut self, id: ReplicaId, operation: &Operation, outcome: &Outcome, now_ms: u64) {
        match (operation, outcome) {
            (Operation::Receive { sku, location, units }, _) => {
                self.at(id, sku, location).came_in += i128::from(units.get());
            }
            (Operation::Adjust { sku, location, units, .. }, _)
            | (Operation::Stocktake { sku, location, .. }, Outcome::Difference(units)) => {
                self.at(id, sku, location).came_in += i128::from((*units).max(0));
                self.at(id, sku, location).went_out -= i128::from((*units).min(0));
            }
            (Operation::Sell { sku, location, units, .. }, _) => {
                self.at(id, sku, location).went_out += i128::from(units.get());
            }
            (Operation::Transfer { sku, from, to, units }, _) => {
                self.at(id, sku, from).went_out += i128::from(units.get());
                self.at(id, sku, to).came_in += i128::from(units.get());
            }
            (Operation::Hold { sku, location, units, .. }, Outcome::Held { id: hold, expires_ms }) => {
                let (units, expires_ms) = (i128::from(units.get()), *expires_ms);
                self.at(id, sku, location).held += units;
                let place = (sku.clone(), location.clone());
                let same = self.holds.insert(*hold, Held { place, units, expires_ms });
                self.given_twice.extend(same.map(|_| *hold));
            }
            (Operation::CommitHold { id: hold, .. }, Outcome::Resolved { sold, .. }) => {
                self.resolve(id, *hold, i128::from(*sold));
            }
            (Operation::ReleaseHold { id: hold }, _) => self.resolve(id, *hold, 0),
            (Operation::ExpireHold { id: hold }, _)
                if self.holds.get(hold).is_some_and(|held| now_ms >= held.expires_ms) =>
            {
                self.resolve(id, *hold, 0);
            }
            _ => {}
        }
    }

    /// The first resolution counts; whatever else a caller hears of the hold is the same answer once more (rule O6).
    fn resolve(&mut self, id: ReplicaId, hold: HoldId, sold: i128) {
        let Some(held) = self.holds.get(&hold).cloned() else { return };
        if self.resolved.insert(hold) {
            let units = self.units.entry((id, held.place)).or_default();
            units.held -= held.units;
            units.went_out += sold;
        }
    }

    pub(super) fn places(&self) -> BTreeSet<Place> {
        self.units.keys().map(|(_, place)| place.clone()).collect()
    }

    pub(super) fn excess_at(&self, place: &Place) -> i128 {
        self.excess.iter().filter(|((_, at), _)| at == place).map(|(_, units)| units).sum()
    }
}

/// Every state that a slot ever had, by the number of the write that made it.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) stock: BTreeMap<(ReplicaId, Sku, Location), BTreeMap<u64, Counters>>,
    pub(super) grants: BTreeMap<(ReplicaId, ReplicaId, Sku, Location), BTreeMap<u64, u64>>,
    /// By (from, to, product, location).
    pub(super) inherited: BTreeMap<(ReplicaId, ReplicaId, Sku, Location), BTreeMap<u64, Taken>>,
}

impl History {
    pub(super) fn note(&mut self, evaluation: &Evaluation) {
        for (sku, product) in evaluation.shards.values().flat_map(|writes| writes.products.iter()) {
            for slot in product.stock() {
                let key = (slot.replica, sku.clone(), slot.location.clone());
                self.stock.entry(key).or_default().insert(slot.sequence, slot.counters);
            }
            for slot in product.grants() {
                let key = (slot.from, slot.to, sku.clone(), slot.location.clone());
                self.grants.entry(key).or_default().insert(slot.sequence, slot.units);
            }
            for slot in product.inheritances() {
                let key = (slot.from, slot.to, sku.clone(), slot.location.clone());
                self.inherited.entry(key).or_default().insert(slot.sequence, slot.taken);
            }
        }
    }

    /// Forgets the writes of a replica that a crash took back.
    pub(super) fn truncate(&mut self, id: ReplicaId, shards: ShardCount, durable: impl Fn(ShardIndex) -> u64) {
        for ((writer, sku, _), states) in &mut self.stock {
            if *writer == id {
                let last = durable(shards.shard_of(sku));
                states.retain(|sequence, _| *sequence <= last);
            }
        }
        for ((writer, _, sku, _), states) in &mut self.grants {
            if *writer == id {
                let last = durable(shards.shard_of(sku));
                states.retain(|sequence, _| *sequence <= last);
            }
        }
        for ((_, writer, sku, _), states) in &mut self.inherited {
            if *writer == id {
                let last = durable(shards.shard_of(sku));
                states.retain(|sequence, _| *sequence <= last);
            }
        }
    }
}
