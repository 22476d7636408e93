//! Scripted cases of grants: lost and repeated answers, and answers that no honest replica would give (rules B3 to B5).

use stockmesh_proto::check::{DeltaRefused, check_granted};
use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::product::{GrantSlot, Product, StockSlot};
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{Ask, Granted, Message};
use stockmesh_proto::{Location, ReplicaId, ShardCount, ShardIndex, Sku};

use super::directed::Script;
use crate::support::{euros, location, replica_id, shard_count, sku};

#[test]
fn rights_move_and_are_never_made() {
    let mut script = Script::new(3);
    script.receive(0, 10);
    for (asker, giver, needed, rights) in
        [(1, 0, 6, [4, 6, 0]), (2, 1, 9, [4, 0, 6]), (1, 0, 4, [0, 4, 6]), (1, 0, 1, [0, 4, 6])]
    {
        script.grant(asker, giver, needed);
        assert_eq!([0, 1, 2].map(|index| script.rights(index)), rights.map(i128::from));
    }
    script.meet();
    for (index, units) in [(1, 4), (2, 6)] {
        assert!(script.sell(index, units + 1).is_err());
        assert!(script.sell(index, units).is_ok());
    }
    script.meet();
    assert_eq!(script.available(0), 0);
}

/// The answer is lost and the question asked anew: more moves, nothing twice, and what was lost comes another way.
#[test]
fn an_answer_that_was_lost_moves_more_and_never_doubles() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.world.ask(1, 0, &script.sku, &script.place, (3, 0));
    script.world.network.pop_front().unwrap();
    script.world.ask(1, 0, &script.sku, &script.place, (3, 0));
    script.world.deliver(0, false);
    script.world.sync(0);
    script.world.network.clear();
    assert_eq!((script.rights(0), script.rights(1)), (7, 0), "the giver keeps its word");
    script.grant(1, 0, 3);
    assert_eq!((script.rights(0), script.rights(1)), (4, 6), "the new answer shows both grants");
    script.meet();
    assert_eq!((script.rights(0), script.rights(1), script.available(1)), (4, 6, 10));
}

/// The same question comes twice, and the same answer: two grants of one counter, and each answer counts once.
#[test]
fn doubled_questions_and_answers_move_what_was_given() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.world.network.clear();
    script.world.ask(1, 0, &script.sku, &script.place, (3, 0));
    // Both within one group commit: each answer shows the counter as it was then.
    script.world.deliver(0, true);
    script.world.deliver(0, false);
    script.world.sync(0);
    assert_eq!(script.rights(0), 4);
    while !script.world.network.is_empty() {
        script.world.deliver(script.world.network.len() - 1, true);
        script.world.deliver(script.world.network.len() - 1, false);
        script.check();
    }
    assert_eq!((script.rights(1), script.available(1)), (6, 10));
}

/// Rule B3.
#[test]
fn a_grant_that_is_not_durable_is_not_told() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.world.network.clear();
    script.world.ask(1, 0, &script.sku, &script.place, (10, 0));
    script.world.deliver(0, false);
    assert!(script.world.network.is_empty());
    script.world.crash(0);
    script.world.sync(0);
    assert!(script.world.network.is_empty());
    assert_eq!((script.rights(0), script.rights(1)), (10, 0));
    assert!(script.sell(0, 10).is_ok());
}

#[test]
fn a_replica_grants_nothing_to_itself_and_nothing_it_lacks() {
    let mut script = Script::new(2);
    script.receive(0, 5);
    let own = script.world.nodes[0].id;
    for (to, units, given) in
        [(own, 3, 0), (replica_id(50), 0, 0), (replica_id(50), u64::MAX, 5), (replica_id(50), 1, 0)]
    {
        let (sku, location) = (script.sku.clone(), script.place.clone());
        let before = script.rights(0);
        script.one(0, Operation::Grant { sku, location, to, units }).unwrap();
        assert_eq!(before - script.rights(0), given);
    }
}

type Change = fn(&mut Answer);

struct Answer {
    ask: Ask,
    granted: Granted,
    count: ShardCount,
}

const GIVER: u64 = 1;
const ASKER: u64 = 2;

impl Answer {
    fn honest() -> Self {
        let (sku, location, count) = (sku("A"), location("x"), shard_count(4));
        let ask = Ask { sku: sku.clone(), location, needed: 5, rights: 0, per_hour: 0 };
        let products = vec![(sku.clone(), shown("x", GIVER, ASKER, 9))];
        let granted = Granted { units: 5, sequence: 7, shard: count.shard_of(&sku), products };
        Self { ask, granted, count }
    }

    fn check(&self) -> Result<(), DeltaRefused> {
        // Through the wire, as it comes.
        let bytes = Message::Granted(self.granted.clone()).encode().unwrap();
        let Message::Granted(granted) = Message::decode(&bytes[4..]).unwrap() else { panic!("another message") };
        assert_eq!(granted, self.granted);
        check_granted(&granted, &self.ask, (replica_id(GIVER), replica_id(ASKER)), self.count)
    }

    fn product(&mut self) -> &mut Product {
        &mut self.granted.products[0].1
    }
}

/// Stock of a third replica, and a grant.
fn shown(place: &str, from: u64, to: u64, units: u64) -> Product {
    let counters = Counters { added: 20, ..Counters::default() };
    let mut product = Product::of_stock(stock(place, replica_id(3), counters));
    product.absorb(&Product::of_grant(GrantSlot {
        location: location(place),
        from: replica_id(from),
        to: replica_id(to),
        sequence: 7,
        units,
    }));
    product
}

fn stock(place: &str, replica: ReplicaId, counters: Counters) -> StockSlot {
    StockSlot { location: Location::new(place).unwrap(), replica, sequence: 1, counters }
}

#[test]
fn an_honest_answer_passes() {
    let mut answer = Answer::honest();
    assert_eq!(answer.check(), Ok(()));
    answer.product().absorb(&shown("x", 3, 4, 2));
    assert_eq!(answer.check(), Ok(()), "grants among others belong to what it knows");
    answer.granted.units = 9;
    assert_eq!(answer.check(), Ok(()), "the first grant to this asker");
    // Nothing given: with what it knows, or knowing nothing.
    (answer.granted.units, answer.granted.sequence) = (0, 0);
    assert_eq!(answer.check(), Ok(()));
    answer.granted.products.clear();
    assert_eq!(answer.check(), Ok(()));
}

#[test]
fn an_answer_that_does_not_carry_its_grant_is_refused() {
    let refused = || Err(DeltaRefused::NotGranted { sku: sku("A") });
    let changes: [(&str, Change); 12] = [
        ("nothing carried", |answer| answer.granted.products.clear()),
        ("another product", |answer| answer.granted.products[0].0 = sku("B")),
        ("a second product", |answer| {
            let product = answer.granted.products[0].1.clone();
            answer.granted.products.push((sku("B"), product));
        }),
        ("stock at another place", |answer| {
            let counters = Counters { added: 1, ..Counters::default() };
            answer.product().absorb(&Product::of_stock(stock("y", replica_id(3), counters)));
        }),
        ("a grant at another place", |answer| {
            let (from, to) = (replica_id(GIVER), replica_id(ASKER));
            let grant = GrantSlot { location: location("y"), from, to, sequence: 7, units: 9 };
            answer.product().absorb(&Product::of_grant(grant));
        }),
        ("a price", |answer| {
            let dot = Dot { replica: replica_id(GIVER), sequence: 8 };
            let register = Register { value: euros(1), stamp: Stamp::from_bits(1), dot };
            answer.product().absorb(&Product::of_price(register));
        }),
        ("a mark", |answer| {
            let dot = Dot { replica: replica_id(GIVER), sequence: 8 };
            answer.product().absorb(&Product::of_listed(Register { value: true, stamp: Stamp::from_bits(1), dot }));
        }),
        ("a grant to somebody else", |answer| *answer.product() = shown("x", GIVER, 4, 9)),
        ("a grant by somebody else", |answer| *answer.product() = shown("x", 3, ASKER, 9)),
        ("a number that is not carried", |answer| answer.granted.sequence = 8),
        ("no number", |answer| answer.granted.sequence = 0),
        ("more than the counter says", |answer| answer.granted.units = 10),
    ];
    for (what, change) in changes {
        let mut answer = Answer::honest();
        change(&mut answer);
        assert_eq!(answer.check(), refused(), "{what}");
    }
}

#[test]
fn an_answer_of_another_shard_is_refused() {
    let mut answer = Answer::honest();
    for shard in answer.count.indexes().chain([ShardIndex(4), ShardIndex(u16::MAX)]) {
        if shard != answer.count.shard_of(&answer.ask.sku) {
            answer.granted.shard = shard;
            assert_eq!(answer.check(), Err(DeltaRefused::ForeignProduct { sku: answer.ask.sku.clone(), shard }));
        }
    }
}

/// What others wrote is judged by the same rule as anywhere: an own write that this replica never made shows a copy.
#[test]
fn an_answer_that_shows_an_own_future_is_noticed() {
    let script = Script::new(2);
    let own: ReplicaId = script.world.nodes[1].id;
    let sku: &Sku = &script.sku;
    let counters = Counters { added: 1, ..Counters::default() };
    let products = vec![(sku.clone(), Product::of_stock(stock("x", own, counters)))];
    let shard = script.world.count().shard_of(sku);
    assert!(script.world.nodes[1].shows_own_future(shard, &products, None));
    assert!(!script.world.nodes[0].shows_own_future(shard, &products, None));
    // A claim alone shows it too: its slots may have been superseded.
    let claim = [(own, 1)].into_iter().collect();
    assert!(script.world.nodes[1].shows_own_future(shard, &[], Some(&claim)));
    assert!(!script.world.nodes[0].shows_own_future(shard, &[], Some(&claim)));
    // So does another history of a write that was made: same number, other counters.
    let mut script = Script::new(1);
    script.receive(0, 5);
    let own = script.world.nodes[0].id;
    let shard = script.world.count().shard_of(&script.sku);
    for (added, is_other) in [(5, false), (4, false), (6, true)] {
        let counters = Counters { added, ..Counters::default() };
        let products = vec![(script.sku.clone(), Product::of_stock(stock("x", own, counters)))];
        assert_eq!(script.world.nodes[0].shows_own_future(shard, &products, None), is_other, "{added}");
    }
}
