//! Breaks done on purpose: each must make a checker tell, on the very schedules that pass without it. So the checkers
//! are known to bite.

use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::checks::{ALL, Check, GOODS};
use super::steps::{Kinds, Names, Step, finish, step, take};
use super::world::{Broken, World};

const NAMES: Names = Names { products: 1, places: 1 };

fn run(steps: &[Step], broken: Broken, checks: &'static [(&'static str, Check)]) -> Result<(), String> {
    let mut world = World::new(3, 1_000, checks);
    world.broken = broken;
    steps.iter().try_for_each(|step| take(&mut world, NAMES, step))?;
    finish(&mut world, NAMES, 0)
}

/// Runs the same schedules with the break and without. Returns what the checkers found.
fn found(broken: Broken, checks: &'static [(&'static str, Check)], schedules: usize) -> Vec<String> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = vec(step(Kinds::default()), 60..120);
    let mut found = Vec::new();
    for number in 0..schedules {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        assert_eq!(run(&steps, Broken::Nothing, ALL), Ok(()), "schedule {number} without the break");
        found.extend(run(&steps, broken, checks).err());
    }
    found
}

fn count(found: &[String], prefix: &str) -> usize {
    found.iter().filter(|text| text.starts_with(prefix)).count()
}

/// Rule B3.
#[test]
fn a_grant_told_before_it_is_durable_is_noticed() {
    assert!(!found(Broken::TellsEarly, ALL, 60).is_empty());
    let sold = found(Broken::TellsEarly, GOODS, 150);
    assert!(count(&sold, "goods") > 0, "units are sold twice, and it shows: {sold:?}");
}

/// Rule O6.
#[test]
fn a_hold_that_expires_twice_is_noticed() {
    assert!(!found(Broken::ExpiresTwice, ALL, 60).is_empty());
    let sold = found(Broken::ExpiresTwice, GOODS, 150);
    assert!(count(&sold, "goods") > 0, "units are sold twice, and it shows: {sold:?}");
}

/// Rule B6.
#[test]
fn a_restored_copy_that_keeps_its_rights_is_noticed() {
    for broken in [Broken::KeepsId, Broken::Inherits] {
        assert!(!found(broken, ALL, 60).is_empty(), "{broken:?}");
        let sold = found(broken, GOODS, 150);
        assert!(count(&sold, "goods") > 0, "{broken:?}: units are sold twice, and it shows: {sold:?}");
    }
}
