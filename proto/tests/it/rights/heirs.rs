//! Scripted cases of retired replicas: each order of fence, late write and return of the dead (rules E1 to E7).

use stockmesh_proto::ReplicaId;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::operation::{Operation, Outcome};
use stockmesh_proto::product::{InheritanceSlot, Product, Taken};

use super::checks::{converged, ledger_sums_to_the_slots, settled};
use super::directed::Script;
use super::steps::quantity;
use crate::support::{location, replica_id};

/// The replica that dies, the heir, and a third one.
pub(super) const DEAD: usize = 0;
pub(super) const HEIR: usize = 1;
pub(super) const THIRD: usize = 2;

impl Script {
    pub(super) fn id(&self, index: usize) -> ReplicaId {
        self.world.nodes[index].id
    }

    pub(super) fn product(&self, index: usize) -> Product {
        self.world.nodes[index].product_of(&self.sku)
    }

    pub(super) fn rights_of(&self, index: usize, id: ReplicaId) -> i128 {
        self.product(index).rights(&self.place, id)
    }

    fn on_hand(&self, index: usize) -> i128 {
        self.product(index).on_hand_at(&self.place)
    }

    fn set_aside(&mut self, index: usize, units: u64) {
        let (sku, location) = (self.sku.clone(), self.place.clone());
        self.one(index, Operation::Hold { sku, location, units: quantity(units), ttl_ms: 10_000 }).unwrap();
    }

    fn give(&mut self, from: usize, to: usize, units: u64) {
        let (sku, location, to) = (self.sku.clone(), self.place.clone(), self.id(to));
        self.one(from, Operation::Grant { sku, location, to, units }).unwrap();
    }

    pub(super) fn inherit(&self, from: ReplicaId) -> Operation {
        Operation::Inherit { sku: self.sku.clone(), location: self.place.clone(), from }
    }

    pub(super) fn reapply(&self, from: ReplicaId) -> Operation {
        Operation::Reapply { sku: self.sku.clone(), location: self.place.clone(), from }
    }

    /// All live ones meet, and everything that is left is taken over or brought.
    fn close(&mut self) {
        self.world.heal();
        self.world.settle_all();
        self.check();
        assert_eq!(settled(&self.world), Ok(()));
        assert_eq!(converged(&self.world), Ok(()));
        for index in self.world.live() {
            assert_eq!(ledger_sums_to_the_slots(&self.world.nodes[index]), Ok(()));
        }
    }

    /// Sells, at every live replica, one unit after the other, as many as it gets; and counts them.
    fn sell_out(&mut self) -> i128 {
        let mut sold = 0;
        for index in self.world.live() {
            while self.sell(index, 1).is_ok() {
                sold += 1;
            }
        }
        sold
    }
}

#[test]
fn the_heir_takes_rights_and_holds_and_nothing_is_sold_twice() {
    let mut script = Script::new(3);
    script.receive(DEAD, 20);
    script.grant(THIRD, DEAD, 3);
    script.sell(DEAD, 5).unwrap();
    script.set_aside(DEAD, 4);
    script.meet();
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    assert_eq!((script.rights_of(HEIR, dead), script.available(HEIR)), (8, 11));
    script.world.retire(dead, HEIR, false);
    script.world.sync(HEIR);
    script.check();
    // 12 came, of which 4 are held for the customers of the dead.
    assert_eq!((script.rights(HEIR), script.rights_of(HEIR, dead)), (8, 0));
    let product = script.product(HEIR);
    assert_eq!((product.held(), product.counted_by(&script.place, script.id(HEIR)).held), (4, 4));
    assert_eq!((script.on_hand(HEIR), script.available(HEIR), product.oversold()), (15, 11, 0));
    script.meet();
    assert_eq!(script.sell_out(), 11, "8 by the heir, 3 by who had got them");
    script.close();
}

#[test]
fn a_retirement_waits_for_who_is_out_of_reach_unless_it_is_forced() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.meet();
    script.world.die(DEAD);
    script.world.sides = vec![0, 0, 1];
    let dead = script.id(DEAD);
    script.world.retire(dead, HEIR, false);
    assert_eq!((script.rights(HEIR), script.product(HEIR).inheritances().len()), (0, 0));
    script.world.retire(dead, HEIR, true);
    assert_eq!(script.rights(HEIR), 10);
    script.close();
}

/// Only the third one has heard of a sale and of a grant to it; the fence makes the heir know them.
#[test]
fn what_anybody_alive_knows_of_the_dead_counts() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.meet();
    script.sell(DEAD, 2).unwrap();
    script.give(DEAD, THIRD, 3);
    script.world.reconcile(DEAD, THIRD, usize::MAX);
    script.world.network.clear();
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    assert_eq!(script.rights_of(HEIR, dead), 10, "not heard of");
    script.world.retire(dead, HEIR, false);
    script.world.sync(HEIR);
    assert_eq!((script.rights(HEIR), script.rights(THIRD), script.on_hand(HEIR)), (5, 3, 8));
    script.close();
    assert_eq!(script.sell_out(), 8);
}

/// A push of the dead that is still on its way: before the fence it counts, after it nobody takes it.
#[test]
fn a_write_on_its_way_counts_before_the_fence_and_not_after() {
    for is_before in [true, false] {
        let mut script = Script::new(3);
        script.receive(DEAD, 10);
        script.meet();
        script.world.network.clear();
        script.sell(DEAD, 4).unwrap();
        assert_eq!(script.world.network.len(), 2, "to the heir, and to the third");
        script.world.die(DEAD);
        let dead = script.id(DEAD);
        if is_before {
            script.world.deliver(1, false).unwrap();
        }
        script.world.retire(dead, HEIR, false);
        script.world.sync(HEIR);
        while !script.world.network.is_empty() {
            script.world.deliver(0, false);
        }
        script.check();
        let expected = if is_before { 6 } else { 10 };
        assert_eq!((script.rights(HEIR), script.on_hand(HEIR), script.on_hand(THIRD)), (expected, expected, expected));
        let stock = script.product(HEIR).counters(&script.place, dead);
        assert_eq!(stock.removed, if is_before { 4 } else { 0 }, "not even as a slot that does not count");
        script.close();
        assert_eq!(script.sell_out(), expected);
    }
}

/// Whoever was cut off brings late writes of the dead after it was retired by force: its slot spreads, and changes no sum.
#[test]
fn a_late_write_that_leaks_counts_for_nothing_anywhere() {
    let mut script = Script::new(4);
    script.receive(DEAD, 10);
    script.meet();
    script.world.reconcile(0, 3, usize::MAX);
    script.world.sides = vec![1, 0, 1, 0];
    script.sell(DEAD, 4).unwrap();
    script.world.reconcile(DEAD, THIRD, usize::MAX);
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    script.world.retire(dead, HEIR, true);
    script.world.sync(HEIR);
    assert_eq!((script.on_hand(HEIR), script.on_hand(THIRD)), (10, 6));
    script.world.heal();
    script.check();
    for index in [HEIR, THIRD, 3] {
        assert_eq!(script.product(index).counters(&script.place, dead).removed, 4, "it is there");
        assert_eq!((script.on_hand(index), script.rights_of(index, dead)), (10, 0), "and does not count");
    }
    // The heir may bring it, since it was forced and the dead may never come: then all know that 6 are there.
    let reapply = script.reapply(dead);
    assert_eq!(script.one(HEIR, reapply.clone()), Ok(vec![Outcome::Reapplied { added: 0, removed: 4 }]));
    assert_eq!(script.one(HEIR, reapply), Ok(vec![Outcome::Reapplied { added: 0, removed: 0 }]), "once");
    script.close();
    assert_eq!((script.on_hand(THIRD), script.rights(HEIR)), (6, 6));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The heir is named, whoever is in reach.
    Retire,
    /// The third one, which alone heard the last writes of the dead, meets the heir.
    Leak,
    /// The dead is up again, and meets the third one.
    Return,
    /// Who has something to bring or to take over does.
    Settle,
}

fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for (place, first) in events.iter().enumerate() {
        let rest = [&events[..place], &events[place + 1..]].concat();
        orders.extend(self::orders(&rest).into_iter().map(|order| [vec![*first], order].concat()));
    }
    orders
}

/// The dead received 30, sold 5, gave 2 to the third one, and nobody but the third knows of what it received last; it alone
/// knows of its last sale. In whatever order these come together, all that was done counts once, and the rights with it.
#[test]
fn each_order_of_fence_late_write_and_return_ends_in_the_same() {
    use Event::{Leak, Retire, Return, Settle};
    let all = orders(&[Retire, Leak, Return, Settle]);
    assert_eq!(all.len(), 24);
    for order in all {
        let mut script = Script::new(3);
        script.receive(DEAD, 20);
        script.receive(HEIR, 5);
        script.meet();
        script.receive(DEAD, 10);
        script.give(DEAD, THIRD, 2);
        script.world.reconcile(DEAD, THIRD, usize::MAX);
        script.world.network.clear();
        script.sell(DEAD, 5).unwrap();
        script.set_aside(DEAD, 3);
        script.world.network.clear();
        let dead = script.id(DEAD);
        script.world.die(DEAD);
        // Out of reach of each other, but where the order says that they meet.
        script.world.sides = vec![0, 1, 2];
        for event in &order {
            match event {
                Retire => script.world.retire(dead, HEIR, true),
                Leak => {
                    script.world.sides = vec![0, 1, 1];
                    script.world.reconcile(HEIR, THIRD, usize::MAX);
                    script.world.sides = vec![0, 1, 2];
                }
                Return => {
                    script.world.come_back(DEAD);
                    script.world.sides = vec![2, 1, 2];
                    script.world.reconcile(DEAD, THIRD, usize::MAX);
                    script.world.reconcile(DEAD, THIRD, usize::MAX);
                    script.world.sides = vec![0, 1, 2];
                }
                Settle => {
                    for index in script.world.live() {
                        script.world.reapply(index);
                        script.world.settle(index);
                    }
                }
            }
            script.check();
        }
        script.close();
        let told = format!("{order:?}");
        assert_eq!(script.on_hand(HEIR), 30, "{told}");
        let heir = script.id(HEIR);
        assert_eq!(script.rights_of(THIRD, script.id(THIRD)), 2, "{told}");
        assert_ne!(script.id(DEAD), dead, "{told}");
        // The heir holds what the dead held, if it had heard of it when it took over: from the third, and that one from the
        // dead.
        let place = |event: Event| order.iter().position(|other| *other == event);
        let held = if place(Return) < place(Leak) && place(Leak) < place(Retire) { 3 } else { 0 };
        assert_eq!((script.rights_of(HEIR, heir), script.product(HEIR).held()), (28 - held, held), "{told}");
        assert_eq!(script.product(HEIR).oversold(), 0, "{told}");
        assert_eq!(script.sell_out(), 30 - held, "{told}");
        script.close();
    }
}

/// The dead sold what the heir then sold again: that is the loss that a return shows. It is paid back by what comes in.
#[test]
fn what_the_dead_alone_had_sold_is_a_deficit_of_the_heir() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.meet();
    script.sell(DEAD, 6).unwrap();
    script.world.network.clear();
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    script.world.retire(dead, HEIR, false);
    script.sell(HEIR, 10).unwrap();
    script.world.come_back(DEAD);
    script.close();
    let heir = script.id(HEIR);
    assert_eq!((script.on_hand(THIRD), script.rights_of(THIRD, heir), script.rights_of(THIRD, dead)), (-6, -6, 0));
    assert_eq!(script.product(THIRD).oversold(), 6);
    script.receive(HEIR, 8);
    assert_eq!((script.rights(HEIR), script.available(HEIR)), (2, 2));
    script.close();
}

/// One that was declared dead, and was not: it goes on until it is told, and what it did then counts once.
#[test]
fn the_living_that_was_retired_is_told_and_brings_what_it_did() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.set_aside(DEAD, 2);
    script.meet();
    script.world.sides = vec![1, 0, 0];
    let dead = script.id(DEAD);
    script.world.retire(dead, HEIR, true);
    script.world.sync(HEIR);
    script.sell(DEAD, 3).unwrap();
    script.receive(DEAD, 7);
    script.world.sides = vec![0, 0, 0];
    script.meet();
    assert_ne!(script.id(DEAD), dead);
    script.close();
    // 10 and 7 came in, 3 were sold, 2 are held by the heir.
    assert_eq!((script.on_hand(HEIR), script.product(HEIR).held(), script.rights(HEIR)), (14, 2, 12));
    assert_eq!(script.world.nodes[DEAD].books.holds_active(), 0, "its holds are the heir's");
}

/// A directory that comes back twice, as copies, and an heir that brings the same: it counts once.
#[test]
fn copies_that_bring_the_same_count_it_once() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.meet();
    script.receive(DEAD, 5);
    script.sell(DEAD, 3).unwrap();
    script.world.network.clear();
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    script.world.retire(dead, HEIR, false);
    script.world.sync(HEIR);
    script.meet();
    let taken = script.product(HEIR);
    let brought = |bits: u64| {
        let counters = Counters { added: 15, removed: 3, ..Counters::default() };
        let taken = Taken { added: counters.added, removed: counters.removed, ..Taken::default() };
        let slot = InheritanceSlot { location: location("x"), from: dead, to: replica_id(bits), sequence: 1, taken };
        Product::of_inheritance(slot)
    };
    let mut one = taken.clone();
    one.absorb(&brought(900));
    let mut both = one.clone();
    both.absorb(&brought(901));
    assert_eq!((taken.on_hand(), one.on_hand(), both.on_hand()), (10, 12, 12));
    assert_eq!(
        (one.rights(&script.place, dead), both.rights(&script.place, dead)),
        (2, 2),
        "what the heir takes, once"
    );
    assert_eq!(both.heir(&script.place, dead), Some(script.id(HEIR)), "whoever brings something is no heir");
}

/// Both sides of a cut retire the same one. What both took shows as a deficit, which one of them settles.
#[test]
fn two_heirs_that_did_not_hear_of_each_other_are_put_right_by_one() {
    let mut script = Script::new(3);
    script.receive(DEAD, 10);
    script.meet();
    script.world.die(DEAD);
    let dead = script.id(DEAD);
    script.world.sides = vec![0, 1, 2];
    script.world.retire(dead, HEIR, true);
    script.world.retire(dead, THIRD, true);
    assert_eq!((script.rights(HEIR), script.rights(THIRD)), (10, 10));
    script.sell(HEIR, 4).unwrap();
    script.world.heal();
    assert_eq!((script.rights_of(HEIR, dead), script.available(HEIR)), (-10, 6));
    let inherit = script.inherit(dead);
    let nothing = Ok(vec![Outcome::Inherited { units: 0, held: 0 }]);
    assert_eq!(script.one(THIRD, inherit.clone()), nothing, "the other has the lower id");
    assert_eq!(script.one(HEIR, inherit.clone()), Ok(vec![Outcome::Inherited { units: -10, held: 0 }]));
    assert_eq!(script.one(HEIR, inherit), nothing);
    script.close();
    assert_eq!((script.rights(HEIR), script.rights(THIRD), script.available(HEIR)), (-4, 10, 6));
    assert_eq!(script.sell_out(), 6);
}

/// Nobody becomes heir beside a living one, and who does when that one is retired goes on where it ended.
#[test]
fn an_heir_that_dies_leaves_what_it_inherited_to_its_own() {
    let mut script = Script::new(4);
    script.receive(DEAD, 10);
    script.receive(HEIR, 1);
    // Given to the dead, which it never heard of, and nobody else either.
    script.receive(3, 6);
    script.meet();
    script.world.reconcile(0, 3, usize::MAX);
    script.world.reconcile(1, 3, usize::MAX);
    script.world.reconcile(2, 3, usize::MAX);
    let dead = script.id(DEAD);
    let (sku, location) = (script.sku.clone(), script.place.clone());
    script.world.sides = vec![0, 0, 0, 1];
    script.one(3, Operation::Grant { sku, location, to: dead, units: 4 }).unwrap();
    script.world.network.clear();
    script.world.die(DEAD);
    script.world.retire(dead, HEIR, true);
    script.world.sync(HEIR);
    script.world.reconcile(HEIR, THIRD, usize::MAX);
    let heir = script.id(HEIR);
    let inherit = script.inherit(dead);
    assert_eq!(script.one(THIRD, inherit), Ok(vec![Outcome::Inherited { units: 0, held: 0 }]), "there is an heir");
    assert_eq!(script.product(THIRD).estate(heir), [(&script.place, heir), (&script.place, dead)]);
    script.sell(HEIR, 2).unwrap();
    script.world.reconcile(HEIR, THIRD, usize::MAX);
    script.world.die(HEIR);
    script.world.retire(heir, THIRD, true);
    script.world.sync(THIRD);
    assert_eq!((script.rights(THIRD), script.rights_of(THIRD, heir)), (9, 0));
    assert_eq!(script.product(THIRD).heir(&script.place, dead), Some(script.id(THIRD)));
    // What turns up late of the first one is the last heir's.
    script.world.heal();
    assert_eq!(script.rights_of(THIRD, dead), 4);
    script.close();
    assert_eq!((script.rights(THIRD), script.rights(3), script.available(3)), (13, 2, 15));
    assert_eq!(script.sell_out(), 15);
}

/// A directory that took a new id may inherit from its own former one: so its rights are of use again (rule B6).
#[test]
fn a_restored_copy_may_be_the_heir_of_its_former_id() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    script.set_aside(0, 3);
    script.world.backup(0);
    script.sell(0, 2).unwrap();
    script.meet();
    let former = script.id(0);
    script.world.restore(0, 0, true);
    script.world.heal();
    assert_eq!((script.rights(0), script.available(0)), (0, 5));
    script.world.retire(former, 0, false);
    script.world.sync(0);
    assert_eq!((script.rights(0), script.product(0).held(), script.on_hand(0)), (5, 3, 8));
    script.close();
    assert_eq!(script.sell_out(), 5);
}
