//! A request being evaluated: what its operations so far would write.

mod inherit;

use std::collections::BTreeMap;

use super::{
    Books, Evaluation, Operation, OperationRefused, Outcome, OversellPolicy, Reader, Request, ShardWrites, Shortfall,
    Writer, Written,
};
use crate::counter::Counters;
use crate::hlc::{Clock, Stamp};
use crate::hold::{Hold, HoldId, HoldState};
use crate::id::{Dot, Location, Quantity, ReplicaId, ShardIndex, Sku};
use crate::limits::{GRANT_SLOTS_OPENED_MAX, HOLDS_ACTIVE_MAX, STOCK_SLOTS_OPENED_MAX};
use crate::movement::{Movement, MovementKind};
use crate::product::{GrantSlot, Product, StockSlot};
use crate::register::Register;

/// The write that an operation makes: all slots that it changes carry this dot.
#[derive(Clone, Copy)]
struct Write {
    shard: ShardIndex,
    sequence: u64,
}

pub(super) struct Draft<'a> {
    writer: Writer,
    request: &'a Request,
    reader: &'a dyn Reader,
    books: &'a Books,
    clock: Clock,
    now_ms: u64,
    evaluation: Evaluation,
    /// Products that the operations so far touched, as they would leave them, once one is looked at again.
    joined: BTreeMap<Sku, Product>,
    shortfalls: BTreeMap<(Sku, Location), Shortfall>,
    holds: BTreeMap<HoldId, Hold>,
    /// Holds that would be active.
    holds_active: usize,
}

type Refused = OperationRefused;

impl<'a> Draft<'a> {
    pub(super) fn new(
        writer: Writer,
        request: &'a Request,
        reader: &'a dyn Reader,
        books: &'a Books,
        clock: Clock,
        now_ms: u64,
    ) -> Self {
        Self {
            writer,
            request,
            reader,
            books,
            clock,
            now_ms,
            evaluation: Evaluation::default(),
            joined: BTreeMap::new(),
            shortfalls: BTreeMap::new(),
            holds: BTreeMap::new(),
            holds_active: books.holds_active(),
        }
    }

    /// Evaluates the next operation.
    pub(super) fn run(&mut self, operation: &Operation) -> Result<(), Refused> {
        let outcome = match operation {
            Operation::Receive { sku, location, units } => {
                let quantity = signed(*units);
                self.adjust(sku, location, quantity, MovementKind::Received)?
            }
            Operation::Adjust { sku, location, units, reason } => {
                self.adjust(sku, location, *units, MovementKind::Adjusted(*reason))?
            }
            Operation::Stocktake { sku, location, counted } => self.stocktake(sku, location, *counted)?,
            Operation::Sell { sku, location, units, policy } => self.sell(sku, location, *units, *policy)?,
            Operation::Hold { sku, location, units, ttl_ms } => self.hold(sku, location, *units, *ttl_ms)?,
            Operation::CommitHold { id, units } => self.commit_hold(*id, *units)?,
            Operation::ReleaseHold { id } => self.release_hold(*id)?,
            Operation::ExpireHold { id } => self.expire_hold(*id)?,
            Operation::Transfer { sku, from, to, units } => self.transfer(sku, from, to, *units)?,
            Operation::Grant { sku, location, to, units } => self.grant(sku, location, *to, *units)?,
            Operation::Inherit { sku, location, from } => self.inherit(sku, location, *from)?,
            Operation::Reapply { sku, location, from } => self.reapply(sku, location, *from)?,
            Operation::SetPrice { sku, price } => {
                let (write, stamp) = (self.begin(sku), self.stamp(sku)?);
                let register = Register { value: *price, stamp, dot: self.dot(write) };
                self.put(write, sku, &Product::of_price(register));
                Outcome::Done
            }
            Operation::SetListed { sku, listed } => {
                let (write, stamp) = (self.begin(sku), self.stamp(sku)?);
                let register = Register { value: *listed, stamp, dot: self.dot(write) };
                self.put(write, sku, &Product::of_listed(register));
                Outcome::Done
            }
        };
        self.evaluation.outcomes.push(outcome);
        Ok(())
    }

    /// All that the operations write, and the clock after them.
    pub(super) fn finish(mut self) -> Result<(Evaluation, Clock), Refused> {
        if !self.shortfalls.is_empty() {
            return Err(Refused::Insufficient { shortfalls: self.shortfalls.into_values().collect() });
        }
        self.evaluation.holds = self.holds.into_values().collect();
        Ok((self.evaluation, self.clock))
    }

    fn begin(&self, sku: &Sku) -> Write {
        let shard = self.writer.shards.shard_of(sku);
        let written = self.evaluation.shards.get(&shard).map(|writes| writes.to);
        let written = written.unwrap_or_else(|| self.reader.sequence(shard, self.writer.own));
        Write { shard, sequence: written.saturating_add(1) }
    }

    fn dot(&self, write: Write) -> Dot {
        Dot { replica: self.writer.own, sequence: write.sequence }
    }

    fn put(&mut self, write: Write, sku: &Sku, change: &Product) {
        let new = ShardWrites { from: write.sequence, to: write.sequence, products: Written::default() };
        let writes = self.evaluation.shards.entry(write.shard).or_insert(new);
        writes.to = write.sequence;
        writes.products.absorb(sku, change);
        if let Some(joined) = self.joined.get_mut(sku) {
            joined.absorb(change);
        }
    }

    /// The product as this replica sees it, with what the operations so far would write.
    fn with_seen<T>(&mut self, sku: &Sku, look: impl FnOnce(&Product) -> T) -> T {
        if let Some(joined) = self.joined.get(sku) {
            return look(joined);
        }
        let stored = self.reader.product(sku);
        let writes = self.evaluation.shards.get(&self.writer.shards.shard_of(sku));
        match (stored, writes.and_then(|writes| writes.products.get(sku))) {
            (None, None) => look(&Product::default()),
            (Some(stored), None) => look(&stored.product),
            (None, Some(written)) => look(written),
            (Some(stored), Some(written)) => {
                let mut joined = stored.product.clone();
                joined.absorb(written);
                let result = look(&joined);
                // Kept, so that many operations on one product do not copy it each time.
                self.joined.insert(sku.clone(), joined);
                result
            }
        }
    }

    /// Raises this replica's counters at a location.
    fn count(&mut self, write: Write, sku: &Sku, location: &Location, more: Counters) -> Result<(), Refused> {
        self.check_living(sku, location)?;
        let own = self.writer.own;
        let (counters, is_open, slots) = self.with_seen(sku, |seen| {
            let slot = seen.stock_at(location).iter().find(|slot| slot.replica == own);
            (slot.map(|slot| slot.counters).unwrap_or_default(), slot.is_some(), seen.stock().len())
        });
        if !is_open && slots >= STOCK_SLOTS_OPENED_MAX {
            return Err(Refused::TooManySlots { sku: sku.clone(), slots });
        }
        let counters = counters.plus(more).map_err(|_| Refused::Overflow { sku: sku.clone() })?;
        let slot = StockSlot { location: location.clone(), replica: own, sequence: write.sequence, counters };
        self.put(write, sku, &Product::of_stock(slot));
        Ok(())
    }

    fn note(&mut self, sku: &Sku, location: &Location, kind: MovementKind, quantity: i64) -> Counters {
        let movement = Movement { sku: sku.clone(), location: location.clone(), kind, quantity };
        let counters = movement.counters();
        self.evaluation.movements.push(movement);
        counters
    }

    /// One movement that is one write.
    fn record(
        &mut self,
        sku: &Sku,
        location: &Location,
        kind: MovementKind,
        quantity: i64,
    ) -> Result<Outcome, Refused> {
        let write = self.begin(sku);
        let counters = self.note(sku, location, kind, quantity);
        self.count(write, sku, location, counters)?;
        Ok(Outcome::Done)
    }

    fn adjust(&mut self, sku: &Sku, location: &Location, units: i64, kind: MovementKind) -> Result<Outcome, Refused> {
        self.record(sku, location, kind, units)
    }

    fn stocktake(&mut self, sku: &Sku, location: &Location, counted: u64) -> Result<Outcome, Refused> {
        let on_hand = self.with_seen(sku, |seen| seen.on_hand_at(location));
        let difference = i64::try_from(i128::from(counted) - on_hand);
        let difference = difference.map_err(|_| Refused::Difference { sku: sku.clone() })?;
        if difference == 0 {
            // Nothing to correct: no write, but a line in the ledger, since somebody did count.
            self.note(sku, location, MovementKind::Counted, 0);
        } else {
            self.record(sku, location, MovementKind::Counted, difference)?;
        }
        Ok(Outcome::Difference(difference))
    }

    /// Notes what is lacking to take units from a location, if anything is (rule B2).
    fn check_rights(&mut self, sku: &Sku, location: &Location, units: Quantity) {
        let own = self.writer.own;
        let (rights, available) = self.with_seen(sku, |seen| (seen.rights(location, own), seen.available_at(location)));
        let wanted = i128::from(units.get());
        if rights >= wanted && available >= wanted {
            return;
        }
        // What is lacking is counted from the rights before the request: what its operations so far took or brought in is
        // in what is seen, also where it was too much.
        let before = self.reader.product(sku).map_or(0, |product| product.rights(location, own));
        let needed = if rights < wanted { before + wanted - rights } else { wanted };
        let needed = u64::try_from(needed.max(0)).unwrap_or(u64::MAX);
        let key = (sku.clone(), location.clone());
        let shortfall = self.shortfalls.entry(key).or_insert(Shortfall {
            sku: sku.clone(),
            location: location.clone(),
            wanted: 0,
            rights: before,
            available,
            in_stock: true,
        });
        shortfall.wanted = shortfall.wanted.max(needed);
        shortfall.in_stock &= available >= wanted;
    }

    fn sell(
        &mut self,
        sku: &Sku,
        location: &Location,
        units: Quantity,
        policy: OversellPolicy,
    ) -> Result<Outcome, Refused> {
        if policy == OversellPolicy::Refuse || !self.request.may_backorder {
            self.check_rights(sku, location, units);
        }
        self.record(sku, location, MovementKind::Sold, signed(units))
    }

    fn hold(&mut self, sku: &Sku, location: &Location, units: Quantity, ttl_ms: u64) -> Result<Outcome, Refused> {
        let holds = self.holds_active;
        if holds >= HOLDS_ACTIVE_MAX {
            return Err(Refused::TooManyHolds { holds });
        }
        self.holds_active += 1;
        self.check_rights(sku, location, units);
        let write = self.begin(sku);
        let id = HoldId { replica: self.writer.own, shard: write.shard, sequence: write.sequence };
        let expires_ms = self.now_ms.saturating_add(ttl_ms);
        self.record(sku, location, MovementKind::Held(id), signed(units))?;
        let hold = Hold {
            id,
            sku: sku.clone(),
            location: location.clone(),
            units: units.get(),
            given_ms: self.now_ms,
            expires_ms,
            reference: self.request.reference.clone(),
            state: HoldState::Active,
        };
        self.holds.insert(id, hold);
        Ok(Outcome::Held { id, expires_ms })
    }

    fn find_hold(&self, id: HoldId) -> Result<Hold, Refused> {
        let own = self.writer.own;
        if id.replica != own {
            return Err(Refused::HoldElsewhere { id, own });
        }
        self.holds.get(&id).or_else(|| self.books.hold(id)).cloned().ok_or(Refused::HoldUnknown { id })
    }

    fn commit_hold(&mut self, id: HoldId, units: Option<Quantity>) -> Result<Outcome, Refused> {
        let hold = self.find_hold(id)?;
        let wanted = units.map_or(hold.units, Quantity::get);
        let outcome = |sold: u64| Outcome::Resolved { sold, released: hold.units.saturating_sub(sold) };
        match hold.state {
            HoldState::Active if self.now_ms >= hold.expires_ms => {
                let state = HoldState::Expired { at_ms: hold.expires_ms };
                return Err(Refused::HoldResolved { id, state });
            }
            HoldState::Active if wanted > hold.units => {
                return Err(Refused::HoldTooSmall { id, held: hold.units, wanted });
            }
            HoldState::Active => {}
            HoldState::Committed { units: sold, .. } if sold == wanted => return Ok(outcome(sold)),
            state => return Err(Refused::HoldResolved { id, state }),
        }
        let done = outcome(wanted);
        let at_ms = self.now_ms;
        self.resolve(hold, HoldState::Committed { units: wanted, at_ms }, MovementKind::Released(id))?;
        Ok(done)
    }

    fn release_hold(&mut self, id: HoldId) -> Result<Outcome, Refused> {
        let hold = self.find_hold(id)?;
        let released = Outcome::Resolved { sold: 0, released: hold.units };
        match hold.state {
            HoldState::Active => {}
            HoldState::Released { .. } | HoldState::Expired { .. } => return Ok(released),
            state @ HoldState::Committed { .. } => return Err(Refused::HoldResolved { id, state }),
        }
        let at_ms = self.now_ms;
        self.resolve(hold, HoldState::Released { at_ms }, MovementKind::Released(id))?;
        Ok(released)
    }

    fn expire_hold(&mut self, id: HoldId) -> Result<Outcome, Refused> {
        let hold = self.find_hold(id)?;
        if hold.state == HoldState::Active && self.now_ms >= hold.expires_ms {
            let at_ms = self.now_ms;
            self.resolve(hold, HoldState::Expired { at_ms }, MovementKind::Expired(id))?;
        }
        Ok(Outcome::Done)
    }

    /// Gives held units back, less those that are sold: one write, whichever way it goes (rule O6).
    fn resolve(&mut self, hold: Hold, state: HoldState, released: MovementKind) -> Result<(), Refused> {
        let write = self.begin(&hold.sku);
        let sold = if let HoldState::Committed { units, .. } = state { units } else { 0 };
        let mut counters = Counters::default();
        let parts = [(sold, MovementKind::Committed(hold.id)), (hold.units.saturating_sub(sold), released)];
        for (units, kind) in parts.into_iter().filter(|(units, _)| *units > 0) {
            let more = self.note(&hold.sku, &hold.location, kind, i64::try_from(units).unwrap_or(i64::MAX));
            counters = counters.plus(more).map_err(|_| Refused::Overflow { sku: hold.sku.clone() })?;
        }
        self.count(write, &hold.sku, &hold.location, counters)?;
        self.holds.insert(hold.id, Hold { state, ..hold });
        self.holds_active = self.holds_active.saturating_sub(1);
        Ok(())
    }

    fn transfer(&mut self, sku: &Sku, from: &Location, to: &Location, units: Quantity) -> Result<Outcome, Refused> {
        if from == to {
            return Err(Refused::SameLocation { sku: sku.clone(), location: from.clone() });
        }
        self.check_rights(sku, from, units);
        let write = self.begin(sku);
        let out = self.note(sku, from, MovementKind::TransferredTo(to.clone()), signed(units));
        self.count(write, sku, from, out)?;
        let into = self.note(sku, to, MovementKind::TransferredFrom(from.clone()), signed(units));
        self.count(write, sku, to, into)?;
        Ok(Outcome::Done)
    }

    /// Gives away what is wanted or what there is, whichever is less: a replica never grants what it does not have.
    fn grant(&mut self, sku: &Sku, location: &Location, to: ReplicaId, units: u64) -> Result<Outcome, Refused> {
        self.check_living(sku, location)?;
        let own = self.writer.own;
        let (rights, before, slots) = self.with_seen(sku, |seen| {
            // Rights of a retired replica are of use to nobody but its heir, who would have to take them over first.
            let rights = if seen.is_retired(location, to) { 0 } else { seen.rights(location, own) };
            (rights, seen.granted(location, own, to), seen.grants().len())
        });
        let units = units.min(u64::try_from(rights.clamp(0, i128::from(i64::MAX))).unwrap_or_default());
        if units == 0 || to == own {
            return Ok(Outcome::Granted { units: 0, sequence: 0 });
        }
        if before == 0 && slots >= GRANT_SLOTS_OPENED_MAX {
            return Err(Refused::TooManySlots { sku: sku.clone(), slots });
        }
        let overflow = || Refused::Overflow { sku: sku.clone() };
        let all = before.checked_add(units).ok_or_else(overflow)?;
        let quantity = i64::try_from(units).map_err(|_| overflow())?;
        let write = self.begin(sku);
        let grant = GrantSlot { location: location.clone(), from: own, to, sequence: write.sequence, units: all };
        self.put(write, sku, &Product::of_grant(grant));
        self.note(sku, location, MovementKind::Granted(to), quantity);
        Ok(Outcome::Granted { units, sequence: write.sequence })
    }

    fn stamp(&mut self, sku: &Sku) -> Result<Stamp, Refused> {
        let stamp = self.clock.tick(self.now_ms)?;
        let (ahead_ms, drift_ms_max) = (stamp.ahead_ms(self.now_ms), self.writer.drift_ms_max);
        if ahead_ms > drift_ms_max {
            return Err(Refused::ClockAhead { sku: sku.clone(), ahead_ms, drift_ms_max });
        }
        Ok(stamp)
    }
}

/// A quantity is at most 10^12, so it always fits.
fn signed(units: Quantity) -> i64 {
    i64::try_from(units.get()).unwrap_or(i64::MAX)
}
