//! Random schedules over whole clusters, held against an oracle at each step and a plain model at the end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::{Location, ReplicaId, Sku};

use crate::support::config;
use crate::support::generate::operations;
use crate::support::oracle::holds;
use crate::support::world::World;

#[derive(Clone, Debug)]
enum Step {
    Write(Index, Vec<Operation>),
    Sync(Index),
    Open {
        opener: Index,
        accepter: Index,
        chunk_bytes_target: usize,
        with_agreement: bool,
    },
    /// A reconciliation of some shards alone.
    Pull {
        opener: Index,
        accepter: Index,
        chunk_bytes_target: usize,
        mask: u16,
    },
    /// Some steps of one conversation: who does what.
    Talk(Index, Vec<(bool, bool)>),
    Finish(Index),
    HangUp(Index),
    Push {
        which: Index,
        keep_copy: bool,
    },
    LosePush(Index),
    Crash(Index),
    Die(Index),
    Wait(u64),
}

fn pull(chunk_bytes_target: impl Strategy<Value = usize>) -> impl Strategy<Value = Step> {
    (any::<Index>(), any::<Index>(), chunk_bytes_target, any::<u16>()).prop_map(
        |(opener, accepter, chunk_bytes_target, mask)| Step::Pull { opener, accepter, chunk_bytes_target, mask },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        10 => (index(), operations()).prop_map(|(who, operations)| Step::Write(who, operations)),
        4 => index().prop_map(Step::Sync),
        6 => (index(), index(), prop_oneof![Just(0_usize), Just(1 << 16)], any::<bool>()).prop_map(
            |(opener, accepter, chunk_bytes_target, with_agreement)| {
                Step::Open { opener, accepter, chunk_bytes_target, with_agreement }
            }
        ),
        4 => pull(prop_oneof![Just(0_usize), Just(1 << 16)]),
        10 => (index(), vec((any::<bool>(), any::<bool>()), 1..8)).prop_map(|(which, moves)| Step::Talk(which, moves)),
        4 => index().prop_map(Step::Finish),
        1 => index().prop_map(Step::HangUp),
        8 => (index(), any::<bool>()).prop_map(|(which, keep_copy)| Step::Push { which, keep_copy }),
        3 => index().prop_map(Step::LosePush),
        1 => index().prop_map(Step::Crash),
        1 => index().prop_map(Step::Die),
        2 => (0_u64..200).prop_map(Step::Wait),
    ]
}

fn pair(survivors: &[usize], opener: &Index, accepter: &Index) -> (usize, usize) {
    let opener = survivors[opener.index(survivors.len())];
    let others: Vec<usize> = survivors.iter().copied().filter(|other| *other != opener).collect();
    (opener, others[accepter.index(others.len())])
}

fn take(world: &mut World, step: &Step, with_deaths: bool) {
    let survivors = world.survivors();
    let pick = |index: &Index| survivors[index.index(survivors.len())];
    match step {
        Step::Write(who, operations) => world.write(pick(who), operations),
        Step::Sync(who) => world.sync(pick(who)),
        Step::Open { opener, accepter, chunk_bytes_target, with_agreement } => {
            let (opener, accepter) = pair(&survivors, opener, accepter);
            world.open(opener, accepter, *chunk_bytes_target, *with_agreement);
        }
        Step::Pull { opener, accepter, chunk_bytes_target, mask } => {
            let (opener, accepter) = pair(&survivors, opener, accepter);
            world.pull(opener, accepter, *chunk_bytes_target, *mask);
        }
        Step::Talk(which, moves) if !world.conversations.is_empty() => {
            let position = which.index(world.conversations.len());
            for (is_opener, sends) in moves {
                let side = usize::from(!is_opener);
                if *sends {
                    world.step_send(position, side);
                } else {
                    world.step_deliver(position, side);
                }
            }
        }
        Step::Finish(which) if !world.conversations.is_empty() => {
            world.finish(which.index(world.conversations.len()));
        }
        Step::HangUp(which) if !world.conversations.is_empty() => {
            world.conversations.remove(which.index(world.conversations.len()));
        }
        Step::Push { which, keep_copy } if !world.network.is_empty() => {
            world.deliver_push(which.index(world.network.len()), *keep_copy);
        }
        Step::LosePush(which) if !world.network.is_empty() => {
            world.network.remove(which.index(world.network.len()));
        }
        Step::Crash(who) => world.crash(pick(who)),
        Step::Die(who) if with_deaths => world.die(pick(who)),
        Step::Wait(milliseconds) => world.now_ms += milliseconds,
        _ => {}
    }
}

/// The end of every schedule: survivors agree, and agree with a plain map.
fn check_end(world: &mut World) {
    world.heal();
    let survivors = world.survivors();
    let contents = world.replicas[survivors[0]].contents();
    for index in &survivors {
        world.replicas[*index].check_sums();
        assert_eq!(world.replicas[*index].contents(), contents, "survivors are equal");
        let unclaimed: u64 = world.replicas[*index].state.shards.iter().map(|shard| shard.slots_unclaimed()).sum();
        let deaths = survivors.len() < world.replicas.len();
        assert!(unclaimed == 0 || deaths, "only what the dead took with them leaves gaps");
    }
    check_stock(world);
    check_registers(world);
}

/// On hand is the sum of the acknowledged operations: exactly for survivors; for the dead, what some prefix of each
/// slot's history was.
fn check_stock(world: &World) {
    let survivors = world.survivors();
    let alive: BTreeSet<ReplicaId> = survivors.iter().map(|index| world.replicas[*index].id).collect();
    let replica = &world.replicas[survivors[0]];
    let mut model = BTreeMap::<(Sku, Location, ReplicaId), Vec<i128>>::new();
    for counted in &world.model {
        let key = (counted.sku.clone(), counted.location.clone(), counted.replica);
        let history = model.entry(key).or_insert_with(|| vec![0]);
        history.push(history.last().unwrap() + i128::from(counted.units));
    }
    let (products, _, _) = replica.contents();
    let mut on_hand = BTreeMap::<Sku, i128>::new();
    for ((sku, location, writer), history) in &model {
        let found = products.get(sku).map(|product| product.counters(location, *writer).on_hand()).unwrap_or_default();
        if alive.contains(writer) {
            assert_eq!(Some(&found), history.last(), "{sku} at {location} by {writer}");
        } else {
            assert!(history.contains(&found), "{sku} at {location} by the dead {writer}: {found} of {history:?}");
        }
        *on_hand.entry(sku.clone()).or_default() += found;
    }
    for (sku, product) in &products {
        assert_eq!(product.on_hand(), on_hand.get(sku).copied().unwrap_or_default(), "no slot out of nothing: {sku}");
    }
}

/// The price is the one of the greatest (stamp, replica) of all that a survivor wrote or claims.
fn check_registers(world: &World) {
    let replica = &world.replicas[world.survivors()[0]];
    let (products, _, _) = replica.contents();
    let mut best = BTreeMap::new();
    for (shard, writer, sequence, (sku, slot)) in world.log.slots() {
        if replica.shard(shard).version().get(writer) >= sequence {
            assert!(holds(replica, shard, sku, slot));
        }
        let found = &products.get(sku).and_then(|product| product.price().copied());
        let claimed = replica.shard(shard).version().get(writer) >= sequence;
        if let Some(price) = slot.price().filter(|price| claimed || found.as_ref() == Some(*price)) {
            let key = (price.stamp, price.dot.replica);
            let entry = best.entry(sku.clone()).or_insert((key, *price));
            if key > entry.0 {
                *entry = (key, *price);
            }
        }
    }
    for (sku, product) in &products {
        assert_eq!(product.price(), best.get(sku).map(|entry| &entry.1), "the price of {sku}");
    }
}

/// Each survivor's own writes are claimed by all: nothing acknowledged there is lost.
fn check_claims(world: &World) {
    for index in world.survivors() {
        let writer = &world.replicas[index];
        for other in world.survivors() {
            for shard in writer.count.indexes() {
                let claimed = world.replicas[other].shard(shard).version().get(writer.id);
                assert_eq!(claimed, writer.durable.shards[shard.as_usize()].version().get(writer.id));
            }
        }
    }
}

fn run(skews: &[u64], drift_ms_max: u64, fan_out: usize, steps: &[Step], with_deaths: bool) {
    let mut world = World::new(skews, 4, drift_ms_max, fan_out);
    for step in steps {
        take(&mut world, step, with_deaths);
    }
    check_end(&mut world);
    check_claims(&world);
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn schedules_without_deaths_end_in_the_sum_of_all_acknowledged_operations(
        steps in vec(step(), 0..80),
        skews in vec(0_u64..100, 2..5),
        fan_out in 1_usize..4,
    ) {
        run(&skews, 60_000, fan_out, &steps, false);
    }

    #[test]
    fn schedules_with_deaths_leave_the_survivors_equal(
        steps in vec(step(), 0..80),
        skews in vec(0_u64..100, 4..6),
        fan_out in 1_usize..4,
    ) {
        run(&skews, 60_000, fan_out, &steps, true);
    }

    /// Clocks beyond the drift bound: shards are refused, and come again when the clocks have caught up (rule C4).
    #[test]
    fn schedules_with_clocks_beyond_the_drift_bound_converge_once_they_caught_up(
        steps in vec(step(), 0..80),
        skews in vec(prop_oneof![Just(0_u64), 0_u64..1_000], 2..5),
    ) {
        run(&skews, 100, 2, &steps, true);
    }
}

/// Few products, prices only, tiny chunks, many deaths: where the two traps of reconciliation lie.
fn trap_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let price = (prop::sample::select(vec!["A", "B"]), 0_u64..50).prop_map(|(name, cents)| {
        vec![Operation::SetPrice { sku: Sku::new(name).unwrap(), price: crate::support::euros(cents) }]
    });
    prop_oneof![
        6 => (index(), price).prop_map(|(who, operations)| Step::Write(who, operations)),
        5 => (index(), index(), any::<bool>()).prop_map(|(opener, accepter, with_agreement)| {
            Step::Open { opener, accepter, chunk_bytes_target: 0, with_agreement }
        }),
        4 => pull(Just(0)),
        8 => (index(), vec((any::<bool>(), any::<bool>()), 1..10)).prop_map(|(which, moves)| Step::Talk(which, moves)),
        2 => index().prop_map(Step::Finish),
        2 => index().prop_map(Step::Sync),
        3 => (index(), any::<bool>()).prop_map(|(which, keep_copy)| Step::Push { which, keep_copy }),
        2 => index().prop_map(Step::LosePush),
        2 => index().prop_map(Step::Die),
        1 => index().prop_map(Step::Crash),
        1 => (0_u64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn schedules_of_prices_and_deaths_avoid_the_traps(steps in vec(trap_step(), 10..60)) {
        let mut world = World::new(&[0, 3, 7, 1], 1, 60_000, 2);
        for step in &steps {
            take(&mut world, step, true);
        }
        check_end(&mut world);
        check_claims(&world);
    }
}
