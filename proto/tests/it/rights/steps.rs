//! Steps of a random schedule, and what they do to the world.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Operation, OversellPolicy, Request};
use stockmesh_proto::{Location, Quantity, Reference, ReplicaId, ShardIndex, Sku};

use super::checks::{converged, ledger_sums_to_the_slots, settled};
use super::world::World;
use crate::support::{location, sku};

/// What schedules may hold besides receipts, sales, holds, transfers and grants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds {
    /// Adjustments and stocktakes.
    pub(super) with_facts: bool,
    pub(super) with_backorders: bool,
    /// Deaths, retirements and returns.
    pub(super) with_deaths: bool,
}

/// An operation, by small numbers that stand for names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Receive(u8, u8, u64),
    Adjust(u8, u8, i64),
    Count(u8, u8, u64),
    Sell(u8, u8, u64, bool),
    Hold(u8, u8, u64, u64),
    Commit(u8, Option<u64>),
    Release(u8),
    Expire(u8),
    Transfer(u8, u8, u8, u64),
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Request(u8, Vec<Op>, Option<u8>, bool),
    /// Sends an earlier request again, as it was or with other content.
    Retry(u8, bool),
    Sync(u8),
    Crash(u8),
    Restart(u8),
    Backup(u8),
    Restore(u8, u8, bool),
    Ask(u8, u8, (u8, u8), u64, u64),
    Deliver(u8, bool),
    Lose(u8),
    Reconcile(u8, u8, Option<u8>),
    Partition(Vec<u8>),
    Wait(u64),
    Skew(u8, u64),
    ExpireDue(u8),
    Die(u8),
    ComeBack(u8),
    /// Retires one that may be, by number, with an heir; forced or not.
    Retire(u8, u8, bool),
    Settle(u8),
    Reapply(u8),
}

const SKUS: [&str; 3] = ["A", "B", "C"];
const PLACES: [&str; 2] = ["x", "y"];

/// How many names schedules use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) products: u8,
    pub(super) places: u8,
}

impl Names {
    fn sku(self, number: u8) -> Sku {
        sku(SKUS[usize::from(number % self.products)])
    }

    fn place(self, number: u8) -> Location {
        location(PLACES[usize::from(number % self.places)])
    }

    /// All products at all places.
    pub(super) fn all(self) -> Vec<(Sku, Location)> {
        let places = move |product| (0..self.places).map(move |place| (self.sku(product), self.place(place)));
        (0..self.products).flat_map(places).collect()
    }
}

pub(super) fn quantity(units: u64) -> Quantity {
    Quantity::new(units).unwrap()
}

// Times are whole tens, so that what is due and what is done meet at the same millisecond.
fn op(kinds: Kinds) -> impl Strategy<Value = Op> {
    let name = || (any::<u8>(), any::<u8>());
    let facts = u32::from(kinds.with_facts);
    prop_oneof![
        6 => (name(), 1_u64..40).prop_map(|((sku, place), units)| Op::Receive(sku, place, units)),
        2 * facts => (name(), -12_i64..4).prop_map(|((sku, place), units)| Op::Adjust(sku, place, units)),
        facts => (name(), 0_u64..20).prop_map(|((sku, place), units)| Op::Count(sku, place, units)),
        9 => (name(), 1_u64..8, any::<bool>()).prop_map(move |((sku, place), units, backorder)| {
            Op::Sell(sku, place, units, backorder && kinds.with_backorders)
        }),
        8 => (name(), 1_u64..6, 0_u64..12).prop_map(|((sku, place), units, ttl)| Op::Hold(sku, place, units, 10 * ttl)),
        6 => (any::<u8>(), option::of(1_u64..6)).prop_map(|(hold, units)| Op::Commit(hold, units)),
        3 => any::<u8>().prop_map(Op::Release),
        2 => any::<u8>().prop_map(Op::Expire),
        3 => (name(), any::<u8>(), 1_u64..6).prop_map(|((sku, from), to, units)| Op::Transfer(sku, from, to, units)),
    ]
}

pub(super) fn step(kinds: Kinds) -> BoxedStrategy<Step> {
    if kinds.with_deaths {
        prop_oneof![5 => step_of_life(kinds), 1 => step_of_death()].boxed()
    } else {
        step_of_life(kinds).boxed()
    }
}

/// Deaths, retirements and returns; and the end of partitions, without which hardly any retirement is refused or not by
/// chance alone.
fn step_of_death() -> impl Strategy<Value = Step> {
    let who = any::<u8>;
    prop_oneof![
        2 => who().prop_map(Step::Die),
        4 => who().prop_map(Step::ComeBack),
        7 => (who(), who(), any::<bool>()).prop_map(|(id, heir, forced)| Step::Retire(id, heir, forced)),
        3 => who().prop_map(Step::Settle),
        4 => who().prop_map(Step::Reapply),
        1 => Just(Step::Partition(vec![0; 5])),
    ]
}

fn step_of_life(kinds: Kinds) -> impl Strategy<Value = Step> {
    let who = any::<u8>;
    let ops = vec(op(kinds), 1..4).prop_filter_map("one operation mostly", |mut ops| {
        let is_batch = matches!(ops[0], Op::Receive(_, _, units) | Op::Sell(_, _, units, _) if units % 3 == 0);
        ops.truncate(if is_batch { 3 } else { 1 });
        Some(ops)
    });
    prop_oneof![
        30 => (who(), ops, prop::option::weighted(0.3, 0_u8..12), any::<bool>())
            .prop_map(|(who, ops, name, backorder)| Step::Request(who, ops, name, backorder)),
        3 => (who(), any::<bool>()).prop_map(|(which, is_changed)| Step::Retry(which, is_changed)),
        6 => who().prop_map(Step::Sync),
        2 => who().prop_map(Step::Crash),
        1 => who().prop_map(Step::Restart),
        2 => who().prop_map(Step::Backup),
        2 => (who(), who(), any::<bool>()).prop_map(|(who, which, told)| Step::Restore(who, which, told)),
        10 => (who(), who(), (who(), who()), 0_u64..12, prop::sample::select(vec![0_u64, 50, 5_000]))
            .prop_map(|(who, peer, name, needed, rate)| Step::Ask(who, peer, name, needed, rate)),
        20 => (who(), prop::bool::weighted(0.2)).prop_map(|(which, keep_copy)| Step::Deliver(which, keep_copy)),
        2 => who().prop_map(Step::Lose),
        5 => (who(), who(), option::of(0_u8..8)).prop_map(|(left, right, cut)| Step::Reconcile(left, right, cut)),
        1 => vec(0_u8..2, 5).prop_map(Step::Partition),
        2 => (0_u64..6).prop_map(|tens| Step::Wait(10 * tens)),
        1 => (who(), 0_u64..5).prop_map(|(who, tens)| Step::Skew(who, 10 * tens)),
        4 => who().prop_map(Step::ExpireDue),
    ]
}

/// Steps with far more of what goes wrong with disks: where the breaks lie.
pub(super) fn troubled_step(kinds: Kinds) -> impl Strategy<Value = Step> {
    let who = any::<u8>;
    prop_oneof![
        12 => step(kinds),
        1 => who().prop_map(Step::Sync),
        1 => who().prop_map(Step::Crash),
        1 => who().prop_map(Step::Backup),
        1 => (who(), who()).prop_map(|(who, which)| Step::Restore(who, which, false)),
        2 => (who(), 2_u64..6).prop_map(|(who, units)| Step::Request(who, vec![Op::Hold(0, 0, units, 10)], None, false)),
        1 => Just(Step::Wait(20)),
        3 => who().prop_map(Step::ExpireDue),
    ]
}

/// Does what a step says, and holds the rules against every replica that it touched.
pub(super) fn take(world: &mut World, names: Names, step: &Step) -> Result<(), String> {
    let pick = |number: u8, world: &World| usize::from(number) % world.nodes.len();
    let touched = match step {
        Step::Request(who, ops, name, may_backorder) => {
            let index = pick(*who, world);
            if !world.is_live(index) {
                return Ok(());
            }
            let operations = ops.iter().map(|op| operation(world, index, names, *op)).collect();
            let reference = name.map(|name| Reference::new(&format!("order-{index}-{name}")).unwrap());
            let request = Request { operations, reference, may_backorder: *may_backorder };
            say(world, index, request);
            index
        }
        Step::Retry(which, is_changed) => {
            if world.said.is_empty() {
                return Ok(());
            }
            let (index, mut request) = world.said[usize::from(*which) % world.said.len()].clone();
            if *is_changed {
                request.operations.push(request.operations[0].clone());
            }
            say(world, index, request);
            index
        }
        Step::Ask(who, peer, (product, place), needed, per_hour) => {
            let (index, peer) = (pick(*who, world), pick(*peer, world));
            let is_linked = world.sides[index] == world.sides[peer] && world.is_live(index) && world.is_live(peer);
            if index != peer && is_linked && !world.nodes[index].is_restored {
                world.ask(index, peer, &names.sku(*product), &names.place(*place), (*needed, *per_hour));
            }
            index
        }
        Step::Deliver(which, keep_copy) if !world.network.is_empty() => {
            let position = usize::from(*which) % world.network.len();
            match world.deliver(position, *keep_copy) {
                Some(index) => index,
                None => return Ok(()),
            }
        }
        Step::Reconcile(left, right, cut) => {
            let (left, right) = (pick(*left, world), pick(*right, world));
            world.reconcile(left, right, cut.map_or(usize::MAX, usize::from));
            world.check(left)?;
            right
        }
        other => return take_alone(world, other),
    };
    world.check(touched)
}

/// Steps that need no names.
fn take_alone(world: &mut World, step: &Step) -> Result<(), String> {
    let pick = |number: u8, world: &World| usize::from(number) % world.nodes.len();
    let index = match step {
        Step::Sync(who) | Step::Crash(who) | Step::Restart(who) | Step::Backup(who) => pick(*who, world),
        Step::Restore(who, ..) | Step::Skew(who, _) | Step::ExpireDue(who) => pick(*who, world),
        Step::Die(who) | Step::ComeBack(who) | Step::Settle(who) | Step::Reapply(who) => pick(*who, world),
        Step::Retire(_, heir, _) => pick(*heir, world),
        _ => 0,
    };
    if !world.is_live(index) && !matches!(step, Step::ComeBack(_)) {
        return Ok(());
    }
    match step {
        Step::Sync(_) => world.sync(index),
        Step::Crash(_) => world.crash(index),
        Step::Restart(_) => {
            world.sync(index);
            world.crash(index);
        }
        Step::Backup(_) => world.backup(index),
        Step::Restore(_, which, is_declared) => {
            ledger_sums_to_the_slots(&world.nodes[index])?;
            world.restore(index, usize::from(*which), *is_declared);
        }
        Step::Lose(which) if !world.network.is_empty() => {
            world.network.remove(usize::from(*which) % world.network.len());
        }
        Step::Partition(sides) => world.sides.clone_from(&sides[..world.nodes.len()].to_vec()),
        Step::Wait(milliseconds) => world.now_ms += milliseconds,
        Step::Skew(_, skew) => world.skews[index] = *skew,
        Step::Die(_) => world.die(index),
        Step::ComeBack(_) => world.come_back(index),
        Step::Retire(which, _, is_forced) => {
            let ids = world.retirable(index);
            if !ids.is_empty() {
                world.retire(ids[usize::from(*which) % ids.len()], index, *is_forced);
            }
        }
        Step::Settle(_) => world.settle(index),
        Step::Reapply(_) => world.reapply(index),
        Step::ExpireDue(_) if !world.nodes[index].is_restored => {
            let now_ms = world.clock(index);
            for id in world.nodes[index].books.due(now_ms).collect::<Vec<_>>() {
                let _ = world.request(index, &vec![Operation::ExpireHold { id }].into());
            }
            if let Some(id) = world.nodes[index].books.due(now_ms).next() {
                return Err(format!("the hold {id} is due and does not expire"));
            }
        }
        _ => {}
    }
    world.check(index)
}

/// A caller says something, and notes what has a name, to say it again. A replica that was restored takes nothing.
fn say(world: &mut World, index: usize, request: Request) {
    if world.nodes[index].is_restored || !world.is_live(index) {
        return;
    }
    let before = world.nodes[index].tree.clone();
    let memory = world.nodes[index].memory.clone();
    let done = world.request(index, &request);
    if let Some(reference) = &request.reference {
        // Rule O4: the same request is answered as before and changes nothing, another one is refused.
        let is_unchanged = before == world.nodes[index].tree;
        if let Some(known) = memory.done(reference) {
            let is_same = known.operations == request.operations;
            let is_kept = done.as_ref().is_ok_and(|outcomes| *outcomes == known.outcomes);
            if !is_unchanged || is_kept != is_same {
                world.faults.push(format!("{reference} was done twice: {done:?}"));
            }
        }
        if done.is_ok() {
            world.said.push((index, request));
        }
    } else if done.is_err() && before != world.nodes[index].tree {
        world.faults.push(format!("a refused request changed something: {request:?}"));
    }
}

/// The hold that a number stands for: an own one mostly, that of another replica, or none that ever was.
fn hold_id(world: &World, index: usize, number: u8) -> Option<HoldId> {
    let nobody = HoldId { replica: world.nodes[index].id, shard: ShardIndex(0), sequence: 1_000_000 };
    let at = if number.is_multiple_of(16) { usize::from(number / 8) % world.nodes.len() } else { index };
    let holds: Vec<HoldId> =
        world.nodes[at].disk.holds.keys().chain(world.nodes[at].memory.holds.keys()).copied().collect();
    match holds.len() {
        _ if number > 249 => Some(nobody),
        0 => None,
        count => Some(holds[count - 1 - usize::from(number) % count]),
    }
}

fn operation(world: &World, index: usize, names: Names, op: Op) -> Operation {
    match op {
        Op::Receive(product, place, units) => {
            Operation::Receive { sku: names.sku(product), location: names.place(place), units: quantity(units) }
        }
        Op::Adjust(product, place, units) => {
            let (sku, location, reason) = (names.sku(product), names.place(place), Reason::Damaged);
            Operation::Adjust { sku, location, units, reason }
        }
        Op::Count(product, place, counted) => {
            Operation::Stocktake { sku: names.sku(product), location: names.place(place), counted }
        }
        Op::Sell(product, place, units, backorder) => {
            let policy = if backorder { OversellPolicy::Backorder } else { OversellPolicy::Refuse };
            let (sku, location) = (names.sku(product), names.place(place));
            Operation::Sell { sku, location, units: quantity(units), policy }
        }
        Op::Hold(product, place, units, ttl_ms) => {
            let (sku, location) = (names.sku(product), names.place(place));
            Operation::Hold { sku, location, units: quantity(units), ttl_ms }
        }
        Op::Commit(hold, _) | Op::Release(hold) | Op::Expire(hold) => match (hold_id(world, index, hold), op) {
            (Some(id), Op::Commit(_, units)) => Operation::CommitHold { id, units: units.map(quantity) },
            (Some(id), Op::Release(_)) => Operation::ReleaseHold { id },
            (Some(id), _) => Operation::ExpireHold { id },
            // There is none yet: goods come in instead.
            (None, _) => Operation::Receive { sku: names.sku(0), location: names.place(0), units: quantity(5) },
        },
        Op::Transfer(product, from, to, units) => {
            let (from, to) = (names.place(from), names.place(to));
            Operation::Transfer { sku: names.sku(product), from, to, units: quantity(units) }
        }
    }
}

/// The end of every schedule: all meet, all agree, and what can be sold can be sold at one replica.
pub(super) fn finish(world: &mut World, names: Names, seller: usize) -> Result<(), String> {
    world.heal();
    let live = world.live();
    live.iter().try_for_each(|index| world.check(*index))?;
    if !world.retired.is_empty() {
        world.settle_all();
        live.iter().try_for_each(|index| world.check(*index))?;
        settled(world)?;
    }
    live.iter().try_for_each(|index| ledger_sums_to_the_slots(&world.nodes[*index]))?;
    converged(world)?;
    for (sku, location) in names.all() {
        sell_all(world, live[seller % live.len()], &sku, &location)?;
    }
    world.heal();
    converged(world)?;
    live.iter().try_for_each(|index| world.check(*index))
}

/// Rules B2 to B5: the rights of all live ids can be brought to one replica, and sold there as far as the total goes.
fn sell_all(world: &mut World, seller: usize, sku: &Sku, location: &Location) -> Result<(), String> {
    let live: Vec<ReplicaId> = world.live().into_iter().map(|index| world.nodes[index].id).collect();
    let (product, own_id) = (world.nodes[seller].product_of(sku), world.nodes[seller].id);
    let own = product.rights(location, own_id);
    let others = live.iter().filter(|id| **id != own_id);
    let reachable = own + others.map(|id| product.rights(location, *id).max(0)).sum::<i128>();
    world.gather(seller, sku, location);
    let node = &world.nodes[seller];
    let gathered = node.product_of(sku).rights(location, node.id);
    if gathered != reachable {
        return Err(format!("gathered: {sku} at {location}: {gathered} of {reachable}"));
    }
    let sellable = gathered.min(product.available_at(location)).max(0);
    let sell = |units: u64| -> Request {
        let (sku, location, policy) = (sku.clone(), location.clone(), OversellPolicy::Refuse);
        vec![Operation::Sell { sku, location, units: quantity(units), policy }].into()
    };
    let units = u64::try_from(sellable).unwrap();
    if units > 0 && world.request(seller, &sell(units)).is_err() {
        return Err(format!("gathered: {units} of {sku} at {location} cannot be sold"));
    }
    world.sync(seller);
    if world.request(seller, &sell(1)).is_ok() {
        return Err(format!("gathered: {sku} at {location}: one more than there is was sold"));
    }
    world.check(seller)
}
