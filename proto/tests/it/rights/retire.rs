//! Deaths in the model world: replicas that never return, or do; the fence, heirs, and what comes late (rules E1 to E7).

use std::collections::BTreeSet;

use stockmesh_proto::check::shows_retirement;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::operation::{Operation, Request};
use stockmesh_proto::product::{Product, Taken};
use stockmesh_proto::{ReplicaId, Sku};

use super::goods::Place;
use super::steps::quantity;
use super::world::{Broken, World};

/// How long a hold lasts that an heir gives in place of a dissolved one.
const HELD_MS: u64 = 50;

/// What the world knows of an id that was retired.
#[derive(Clone, Debug)]
pub(super) struct Retired {
    /// Who was named as heir.
    heirs: BTreeSet<usize>,
    /// All live members told what they knew before it was taken over, and nobody has come back who knows more: then
    /// nothing may be taken twice.
    pub(super) is_exact: bool,
}

impl World {
    pub(super) fn is_live(&self, index: usize) -> bool {
        !self.dead[index]
    }

    pub(super) fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.is_live(*index)).collect()
    }

    pub(super) fn die(&mut self, index: usize) {
        if self.live().len() > 2 && self.is_live(index) {
            self.crash(index);
            // What was not told to its caller from here on never is; and its directory is as the crash left it.
            self.dead[index] = true;
            self.see("died");
        }
    }

    /// The dead is up again, and knows nothing of what happened to it. It, and what it alone knew of others that were
    /// retired meanwhile, may take back what the fences promised.
    pub(super) fn come_back(&mut self, index: usize) {
        if self.dead[index] {
            self.dead[index] = false;
            let is_retired = self.retired.contains_key(&self.nodes[index].id);
            self.see(if is_retired { "came back retired" } else { "came back" });
            self.retired.values_mut().for_each(|retired| retired.is_exact = false);
        }
    }

    /// Ids that may be retired: of the dead, of directories that write under another id now, and of those cut off from
    /// the heir.
    pub(super) fn retirable(&self, heir: usize) -> Vec<ReplicaId> {
        let dead = (0..self.nodes.len()).filter(|index| self.dead[*index]).map(|index| self.nodes[index].id);
        let cut_off = self.live().into_iter().filter(|index| self.sides[*index] != self.sides[heir]);
        let cut_off = cut_off.map(|index| self.nodes[index].id);
        dead.chain(self.former.iter().flatten().copied()).chain(cut_off).collect()
    }

    /// Rules E7, E4: everyone within reach stops taking writes of the retired replica and tells what it knows of it; then
    /// the heir takes over. Refused while anybody is out of reach, unless it is forced.
    pub(super) fn retire(&mut self, id: ReplicaId, heir: usize, is_forced: bool) {
        let is_reachable = |index: &usize| self.sides[*index] == self.sides[heir] && !self.nodes[*index].is_restored;
        let within_reach: Vec<usize> = self.live().into_iter().filter(is_reachable).collect();
        if !within_reach.contains(&heir) || within_reach.iter().any(|index| self.nodes[*index].id == id) {
            return;
        }
        let is_missing = |index: &usize| {
            let other = self.nodes[*index].id;
            !within_reach.contains(index) && other != id && !(self.dead[*index] && self.retired.contains_key(&other))
        };
        // A live one that is declared dead goes on writing: as if it had come back at once.
        let goes_on = self.live().into_iter().any(|index| self.nodes[index].id == id);
        let is_whole = !goes_on && !(0..self.nodes.len()).any(|index| is_missing(&index));
        if !is_whole && !is_forced {
            return self.see("retirement refused");
        }
        self.see(if is_whole { "retired" } else { "retired by force" });
        if self.broken != Broken::SkipsTheFence {
            for index in &within_reach {
                self.fenced[*index].insert(id);
            }
            for _ in 0..2 {
                for (place, left) in within_reach.iter().enumerate() {
                    within_reach[place + 1..].iter().for_each(|right| self.reconcile(*left, *right, usize::MAX));
                }
            }
        }
        let first = Retired { heirs: BTreeSet::new(), is_exact: true };
        let retired = self.retired.entry(id).or_insert(first);
        // Who is in reach hears that there is another heir now, and stands back.
        retired.heirs.retain(|other| !within_reach.contains(other));
        retired.heirs.insert(heir);
        retired.is_exact &= is_whole;
        self.inherit_all(heir, id);
    }

    /// What an heir does when it is named, and now and then from then on.
    fn inherit_all(&mut self, heir: usize, id: ReplicaId) {
        let products: Vec<(Sku, Product)> =
            self.nodes[heir].products().map(|keyed| (keyed.sku.clone(), keyed.product.clone())).collect();
        for (sku, product) in products {
            for (location, from) in product.estate(id) {
                let own = self.nodes[heir].id;
                if from == own || product.is_retired(location, own) {
                    continue;
                }
                let legacy = self.nodes[heir].product_of(&sku).legacy(location, from);
                let (sku, location) = (sku.clone(), location.clone());
                let inherit = Operation::Inherit { sku: sku.clone(), location: location.clone(), from };
                let mut both = vec![inherit.clone()];
                if legacy.held > 0 {
                    let units = quantity(legacy.held);
                    both.push(Operation::Hold { sku: sku.clone(), location: location.clone(), units, ttl_ms: HELD_MS });
                }
                // Customers' holds go on, unless the heir owes so much itself that it has nothing to hold.
                let before = self.nodes[heir].product_of(&sku).on_hand_at(&location);
                if self.request(heir, &both.into()).is_err() && self.request(heir, &vec![inherit].into()).is_err() {
                    self.faults.push(format!("{own} cannot inherit {sku} at {location} from {from}"));
                }
                if self.broken == Broken::CountsAgain && from == id && before > 0 {
                    let units = quantity(u64::try_from(before).unwrap());
                    self.slip_in(heir, Operation::Receive { sku, location, units });
                }
            }
        }
    }

    /// The heir looks for what turned up since.
    pub(super) fn settle(&mut self, index: usize) {
        if self.nodes[index].is_restored || !self.is_live(index) {
            return;
        }
        let named = self.retired.iter().filter(|(_, retired)| retired.heirs.contains(&index)).map(|(id, _)| *id);
        named.collect::<Vec<_>>().into_iter().for_each(|id| self.inherit_all(index, id));
        // Where it is the heir already it stays so, whoever was named since.
        let node = &self.nodes[index];
        let mut late = Vec::new();
        for keyed in node.products() {
            let places = keyed.to_settle(node.id).into_iter();
            late.extend(places.map(|(location, from)| (keyed.sku.clone(), location.clone(), from)));
        }
        for (sku, location, from) in late {
            if self.request(index, &vec![Operation::Inherit { sku, location, from }].into()).is_err() {
                self.faults.push(format!("what turned up late of {from} cannot be taken over"));
            }
        }
        let node = &self.nodes[index];
        let left: Vec<_> = node.products().filter(|keyed| !keyed.to_settle(node.id).is_empty()).collect();
        if let Some(keyed) = left.first() {
            let text = format!("{} has not settled {:?} of {}", node.id, keyed.to_settle(node.id), keyed.sku);
            self.faults.push(text);
        }
    }

    /// Rule E5: who came back brings what it alone had written under its former ids.
    pub(super) fn reapply(&mut self, index: usize) {
        if self.nodes[index].is_restored || !self.is_live(index) {
            return;
        }
        let former = self.former[index].clone();
        let products: Vec<(Sku, Product)> =
            self.nodes[index].products().map(|keyed| (keyed.sku.clone(), keyed.product.clone())).collect();
        for (sku, product) in products {
            for (location, from) in product.to_reapply(|id| former.contains(&id)) {
                let (sku, location) = (sku.clone(), location.clone());
                if product.is_retired(&location, self.nodes[index].id) {
                    continue;
                }
                let missing = product.counters(&location, from).added;
                let counted = product.counted_by(&location, from).added;
                let operation = Operation::Reapply { sku: sku.clone(), location: location.clone(), from };
                if self.request(index, &vec![operation].into()).is_err() {
                    self.faults.push(format!("{from} cannot be brought back: {sku} at {location}"));
                }
                if self.broken == Broken::ReappliesTwice && missing > counted {
                    let units = quantity(missing - counted);
                    self.slip_in(index, Operation::Receive { sku, location, units });
                }
            }
        }
    }

    /// A break: an operation that no caller asked for.
    fn slip_in(&mut self, index: usize, operation: Operation) {
        let (now_ms, request) = (self.clock(index), Request::from(vec![operation]));
        let evaluation = self.nodes[index].apply(&request, now_ms).unwrap();
        self.history.note(&evaluation);
    }

    /// What a delta tells of retirements: whoever sees one takes no further write of that replica, and the retired one
    /// takes a new id (rule E6).
    pub(super) fn learn(&mut self, index: usize, products: &[(Sku, Product)]) {
        let slots = products.iter().flat_map(|(_, product)| product.inheritances());
        self.fenced[index].extend(slots.map(|slot| slot.from));
        if shows_retirement(self.nodes[index].id, products) {
            self.incarnate(index);
        }
    }

    /// A peer refuses the link of an id that it knows as retired, and tells it so. Whether it did.
    pub(super) fn tells_retirement(&mut self, teller: usize, told: usize) -> bool {
        let is_fenced = self.fenced[teller].contains(&self.nodes[told].id);
        if is_fenced {
            self.see("told that it was retired");
            self.incarnate(told);
        }
        is_fenced
    }

    /// What was taken over of an id at a place, by whom, as it was written last.
    fn taken(&self, id: ReplicaId, (sku, location): &Place) -> Vec<(ReplicaId, Taken)> {
        let here =
            self.history.inherited.iter().filter(|((from, _, at, place), _)| (*from, at, place) == (id, sku, location));
        here.filter_map(|((_, to, ..), states)| states.values().next_back().map(|taken| (*to, *taken))).collect()
    }

    /// What counts of an id at a place: what was taken over if it was retired there, else what callers were told.
    fn available_of(&self, id: ReplicaId, place: &Place) -> i128 {
        let taken = self.taken(id, place).into_iter().map(|(_, taken)| taken.counters()).reduce(Counters::join);
        let told = self.goods.units.get(&(id, place.clone())).copied().unwrap_or_default();
        taken.map_or(told.available(), Counters::on_hand)
    }

    fn ids_at(&self, place: &Place) -> BTreeSet<ReplicaId> {
        let told = self.goods.units.keys().filter(|(_, at)| at == place).map(|(id, _)| *id);
        let taken = self.history.inherited.keys().filter(|key| (&key.2, &key.3) == (&place.0, &place.1));
        told.chain(taken.map(|key| key.0)).collect()
    }

    /// What is left at a place, counting of the retired what was taken over.
    pub(super) fn available(&self, place: &Place) -> i128 {
        self.ids_at(place).into_iter().map(|id| self.available_of(id, place)).sum()
    }

    /// By how many units facts took rights below zero there, told to callers or not yet.
    pub(super) fn excess_at(&self, place: &Place) -> i128 {
        let waiting = self.nodes.iter().flat_map(|node| &node.waiting);
        let waiting = waiting.filter_map(|ack| ack.excess.get(place)).sum::<i128>();
        self.goods.excess_at(place) + waiting
    }

    /// Units of rights that heirs took beyond what was left: because somebody was out of reach who knew better, or the dead
    /// came back. Nothing if all live members told what they knew.
    pub(super) fn taken_beyond(&self, place: &Place) -> i128 {
        let inexact = self.retired.iter().filter(|(_, retired)| !retired.is_exact).map(|(id, _)| *id);
        let beyond = inexact.map(|id| {
            let taken = self.taken(id, place);
            let Some(counted) = taken.iter().map(|(_, taken)| taken.counters()).reduce(Counters::join) else {
                return 0;
            };
            let mut left = counted.on_hand();
            for ((from, to, sku, location), states) in &self.history.grants {
                let units = states.values().next_back().copied().map_or(0, i128::from);
                if (sku, location) == (&place.0, &place.1) {
                    left += if *to == id { units } else { 0 } - if *from == id { units } else { 0 };
                }
            }
            let got = self
                .history
                .inherited
                .iter()
                .filter(|((_, to, sku, location), _)| (*to, sku, location) == (id, &place.0, &place.1));
            left += got
                .filter_map(|(_, states)| states.values().next_back())
                .map(|taken| taken.rights_passed())
                .sum::<i128>();
            let passed: i128 = taken.iter().map(|(_, taken)| taken.rights_passed()).sum();
            (passed - left).max(0)
        });
        beyond.sum()
    }

    /// Brings everything home that was left or is missing: all live replicas settle and re-apply until nothing is new.
    pub(super) fn settle_all(&mut self) {
        for _ in 0..4 {
            for index in self.live() {
                self.reapply(index);
                self.settle(index);
            }
            self.heal();
        }
    }

    /// Whether all that was acknowledged under an id is known to a live replica: its directory is in use, and was never put
    /// back to an old copy.
    pub(super) fn is_whole(&self, id: ReplicaId) -> bool {
        let is_of = |index: &usize| self.former[*index].contains(&id) || self.nodes[*index].id == id;
        self.live().iter().any(is_of) && !self.cut_short.contains(&id)
    }

    pub(super) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}
