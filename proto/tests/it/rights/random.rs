//! Random schedules, held against every rule at every step.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::checks::ALL;
use super::steps::{Kinds, Names, Step, finish, step, take};
use super::world::World;
use crate::support::config;

/// How a world is cut.
#[derive(Clone, Copy, Debug)]
struct Shape {
    replicas: usize,
    names: Names,
    references_max: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    // Few names, so that what happens meets at them.
    let products = prop::sample::select(vec![1_u8, 1, 1, 2, 3]);
    let places = prop::sample::select(vec![1_u8, 2]);
    (2_usize..6, products, places, prop::sample::select(vec![2_usize, 1_000])).prop_map(
        |(replicas, products, places, references_max)| Shape {
            replicas,
            names: Names { products, places },
            references_max,
        },
    )
}

fn run(shape: Shape, steps: &[Step], seller: usize) -> Result<World, String> {
    let mut world = World::new(shape.replicas, shape.references_max, ALL);
    for (number, step) in steps.iter().enumerate() {
        take(&mut world, shape.names, step).map_err(|text| format!("step {number}, {step:?}: {text}"))?;
    }
    finish(&mut world, shape.names, seller)?;
    Ok(world)
}

fn steps(kinds: Kinds) -> impl Strategy<Value = Vec<Step>> {
    vec(step(kinds), 0..100)
}

proptest! {
    #![proptest_config(config(160))]

    /// No partition, crash, restore, loss, doubling or delay makes the sum of sales and holds exceed what came in.
    #[test]
    fn schedules_never_oversell(
        shape in shape(), steps in steps(Kinds::default()), seller in 0_usize..5,
    ) {
        let world = run(shape, &steps, seller).map_err(TestCaseError::fail)?;
        prop_assert!(world.goods.excess.values().all(|units| *units == 0), "nothing but facts goes beyond rights");
    }

    /// Physical losses take no more than what went beyond the rights of those who recorded them.
    #[test]
    fn schedules_with_losses_oversell_by_the_losses_alone(
        shape in shape(), steps in steps(Kinds { with_facts: true, with_backorders: false, with_deaths: false }), seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }

    /// The same with sales that may be delivered later (rule O3).
    #[test]
    fn schedules_with_backorders_oversell_by_them_alone(
        shape in shape(), steps in steps(Kinds { with_facts: true, with_backorders: true, with_deaths: false }), seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(160))]

    /// Replicas die, are retired with an heir, by force or not, and come back: what is sold beyond what came in is what
    /// heirs took too much since somebody was out of reach or came back, and without that nothing.
    #[test]
    fn schedules_with_deaths_never_oversell(
        shape in shape(), steps in deaths(Kinds::default()), seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn schedules_with_deaths_and_losses_oversell_by_the_losses_alone(
        shape in shape(),
        steps in deaths(Kinds { with_facts: true, with_backorders: true, with_deaths: true }),
        seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }
}

fn deaths(kinds: Kinds) -> impl Strategy<Value = Vec<Step>> {
    vec(step(Kinds { with_deaths: true, ..kinds }), 0..140)
}

/// What so many random schedules come to.
fn seen<T: Strategy<Value = (Shape, Vec<Step>)>>(schedules: usize, strategy: T) -> BTreeMap<&'static str, u64> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = BTreeMap::new();
    for _ in 0..schedules {
        let (shape, steps) = strategy.new_tree(&mut runner).unwrap().current();
        for (what, count) in run(shape, &steps, 0).unwrap().seen {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{seen:?}");
    seen
}

/// Schedules reach what they are for.
#[test]
fn schedules_reach_every_case() {
    let kinds = Kinds { with_facts: true, with_backorders: true, with_deaths: false };
    let seen = seen(300, (shape(), steps(kinds)));
    let wanted = [
        "refused for the total alone",
        "refused for lack of rights",
        "hold elsewhere",
        "hold unknown",
        "hold resolved",
        "hold too small",
        "reference reused",
        "refused otherwise",
        "repeated",
        "sold",
        "held",
        "committed",
        "released",
        "expired",
        "granted",
        "transferred",
        "took a new id",
        "gaps in answers",
    ];
    for what in wanted {
        assert!(seen.get(what).is_some_and(|count| *count >= 5), "{what}: {seen:?}");
    }
}

/// And those with deaths what they are for.
#[test]
fn schedules_with_deaths_reach_every_case() {
    let seen = seen(300, (shape(), deaths(Kinds { with_facts: true, with_backorders: true, with_deaths: true })));
    let wanted = [
        "died",
        "came back",
        "came back retired",
        "retired",
        "retired by force",
        "retirement refused",
        "told that it was retired",
        "inherited",
        "inherited with holds",
        "inherited a deficit",
        "froze",
        "nothing to inherit",
        "reapplied",
    ];
    for what in wanted {
        assert!(seen.get(what).is_some_and(|count| *count >= 5), "{what}: {seen:?}");
    }
}
