//! Evaluation of operations: against a plain map, and all or none.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::{Clock, Stamp};
use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::limits::{HOLDS_ACTIVE_MAX, STOCK_SLOTS_OPENED_MAX};
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Books, Operation, OperationRefused, Writer};
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::{Location, Quantity, ShardIndex, Sku};

use crate::support::generate::operations;
use crate::support::replica::Replica;
use crate::support::{config, euros, location, replica_id, shard_count, sku};

proptest! {
    #![proptest_config(config(200))]

    /// What batches leave behind is what a plain map says: on hand by product and location, the last price and mark.
    #[test]
    fn batches_do_what_a_plain_map_does(batches in vec(operations(), 1..8), earlier in operations()) {
        let mut replica = Replica::new(replica_id(2), shard_count(4));
        let mut other = Replica::new(replica_id(1), shard_count(4));
        let mut on_hand = BTreeMap::<(Sku, Location), i128>::new();
        let (mut prices, mut marks) = (BTreeMap::new(), BTreeMap::new());
        other.write(&earlier, 1_000);
        crate::support::conversation::reconcile(&mut replica, &mut other, 1_000);
        // The clock steps back from batch to batch: later writes win all the same (rule C2).
        let batches = [earlier].into_iter().chain(batches);
        for (number, batch) in batches.enumerate() {
            if number > 0 {
                replica.write(&batch, 1_000 - u64::try_from(number).unwrap());
            }
            for operation in batch {
                match operation {
                    Operation::Adjust { sku, location, units, .. } => {
                        *on_hand.entry((sku, location)).or_default() += i128::from(units);
                    }
                    Operation::Stocktake { sku, location, counted } => {
                        on_hand.insert((sku, location), i128::from(counted));
                    }
                    Operation::SetPrice { sku, price } => {
                        prices.insert(sku, price);
                    }
                    Operation::SetListed { sku, listed } => {
                        marks.insert(sku, listed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let (products, ..) = replica.contents();
        for ((sku, location), units) in &on_hand {
            let found = products.get(sku).map(|product| product.on_hand_at(location)).unwrap_or_default();
            prop_assert_eq!(found, *units, "{} at {}", sku, location);
        }
        for (sku, product) in &products {
            prop_assert_eq!(product.price().map(|price| price.value), prices.get(sku).copied());
            prop_assert_eq!(product.listed().map(|listed| listed.value), marks.get(sku).copied());
        }
    }
}

fn adjust(name: &str, place: &str, units: i64) -> Operation {
    Operation::Adjust { sku: sku(name), location: location(place), units, reason: Reason::Correction }
}

/// Evaluates, and checks that a refusal moved nothing.
fn refusal(replica: &Replica, operations: &[Operation], mut clock: Clock) -> OperationRefused {
    let writer = Writer { own: replica.id, shards: replica.count, drift_ms_max: u64::MAX };
    let before = clock.latest();
    let refused =
        writer.evaluate(&operations.to_vec().into(), replica, &Books::default(), &mut clock, 1_000).unwrap_err();
    assert_eq!(clock.latest(), before, "the clock advances only if all succeed (rule O1)");
    refused
}

fn with_stock(slots: Vec<StockSlot>) -> Replica {
    let mut replica = Replica::new(replica_id(1), shard_count(1));
    let product = Product::from_slots(slots, Vec::new(), None, None).unwrap();
    replica.merge(ShardIndex(0), &[(sku("A"), product)]);
    replica
}

/// Rule C2: a clock that was once far ahead must not issue stamps that no peer takes. Counters go on.
#[test]
fn a_stamp_that_no_peer_would_take_refuses_the_group() {
    let replica = with_stock(Vec::new());
    let writer = Writer { own: replica.id, shards: replica.count, drift_ms_max: 60_000 };
    let ahead = Clock::resume(Stamp::from_bits(100_000 << 16));
    let price = [Operation::SetPrice { sku: sku("A"), price: euros(1) }];
    let refused =
        writer.evaluate(&price.to_vec().into(), &replica, &Books::default(), &mut ahead.clone(), 39_999).unwrap_err();
    let expected = OperationRefused::ClockAhead { sku: sku("A"), ahead_ms: 60_001, drift_ms_max: 60_000 };
    assert_eq!(refused, expected);
    assert!(writer.evaluate(&price.to_vec().into(), &replica, &Books::default(), &mut ahead.clone(), 40_000).is_ok());
    assert!(
        writer.evaluate(&vec![adjust("A", "x", 1)].into(), &replica, &Books::default(), &mut ahead.clone(), 0).is_ok()
    );
}

#[test]
fn a_counter_that_would_overflow_refuses_the_whole_group() {
    let counters = Counters { added: u64::MAX - 5, removed: u64::MAX - 5, ..Counters::default() };
    let replica =
        with_stock(vec![StockSlot { location: location("x"), replica: replica_id(1), sequence: 1, counters }]);
    for units in [6, -6, i64::MAX, i64::MIN] {
        let price = Operation::SetPrice { sku: sku("A"), price: euros(1) };
        let group = [price, adjust("A", "x", 3), adjust("A", "x", -3), adjust("A", "x", units)];
        assert_eq!(refusal(&replica, &group, Clock::default()), OperationRefused::Overflow { sku: sku("A") });
    }
    let writer = Writer { own: replica.id, shards: replica.count, drift_ms_max: u64::MAX };
    let within = [adjust("A", "x", 5), adjust("A", "x", -5)];
    assert!(writer.evaluate(&within.to_vec().into(), &replica, &Books::default(), &mut Clock::default(), 0).is_ok());
    let beyond = [adjust("A", "x", 5), adjust("A", "x", 1)];
    assert_eq!(refusal(&replica, &beyond, Clock::default()), OperationRefused::Overflow { sku: sku("A") });
}

#[test]
fn a_count_too_far_from_what_is_seen_is_refused() {
    let replica = with_stock(Vec::new());
    let group = [Operation::Stocktake { sku: sku("A"), location: location("x"), counted: u64::MAX }];
    assert_eq!(refusal(&replica, &group, Clock::default()), OperationRefused::Difference { sku: sku("A") });
}

#[test]
fn a_spent_clock_refuses_registers() {
    let replica = with_stock(Vec::new());
    let clock = Clock::resume(Stamp::from_bits(u64::MAX - 1));
    let price = Operation::SetPrice { sku: sku("A"), price: euros(1) };
    let listed = Operation::SetListed { sku: sku("A"), listed: true };
    assert!(matches!(refusal(&replica, &[price, listed], clock), OperationRefused::Clock(_)));
}

/// A product takes no new location beyond the limit, and goes on with those it has.
#[test]
fn locations_of_a_product_are_limited() {
    let slot = |number: usize| StockSlot {
        location: location(&format!("{number:04}")),
        replica: replica_id(if number == 0 { 1 } else { 2 }),
        sequence: 1,
        counters: Counters::default(),
    };
    let replica = with_stock((0..STOCK_SLOTS_OPENED_MAX).map(slot).collect());
    let refused = refusal(&replica, &[adjust("A", "new", 1)], Clock::default());
    assert_eq!(refused, OperationRefused::TooManySlots { sku: sku("A"), slots: STOCK_SLOTS_OPENED_MAX });
    let writer = Writer { own: replica.id, shards: replica.count, drift_ms_max: u64::MAX };
    assert!(
        writer
            .evaluate(&vec![adjust("A", "0000", 1)].into(), &replica, &Books::default(), &mut Clock::default(), 0)
            .is_ok()
    );
}

/// A hold more than may be active is refused, and possible again once one of them is resolved in the same request.
#[test]
fn holds_beyond_the_limit_are_refused() {
    let mut replica = Replica::new(replica_id(2), shard_count(4));
    replica.write(&[adjust("A", "x", 9)], 1_000);
    let mut books = Books::default();
    let id = |sequence: u64| HoldId { replica: replica.id, shard: ShardIndex(0), sequence };
    let hold = Hold {
        id: id(0),
        sku: sku("B"),
        location: location("x"),
        units: 0,
        given_ms: 0,
        expires_ms: u64::MAX,
        reference: None,
        state: HoldState::Active,
    };
    // Units of which nobody asks here.
    (1..=wide(HOLDS_ACTIVE_MAX)).for_each(|sequence| books.put_hold(Hold { id: id(sequence), ..hold.clone() }));
    let one_more =
        Operation::Hold { sku: sku("A"), location: location("x"), units: Quantity::new(1).unwrap(), ttl_ms: 10 };
    let writer = Writer { own: replica.id, shards: replica.count, drift_ms_max: u64::MAX };
    let evaluate = |operations: Vec<Operation>| {
        writer.evaluate(&operations.into(), &replica, &books, &mut Clock::default(), 1_000)
    };
    assert_eq!(
        evaluate(vec![one_more.clone()]).unwrap_err(),
        OperationRefused::TooManyHolds { holds: HOLDS_ACTIVE_MAX }
    );
    assert!(evaluate(vec![Operation::ReleaseHold { id: id(1) }, one_more.clone()]).is_ok());
    let twice = evaluate(vec![Operation::ReleaseHold { id: id(1) }, one_more.clone(), one_more]);
    assert_eq!(twice.unwrap_err(), OperationRefused::TooManyHolds { holds: HOLDS_ACTIVE_MAX });
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}
