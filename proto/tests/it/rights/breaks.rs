//! Breaks done on purpose: each must make a checker tell, on the very schedules that pass without it. So the checkers
//! are known to bite.

use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use stockmesh_proto::Quantity;
use stockmesh_proto::operation::{Operation, OversellPolicy};

use super::checks::{ALL, GOODS};
use super::steps::{Kinds, Names, Step, finish, step, take, troubled_step};
use super::world::{Broken, World};

/// Schedules in which a break must have shown.
const SCHEDULES_MAX: usize = 300;
const NAMES: Names = Names { products: 1, places: 1 };

fn run(steps: &[Step], broken: Broken) -> Result<(), String> {
    let mut world = World::new(3, 1_000, ALL);
    world.broken = broken;
    steps.iter().try_for_each(|step| take(&mut world, NAMES, step))?;
    finish(&mut world, NAMES, 0)
}

/// The same, seen by customers alone: at the end every replica sells whatever it believes it may, before they all meet
/// and after it.
fn run_to_the_sales(steps: &[Step], broken: Broken) -> Result<(), String> {
    let mut world = World::new(3, 1_000, GOODS);
    world.broken = broken;
    steps.iter().try_for_each(|step| take(&mut world, NAMES, step))?;
    sell_out(&mut world)?;
    world.heal();
    if !world.retired.is_empty() {
        world.settle_all();
    }
    sell_out(&mut world)
}

fn sell_out(world: &mut World) -> Result<(), String> {
    let sellers = world.live().into_iter().filter(|index| !world.nodes[*index].is_restored);
    for index in sellers.collect::<Vec<_>>() {
        for (sku, location) in NAMES.all() {
            let (node, product) = (&world.nodes[index], world.nodes[index].product_of(&sku));
            let units = product.rights(&location, node.id).min(product.available_at(&location));
            if let Ok(units) = Quantity::new(u64::try_from(units.max(0)).unwrap()) {
                let sale = Operation::Sell { sku, location, units, policy: OversellPolicy::Refuse };
                world.request(index, &vec![sale].into()).unwrap();
                world.sync(index);
                world.check(index)?;
            }
        }
    }
    Ok(())
}

/// What a break makes of schedules.
#[derive(Debug, Default)]
struct Found {
    /// Schedules in which any checker told.
    by_any: usize,
    /// Schedules in which units were sold twice.
    by_sales: usize,
}

/// Runs the same schedules with the break and without, until both were found.
fn check_bites(broken: Broken) {
    check_bites_in(vec(troubled_step(Kinds::default()), 60..160), broken);
}

/// The same in schedules with deaths.
fn check_bites_the_dead(broken: Broken) {
    check_bites_in(vec(step(Kinds { with_deaths: true, ..Kinds::default() }), 60..160), broken);
}

fn check_bites_in(strategy: impl Strategy<Value = Vec<Step>>, broken: Broken) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut found = Found::default();
    for number in 0..SCHEDULES_MAX {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        assert_eq!(run(&steps, Broken::Nothing), Ok(()), "schedule {number} without the break");
        assert_eq!(run_to_the_sales(&steps, Broken::Nothing), Ok(()), "schedule {number} without the break");
        found.by_any += usize::from(run(&steps, broken).is_err());
        found.by_sales += usize::from(run_to_the_sales(&steps, broken).is_err());
        if found.by_any > 0 && found.by_sales > 0 {
            println!("{broken:?}: {found:?} in {} schedules", number + 1);
            return;
        }
    }
    panic!("{broken:?}: {found:?} in {SCHEDULES_MAX} schedules");
}

/// Rule B3.
#[test]
fn a_grant_told_before_it_is_durable_is_noticed() {
    check_bites(Broken::TellsEarly);
}

/// Rule O6.
#[test]
fn a_hold_that_expires_twice_is_noticed() {
    check_bites(Broken::ExpiresTwice);
}

/// Rule B6: on under the old id.
#[test]
fn a_restored_copy_that_keeps_its_id_is_noticed() {
    check_bites(Broken::KeepsId);
}

/// Rule B6: the old id's rights under a new one.
#[test]
fn a_restored_copy_that_inherits_its_rights_is_noticed() {
    check_bites(Broken::Inherits);
}

/// Rule E7: an heir that asks nobody what the dead had told.
#[test]
fn an_heir_that_skips_the_fence_is_noticed() {
    check_bites_the_dead(Broken::SkipsTheFence);
}

/// Rule E2: the dead's counters beside what was taken over of them.
#[test]
fn an_heir_that_counts_the_dead_again_is_noticed() {
    check_bites_the_dead(Broken::CountsAgain);
}

/// Rule E5: what the dead alone had, counted in two names.
#[test]
fn who_comes_back_and_counts_twice_is_noticed() {
    check_bites_the_dead(Broken::ReappliesTwice);
}
