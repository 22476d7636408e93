//! Processes that stop for longer than it takes to count them as dead, and others that are killed meanwhile.

use std::thread::sleep;
use std::time::Instant;

use crate::process::{PATIENCE, all_known, phase, until};
use crate::world::{NOTICED_WITHIN, faults};

#[test]
fn a_process_that_stood_still_comes_back_and_loses_nothing() {
    faults("pauses::a_process_that_stood_still_comes_back_and_loses_nothing", 4, |mut world| {
        world.grow();
        world.begin();
        let generation = world.status(0).generations["n3"];
        world.pause(3);
        let begun = Instant::now();
        let noticed = world.see_down(&[0, 1, 2], 1);
        assert!(noticed < NOTICED_WITHIN, "{noticed:?}");
        // Those that are killed know of its death from their disks, or from others.
        for number in [1, 2, 1, 2] {
            world.stock(0);
            world.writes(0);
            world.nodes[number].kill();
            world.start(number);
            world.nodes[number].say("load on");
            world.writes(number);
        }
        // Its links are dead by then too, on both sides.
        sleep(phase(21).saturating_sub(begun.elapsed()));

        world.go_on(3);
        let begun = Instant::now();
        for number in [0, 1, 2] {
            let node = &mut world.nodes[number];
            until("it lives again, and later", PATIENCE, || node.status().generations.get("n3") > Some(&generation));
        }
        println!("it lives again after {:?}", begun.elapsed());
        all_known(&mut world.nodes);
        println!("all know all {:?} after it went on", begun.elapsed());
        world.writes(3);
        world.settle("one stands still, two are killed twice", Some(noticed));
    });
}
