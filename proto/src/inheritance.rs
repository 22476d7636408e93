//! Inheritance slots: what an heir took over of a replica that will never return (rules E1 to E7).

use std::cmp::Ordering;

use crate::counter::Counters;
use crate::id::{Location, ReplicaId};
use crate::slot::{SlotChange, SlotRef};

/// What one replica took over of another's place at one location. Only `to` writes it (rule E1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritanceSlot {
    /// Where the stock lies.
    pub location: Location,
    /// Who was retired.
    pub from: ReplicaId,
    /// Who took over; also the replica of the slot's dot.
    pub to: ReplicaId,
    /// The sequence of the slot's dot.
    pub sequence: u64,
    /// What it took.
    pub taken: Taken,
}

/// The counters of an inheritance slot, all monotone, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Units that the retired replica counted in, as far as they count.
    pub added: u64,
    /// Units that it counted out, as far as they count.
    pub removed: u64,
    /// Rights that passed to the writer.
    pub rights: u64,
    /// Units of deficit that passed to the writer.
    pub owed: u64,
    /// Whether the writer is an heir. Else it only brought writes of the retired replica that had been missing.
    pub is_heir: bool,
}

impl Taken {
    /// The pointwise maximum; an heir stays an heir.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            added: self.added.max(other.added),
            removed: self.removed.max(other.removed),
            rights: self.rights.max(other.rights),
            owed: self.owed.max(other.owed),
            is_heir: self.is_heir || other.is_heir,
        }
    }

    /// Rights that passed to the writer, less the deficits that did.
    pub fn rights_passed(self) -> i128 {
        i128::from(self.rights) - i128::from(self.owed)
    }

    /// What the retired replica counted, as this slot says. Its holds are dissolved (rule E2).
    pub fn counters(self) -> Counters {
        Counters { added: self.added, removed: self.removed, ..Counters::default() }
    }
}

impl InheritanceSlot {
    /// The pointwise maximum of counters and sequence (rule E1).
    fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        let (taken, sequence) = (self.taken.join(incoming.taken), self.sequence.max(incoming.sequence));
        if taken == self.taken && sequence == self.sequence {
            return;
        }
        let hash_before = Some(SlotRef::Inheritance(self).hash(sku));
        (self.taken, self.sequence) = (taken, sequence);
        let dot = SlotRef::Inheritance(incoming).dot();
        observe(SlotChange { hash_before, after: SlotRef::Inheritance(self), dot });
    }

    fn order(&self, other: &Self) -> Ordering {
        let names = |slot: &Self| (slot.from, slot.to);
        self.location.cmp(&other.location).then(names(self).cmp(&names(other)))
    }
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
        slots.is_sorted_by(|left, right| left.order(right).is_lt()).then(|| Self::of_sorted(slots))
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
        self.slots().binary_search_by(|known| known.order(slot)).is_ok()
    }

    pub(crate) fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        if incoming.is_empty() {
            return;
        }
        let mut slots = self.0.take().map(|list| list.slots).unwrap_or_default();
        for slot in incoming.slots() {
            match slots.binary_search_by(|known| known.order(slot)) {
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
