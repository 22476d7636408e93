//! Merging: writes come to replicas in any order, any number of times, alone, in groups and as whole states, and what a
//! replica holds depends on which came and on nothing else (rules M1, L1 to L3).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stockmesh_proto::delta::Products;
use stockmesh_proto::operation::{Operation, OversellPolicy};
use stockmesh_proto::product::{Product, SlotRef};
use stockmesh_proto::{Currency, Price, Shard, Sku};

use crate::check::{Fault, Seen, System};
use crate::replica::{NOW_MS, Replica, place, replica_id, sku, units};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// A price that comes takes the place of the one that is there (against rule M1).
    Overwrites,
    /// What comes is left out if the write is older than another one of that writer that came before (against rule M1).
    SkipsOlder,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    pub(crate) replicas: usize,
    pub(crate) writes: u8,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct Holder {
    replica: Arc<Replica>,
    /// The writes that came here, by their numbers, as bits.
    has: u32,
}

#[derive(Debug, PartialEq)]
struct Write {
    slots: Products,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    holders: Vec<Holder>,
    writes: Vec<Arc<Write>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    SetPrice(usize),
    SetListed(usize),
    /// A receipt and a sale in one request.
    Trade(usize),
    Grant(usize),
    /// One write comes to a replica.
    Merge(usize, usize),
    /// Two writes come as one delta.
    MergeBoth(usize, usize, usize),
    /// All that the first has comes to the second.
    MergeAll(usize, usize),
}

const SUPERSEDED: usize = 0;
const LATE: usize = 1;

impl System for Merge {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] = &["a write came superseded", "a write came behind a later one"];

    fn initial(&self) -> State {
        let holder = |index| Holder { replica: Arc::new(Replica::new(index)), has: 0 };
        State { holders: (0..self.replicas).map(holder).collect(), writes: Vec::new() }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let writes = state.writes.len();
        for index in 0..self.replicas {
            if writes < usize::from(self.writes) {
                actions.extend([Action::SetPrice(index), Action::SetListed(index), Action::Trade(index)]);
                actions.push(Action::Grant(index));
            }
            for number in 0..writes {
                actions.push(Action::Merge(index, number));
                actions.extend((0..number).map(|other| Action::MergeBoth(index, number, other)));
            }
            let others = (0..self.replicas).filter(|other| *other != index);
            actions.extend(others.map(|other| Action::MergeAll(other, index)));
        }
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::SetPrice(index) => {
                let price = Price::from_parts(100 + u64::try_from(index).unwrap(), 2, Currency::EUR).unwrap();
                next.write(index, vec![Operation::SetPrice { sku: sku("A"), price }])?;
            }
            Action::SetListed(index) => {
                next.write(index, vec![Operation::SetListed { sku: sku("A"), listed: index % 2 == 0 }])?;
            }
            Action::Trade(index) => {
                let (sku, location) = (sku("A"), place());
                let receive = Operation::Receive { sku: sku.clone(), location: location.clone(), units: units(3) };
                let policy = OversellPolicy::Refuse;
                next.write(index, vec![receive, Operation::Sell { sku, location, units: units(1), policy }])?;
            }
            Action::Grant(index) => {
                let to = replica_id((index + 1) % self.replicas);
                let grant = Operation::Grant { sku: sku("A"), location: place(), to, units: 1 };
                next.write(index, vec![grant])?;
            }
            Action::Merge(index, number) => {
                let write = state.writes[number].clone();
                self.merge(&mut next, index, &write.slots, 1 << number, seen);
            }
            Action::MergeBoth(index, one, other) => {
                let mut both = BTreeMap::<Sku, Product>::new();
                for (sku, product) in state.writes[one].slots.iter().chain(&state.writes[other].slots) {
                    both.entry(sku.clone()).or_default().absorb(product);
                }
                let both: Products = both.into_iter().collect();
                self.merge(&mut next, index, &both, 1 << one | 1 << other, seen);
            }
            Action::MergeAll(from, to) => {
                let (everything, has) = (state.holders[from].replica.everything(), state.holders[from].has);
                self.merge(&mut next, to, &everything.products, has, seen);
            }
        }
        if next == *state {
            return Ok(None);
        }
        next.check()?;
        Ok(Some(next))
    }
}

impl Merge {
    fn merge(&self, next: &mut State, index: usize, slots: &[(Sku, Product)], has: u32, seen: &Seen) {
        let holder = &mut next.holders[index];
        let mut replica = Replica::clone(&holder.replica);
        let is_older = has.leading_zeros() > holder.has.leading_zeros();
        if is_older && has & holder.has == 0 {
            seen.note(LATE);
        }
        match self.broken {
            Broken::Overwrites => {
                let mut held = replica.product(&sku("A"));
                if slots.iter().any(|(_, incoming)| incoming.price().is_some()) {
                    held = held.filtered(&mut |slot| !matches!(slot, SlotRef::Price(_)));
                }
                replica = Replica { shard: Shard::new(0), ..replica };
                replica.merge(&[(sku("A"), held)]);
                replica.merge(slots);
            }
            Broken::SkipsOlder if is_older => {}
            _ => {
                let before = replica.shard.fingerprint();
                replica.merge(slots);
                if replica.shard.fingerprint() == before && has & !holder.has != 0 {
                    seen.note(SUPERSEDED);
                }
            }
        }
        *holder = Holder { replica: Arc::new(replica), has: holder.has | has };
    }
}

impl State {
    fn write(&mut self, index: usize, operations: Vec<Operation>) -> Result<(), Fault> {
        let holder = &mut self.holders[index];
        let mut replica = Replica::clone(&holder.replica);
        let (evaluation, _) =
            replica.write(operations, NOW_MS).map_err(|error| Fault::new("model", error.to_string()))?;
        let slots = evaluation.shards.into_values().flat_map(|writes| writes.into_products()).collect::<Products>();
        if slots.is_empty() {
            return Ok(());
        }
        *holder = Holder { replica: Arc::new(replica), has: holder.has | 1 << self.writes.len() };
        self.writes.push(Arc::new(Write { slots }));
        Ok(())
    }

    /// Each replica holds the join of what came to it, by rules that are written down once more here: of counters the
    /// latest of their one writer, of registers the greatest by (stamp, replica).
    fn check(&self) -> Result<(), Fault> {
        for holder in &self.holders {
            let came = (0..).zip(&self.writes).filter(|(number, _)| holder.has >> number & 1 == 1);
            let came: Vec<&Product> = came.flat_map(|(_, write)| write.slots.iter().map(|(_, slot)| slot)).collect();
            let held = holder.replica.product(&sku("A"));
            let price = came.iter().filter_map(|product| product.price());
            let price = price.max_by_key(|register| (register.stamp, register.dot.replica));
            let listed = came.iter().filter_map(|product| product.listed());
            let listed = listed.max_by_key(|register| (register.stamp, register.dot.replica));
            let mut stock = BTreeMap::new();
            for slot in came.iter().flat_map(|product| product.stock()) {
                stock.entry(slot.replica).and_modify(|known| later(known, slot, |slot| slot.sequence)).or_insert(slot);
            }
            let mut grants = BTreeMap::new();
            for slot in came.iter().flat_map(|product| product.grants()) {
                let key = (slot.from, slot.to);
                grants.entry(key).and_modify(|known| later(known, slot, |slot| slot.sequence)).or_insert(slot);
            }
            let is_same = held.price() == price
                && held.listed() == listed
                && held.stock().iter().eq(stock.into_values())
                && held.grants().iter().eq(grants.into_values())
                && holder.replica.shard.fingerprint() == holder.replica.shard.fingerprint_recomputed();
            if !is_same {
                return Err(Fault::new("M1", format!("{} does not hold what came to it", holder.replica.id)));
            }
        }
        Ok(())
    }
}

fn later<'a, T>(known: &mut &'a T, slot: &'a T, sequence: impl Fn(&T) -> u64) {
    if sequence(slot) > sequence(known) {
        *known = slot;
    }
}

/// Of a write the hashes of its slots are enough (rule F2).
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.holders.hash(state);
        for (sku, product) in self.writes.iter().flat_map(|write| &write.slots) {
            product.slots().for_each(|slot| slot.hash(sku.as_str()).bits().hash(state));
        }
    }
}
