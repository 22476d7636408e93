//! A node loses power: what its file system had not put on the device is gone, at any moment.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::mount::Mount;
use crate::process::{PATIENCE, phase, until};
use crate::tools::skip;
use crate::world::{World, faults};

const THIS_TEST: &str = "power::a_loss_of_power_takes_nothing_that_was_acknowledged_or_that_a_peer_knows";
const MEGABYTES: u64 = 96;

#[test]
fn a_loss_of_power_takes_nothing_that_was_acknowledged_or_that_a_peer_knows() {
    faults(THIS_TEST, 3, |mut world| {
        let disk = match Mount::on_device(&world.nodes[2].directory(), MEGABYTES) {
            Ok(disk) => disk,
            Err(why) => return skip(THIS_TEST, &why),
        };
        world.nodes[2].has_bad_disk = true;
        world.grow();
        world.begin();
        let (begun, mut losses, mut noticed) = (Instant::now(), 0, Duration::ZERO);
        while losses < 2 || begun.elapsed() < phase(10) {
            world.stock(losses % 2);
            sleep(Duration::from_millis(rand::random_range(0..500)));
            noticed = noticed.max(lose_power(&mut world, &disk, losses % 2 == 0));
            losses += 1;
        }
        world.settle(&format!("{losses} losses of power"), Some(noticed));
    });
}

/// Returns how soon the node knew of it, if it did.
///
/// The process stands still when the power goes, as a whole machine would. While the file system is shut down the kernel may say
/// of a sync under way that it succeeded, though what it was for is lost; so nobody must hear of that.
fn lose_power(world: &mut World, disk: &Mount, goes_on: bool) -> Duration {
    world.pause(2);
    disk.cut_power();
    let mut noticed = Duration::ZERO;
    if goes_on {
        // As if only the disk were gone: what should not leave the node has time to leave.
        world.go_on(2);
        let node = &mut world.nodes[2];
        noticed = until("it knows that its disk is gone", PATIENCE, || node.status().is_poisoned);
        sleep(Duration::from_millis(200));
    }
    let node = &mut world.nodes[2];
    node.kill();
    let told = node.told();
    let known: Vec<i128> =
        (0..2).map(|number| world.status(number).owns.get("n2").copied().unwrap_or_default()).collect();
    disk.restore_power();
    // Nobody tells it what it had before it has told what is left.
    world.air.plug(2, false);
    world.start(2);
    let status = world.status(2);
    let left = status.owns.get("n2").copied().unwrap_or_default();
    assert!(left >= told.own, "{left} units are left, {} were acknowledged", told.own);
    assert!(known.iter().all(|known| *known <= left), "{left} units are left, its peers know of {known:?}");
    assert_eq!(status.new_ids, 0);
    world.air.plug(2, true);
    world.nodes[2].say("load on");
    world.writes(2);
    assert_eq!(world.status(2).new_ids, 0, "a peer knew what its disk lacks");
    noticed
}
