//! What is refused around retired replicas, what comes to nothing, and numbers at their limits (rules E4 to E6).

use stockmesh_proto::check::shows_retirement;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::limits;
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome};
use stockmesh_proto::product::{GrantSlot, Product, StockSlot};

use super::directed::Script;
use super::heirs::{DEAD, HEIR, THIRD};
use super::steps::quantity;
use crate::support::{location, replica_id};

/// Rules E4, E6: what is refused, and what comes to nothing.
#[test]
fn who_is_retired_writes_nothing_there_and_gets_nothing() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.receive(THIRD, 10);
    script.meet();
    let (dead, sku, place) = (script.id(DEAD), script.sku.clone(), script.place.clone());
    let own = script.id(HEIR);
    let myself = script.inherit(own);
    assert_eq!(script.one(HEIR, myself), Err(OperationRefused::InheritsFromItself { sku: sku.clone() }));
    let before = script.reapply(dead);
    assert_eq!(script.one(HEIR, before), Ok(vec![Outcome::Reapplied { added: 0, removed: 0 }]), "it was not retired");
    let inherit = script.inherit(dead);
    // Not by the rules, which ask for a fence first; and the retired one has not heard of it.
    assert_eq!(script.one(HEIR, inherit), Ok(vec![Outcome::Inherited { units: 10, held: 0 }]));
    let slots = script.product(HEIR).at_location(&place);
    assert!(shows_retirement(dead, &[(sku.clone(), slots.clone())]) && !shows_retirement(own, &[(sku.clone(), slots)]));
    // It merges without a look, as no replica should: then it must at least write nothing.
    let shard = script.world.count().shard_of(&sku);
    let product = script.product(HEIR);
    script.world.nodes[DEAD].merge(shard, &[(sku.clone(), product)]);
    let refused = || OperationRefused::Retired { sku: sku.clone(), location: place.clone(), own: dead };
    let units = quantity(1);
    for operation in [
        Operation::Receive { sku: sku.clone(), location: place.clone(), units },
        Operation::Grant { sku: sku.clone(), location: place.clone(), to: own, units: 1 },
        Operation::Transfer { sku: sku.clone(), from: location("elsewhere"), to: place.clone(), units },
        script.inherit(own),
        script.reapply(own),
    ] {
        let done = script.world.request(DEAD, &vec![operation].into());
        assert_eq!(done, Err(refused()));
    }
    // Elsewhere it is not retired.
    let elsewhere = Operation::Receive { sku: sku.clone(), location: location("elsewhere"), units };
    assert_eq!(script.world.request(DEAD, &vec![elsewhere].into()), Ok(vec![Outcome::Done]));
    script.world.reconcile(HEIR, THIRD, usize::MAX);
    let grant = Operation::Grant { sku, location: place, to: dead, units: 3 };
    assert_eq!(script.one(THIRD, grant), Ok(vec![Outcome::Granted { units: 0, sequence: 0 }]));
    assert_eq!(script.rights(THIRD), 10);
}

/// Rule E4: a place where nothing was is frozen all the same if it is asked for, and limits hold.
#[test]
fn an_empty_place_is_frozen_and_slots_are_limited() {
    let mut script = Script::new(2);
    script.receive(0, 1);
    let nobody = replica_id(5_000);
    let inherit = script.inherit(nobody);
    assert_eq!(script.one(0, inherit.clone()), Ok(vec![Outcome::Inherited { units: 0, held: 0 }]));
    assert!(script.product(0).is_retired(&script.place, nobody));
    let writes = script.world.nodes[0].shard(script.world.count().shard_of(&script.sku)).version().get(script.id(0));
    assert_eq!(script.one(0, inherit), Ok(vec![Outcome::Inherited { units: 0, held: 0 }]));
    let after = script.world.nodes[0].shard(script.world.count().shard_of(&script.sku)).version().get(script.id(0));
    assert_eq!((writes, after), (2, 2), "the second time nothing is written");

    let slots = u64::try_from(limits::INHERITANCE_SLOTS_OPENED_MAX).unwrap();
    let batch: Vec<Operation> = (1..slots).map(|bits| script.inherit(replica_id(6_000 + bits))).collect();
    assert!(script.world.request(0, &batch.into()).is_ok());
    let one_more = script.inherit(replica_id(5_999));
    let (sku, slots) = (script.sku.clone(), limits::INHERITANCE_SLOTS_OPENED_MAX);
    let now_ms = script.world.clock(0);
    assert_eq!(
        script.world.nodes[0].apply(&vec![one_more].into(), now_ms),
        Err(OperationRefused::TooManySlots { sku, slots })
    );
}

/// Numbers at their limits pass as far as they can, and what would overflow is refused whole.
#[test]
fn what_does_not_fit_a_counter_is_refused_whole() {
    let mut script = Script::new(2);
    let (sku, place, own, dead) = (script.sku.clone(), script.place.clone(), script.id(0), replica_id(77));
    let shard = script.world.count().shard_of(&sku);
    let now_ms = script.world.clock(0);
    let stock = |added: u64, removed: u64| {
        let counters = Counters { added, removed, ..Counters::default() };
        let slot = StockSlot { location: location("x"), replica: dead, sequence: 9, counters };
        Product::of_stock(slot)
    };
    script.world.nodes[0].merge(shard, &[(sku.clone(), stock(u64::MAX, 0))]);
    let inherit = script.inherit(dead);
    let mut units = Vec::new();
    for _ in 0..4 {
        let done = script.world.nodes[0].apply(&vec![inherit.clone()].into(), now_ms).unwrap();
        let [Outcome::Inherited { units: passed, .. }] = done.outcomes[..] else { panic!("{done:?}") };
        units.push(passed);
    }
    assert_eq!(units, [i64::MAX, i64::MAX, 1, 0], "in parts");
    assert_eq!((script.rights(0), script.rights_of(0, dead)), (i128::from(u64::MAX), 0));
    // Another unit turns up: the counter is full.
    let mut grant =
        Product::of_grant(GrantSlot { location: place.clone(), from: replica_id(78), to: dead, sequence: 1, units: 1 });
    grant.absorb(&stock(u64::MAX, u64::MAX));
    script.world.nodes[0].merge(shard, &[(sku.clone(), grant)]);
    let before = script.world.nodes[0].tree.clone();
    let other = Operation::Receive { sku: sku.clone(), location: place, units: quantity(1) };
    let done = script.world.nodes[0].apply(&vec![other, inherit].into(), now_ms);
    assert_eq!(done, Err(OperationRefused::Overflow { sku: sku.clone() }));
    assert_eq!(script.world.nodes[0].tree, before, "nothing of it was done");
    let reapply = script.reapply(dead);
    let done = script.world.nodes[0].apply(&vec![reapply].into(), now_ms);
    assert_eq!(done, Err(OperationRefused::Overflow { sku }), "more than a movement can tell");
    assert_ne!(own, dead);
}
