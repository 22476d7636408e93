//! Random schedules, held against every rule at every step.

use proptest::collection::vec;
use proptest::prelude::*;

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
    (2_usize..6, 1_u8..4, 1_u8..3, prop::sample::select(vec![2_usize, 1_000])).prop_map(
        |(replicas, products, places, references_max)| {
            Shape { replicas, names: Names { products, places }, references_max }
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
    vec(step(kinds), 0..70)
}

proptest! {
    #![proptest_config(config(250))]

    /// No partition, crash, restore, loss, doubling or delay makes the sum of sales and holds exceed what came in.
    #[test]
    fn schedules_never_oversell(
        shape in shape(), steps in steps(Kinds { with_facts: false, with_backorders: false }), seller in 0_usize..5,
    ) {
        let world = run(shape, &steps, seller).map_err(TestCaseError::fail)?;
        prop_assert!(world.goods.excess.values().all(|units| *units == 0), "nothing but facts goes beyond rights");
    }

    /// Physical losses take no more than what went beyond the rights of those who recorded them.
    #[test]
    fn schedules_with_losses_oversell_by_the_losses_alone(
        shape in shape(), steps in steps(Kinds { with_facts: true, with_backorders: false }), seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }

    /// The same with sales that may be delivered later (rule O3).
    #[test]
    fn schedules_with_backorders_oversell_by_them_alone(
        shape in shape(), steps in steps(Kinds { with_facts: true, with_backorders: true }), seller in 0_usize..5,
    ) {
        run(shape, &steps, seller).map_err(TestCaseError::fail)?;
    }
}
