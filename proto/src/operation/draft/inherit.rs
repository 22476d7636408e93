//! Taking over from a retired replica, and bringing what it alone had written (rules E4, E5).

use super::{Draft, Refused};
use crate::id::{Location, ReplicaId, Sku};
use crate::limits::INHERITANCE_SLOTS_OPENED_MAX;
use crate::movement::MovementKind;
use crate::operation::Outcome;
use crate::product::{InheritanceSlot, Product, Taken};

/// Rights of one movement at the most, and deficits: what is left over passes with another operation.
const UNITS_MAX: i128 = i64::MAX as i128;

impl Draft<'_> {
    /// Takes over what a retired replica leaves at a location: the first time its counters as they are known here, its
    /// rights and its holds, later what turned up since.
    pub(super) fn inherit(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<Outcome, Refused> {
        let own = self.writer.own;
        self.check_heir(sku, location, from)?;
        let (legacy, counted, heir) = self.with_seen(sku, |seen| {
            (seen.legacy(location, from), seen.counted_by(location, from), seen.heir(location, from))
        });
        let units = legacy.rights.clamp(-UNITS_MAX, UNITS_MAX);
        // Another one is the heir, or there is nothing new.
        if heir.is_some_and(|heir| heir != own || units == 0) {
            return Ok(Outcome::Inherited { units: 0, held: 0 });
        }
        let overflow = || Refused::Overflow { sku: sku.clone() };
        let units = i64::try_from(units).map_err(|_| overflow())?;
        let taken = self.taken(sku, location, from)?;
        let more = |counter: u64, units: i64| counter.checked_add(units.max(0).unsigned_abs()).ok_or_else(overflow);
        let taken = Taken {
            added: taken.added.max(counted.added),
            removed: taken.removed.max(counted.removed),
            rights: more(taken.rights, units)?,
            owed: more(taken.owed, -units)?,
            is_heir: true,
        };
        self.put_inheritance(sku, location, from, taken);
        self.note(sku, location, MovementKind::Inherited(from), units);
        Ok(Outcome::Inherited { units, held: legacy.held })
    }

    /// Counts what a retired replica had written, is known here, and was not taken over.
    pub(super) fn reapply(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<Outcome, Refused> {
        self.check_heir(sku, location, from)?;
        let (missing, counted) =
            self.with_seen(sku, |seen| (seen.uncounted(location, from), seen.counted_by(location, from)));
        let (added, removed) = (missing.added, missing.removed);
        if added == 0 && removed == 0 {
            return Ok(Outcome::Reapplied { added, removed });
        }
        let overflow = || Refused::Overflow { sku: sku.clone() };
        let counted = counted.plus(missing).map_err(|_| overflow())?;
        let taken = Taken { added: counted.added, removed: counted.removed, ..self.taken(sku, location, from)? };
        self.put_inheritance(sku, location, from, taken);
        let signed = |units: u64| i64::try_from(units).map_err(|_| overflow());
        for quantity in [signed(added)?, -signed(removed)?].into_iter().filter(|quantity| *quantity != 0) {
            self.note(sku, location, MovementKind::Reapplied(from), quantity);
        }
        Ok(Outcome::Reapplied { added, removed })
    }

    /// Nobody inherits from himself, or where he was retired.
    fn check_heir(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<(), Refused> {
        if from == self.writer.own {
            return Err(Refused::InheritsFromItself { sku: sku.clone() });
        }
        self.check_living(sku, location)
    }

    /// A replica that was retired at a location counts nothing there any more (rule E6).
    pub(super) fn check_living(&mut self, sku: &Sku, location: &Location) -> Result<(), Refused> {
        let own = self.writer.own;
        if self.with_seen(sku, |seen| seen.is_retired(location, own)) {
            return Err(Refused::Retired { sku: sku.clone(), location: location.clone(), own });
        }
        Ok(())
    }

    /// What this replica took over so far, if there is room for a slot.
    fn taken(&mut self, sku: &Sku, location: &Location, from: ReplicaId) -> Result<Taken, Refused> {
        let own = self.writer.own;
        let (taken, slots) = self.with_seen(sku, |seen| {
            let slot = seen.inheritances_of(location, from).iter().find(|slot| slot.to == own);
            (slot.map(|slot| slot.taken), seen.inheritances().len())
        });
        if taken.is_none() && slots >= INHERITANCE_SLOTS_OPENED_MAX {
            return Err(Refused::TooManySlots { sku: sku.clone(), slots });
        }
        Ok(taken.unwrap_or_default())
    }

    fn put_inheritance(&mut self, sku: &Sku, location: &Location, from: ReplicaId, taken: Taken) {
        let (write, to) = (self.begin(sku), self.writer.own);
        let slot = InheritanceSlot { location: location.clone(), from, to, sequence: write.sequence, taken };
        self.put(write, sku, &Product::of_inheritance(slot));
    }
}
