//! Scripted cases of sales, facts, backorders, transfers, references and restored copies.

use stockmesh_proto::hold::HoldId;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, OversellPolicy, Request, Shortfall};
use stockmesh_proto::{Location, Reference, Sku};

use super::checks::ALL;
use super::steps::quantity;
use super::world::World;
use crate::support::{location, sku};

pub(super) type Done = Result<Vec<Outcome>, OperationRefused>;

/// A world with one product at one place, in which everything that is done is durable and checked at once.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) world: World,
    pub(super) sku: Sku,
    pub(super) place: Location,
}

impl Script {
    pub(super) fn new(replicas: usize) -> Self {
        Self { world: World::new(replicas, 1_000, ALL), sku: sku("A"), place: location("x") }
    }

    pub(super) fn run(&mut self, index: usize, request: &Request) -> Done {
        let done = self.world.request(index, request);
        self.world.sync(index);
        self.check();
        done
    }

    pub(super) fn check(&self) {
        (0..self.world.nodes.len()).for_each(|index| assert_eq!(self.world.check(index), Ok(())));
    }

    pub(super) fn one(&mut self, index: usize, operation: Operation) -> Done {
        self.run(index, &vec![operation].into())
    }

    pub(super) fn receive(&mut self, index: usize, units: u64) {
        let (sku, location) = (self.sku.clone(), self.place.clone());
        self.one(index, Operation::Receive { sku, location, units: quantity(units) }).unwrap();
    }

    pub(super) fn adjust(&mut self, index: usize, units: i64) {
        let (sku, location) = (self.sku.clone(), self.place.clone());
        self.one(index, Operation::Adjust { sku, location, units, reason: Reason::Lost }).unwrap();
    }

    pub(super) fn sale(&self, units: u64, policy: OversellPolicy) -> Operation {
        Operation::Sell { sku: self.sku.clone(), location: self.place.clone(), units: quantity(units), policy }
    }

    pub(super) fn sell(&mut self, index: usize, units: u64) -> Done {
        self.one(index, self.sale(units, OversellPolicy::Refuse))
    }

    pub(super) fn meet(&mut self) {
        for (left, right) in [(0, 1), (1, 2), (0, 2), (0, 1)] {
            if right < self.world.nodes.len() {
                self.world.reconcile(left, right, usize::MAX);
            }
        }
        self.check();
    }

    /// Asks, and brings question and answer; the giver syncs in between.
    pub(super) fn grant(&mut self, asker: usize, giver: usize, needed: u64) {
        self.world.network.clear();
        self.world.ask(asker, giver, &self.sku, &self.place, (needed, 0));
        self.world.deliver(0, false);
        self.world.sync(giver);
        while !self.world.network.is_empty() {
            self.world.deliver(0, false);
        }
        self.world.sync(asker);
        self.check();
    }

    pub(super) fn rights(&self, index: usize) -> i128 {
        let node = &self.world.nodes[index];
        node.product_of(&self.sku).rights(&self.place, node.id)
    }

    pub(super) fn available(&self, index: usize) -> i128 {
        self.world.nodes[index].product_of(&self.sku).available_at(&self.place)
    }

    pub(super) fn shortfall(&self, wanted: u64, rights: i128, available: i128) -> Shortfall {
        let in_stock = available >= i128::from(wanted);
        Shortfall { sku: self.sku.clone(), location: self.place.clone(), wanted, rights, available, in_stock }
    }

    fn refused(&self, wanted: u64, rights: i128, available: i128) -> Done {
        Err(OperationRefused::Insufficient { shortfalls: vec![self.shortfall(wanted, rights, available)] })
    }
}

/// Rule B2: rights that the stock no longer covers sell nothing.
#[test]
fn a_deficit_elsewhere_that_is_known_stops_a_sale_within_rights() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.grant(1, 0, 6);
    script.adjust(0, -8);
    assert_eq!((script.rights(0), script.rights(1)), (-4, 6));
    // Not heard of yet: the loss cannot stop it, and what is sold now goes beyond the stock by the loss alone.
    assert_eq!(script.available(1), 10);
    script.meet();
    assert_eq!(script.sell(1, 3), script.refused(3, 6, 2));
    assert_eq!(script.sell(1, 2), Ok(vec![Outcome::Done]));
    assert_eq!(script.sell(1, 1), script.refused(1, 4, 0));
}

#[test]
fn a_surplus_at_one_shop_does_not_hide_the_loss_of_another() {
    let mut script = Script::new(3);
    script.receive(0, 10);
    script.receive(1, 5);
    script.adjust(1, -12);
    script.meet();
    assert_eq!((script.rights(0), script.rights(1), script.available(0)), (10, -7, 3));
    let product = script.world.nodes[0].product_of(&script.sku);
    assert_eq!(product.oversold_at(&script.place), 7, "it shows, although there is stock over all");
    assert_eq!(script.sell(1, 1), script.refused(1, -7, 3));
    // What comes to the shop with the loss pays it back first, by whichever way it comes.
    script.grant(1, 0, 8);
    assert_eq!((script.rights(0), script.rights(1)), (2, 1));
    assert_eq!(script.sell(1, 2), script.refused(2, 1, 3));
    assert_eq!(script.sell(1, 1), Ok(vec![Outcome::Done]));
}

/// The check is known to bite: the same sales as plain adjustments take more than there is.
#[test]
fn adjustments_oversell_where_sales_do_not() {
    let mut sold = [0, 0];
    for (number, is_adjusted) in [(0, true), (1, false)] {
        let mut script = Script::new(2);
        script.receive(0, 10);
        script.meet();
        script.grant(1, 0, 5);
        script.world.sides = vec![0, 1];
        for _ in 0..10 {
            for index in [0, 1] {
                if is_adjusted {
                    script.adjust(index, -1);
                    sold[number] += 1;
                } else if script.sell(index, 1).is_ok() {
                    sold[number] += 1;
                }
            }
        }
        script.world.heal();
        script.check();
        assert_eq!(script.available(0), 10 - sold[number]);
    }
    assert_eq!(sold, [20, 10]);
}

/// Rule O3.
#[test]
fn what_comes_in_pays_a_backorder_back_first() {
    let mut script = Script::new(2);
    script.receive(0, 3);
    let backorder = script.sale(8, OversellPolicy::Backorder);
    // As long as others may have rights, what is lacking is told instead.
    let asking = Request { may_backorder: false, ..vec![backorder.clone()].into() };
    assert_eq!(script.run(0, &asking), script.refused(8, 3, 3));
    assert_eq!(script.one(0, backorder), Ok(vec![Outcome::Done]));
    assert_eq!((script.rights(0), script.available(0)), (-5, -5));
    script.receive(0, 4);
    assert_eq!(script.sell(0, 1), script.refused(1, -1, -1));
    script.receive(0, 3);
    assert_eq!(script.sell(0, 2), Ok(vec![Outcome::Done]));
    assert_eq!(script.sell(0, 1), script.refused(1, 0, 0));
}

/// Rule O1: of what only lacks rights, everything is told at once, and nothing is done.
#[test]
fn a_batch_is_done_whole_or_not_and_all_shortfalls_are_told() {
    let mut script = Script::new(2);
    let (sell, none) = (OversellPolicy::Refuse, Done::Ok(Vec::new()));
    let sale = |name: &str, units: u64| Operation::Sell {
        sku: sku(name),
        location: location("x"),
        units: quantity(units),
        policy: sell,
    };
    for (name, units) in [("A", 5), ("B", 5), ("C", 5)] {
        let (sku, location) = (sku(name), location("x"));
        script.one(0, Operation::Receive { sku, location, units: quantity(units) }).unwrap();
    }
    let batch = vec![sale("A", 4), sale("B", 6), sale("A", 2), sale("C", 5), sale("C", 1), sale("B", 1)];
    // Counted from the rights before the request: what it takes of them with all its sales together.
    let lacks = |name: &str, wanted: u64, available: i128| Shortfall {
        sku: sku(name),
        location: location("x"),
        wanted,
        rights: 5,
        available,
        in_stock: false,
    };
    let shortfalls = vec![lacks("A", 6, 1), lacks("B", 7, 5), lacks("C", 6, 0)];
    let before = script.world.nodes[0].tree.clone();
    assert_eq!(script.run(0, &batch.into()), Err(OperationRefused::Insufficient { shortfalls }));
    assert_eq!(script.world.nodes[0].tree, before);
    assert_eq!(script.run(0, &Request::default()), none);
    let batch = vec![sale("A", 4), sale("B", 5), sale("A", 1), sale("C", 5)];
    assert_eq!(script.run(0, &batch.into()), Ok(vec![Outcome::Done; 4]));
}

#[test]
fn a_stocktake_below_the_rights_blocks_sales_until_it_is_paid_back() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.grant(1, 0, 6);
    let (sku, location) = (script.sku.clone(), script.place.clone());
    let count = Operation::Stocktake { sku, location, counted: 1 };
    assert_eq!(script.one(0, count.clone()), Ok(vec![Outcome::Difference(-9)]));
    assert_eq!((script.rights(0), script.available(0)), (-5, 1));
    assert_eq!(script.sell(0, 1), script.refused(1, -5, 1));
    assert_eq!(script.one(0, count), Ok(vec![Outcome::Difference(0)]), "it is seen, and counted once");
    // It has nothing to give either.
    script.grant(1, 0, 1);
    assert_eq!((script.rights(0), script.rights(1)), (-5, 6));
    assert_eq!(script.sell(1, 2), script.refused(2, 6, 1));
    script.receive(0, 6);
    assert_eq!(script.sell(0, 1), Ok(vec![Outcome::Done]));
}

#[test]
fn a_transfer_stays_within_the_rights() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.grant(1, 0, 6);
    let (sku, from) = (script.sku.clone(), script.place.clone());
    let transfer = |to: &str, units: u64| Operation::Transfer {
        sku: sku.clone(),
        from: from.clone(),
        to: location(to),
        units: quantity(units),
    };
    assert_eq!(script.one(0, transfer("y", 5)), script.refused(5, 4, 10));
    let same = OperationRefused::SameLocation { sku: sku.clone(), location: from.clone() };
    assert_eq!(script.one(0, transfer("x", 1)), Err(same));
    assert_eq!(script.one(0, transfer("y", 4)), Ok(vec![Outcome::Done]));
    let product = script.world.nodes[0].product_of(&script.sku);
    let there = location("y");
    assert_eq!((product.available_at(&script.place), product.available_at(&there)), (6, 4));
    assert_eq!(product.rights(&there, script.world.nodes[0].id), 4);
    assert_eq!(script.one(0, transfer("y", 1)), script.refused(1, 0, 6));
}

/// Rule O4: across a crash too, as long as it was acknowledged.
#[test]
fn a_request_that_is_sent_again_is_done_once() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let reference = Some(Reference::new("order-1").unwrap());
    let request = Request { reference, ..vec![script.sale(4, OversellPolicy::Refuse)].into() };
    assert!(script.world.request(0, &request).is_ok());
    script.world.crash(0);
    assert_eq!(script.rights(0), 10, "it was not durable, so nobody was told");
    for _ in 0..3 {
        assert_eq!(script.run(0, &request), Ok(vec![Outcome::Done]));
        script.world.crash(0);
        assert_eq!(script.rights(0), 6);
    }
    let other = Request { operations: vec![script.sale(3, OversellPolicy::Refuse)], ..request.clone() };
    let reused = OperationRefused::ReferenceReused { reference: request.reference.clone().unwrap() };
    assert_eq!(script.run(0, &other), Err(reused));
    assert_eq!(script.rights(0), 6);
    // References are a replica's own: another one does not know them.
    script.grant(1, 0, 5);
    assert_eq!(script.run(1, &request), Ok(vec![Outcome::Done]));
    assert_eq!((script.rights(0), script.rights(1)), (1, 1));
}

/// Rule B6.
#[test]
fn a_restored_copy_has_no_rights_and_holds_of_the_old_id() {
    for is_declared in [false, true] {
        let mut script = Script::new(2);
        script.receive(0, 10);
        let (sku, location) = (script.sku.clone(), script.place.clone());
        let hold = Operation::Hold { sku, location, units: quantity(2), ttl_ms: 1_000 };
        let Ok([Outcome::Held { id, .. }]) = script.one(0, hold).as_deref().map(|held| [held[0]]) else {
            panic!("not held")
        };
        script.world.backup(0);
        script.sell(0, 5).unwrap();
        script.meet();
        let old = script.world.nodes[0].id;
        script.world.restore(0, 0, is_declared);
        script.meet();
        let own = script.world.nodes[0].id;
        assert_ne!(own, old);
        assert_eq!((script.rights(0), script.available(0)), (0, 3));
        assert_eq!(script.sell(0, 1), script.refused(1, 0, 3));
        for operation in
            [Operation::CommitHold { id, units: None }, Operation::ReleaseHold { id }, Operation::ExpireHold { id }]
        {
            assert_eq!(script.one(0, operation), Err(OperationRefused::HoldElsewhere { id, own }));
        }
        // Nobody can give it what the old id had; what comes in now is its own.
        script.grant(0, 1, 3);
        assert_eq!(script.rights(0), 0);
        script.receive(0, 4);
        assert_eq!(script.sell(0, 4), Ok(vec![Outcome::Done]));
        script.meet();
        assert_eq!(script.available(1), 3);
    }
}

/// Requests of which each differs from each other, some in one small part. The last lacks rights.
fn requests(id: HoldId) -> Vec<Vec<Operation>> {
    let (other, sku, x, y) = (sku("B"), sku("A"), location("x"), location("y"));
    let sell = |sku: &Sku, location: &Location, units: u64, policy: OversellPolicy| Operation::Sell {
        sku: sku.clone(),
        location: location.clone(),
        units: quantity(units),
        policy,
    };
    let hold = |units: u64, ttl_ms: u64| Operation::Hold {
        sku: sku.clone(),
        location: x.clone(),
        units: quantity(units),
        ttl_ms,
    };
    let transfer = |from: &Location, to: &Location| Operation::Transfer {
        sku: sku.clone(),
        from: from.clone(),
        to: to.clone(),
        units: quantity(1),
    };
    let adjust =
        |units: i64, reason: Reason| Operation::Adjust { sku: sku.clone(), location: x.clone(), units, reason };
    let (refuse, backorder) = (OversellPolicy::Refuse, OversellPolicy::Backorder);
    let commit = |units: Option<u64>| Operation::CommitHold { id, units: units.map(quantity) };
    vec![
        vec![sell(&sku, &x, 1, refuse)],
        vec![sell(&sku, &x, 2, refuse)],
        vec![sell(&sku, &x, 1, backorder)],
        vec![sell(&sku, &y, 1, backorder)],
        vec![sell(&other, &x, 1, backorder)],
        vec![sell(&sku, &x, 1, refuse), sell(&sku, &x, 1, refuse)],
        vec![Operation::Receive { sku: sku.clone(), location: x.clone(), units: quantity(1) }],
        vec![adjust(1, Reason::Found)],
        vec![adjust(-1, Reason::Found)],
        vec![adjust(1, Reason::Returned)],
        vec![Operation::Stocktake { sku: sku.clone(), location: x.clone(), counted: 1 }],
        vec![Operation::Stocktake { sku: sku.clone(), location: x.clone(), counted: 2 }],
        vec![hold(1, 1)],
        vec![hold(1, 2)],
        vec![transfer(&x, &y)],
        vec![commit(None)],
        vec![commit(Some(3))],
        vec![commit(Some(2))],
        vec![Operation::ReleaseHold { id }],
        vec![Operation::ExpireHold { id }],
        Vec::new(),
        vec![transfer(&y, &x)],
    ]
}

/// Rule O4: whatever differs in content makes it another request.
#[test]
fn every_part_of_a_request_counts_as_its_content() {
    let mut script = Script::new(2);
    script.receive(0, 50);
    let (sku, location) = (script.sku.clone(), script.place.clone());
    let hold = Operation::Hold { sku, location, units: quantity(3), ttl_ms: 9 };
    let Ok([Outcome::Held { id, .. }]) = script.one(0, hold).as_deref().map(|held| [held[0]]) else {
        panic!("not held")
    };
    let all = requests(id);
    for (number, first) in all.iter().enumerate() {
        let reference = Some(Reference::new(&format!("order-{number}")).unwrap());
        let mut world = World::new(2, 1_000, ALL);
        world.nodes.clone_from(&script.world.nodes);
        let request = |operations: &Vec<Operation>| Request {
            operations: operations.clone(),
            reference: reference.clone(),
            may_backorder: true,
        };
        let is_done = world.request(0, &request(first)).is_ok();
        let lacks_rights = number == all.len() - 1;
        assert_eq!(is_done, !lacks_rights, "{first:?}");
        if lacks_rights {
            continue;
        }
        for other in all.iter().filter(|other| *other != first) {
            let reused = OperationRefused::ReferenceReused { reference: reference.clone().unwrap() };
            assert_eq!(world.request(0, &request(other)), Err(reused), "{first:?} and {other:?}");
        }
        assert!(world.request(0, &request(first)).is_ok());
    }
}
