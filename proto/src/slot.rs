//! Slots: the smallest units of state, each with the dot of the write that last changed it.

use crate::counter::Counters;
use crate::fingerprint::{Fingerprint, SlotHasher};
use crate::hlc::Stamp;
use crate::id::{Dot, Location, ReplicaId};
use crate::price::Price;
use crate::register::Register;

/// The counters of one replica at one location. Only that replica writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockSlot {
    /// Where the stock lies.
    pub location: Location,
    /// Whose counters these are; also the replica of the slot's dot.
    pub replica: ReplicaId,
    /// The sequence of the slot's dot.
    pub sequence: u64,
    /// The counters.
    pub counters: Counters,
}

/// Rights to sell that `from` gave to `to` at one location. Only `from` writes it (rule L2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSlot {
    /// Where the stock lies.
    pub location: Location,
    /// Who gave; also the replica of the slot's dot.
    pub from: ReplicaId,
    /// Who got.
    pub to: ReplicaId,
    /// The sequence of the slot's dot.
    pub sequence: u64,
    /// Units given in all: a monotone counter.
    pub units: u64,
}

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

/// One slot of a product, borrowed: the smallest unit of state.
#[derive(Clone, Copy, Debug)]
pub enum SlotRef<'a> {
    /// Counters of one replica at one location.
    Stock(&'a StockSlot),
    /// Rights given by one replica to another at one location.
    Grant(&'a GrantSlot),
    /// The price.
    Price(&'a Register<Price>),
    /// Whether the product is listed.
    Listed(&'a Register<bool>),
    /// What one replica took over of another at one location.
    Inheritance(&'a InheritanceSlot),
}

impl SlotRef<'_> {
    /// The write that last changed the slot.
    pub fn dot(&self) -> Dot {
        match self {
            SlotRef::Stock(slot) => Dot { replica: slot.replica, sequence: slot.sequence },
            SlotRef::Grant(slot) => Dot { replica: slot.from, sequence: slot.sequence },
            SlotRef::Price(register) => register.dot,
            SlotRef::Listed(register) => register.dot,
            SlotRef::Inheritance(slot) => Dot { replica: slot.to, sequence: slot.sequence },
        }
    }

    /// The slot's stamp, if it is a register.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            SlotRef::Stock(_) | SlotRef::Grant(_) | SlotRef::Inheritance(_) => None,
            SlotRef::Price(register) => Some(register.stamp),
            SlotRef::Listed(register) => Some(register.stamp),
        }
    }

    /// The hash of the slot's canonical bytes (rule F2).
    pub fn hash(&self, sku: &str) -> Fingerprint {
        match self {
            SlotRef::Stock(slot) => {
                let counters = slot.counters;
                SlotHasher::new(0, sku)
                    .name(slot.location.as_str())
                    .number(slot.replica.bits())
                    .number(slot.sequence)
                    .number(counters.added)
                    .number(counters.removed)
                    .number(counters.held)
                    .number(counters.released)
                    .finish()
            }
            SlotRef::Grant(slot) => SlotHasher::new(1, sku)
                .name(slot.location.as_str())
                .number(slot.from.bits())
                .number(slot.to.bits())
                .number(slot.sequence)
                .number(slot.units)
                .finish(),
            SlotRef::Price(register) => register_hasher(2, sku, register)
                .number(register.value.units())
                .number(u64::from(register.value.scale()))
                .name(register.value.currency().code())
                .finish(),
            SlotRef::Listed(register) => register_hasher(3, sku, register).number(u64::from(register.value)).finish(),
            SlotRef::Inheritance(slot) => {
                let taken = slot.taken;
                SlotHasher::new(4, sku)
                    .name(slot.location.as_str())
                    .number(slot.from.bits())
                    .number(slot.to.bits())
                    .number(slot.sequence)
                    .number(taken.added)
                    .number(taken.removed)
                    .number(taken.rights)
                    .number(taken.owed)
                    .number(u64::from(taken.is_heir))
                    .finish()
            }
        }
    }
}

fn register_hasher<T>(kind: u8, sku: &str, register: &Register<T>) -> SlotHasher {
    let mut hasher = SlotHasher::new(kind, sku);
    hasher.number(register.dot.replica.bits()).number(register.dot.sequence).number(register.stamp.bits());
    hasher
}

/// A change that a join made to one slot: what was there before, if anything, and what is there now.
#[derive(Clone, Copy, Debug)]
pub struct SlotChange<'a> {
    /// The hash of the slot before, if it was there.
    pub hash_before: Option<Fingerprint>,
    /// The slot now.
    pub after: SlotRef<'a>,
    /// The dot that came in and won.
    pub dot: Dot,
}

impl<'a> SlotChange<'a> {
    pub(crate) fn added(slot: SlotRef<'a>) -> Self {
        Self { hash_before: None, after: slot, dot: slot.dot() }
    }
}

impl StockSlot {
    /// The pointwise maximum of counters and sequence (rule L1).
    pub(crate) fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        let counters = self.counters.join(incoming.counters);
        let sequence = self.sequence.max(incoming.sequence);
        if counters == self.counters && sequence == self.sequence {
            return;
        }
        let hash_before = Some(SlotRef::Stock(self).hash(sku));
        (self.counters, self.sequence) = (counters, sequence);
        observe(SlotChange { hash_before, after: SlotRef::Stock(self), dot: SlotRef::Stock(incoming).dot() });
    }
}

impl GrantSlot {
    /// The maximum of units and sequence (rule L2).
    pub(crate) fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        if self.units >= incoming.units && self.sequence >= incoming.sequence {
            return;
        }
        let hash_before = Some(SlotRef::Grant(self).hash(sku));
        self.units = self.units.max(incoming.units);
        self.sequence = self.sequence.max(incoming.sequence);
        observe(SlotChange { hash_before, after: SlotRef::Grant(self), dot: SlotRef::Grant(incoming).dot() });
    }
}

impl InheritanceSlot {
    /// The pointwise maximum of counters and sequence (rule E1).
    pub(crate) fn join(&mut self, incoming: &Self, observe: &mut dyn FnMut(SlotChange<'_>), sku: &str) {
        let (taken, sequence) = (self.taken.join(incoming.taken), self.sequence.max(incoming.sequence));
        if taken == self.taken && sequence == self.sequence {
            return;
        }
        let hash_before = Some(SlotRef::Inheritance(self).hash(sku));
        (self.taken, self.sequence) = (taken, sequence);
        let dot = SlotRef::Inheritance(incoming).dot();
        observe(SlotChange { hash_before, after: SlotRef::Inheritance(self), dot });
    }
}
