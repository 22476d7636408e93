//! What a request must do, told by plain maps: a second opinion on every evaluation, as naive as can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stockmesh_proto::counter::Counters;
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, OversellPolicy, Request, Shortfall};
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use stockmesh_proto::{Location, Reference, ReplicaId, ShardCount, ShardIndex, Sku};

/// A request that was done under a reference.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) reference: Reference,
    pub(super) operations: Vec<Operation>,
    pub(super) outcomes: Vec<Outcome>,
}

/// What a replica must remember of its own requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) holds: BTreeMap<HoldId, Hold>,
    /// The latest references, oldest first.
    pub(super) requests: VecDeque<Done>,
}

impl Memory {
    pub(super) fn done(&self, reference: &Reference) -> Option<&Done> {
        self.requests.iter().find(|done| done.reference == *reference)
    }

    pub(super) fn remember(&mut self, done: Done, references_max: usize) {
        self.requests.push_back(done);
        // A long list of outcomes counts for several references.
        let weight = |done: &Done| {
            let is_list = done.outcomes.iter().any(|outcome| *outcome != Outcome::Done);
            1 + if is_list { done.outcomes.len() / 4 } else { 0 }
        };
        while self.requests.iter().map(weight).sum::<usize>() > references_max {
            self.requests.pop_front();
        }
    }
}

type Place = (Sku, Location);

/// What a request must do.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) outcomes: Vec<Outcome>,
    /// First and last write of each shard, and the own slots after them.
    pub(super) writes: BTreeMap<ShardIndex, (u64, u64, BTreeMap<Sku, Product>)>,
    pub(super) holds: BTreeMap<HoldId, Hold>,
    /// By how many units the request took this replica's rights further below zero: facts and backorders only.
    pub(super) excess: BTreeMap<Place, i128>,
}

/// Everything a prediction starts from.
pub(super) struct Spec<'a> {
    pub(super) own: ReplicaId,
    pub(super) shards: ShardCount,
    pub(super) now_ms: u64,
    pub(super) memory: &'a Memory,
    pub(super) stock: BTreeMap<(Sku, Location, ReplicaId), Counters>,
    pub(super) grants: BTreeMap<(Sku, Location, ReplicaId, ReplicaId), u64>,
    pub(super) inherited: BTreeMap<(Sku, Location, ReplicaId, ReplicaId), Taken>,
    pub(super) sequences: BTreeMap<ShardIndex, u64>,
    pub(super) may_backorder: bool,
    pub(super) shortfalls: BTreeMap<Place, Shortfall>,
    /// By how many units the request changed this replica's rights so far.
    pub(super) moved: BTreeMap<Place, i128>,
    pub(super) expected: Expected,
}

impl Spec<'_> {
    /// Takes in a product as the replica sees it.
    pub(super) fn see(&mut self, sku: &Sku, product: &Product) {
        for slot in product.stock() {
            self.stock.insert((sku.clone(), slot.location.clone(), slot.replica), slot.counters);
        }
        for slot in product.grants() {
            self.grants.insert((sku.clone(), slot.location.clone(), slot.from, slot.to), slot.units);
        }
        for slot in product.inheritances() {
            self.inherited.insert((sku.clone(), slot.location.clone(), slot.from, slot.to), slot.taken);
        }
    }

    /// What was taken over of a replica at a place, by whom.
    fn heirs(&self, sku: &Sku, location: &Location, from: ReplicaId) -> Vec<(ReplicaId, Taken)> {
        let here = self.inherited.iter().filter(|((at, place, who, _), _)| (at, place, *who) == (sku, location, from));
        here.map(|((.., to), taken)| (*to, *taken)).collect()
    }

    /// Rule E2, word by word: the counters that count.
    fn counted(&self, sku: &Sku, location: &Location, replica: ReplicaId) -> Counters {
        let heirs = self.heirs(sku, location, replica);
        if heirs.is_empty() {
            let key = (sku.clone(), location.clone(), replica);
            return self.stock.get(&key).copied().unwrap_or_default();
        }
        let added = heirs.iter().map(|(_, taken)| taken.added).max().unwrap();
        let removed = heirs.iter().map(|(_, taken)| taken.removed).max().unwrap();
        Counters { added, removed, held: 0, released: 0 }
    }

    /// Everyone who counted anything at a place.
    fn counters_at(&self, sku: &Sku, location: &Location) -> Vec<Counters> {
        let stock = self.stock.keys().filter(|(at, place, _)| (at, place) == (sku, location)).map(|key| key.2);
        let retired = self.inherited.keys().filter(|(at, place, ..)| (at, place) == (sku, location)).map(|key| key.2);
        let all: BTreeSet<ReplicaId> = stock.chain(retired).collect();
        all.into_iter().map(|replica| self.counted(sku, location, replica)).collect()
    }

    /// Rules B1 and E3, word by word.
    pub(super) fn rights(&self, sku: &Sku, location: &Location, replica: ReplicaId) -> i128 {
        let counters = self.counted(sku, location, replica);
        let mut rights = i128::from(counters.added) - i128::from(counters.removed);
        rights -= i128::from(counters.held) - i128::from(counters.released);
        for ((at, place, from, to), taken) in &self.inherited {
            let units = i128::from(taken.rights) - i128::from(taken.owed);
            if (at, place, *from) == (sku, location, replica) {
                rights -= units;
            }
            if (at, place, *to) == (sku, location, replica) {
                rights += units;
            }
        }
        for ((at, place, from, to), units) in &self.grants {
            if (at, place, *from) == (sku, location, replica) {
                rights -= i128::from(*units);
            }
            if (at, place, *to) == (sku, location, replica) {
                rights += i128::from(*units);
            }
        }
        rights
    }

    fn on_hand(&self, sku: &Sku, location: &Location) -> i128 {
        let here = self.counters_at(sku, location);
        here.iter().map(|counters| i128::from(counters.added) - i128::from(counters.removed)).sum()
    }

    fn available(&self, sku: &Sku, location: &Location) -> i128 {
        let here = self.counters_at(sku, location);
        let held: i128 = here.iter().map(|counters| i128::from(counters.held) - i128::from(counters.released)).sum();
        self.on_hand(sku, location) - held
    }

    /// Runs the whole request.
    pub(super) fn predict(mut self, request: &Request) -> Result<Expected, OperationRefused> {
        if let Some(reference) = &request.reference
            && let Some(done) = self.memory.done(reference)
        {
            if done.operations != request.operations {
                return Err(OperationRefused::ReferenceReused { reference: reference.clone() });
            }
            return Ok(Expected { outcomes: done.outcomes.clone(), ..Expected::default() });
        }
        self.may_backorder = request.may_backorder;
        for operation in &request.operations {
            let outcome = self.run(operation, request.reference.as_ref())?;
            self.expected.outcomes.push(outcome);
        }
        if !self.shortfalls.is_empty() {
            return Err(OperationRefused::Insufficient { shortfalls: self.shortfalls.into_values().collect() });
        }
        Ok(self.expected)
    }

    fn run(&mut self, operation: &Operation, reference: Option<&Reference>) -> Result<Outcome, OperationRefused> {
        match operation {
            Operation::Receive { sku, location, units } => self.count(sku, &[(location, added(units.get()))])?,
            Operation::Adjust { sku, location, units, .. } => self.count(sku, &[(location, by(*units))])?,
            Operation::Stocktake { sku, location, counted } => {
                let difference = i64::try_from(i128::from(*counted) - self.on_hand(sku, location)).unwrap();
                if difference != 0 {
                    self.count(sku, &[(location, by(difference))])?;
                }
                return Ok(Outcome::Difference(difference));
            }
            Operation::Sell { sku, location, units, policy } => {
                if !(self.may_backorder && *policy == OversellPolicy::Backorder) {
                    self.withdraw(sku, location, units.get());
                }
                self.count(sku, &[(location, removed(units.get()))])?;
            }
            Operation::Hold { sku, location, units, ttl_ms } => {
                self.withdraw(sku, location, units.get());
                let counters = Counters { held: units.get(), ..Counters::default() };
                self.count(sku, &[(location, counters)])?;
                return Ok(self.give_hold(sku, location, units.get(), *ttl_ms, reference));
            }
            Operation::CommitHold { id, units } => return self.commit(*id, units.map(|units| units.get())),
            Operation::ReleaseHold { id } => return self.release(*id),
            Operation::ExpireHold { id } => {
                let hold = self.hold(*id)?;
                if hold.state == HoldState::Active && self.now_ms >= hold.expires_ms {
                    self.resolve(&hold, 0, HoldState::Expired { at_ms: self.now_ms })?;
                }
            }
            Operation::Transfer { sku, from, to, units } if from == to => {
                let _ = units;
                return Err(OperationRefused::SameLocation { sku: sku.clone(), location: to.clone() });
            }
            Operation::Transfer { sku, from, to, units } => {
                self.withdraw(sku, from, units.get());
                self.count(sku, &[(from, removed(units.get())), (to, added(units.get()))])?;
            }
            Operation::Grant { sku, location, to, units } => return self.grant(sku, location, *to, *units),
            Operation::Inherit { sku, location, from } => return self.inherit(sku, location, *from),
            Operation::Reapply { sku, location, from } => return self.reapply(sku, location, *from),
            other => panic!("{other:?} has no place here"),
        }
        Ok(Outcome::Done)
    }

    /// One write to the product's shard: its number.
    fn write(&mut self, sku: &Sku) -> (ShardIndex, u64) {
        let shard = self.shards.shard_of(sku);
        let sequence = self.sequences.entry(shard).or_default();
        *sequence += 1;
        let first = (*sequence, *sequence, BTreeMap::new());
        self.expected.writes.entry(shard).or_insert(first).1 = *sequence;
        (shard, *sequence)
    }

    fn put(&mut self, shard: ShardIndex, sku: &Sku, product: &Product) {
        let writes = self.expected.writes.get_mut(&shard).unwrap();
        writes.2.entry(sku.clone()).or_default().absorb(product);
    }

    /// Rule E6: who was retired at a place writes nothing there.
    fn check_living(&self, sku: &Sku, location: &Location) -> Result<(), OperationRefused> {
        let own = self.own;
        if self.heirs(sku, location, own).is_empty() {
            return Ok(());
        }
        Err(OperationRefused::Retired { sku: sku.clone(), location: location.clone(), own })
    }

    fn count(&mut self, sku: &Sku, changes: &[(&Location, Counters)]) -> Result<(), OperationRefused> {
        changes.iter().try_for_each(|(location, _)| self.check_living(sku, location))?;
        let (shard, sequence) = self.write(sku);
        for (location, more) in changes {
            let before = self.rights(sku, location, self.own);
            let key = (sku.clone(), Location::clone(location), self.own);
            let counters = self.stock.entry(key).or_default();
            *counters = counters.plus(*more).unwrap();
            let slot =
                StockSlot { location: Location::clone(location), replica: self.own, sequence, counters: *counters };
            self.put(shard, sku, &Product::of_stock(slot));
            let after = self.rights(sku, location, self.own);
            *self.moved.entry((sku.clone(), Location::clone(location))).or_default() += after - before;
            let fell = (-self.rights(sku, location, self.own)).max(0) - (-before).max(0);
            *self.expected.excess.entry((sku.clone(), Location::clone(location))).or_default() += fell.max(0);
        }
        Ok(())
    }

    /// Rule B2: rights and the total both cover it, or it is told what is lacking.
    fn withdraw(&mut self, sku: &Sku, location: &Location, units: u64) {
        let (rights, available) = (self.rights(sku, location, self.own), self.available(sku, location));
        if rights < i128::from(units) || available < i128::from(units) {
            let place = (sku.clone(), location.clone());
            let before = rights - self.moved.get(&place).copied().unwrap_or_default();
            let (sku, location) = place.clone();
            let first = Shortfall { sku, location, wanted: 0, rights: before, available, in_stock: true };
            let shortfall = self.shortfalls.entry(place).or_insert(first);
            let lacking = (i128::from(units) - rights).max(0);
            let needed = if lacking > 0 { before + lacking } else { i128::from(units) };
            shortfall.wanted = shortfall.wanted.max(u64::try_from(needed.max(0)).unwrap());
            shortfall.in_stock &= available >= i128::from(units);
        }
    }

    fn give_hold(
        &mut self,
        sku: &Sku,
        location: &Location,
        units: u64,
        ttl_ms: u64,
        reference: Option<&Reference>,
    ) -> Outcome {
        let shard = self.shards.shard_of(sku);
        let id = HoldId { replica: self.own, shard, sequence: self.sequences[&shard] };
        let expires_ms = self.now_ms + ttl_ms;
        let hold = Hold {
            id,
            sku: sku.clone(),
            location: location.clone(),
            units,
            given_ms: self.now_ms,
            expires_ms,
            reference: reference.cloned(),
            state: HoldState::Active,
        };
        self.expected.holds.insert(id, hold);
        Outcome::Held { id, expires_ms }
    }

    fn hold(&self, id: HoldId) -> Result<Hold, OperationRefused> {
        if id.replica != self.own {
            return Err(OperationRefused::HoldElsewhere { id, own: self.own });
        }
        let known = self.expected.holds.get(&id).or_else(|| self.memory.holds.get(&id));
        known.cloned().ok_or(OperationRefused::HoldUnknown { id })
    }

    fn commit(&mut self, id: HoldId, units: Option<u64>) -> Result<Outcome, OperationRefused> {
        let hold = self.hold(id)?;
        let wanted = units.unwrap_or(hold.units);
        match hold.state {
            HoldState::Active if self.now_ms >= hold.expires_ms => {
                return Err(OperationRefused::HoldResolved {
                    id,
                    state: HoldState::Expired { at_ms: hold.expires_ms },
                });
            }
            HoldState::Active if wanted > hold.units => {
                return Err(OperationRefused::HoldTooSmall { id, held: hold.units, wanted });
            }
            HoldState::Active => {
                self.resolve(&hold, wanted, HoldState::Committed { units: wanted, at_ms: self.now_ms })?;
            }
            HoldState::Committed { units: sold, .. } if sold == wanted => {}
            state => return Err(OperationRefused::HoldResolved { id, state }),
        }
        Ok(Outcome::Resolved { sold: wanted, released: hold.units - wanted })
    }

    fn release(&mut self, id: HoldId) -> Result<Outcome, OperationRefused> {
        let hold = self.hold(id)?;
        match hold.state {
            HoldState::Active => self.resolve(&hold, 0, HoldState::Released { at_ms: self.now_ms })?,
            state @ HoldState::Committed { .. } => return Err(OperationRefused::HoldResolved { id, state }),
            _ => {}
        }
        Ok(Outcome::Resolved { sold: 0, released: hold.units })
    }

    fn resolve(&mut self, hold: &Hold, sold: u64, state: HoldState) -> Result<(), OperationRefused> {
        let counters = Counters { removed: sold, released: hold.units, ..Counters::default() };
        self.count(&hold.sku, &[(&hold.location, counters)])?;
        self.expected.holds.insert(hold.id, Hold { state, ..hold.clone() });
        Ok(())
    }

    /// Rule B3: never more than there is.
    fn grant(
        &mut self,
        sku: &Sku,
        location: &Location,
        to: ReplicaId,
        wanted: u64,
    ) -> Result<Outcome, OperationRefused> {
        self.check_living(sku, location)?;
        let units = wanted.min(u64::try_from(self.rights(sku, location, self.own).max(0)).unwrap());
        if units == 0 || to == self.own || !self.heirs(sku, location, to).is_empty() {
            return Ok(Outcome::Granted { units: 0, sequence: 0 });
        }
        let (shard, sequence) = self.write(sku);
        let all = self.grants.entry((sku.clone(), location.clone(), self.own, to)).or_default();
        *all += units;
        let slot = GrantSlot { location: location.clone(), from: self.own, to, sequence, units: *all };
        self.put(shard, sku, &Product::of_grant(slot));
        Ok(Outcome::Granted { units, sequence })
    }

    fn check_heir(&self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<(), OperationRefused> {
        if from == self.own {
            return Err(OperationRefused::InheritsFromItself { sku: sku.clone() });
        }
        self.check_living(sku, location)
    }

    /// Rule E4: the heir takes the place that is left, whatever it is worth.
    fn inherit(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<Outcome, OperationRefused> {
        self.check_heir(sku, location, from)?;
        let heirs = self.heirs(sku, location, from);
        let living = |heir: &ReplicaId| self.heirs(sku, location, *heir).is_empty();
        let heir = heirs.iter().filter(|(_, taken)| taken.is_heir).map(|(heir, _)| *heir).filter(living).min();
        let counted = self.counted(sku, location, from);
        let held = counted.held - counted.released;
        let units = i64::try_from(self.rights(sku, location, from) + i128::from(held)).unwrap();
        if heir.is_some_and(|heir| heir != self.own || units == 0) {
            return Ok(Outcome::Inherited { units: 0, held: 0 });
        }
        let own = self.taken(sku, location, from);
        let taken = Taken {
            added: counted.added,
            removed: counted.removed,
            rights: own.rights + units.max(0).unsigned_abs(),
            owed: own.owed + units.min(0).unsigned_abs(),
            is_heir: true,
        };
        self.take_over(sku, location, from, taken);
        Ok(Outcome::Inherited { units, held: held.min(units.max(0).unsigned_abs()) })
    }

    /// Rule E5: what is known of the retired replica's own slot, and does not count yet.
    fn reapply(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<Outcome, OperationRefused> {
        self.check_heir(sku, location, from)?;
        let counted = self.counted(sku, location, from);
        let written = self.stock.get(&(sku.clone(), location.clone(), from)).copied().unwrap_or_default();
        let all = counted.join(written);
        let (added, removed) = (all.added - counted.added, all.removed - counted.removed);
        if self.heirs(sku, location, from).is_empty() || added + removed == 0 {
            return Ok(Outcome::Reapplied { added: 0, removed: 0 });
        }
        let taken = Taken { added: all.added, removed: all.removed, ..self.taken(sku, location, from) };
        self.take_over(sku, location, from, taken);
        Ok(Outcome::Reapplied { added, removed })
    }

    fn taken(&self, sku: &Sku, location: &Location, from: ReplicaId) -> Taken {
        let key = (sku.clone(), location.clone(), from, self.own);
        self.inherited.get(&key).copied().unwrap_or_default()
    }

    fn take_over(&mut self, sku: &Sku, location: &Location, from: ReplicaId, taken: Taken) {
        let before = self.rights(sku, location, self.own);
        let (shard, sequence) = self.write(sku);
        self.inherited.insert((sku.clone(), location.clone(), from, self.own), taken);
        let slot = InheritanceSlot { location: location.clone(), from, to: self.own, sequence, taken };
        self.put(shard, sku, &Product::of_inheritance(slot));
        let after = self.rights(sku, location, self.own);
        let place = (sku.clone(), location.clone());
        *self.moved.entry(place.clone()).or_default() += after - before;
        *self.expected.excess.entry(place).or_default() += ((-after).max(0) - (-before).max(0)).max(0);
    }
}

fn added(units: u64) -> Counters {
    Counters { added: units, ..Counters::default() }
}

fn removed(units: u64) -> Counters {
    Counters { removed: units, ..Counters::default() }
}

fn by(units: i64) -> Counters {
    if units < 0 { removed(units.unsigned_abs()) } else { added(units.unsigned_abs()) }
}
