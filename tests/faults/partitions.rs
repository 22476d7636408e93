//! Networks that part: both ways, one way, and again and again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{all_known, phase};
use crate::world::{NOTICED_WITHIN, World, faults};

#[test]
fn a_cluster_survives_partitions() {
    faults("partitions::a_cluster_survives_partitions", 4, |mut world| {
        world.grow();
        world.begin();
        in_halves(&mut world);
        heard_by_nobody(&mut world);
        flapping(&mut world);
    });
}

fn in_halves(world: &mut World) {
    world.stock(1);
    let pairs = [(0, 2), (0, 3), (1, 2), (1, 3)];
    let both_ways: Vec<(usize, usize)> =
        pairs.into_iter().flat_map(|(one, other)| [(one, other), (other, one)]).collect();
    world.air.cut(&both_ways);
    let noticed = world.see_down(&[0, 1, 2, 3], 2);
    assert!(noticed < NOTICED_WITHIN, "{noticed:?}");
    (0..4).for_each(|node| world.writes(node));
    assert_ne!(world.status(0).fingerprint, world.status(3).fingerprint, "they are apart");
    world.air.cut(&[]);
    println!("halves know each other {:?} after they came together", all_known(&mut world.nodes));
    world.settle("two halves", Some(noticed));
}

/// Links of the one that is not heard die on both sides, though it hears all.
fn heard_by_nobody(world: &mut World) {
    world.stock(2);
    world.air.cut(&[(3, 0), (3, 1), (3, 2)]);
    let noticed = world.see_down(&[0, 1, 2], 1);
    assert!(noticed < NOTICED_WITHIN, "{noticed:?}");
    (0..4).for_each(|node| world.writes(node));
    world.air.cut(&[]);
    println!("the one is heard again {:?} after it could be", all_known(&mut world.nodes));
    world.settle("one that hears and is not heard", Some(noticed));
}

/// One node's cable, and another one's own interface.
fn flapping(world: &mut World) {
    world.stock(3);
    let begun = Instant::now();
    let some_time = || sleep(Duration::from_millis(rand::random_range(50..800)));
    while begun.elapsed() < phase(6) {
        world.air.plug(1, false);
        some_time();
        world.air.switch(2, false);
        some_time();
        world.air.plug(1, true);
        some_time();
        world.air.switch(2, true);
        some_time();
    }
    all_known(&mut world.nodes);
    (0..4).for_each(|node| world.writes(node));
    world.settle("flapping cable and interface", None);
}
