//! Any requests on any state: what is refused changes nothing, and of what is done slots, ledger and books tell the same.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::{Clock, Stamp};
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::limits::{GRANT_SLOTS_OPENED_MAX, INHERITANCE_SLOTS_OPENED_MAX, STOCK_SLOTS_OPENED_MAX};
use stockmesh_proto::movement::MovementKind;
use stockmesh_proto::operation::{
    Books, Evaluation, Operation, OperationRefused, OversellPolicy, Reader, Request, Writer,
};
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, KeyedProduct, Product, StockSlot, Taken};
use stockmesh_proto::wire::{LedgerPart, LedgerRecord, LedgerRequest};
use stockmesh_proto::{Fingerprint, Location, ReplicaId, Shard, ShardCount, ShardIndex, Sku};

use crate::input::{location, number, product, version};

const OWN: u64 = 2;
const REQUESTS_MAX: usize = 16;
/// Few enough that references are forgotten within a script.
const REFERENCES_MAX: usize = 3;

/// From this byte on there is such a product: rarely, since it costs as much as hundreds of others.
const CROWDED: u8 = 253;

/// The sums of larger products cost the square of their slots.
const SUMMED_SLOTS_MAX: usize = 256;

struct Node {
    own: ReplicaId,
    table: Shard,
    books: Books,
    clock: Clock,
    drift_ms_max: u64,
    entries: u64,
}

impl Reader for Node {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.table.get(sku.as_str()).cloned()
    }

    fn sequence(&self, _: ShardIndex, replica: ReplicaId) -> u64 {
        self.table.version().get(replica)
    }
}

/// Runs one script.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // Bytes that end too early end the script.
    let _ended = script(&mut input);
}

fn script(input: &mut Unstructured<'_>) -> Result<()> {
    let mut node = Node {
        // One that typed slots name too, so that some are its own.
        own: ReplicaId::from_random(OWN),
        table: Shard::new(0),
        books: Books::new(number(input)?, REFERENCES_MAX),
        clock: Clock::resume(Stamp::from_bits(number(input)?)),
        drift_ms_max: if bool::arbitrary(input)? { 60_000 } else { u64::MAX },
        entries: 0,
    };
    for _ in 0..u8::arbitrary(input)? % 4 {
        node.take(requests::sku(input)?, product(input)?);
    }
    let crowd = u8::arbitrary(input)?;
    if crowd >= CROWDED {
        node.take(requests::sku(input)?, crowded(crowd, &location(input)?));
    }
    node.table.claim(&version(input)?);
    let mut now_ms = number(input)?;
    for _ in 0..REQUESTS_MAX {
        if input.is_empty() {
            break;
        }
        let request = requests::request(&node.books, &node.table, node.own, input)?;
        node.apply(&request, now_ms);
        now_ms = now_ms.saturating_add(number(input)?);
    }
    node.settle(now_ms);
    Ok(())
}

/// A product on which no slot of one kind can be opened any more.
fn crowded(kind: u8, location: &Location) -> Product {
    let others = |count: usize| (0..count).map(|number| ReplicaId::from_random(1_000 + number as u64));
    // This replica, so that it has rights to grant.
    let to = ReplicaId::from_random(OWN);
    let counters = Counters { added: 1, ..Counters::default() };
    let stock = |replica| StockSlot { location: location.clone(), replica, sequence: 1, counters };
    let grant = |from| GrantSlot { location: location.clone(), from, to, sequence: 1, units: 1 };
    let taken = Taken { is_heir: true, ..Taken::default() };
    let inheritance = |from| InheritanceSlot { location: location.clone(), from, to, sequence: 1, taken };
    match kind {
        CROWDED => {
            Product::from_slots(others(STOCK_SLOTS_OPENED_MAX).map(stock).collect(), Vec::new(), None, None).unwrap()
        }
        254 => {
            Product::from_slots(Vec::new(), others(GRANT_SLOTS_OPENED_MAX).map(grant).collect(), None, None).unwrap()
        }
        _ => others(INHERITANCE_SLOTS_OPENED_MAX).map(inheritance).map(Product::of_inheritance).fold(
            Product::default(),
            |mut product, slot| {
                product.absorb(&slot);
                product
            },
        ),
    }
}

impl Node {
    /// Slots that were there before. What is its own of them it wrote, and no clock runs behind what is known.
    fn take(&mut self, sku: Sku, product: Product) {
        let own = product.slots().map(|slot| slot.dot()).filter(|dot| dot.replica == self.own);
        let written = own.map(|dot| dot.sequence).max().unwrap_or_default();
        let merged = self.table.merge(&[(sku, product)]);
        self.clock.observe(merged.stamp_max);
        self.table.claim_range(self.own, 1, written);
    }

    /// Those that counted something: an adjustment by nothing opens a slot all the same.
    fn own_counters(&self) -> BTreeMap<(Sku, Location), Counters> {
        let all = self.table.range(std::ops::Bound::Unbounded);
        let own = all.flat_map(|keyed| {
            let slots = keyed.product.stock().iter().filter(|slot| slot.replica == self.own);
            let slots = slots.filter(|slot| slot.counters != Counters::default());
            slots.map(|slot| ((keyed.sku.clone(), slot.location.clone()), slot.counters))
        });
        own.collect()
    }

    fn rights(&self, sku: &Sku, location: &Location) -> i128 {
        self.table.get(sku.as_str()).map_or(0, |keyed| keyed.product.rights(location, self.own))
    }

    fn evaluate(&self, request: &Request, now_ms: u64) -> (std::result::Result<Evaluation, OperationRefused>, Clock) {
        let writer = Writer { own: self.own, shards: ShardCount::new(1).unwrap(), drift_ms_max: self.drift_ms_max };
        let mut clock = self.clock.clone();
        let evaluated = writer.evaluate(request, self, &self.books, &mut clock, now_ms);
        (evaluated, clock)
    }

    fn apply(&mut self, request: &Request, now_ms: u64) {
        let (evaluated, clock) = self.evaluate(request, now_ms);
        assert_eq!(self.evaluate(request, now_ms).0, evaluated, "the same, twice");
        let evaluation = match evaluated {
            Ok(evaluation) => evaluation,
            Err(refused) => {
                if let OperationRefused::Insufficient { shortfalls } = &refused {
                    // Who has enough rights is refused only where the stock does not suffice.
                    assert!(shortfalls.iter().all(|short| short.lacking() > 0 || !short.can_be_helped()), "{refused}");
                }
                assert!(refused.to_string().contains("nothing was changed"), "{refused}");
                assert_eq!(clock.latest(), self.clock.latest(), "a refused request took a stamp");
                return;
            }
        };
        assert_eq!(evaluation.outcomes.len(), request.operations.len());
        assert_eq!(evaluation.differences().len(), request.operations.len());
        if evaluation.repeated {
            assert!(evaluation.shards.is_empty() && evaluation.movements.is_empty() && evaluation.holds.is_empty());
            return;
        }
        self.clock = clock;
        let before = self.own_counters();
        let rights = self.rights_of(request);
        self.check_named(request, &evaluation);
        self.write(&evaluation);
        self.check_ledger(before, &evaluation);
        for ((sku, location), before) in rights {
            let after = self.rights(&sku, &location);
            assert!(after >= before.min(0), "{request:?} took rights from {before} to {after}");
        }
        self.entries += 1;
        self.check_record(&evaluation, now_ms);
        for forgotten in self.books.enter(&evaluation, self.entries, now_ms) {
            assert!(self.books.hold(forgotten).is_none());
        }
        self.check_books(now_ms);
    }

    /// Rights before a request, of all places where it must not take them below zero (rule B2).
    fn rights_of(&self, request: &Request) -> BTreeMap<(Sku, Location), i128> {
        let is_fact = |operation: &Operation| match operation {
            Operation::Sell { policy, .. } => *policy == OversellPolicy::Backorder && request.may_backorder,
            Operation::Adjust { .. } | Operation::Stocktake { .. } => true,
            // A deficit passes to the heir.
            Operation::Inherit { .. } | Operation::Reapply { .. } => true,
            _ => false,
        };
        if request.operations.iter().any(is_fact) {
            return BTreeMap::new();
        }
        let places = request.operations.iter().flat_map(requests::places);
        places.map(|(sku, location)| ((sku.clone(), location.clone()), self.rights(sku, location))).collect()
    }

    /// Products that a request names, itself or by holds.
    fn check_named(&self, request: &Request, evaluation: &Evaluation) {
        let mut named: BTreeSet<&Sku> = request.operations.iter().filter_map(Operation::sku).collect();
        named.extend(self.books.holds().map(|hold| &hold.sku));
        let written = evaluation.shards.values().flat_map(|writes| writes.products.iter());
        assert!(written.into_iter().all(|(sku, _)| named.contains(sku)), "{request:?} wrote another product");
    }

    fn write(&mut self, evaluation: &Evaluation) {
        for writes in evaluation.shards.values() {
            let products = writes.products.as_products().into_owned();
            assert_eq!(products, writes.clone().into_products());
            assert_eq!(products.len(), writes.products.iter().count());
            let merged = self.table.merge(&products);
            // But where no greater number is left, which takes longer than anybody lives.
            assert!(merged.slots_changed > 0 || writes.to == u64::MAX, "a write that changes nothing");
            assert!(self.table.claim_range(self.own, writes.from, writes.to), "own writes leave no gap");
        }
        assert_eq!(self.table.fingerprint(), self.table.fingerprint_recomputed());
    }

    /// Rule D7: the lines of the ledger sum up to what changed of the own counters.
    fn check_ledger(&self, mut sums: BTreeMap<(Sku, Location), Counters>, evaluation: &Evaluation) {
        for movement in &evaluation.movements {
            // What moves rights moves no units.
            let moves_rights = movement.granted().is_some() || movement.inherited().is_some();
            assert!(!moves_rights || movement.counters() == Counters::default(), "{movement:?}");
            assert!(!movement.kind.label().is_empty());
            if let MovementKind::Adjusted(reason) = &movement.kind {
                assert_eq!(reason.to_string(), reason.label());
            }
            let counters = movement.counters();
            if counters != Counters::default() {
                let sum = sums.entry((movement.sku.clone(), movement.location.clone())).or_default();
                *sum = sum.plus(counters).unwrap();
            }
        }
        assert_eq!(self.own_counters(), sums, "rule D7");
        for hold in &evaluation.holds {
            if let HoldState::Committed { units, .. } = hold.state
                && units < hold.units
            {
                check_parts(hold, units, evaluation);
            }
        }
    }

    fn check_record(&self, evaluation: &Evaluation, now_ms: u64) {
        let (reference, content) =
            evaluation.reference.clone().map(|(name, hash)| (name, Fingerprint::from_bits(hash))).unzip();
        let (outcomes, movements) = (evaluation.outcomes.clone(), evaluation.movements.clone());
        let parts = vec![LedgerPart {
            replica: self.own,
            requests: vec![LedgerRequest { reference, content, outcomes, movements }],
        }];
        let record = LedgerRecord { time_ms: now_ms, references_back: 0, parts };
        assert_eq!(LedgerRecord::decode(&record.encode().unwrap()).unwrap(), record);
        for hold in &evaluation.holds {
            assert_eq!(Hold::decode(&hold.encode().unwrap()).unwrap(), *hold);
            assert_eq!(hold.id.to_string().parse::<HoldId>().unwrap(), hold.id);
            assert_eq!(hold.state.resolved_ms().is_none(), hold.state.to_string() == "active");
        }
    }

    fn check_books(&self, now_ms: u64) {
        let active: Vec<HoldId> = self.books.active_holds(None).map(|hold| hold.id).collect();
        assert_eq!(active.len(), self.books.holds_active());
        assert_eq!(self.books.next_expiry().map(|(_, id)| id), active.first().copied());
        let due: Vec<HoldId> = self.books.due(now_ms).collect();
        assert!(active.starts_with(&due), "what is due comes first");
        assert!(self.books.references() <= REFERENCES_MAX.max(1));
        assert_eq!(self.books.latest_ms().is_some(), self.books.references() > 0);
        let held: u128 = self.books.units_held().values().sum();
        let of_books = self.books.holds().filter(|hold| hold.state.resolved_ms().is_none());
        assert_eq!(held, of_books.map(|hold| u128::from(hold.units)).sum::<u128>());
    }

    /// Rules E4, E5: what is to be settled or brought is done by one operation each, and then there is nothing left.
    fn settle(&mut self, now_ms: u64) {
        let own = self.own;
        let all: Vec<Arc<KeyedProduct>> = self.table.range(std::ops::Bound::Unbounded).cloned().collect();
        for keyed in all {
            check_sums(&keyed.product);
            let (sku, product) = (keyed.sku.clone(), &keyed.product);
            for (location, from) in product.to_reapply(|replica| replica.bits() % 2 == 1) {
                let operation = Operation::Reapply { sku: sku.clone(), location: location.clone(), from };
                self.settle_one(operation, now_ms, |after| {
                    after.to_reapply(|replica| replica == from).iter().all(|place| place.0 != location)
                });
            }
            for (location, from) in product.to_settle(own) {
                let operation = Operation::Inherit { sku: sku.clone(), location: location.clone(), from };
                // As it is by now: what was brought before may have made it more.
                let rights = self.table.get(sku.as_str()).map_or(0, |keyed| keyed.product.rights(location, from));
                let is_much = rights.unsigned_abs() > i64::MAX.unsigned_abs().into();
                self.settle_one(operation, now_ms, |after| {
                    is_much || !after.to_settle(own).contains(&(location, from))
                });
            }
        }
    }

    fn settle_one(&mut self, operation: Operation, now_ms: u64, is_settled: impl Fn(&Product) -> bool) {
        let sku = operation.sku().cloned().unwrap();
        let (evaluated, _) = self.evaluate(&vec![operation.clone()].into(), now_ms);
        if evaluated.is_ok() {
            self.apply(&vec![operation.clone()].into(), now_ms);
            assert!(is_settled(&self.table.get(sku.as_str()).unwrap().product), "{operation:?} left something");
        }
    }
}

/// Of a hold that is committed in part, the rest is released in the same write: a branch of its own, so that inputs which get
/// here are kept.
fn check_parts(hold: &Hold, sold: u64, evaluation: &Evaluation) {
    let of = |kind: MovementKind| {
        let lines = evaluation.movements.iter().filter(|movement| movement.kind == kind && movement.sku == hold.sku);
        lines.map(|movement| movement.counters().released).sum::<u64>()
    };
    let parts = (of(MovementKind::Committed(hold.id)), of(MovementKind::Released(hold.id)));
    assert_eq!(parts, (sold, hold.units - sold), "rule O6");
}

/// Figures of a product that must fit each other.
fn check_sums(product: &Product) {
    if product.slot_count() > SUMMED_SLOTS_MAX {
        return;
    }
    for location in product.locations() {
        let rights = product.rights_at(location);
        assert_eq!(rights.values().sum::<i128>(), product.available_at(location), "rule B1");
        assert_eq!(product.available_at(location), product.on_hand_at(location) - product.held_at(location));
        for (replica, rights) in rights {
            assert_eq!(product.rights(location, replica), rights);
            let legacy = product.legacy(location, replica);
            assert!(i128::from(legacy.held) <= legacy.rights.max(0));
            let heir = product.heir(location, replica);
            assert!(
                heir.is_none_or(|heir| product.is_retired(location, replica) && !product.is_retired(location, heir))
            );
            assert!(product.estate(replica).iter().all(|(place, _)| product.locations().contains(place)));
        }
    }
    let by_place = |figure: fn(&Product, &Location) -> i128| -> i128 {
        product.locations().into_iter().map(|location| figure(product, location)).sum()
    };
    assert_eq!(product.on_hand(), by_place(Product::on_hand_at));
    assert_eq!(product.held(), by_place(Product::held_at));
    assert_eq!(product.oversold(), by_place(Product::oversold_at));
}
