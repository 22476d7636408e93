//! A disk that is full.

use std::time::Instant;

use crate::mount::Mount;
use crate::process::{PATIENCE, until};
use crate::tools::skip;
use crate::world::faults;

const THIS_TEST: &str = "full_disk::a_full_disk_costs_no_acknowledged_write_and_no_other_node";
/// Room for a store with nothing in it, and some writes.
const MEGABYTES: u64 = 6;

#[test]
fn a_full_disk_costs_no_acknowledged_write_and_no_other_node() {
    faults(THIS_TEST, 3, |mut world| {
        let disk = match Mount::small(&world.nodes[2].directory(), MEGABYTES) {
            Ok(disk) => disk,
            Err(why) => return skip(THIS_TEST, &why),
        };
        world.nodes[2].has_bad_disk = true;
        world.grow();
        world.begin();
        world.nodes[2].say("bulk 100000");
        let begun = Instant::now();
        let node = &world.nodes[2];
        until("its disk is full, and it refuses", PATIENCE, || node.told().refused > 5);
        let noticed = begun.elapsed();
        world.nodes[2].say("bulk 0");
        let told = world.nodes[2].told();
        println!("{} acknowledged, {} unsure, {} refused", told.own, told.own_unsure + told.sold_unsure, told.refused);

        // Reads go on, of what others write too; the others write on; nothing that is unsure has left the node.
        let status = world.status(2);
        assert!(status.is_poisoned);
        assert!(status.owns["n2"] >= told.own, "it reads what it wrote");
        world.stock(0);
        (0..2).for_each(|number| world.writes(number));
        world.rest();
        world.cluster.settle_alive(&mut world.nodes[..2]);
        let (told, status) = (world.nodes[2].told(), world.status(0));
        assert!(!status.is_poisoned);
        assert!(
            status.owns["n2"] <= told.own,
            "{} units left a node that acknowledged {}",
            status.owns["n2"],
            told.own
        );

        // It cannot be opened well while there is no room, so there is some.
        disk.grow(256);
        world.nodes[2].abandon();
        world.start(2);
        assert_eq!(world.nodes[2].status().new_ids, 0);
        world.load();
        world.writes(2);
        world.settle("a full disk", Some(noticed));
        assert!(world.nodes[2].told().refused >= told.refused);
    });
}
