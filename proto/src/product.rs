//! A product: a lattice made of lattices. Also, with only some of its slots, the part of a delta about one product.

use std::cmp::Ordering;
use std::ops::Deref;

use smallvec::SmallVec;

use crate::counter::Counters;
use crate::id::{Location, ReplicaId, Sku};
use crate::inheritance::Inheritances;
use crate::price::Price;
use crate::register::Register;
pub use crate::slot::{GrantSlot, InheritanceSlot, SlotChange, SlotRef, StockSlot, Taken};

/// Stock, grants, price, the mark `listed` and inheritances of one product, or some of their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Product {
    /// Most products have one slot or a few; the first lies in the product itself, so that a reader finds it at once.
    stock: SmallVec<[StockSlot; 1]>,
    grants: Vec<GrantSlot>,
    price: Option<Register<Price>>,
    listed: Option<Register<bool>>,
    inheritances: Inheritances,
}

/// Incoming slots up to which they are inserted one by one, which moves little and reserves nothing.
const STOCK_SLOTS_SINGLY_MAX: usize = 8;
/// Stock slots up to which a product's list takes no more room than it needs. Beyond it grows by doubling.
const STOCK_SLOTS_EXACT: usize = 4;

/// A product with its key, side by side, so that a look-up compares the key and reads the product at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedProduct {
    /// The key.
    pub sku: Sku,
    /// The product.
    pub product: Product,
}

impl Deref for KeyedProduct {
    type Target = Product;
    fn deref(&self) -> &Product {
        &self.product
    }
}

/// Joins two sorted lists in one pass: to insert slot by slot would cost time in the square of their number. `meet` is
/// told each incoming slot, with the known one of the same key if there is one.
fn join_lists<T: Clone>(
    known: impl ExactSizeIterator<Item = T>,
    incoming: &[T],
    order: impl Fn(&T, &T) -> Ordering,
    meet: &mut dyn FnMut(Option<&mut T>, &T),
) -> Vec<T> {
    let mut joined = Vec::with_capacity(known.len() + incoming.len());
    let mut known = known.peekable();
    for slot in incoming {
        while let Some(before) = known.next_if(|known| order(known, slot).is_lt()) {
            joined.push(before);
        }
        let mut same = known.next_if(|known| order(known, slot).is_eq());
        meet(same.as_mut(), slot);
        joined.push(same.unwrap_or_else(|| slot.clone()));
    }
    joined.extend(known);
    joined
}

fn stock_order(slot: &StockSlot, location: &Location, replica: ReplicaId) -> Ordering {
    slot.location.cmp(location).then(slot.replica.cmp(&replica))
}

fn grant_order(left: &GrantSlot, right: &GrantSlot) -> Ordering {
    left.location.cmp(&right.location).then(left.from.cmp(&right.from)).then(left.to.cmp(&right.to))
}

impl Product {
    /// The counters, in the order of (location, replica).
    pub fn stock(&self) -> &[StockSlot] {
        &self.stock
    }

    /// The grants, in the order of (location, from, to).
    pub fn grants(&self) -> &[GrantSlot] {
        &self.grants
    }

    /// The price, if one was ever set.
    pub fn price(&self) -> Option<&Register<Price>> {
        self.price.as_ref()
    }

    /// The mark `listed`, if it was ever set.
    pub fn listed(&self) -> Option<&Register<bool>> {
        self.listed.as_ref()
    }

    /// What replicas took over of others, in the order of (location, from, to).
    pub fn inheritances(&self) -> &[InheritanceSlot] {
        self.inheritances.slots()
    }

    /// All slots: stock, grants, price, listed, inheritances.
    pub fn slots(&self) -> impl Iterator<Item = SlotRef<'_>> {
        let stock = self.stock.iter().map(SlotRef::Stock);
        let grants = self.grants.iter().map(SlotRef::Grant);
        let registers = self.price.iter().map(SlotRef::Price).chain(self.listed.iter().map(SlotRef::Listed));
        stock.chain(grants).chain(registers).chain(self.inheritances().iter().map(SlotRef::Inheritance))
    }

    /// Number of slots.
    pub fn slot_count(&self) -> usize {
        let registers = usize::from(self.price.is_some()) + usize::from(self.listed.is_some());
        self.stock.len() + self.grants.len() + registers + self.inheritances().len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.slot_count() == 0
    }

    /// The counters of one replica at one location, as that replica wrote them. If it was retired, others count: those
    /// of [`Product::counted_by`].
    pub fn counters(&self, location: &Location, replica: ReplicaId) -> Counters {
        self.stock_position(location, replica)
            .ok()
            .and_then(|index| self.stock.get(index))
            .map_or_else(Counters::default, |slot| slot.counters)
    }

    /// The counters at one location, in the order of replicas.
    pub fn stock_at(&self, location: &Location) -> &[StockSlot] {
        let from = self.stock.partition_point(|slot| slot.location < *location);
        let rest = self.stock.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|slot| slot.location == *location)).unwrap_or_default()
    }

    /// The grants at one location, in the order of (from, to).
    pub fn grants_at(&self, location: &Location) -> impl Iterator<Item = &GrantSlot> {
        let from = self.grants.partition_point(|grant| grant.location < *location);
        self.grants.iter().skip(from).take_while(move |grant| grant.location == *location)
    }

    /// Units that one replica gave to another at a location so far.
    pub fn granted(&self, location: &Location, from: ReplicaId, to: ReplicaId) -> u64 {
        let granted = self.grants_at(location).find(|grant| (grant.from, grant.to) == (from, to));
        granted.map_or(0, |grant| grant.units)
    }

    /// Whether there is a stock slot of the same location and replica.
    pub(crate) fn has_stock(&self, slot: &StockSlot) -> bool {
        self.stock_position(&slot.location, slot.replica).is_ok()
    }

    /// Whether there is a grant of the same location, giver and taker.
    pub(crate) fn has_grant(&self, slot: &GrantSlot) -> bool {
        self.grants.binary_search_by(|known| grant_order(known, slot)).is_ok()
    }

    /// The inheritance slots at one location, in the order of (from, to).
    pub fn inheritances_at(&self, location: &Location) -> &[InheritanceSlot] {
        self.inheritances.at(location)
    }

    /// What replicas took over of `from` at a location, in their order.
    pub fn inheritances_of(&self, location: &Location, from: ReplicaId) -> &[InheritanceSlot] {
        self.inheritances.of(location, from)
    }

    /// Whether there is an inheritance slot of the same location and replicas.
    pub(crate) fn has_inheritance(&self, slot: &InheritanceSlot) -> bool {
        self.inheritances.has(slot)
    }

    /// The stock, the grants and the inheritances at one location: all that rights there rest on.
    #[must_use]
    pub fn at_location(&self, location: &Location) -> Self {
        let slots = self.inheritances_at(location).to_vec();
        Self {
            stock: self.stock_at(location).iter().cloned().collect(),
            grants: self.grants_at(location).cloned().collect(),
            // A part of a sorted list is sorted.
            inheritances: Inheritances::new(slots).unwrap_or_default(),
            ..Self::default()
        }
    }

    fn join_stock(&mut self, incoming: &StockSlot, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        match self.stock_position(&incoming.location, incoming.replica) {
            Ok(index) => {
                if let Some(slot) = self.stock.get_mut(index) {
                    slot.join(incoming, observe, sku);
                }
            }
            Err(index) => {
                observe(SlotChange::added(SlotRef::Stock(incoming)));
                // Most products have a slot or two, and a growing list would begin with room for four.
                if self.stock.len() < STOCK_SLOTS_EXACT {
                    self.stock.reserve_exact(1);
                }
                self.stock.insert(index, incoming.clone());
            }
        }
    }

    fn join_stock_list(&mut self, incoming: &[StockSlot], observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        let order = |left: &StockSlot, right: &StockSlot| stock_order(left, &right.location, right.replica);
        let known = std::mem::take(&mut self.stock).into_iter();
        let joined = join_lists(known, incoming, order, &mut |known, slot| match known {
            Some(known) => known.join(slot, observe, sku),
            None => observe(SlotChange::added(SlotRef::Stock(slot))),
        });
        self.stock = SmallVec::from_vec(joined);
    }

    fn join_grant_list(&mut self, incoming: &[GrantSlot], observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        let known = std::mem::take(&mut self.grants).into_iter();
        self.grants = join_lists(known, incoming, grant_order, &mut |known, slot| match known {
            Some(known) => known.join(slot, observe, sku),
            None => observe(SlotChange::added(SlotRef::Grant(slot))),
        });
    }

    /// Joins another product's slots into this one (rules L1 to L3, E1), and tells `observe` each slot that changed.
    /// Commutative, associative and idempotent.
    pub fn join(&mut self, incoming: &Self, sku: &str, observe: &mut dyn FnMut(SlotChange<'_>)) {
        if incoming.stock.len() <= STOCK_SLOTS_SINGLY_MAX {
            incoming.stock.iter().for_each(|slot| self.join_stock(slot, observe, sku));
        } else {
            self.join_stock_list(&incoming.stock, observe, sku);
        }
        if !incoming.grants.is_empty() {
            self.join_grant_list(&incoming.grants, observe, sku);
        }
        if let Some(register) = incoming.price.as_ref().filter(|register| register.wins(self.price.as_ref())) {
            let before = self.price.replace(*register);
            let hash_before = before.as_ref().map(|old| SlotRef::Price(old).hash(sku));
            observe(SlotChange { hash_before, after: SlotRef::Price(register), dot: register.dot });
        }
        if let Some(register) = incoming.listed.as_ref().filter(|register| register.wins(self.listed.as_ref())) {
            let before = self.listed.replace(*register);
            let hash_before = before.as_ref().map(|old| SlotRef::Listed(old).hash(sku));
            observe(SlotChange { hash_before, after: SlotRef::Listed(register), dot: register.dot });
        }
        self.inheritances.join(&incoming.inheritances, observe, sku);
    }

    /// Joins without watching what changes.
    pub fn absorb(&mut self, incoming: &Self) {
        self.join(incoming, "", &mut |_| ());
    }

    /// The slots of this product that `keep` picks.
    #[must_use]
    pub fn filtered(&self, keep: &mut dyn FnMut(SlotRef<'_>) -> bool) -> Self {
        Self {
            stock: self.stock.iter().filter(|slot| keep(SlotRef::Stock(slot))).cloned().collect(),
            grants: self.grants.iter().filter(|slot| keep(SlotRef::Grant(slot))).cloned().collect(),
            price: self.price.filter(|register| keep(SlotRef::Price(register))),
            listed: self.listed.filter(|register| keep(SlotRef::Listed(register))),
            inheritances: self.inheritances.filtered(keep),
        }
    }

    /// A product of these slots, if each list is in its strict order; `None` if not.
    pub fn from_slots(
        stock: Vec<StockSlot>,
        grants: Vec<GrantSlot>,
        price: Option<Register<Price>>,
        listed: Option<Register<bool>>,
    ) -> Option<Self> {
        let stock_sorted = stock.is_sorted_by(|left, right| stock_order(left, &right.location, right.replica).is_lt());
        let grants_sorted = grants.is_sorted_by(|left, right| grant_order(left, right).is_lt());
        let inheritances = Inheritances::default();
        (stock_sorted && grants_sorted).then(|| Self {
            stock: stock.into_iter().collect(),
            grants,
            price,
            listed,
            inheritances,
        })
    }

    /// The same product with these inheritance slots in place of its own, if they are in their strict order; `None` if
    /// not.
    pub fn with_inheritances(self, slots: Vec<InheritanceSlot>) -> Option<Self> {
        Inheritances::new(slots).map(|inheritances| Self { inheritances, ..self })
    }

    /// A product with one stock slot.
    pub fn of_stock(slot: StockSlot) -> Self {
        Self { stock: SmallVec::from_buf([slot]), ..Self::default() }
    }

    /// A product with one grant.
    pub fn of_grant(grant: GrantSlot) -> Self {
        Self { grants: vec![grant], ..Self::default() }
    }

    /// A product with one inheritance slot.
    pub fn of_inheritance(slot: InheritanceSlot) -> Self {
        // One slot is in order.
        Self { inheritances: Inheritances::new(vec![slot]).unwrap_or_default(), ..Self::default() }
    }

    /// A product with a price alone.
    pub fn of_price(price: Register<Price>) -> Self {
        Self { price: Some(price), ..Self::default() }
    }

    /// A product with the mark `listed` alone.
    pub fn of_listed(listed: Register<bool>) -> Self {
        Self { listed: Some(listed), ..Self::default() }
    }

    fn stock_position(&self, location: &Location, replica: ReplicaId) -> Result<usize, usize> {
        self.stock.binary_search_by(|slot| stock_order(slot, location, replica))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;

    fn stock(numbers: impl Iterator<Item = u64>, added: u64) -> Vec<StockSlot> {
        let slot = |number: u64| StockSlot {
            location: Location::new(&format!("{:03}", number / 3)).unwrap(),
            replica: ReplicaId::from_random(number % 3 + 1),
            sequence: number + added,
            counters: Counters { added: added + number % 7, ..Counters::default() },
        };
        numbers.map(slot).collect()
    }

    fn grants(numbers: impl Iterator<Item = u64>, units: u64) -> Vec<GrantSlot> {
        let (from, location) = (ReplicaId::from_random(1), Location::new("x").unwrap());
        let slot = |number: u64| GrantSlot {
            location: location.clone(),
            from,
            to: ReplicaId::from_random(number + 2),
            sequence: number + 1,
            units: units + number % 5,
        };
        numbers.map(slot).collect()
    }

    /// Many slots are joined in one pass, few one by one: both ways must end in the same, and tell of the same changes.
    #[test]
    fn joining_many_slots_at_once_is_joining_each() {
        let known =
            Product::from_slots(stock((0..90).step_by(2), 5), grants((0..40).step_by(2), 3), None, None).unwrap();
        let incoming =
            Product::from_slots(stock((10..120).step_by(3), 4), grants((5..60).step_by(3), 4), None, None).unwrap();
        let watch = |product: &mut Product, incoming: &Product| {
            let mut sum = Fingerprint::EMPTY;
            product.join(incoming, "A", &mut |change| {
                sum = sum.minus(change.hash_before.unwrap_or_default()).plus(change.after.hash("A"));
            });
            sum
        };
        let (mut at_once, mut singly) = (known.clone(), known);
        let sum_at_once = watch(&mut at_once, &incoming);
        let mut sum_singly = Fingerprint::EMPTY;
        for slot in incoming.stock() {
            sum_singly = sum_singly.plus(watch(&mut singly, &Product::of_stock(slot.clone())));
        }
        for slot in incoming.grants() {
            let grant = Product::from_slots(Vec::new(), vec![slot.clone()], None, None).unwrap();
            sum_singly = sum_singly.plus(watch(&mut singly, &grant));
        }
        assert_eq!((at_once.clone(), sum_at_once), (singly, sum_singly));
        assert!(
            Product::from_slots(at_once.stock().to_vec(), at_once.grants().to_vec(), None, None).is_some(),
            "order"
        );
        assert_eq!(watch(&mut at_once, &incoming), Fingerprint::EMPTY, "once more changes nothing");
    }
}
