//! The inheritance slots of a product: what heirs took over of replicas that will never return (rules E1 to E7).

use std::cmp::Ordering;

use crate::id::{Location, ReplicaId};
use crate::slot::{InheritanceSlot, SlotChange, SlotRef};

fn order(left: &InheritanceSlot, right: &InheritanceSlot) -> Ordering {
    left.location.cmp(&right.location).then(left.from.cmp(&right.from)).then(left.to.cmp(&right.to))
}

/// The inheritance slots of one product, in the order of (location, from, to). Few products ever have one, so that an
/// empty list takes one word and no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inheritances(Option<Box<List>>);

/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    slots: Vec<InheritanceSlot>,
}

impl Inheritances {
    /// A list of these slots, if they are in their strict order.
    pub(crate) fn new(slots: Vec<InheritanceSlot>) -> Option<Self> {
        slots.is_sorted_by(|left, right| order(left, right).is_lt()).then(|| Self::of_sorted(slots))
    }

    fn of_sorted(slots: Vec<InheritanceSlot>) -> Self {
        Self((!slots.is_empty()).then(|| Box::new(List { slots })))
    }

    pub(crate) fn slots(&self) -> &[InheritanceSlot] {
        self.0.as_ref().map_or(&[], |list| &list.slots)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn at(&self, location: &Location) -> &[InheritanceSlot] {
        let slots = self.slots();
        let from = slots.partition_point(|slot| slot.location < *location);
        let rest = slots.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|slot| slot.location == *location)).unwrap_or_default()
    }

    /// The slots of one retired replica at one location.
    pub(crate) fn of(&self, location: &Location, from: ReplicaId) -> &[InheritanceSlot] {
        if self.is_empty() {
            return &[];
        }
        let slots = self.at(location);
        let first = slots.partition_point(|slot| slot.from < from);
        let rest = slots.get(first..).unwrap_or_default();
        rest.get(..rest.partition_point(|slot| slot.from == from)).unwrap_or_default()
    }

    pub(crate) fn has(&self, slot: &InheritanceSlot) -> bool {
        self.slots().binary_search_by(|known| order(known, slot)).is_ok()
    }

    pub(crate) fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        if incoming.is_empty() {
            return;
        }
        let mut slots = self.0.take().map(|list| list.slots).unwrap_or_default();
        for slot in incoming.slots() {
            match slots.binary_search_by(|known| order(known, slot)) {
                Ok(index) => {
                    if let Some(known) = slots.get_mut(index) {
                        known.join(slot, observe, sku);
                    }
                }
                Err(index) => {
                    observe(SlotChange::added(SlotRef::Inheritance(slot)));
                    slots.insert(index, slot.clone());
                }
            }
        }
        *self = Self::of_sorted(slots);
    }

    pub(crate) fn filtered(&self, keep: &mut dyn FnMut(SlotRef<'_>) -> bool) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        Self::of_sorted(self.slots().iter().filter(|slot| keep(SlotRef::Inheritance(slot))).cloned().collect())
    }
}
